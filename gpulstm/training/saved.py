"""The checkpoint of a training run, read and checked before it changes anything."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpulstm import validate
from gpulstm.arrays import checkpoint, files
from gpulstm.errors import CheckpointError, ShapeError
from gpulstm.training.history import History


@dataclass(frozen=True)
class Saved:
    """The parts of a checkpoint that `RunState.save` wrote; names without their prefixes.

    Attributes:
        run: what a run that goes on must have in common with it.
        weights, best: arrays by name; the best may be missing (empty).
        optimizer, optimizer_scalars, schedule, callbacks: states, the last by the callback's name.
        counters: `epoch`, `batch`, `calls` and `windows`.
        loss_scale, log: arrays, or None.
        state: of the lanes, `h` and perhaps `c`; empty where nothing is carried on.
        history, extra: as the run had them.
        way: of the CUDA engine to compute the run so far, "" where another engine did or nobody wrote it down.
    """

    run: Mapping[str, Any]
    weights: dict[str, np.ndarray]
    best: dict[str, np.ndarray]
    optimizer: dict[str, np.ndarray]
    optimizer_scalars: Mapping[str, Any]
    schedule: Mapping[str, Any]
    callbacks: Mapping[str, Mapping[str, Any]]
    counters: dict[str, int]
    loss_scale: np.ndarray | None
    log: np.ndarray | None
    state: dict[str, np.ndarray]
    history: History
    extra: dict[str, Any]
    way: str


def read(path: str | os.PathLike[str]) -> Saved:
    """The checked parts of a training checkpoint.

    Raises:
        CheckpointError: there is no such file, it is damaged, or holds something else.
    """
    arrays, meta = checkpoint.load(path)
    if meta.get("kind") != "training":
        raise CheckpointError(f"{path} holds {meta.get('kind')!r}, expected the checkpoint of a training run")
    with files.damaged(f"{path} is no whole training run", CheckpointError):
        callbacks = validate.mapping("callbacks", meta["callbacks"])
        counters = validate.mapping("counters", meta["counters"])
        counts = {name: validate.count(name, counters[name], at_least=0) for name in _COUNTERS}
        log = arrays.get("log")
        if log is not None and (log.shape != (3, counts["batch"]) or log.dtype != np.float64):
            raise ShapeError(f"log is {log.dtype} {log.shape}, expected float64 {(3, counts['batch'])}")
        if counts["batch"] and log is None:
            raise ShapeError(f"the run stands after batch {counts['batch']} of an epoch, but there is no log of it")
        state = _part(arrays, "state.")
        if state and (state.keys() - {"h", "c"} or "h" not in state):
            raise ShapeError(f"the state has the parts {', '.join(sorted(state))}, expected h, or h and c")
        return Saved(
            run=validate.mapping("run", meta["run"]),
            weights=_part(arrays, "weights."),
            best=_part(arrays, "best."),
            optimizer=_part(arrays, "optimizer."),
            optimizer_scalars=validate.mapping("optimizer", meta["optimizer"]),
            schedule=validate.mapping("schedule", meta["schedule"]),
            callbacks={name: validate.mapping(f"callbacks.{name}", value) for name, value in callbacks.items()},
            counters=counts,
            loss_scale=arrays.get("loss_scale"),
            log=log,
            state=state,
            history=History.restore(meta["history"]),
            extra=dict(validate.mapping("extra", meta["extra"])),
            way=str(meta.get("way", "")),
        )


_COUNTERS = ("epoch", "batch", "calls", "windows")


def _part(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}
