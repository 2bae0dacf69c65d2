"""All that a training run consists of between two steps, and how a checkpoint holds it.

A run that goes on from a checkpoint computes the same numbers, bit for bit, as one that never stopped: weights,
moments, schedule, the count of passes that keys the dropout masks, the place within the epoch with the losses so far
and the state that is carried on, the best weights and the callbacks' counters are all in the file.  The order of the
windows needs no state, for it is a function of the seed and the epoch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpulstm import validate
from gpulstm.arrays import checkpoint
from gpulstm.arrays.backend import Array
from gpulstm.arrays.params import ParamDict
from gpulstm.errors import CheckpointError, ConfigError, TrainingError
from gpulstm.losses import Loss
from gpulstm.model.network import Network
from gpulstm.optimizers import Adam, Optimizer
from gpulstm.schedules import Constant, Schedule
from gpulstm.training.callbacks import Callback
from gpulstm.training.history import History
from gpulstm.training.mixed_precision import LossScale, masters
from gpulstm.training.step_log import StepLog


class RunState:
    """What is trained, with what, and how far; `Trainer`, which adds the loop, documents the arguments.

    Attributes:
        epoch: epochs that are over.
        batch: batches of the present epoch that are done.
        history: rows of all epochs so far.
        loss_scale: for a network in float16, else None.
    """

    def __init__(
        self,
        network: Network,
        loss: Loss,
        optimizer: Optimizer | None,
        schedule: Schedule | float,
        *,
        batch_size: int,
        clip_norm: float | None,
        seed: int,
        callbacks: Sequence[Callback],
        extra: Mapping[str, Any] | None,
    ) -> None:
        optimizer = Adam() if optimizer is None else optimizer
        for name, value, kind in (
            ("network", network, Network),
            ("loss", loss, Loss),
            ("optimizer", optimizer, Optimizer),
        ):
            if not isinstance(value, kind):
                raise ConfigError(f"{name} is {value!r}, expected an object of a class of {kind.__module__}")
        self.network, self.loss, self.optimizer = network, loss, optimizer
        self.schedule = schedule if isinstance(schedule, Schedule) else Constant(schedule)
        self.batch_size = validate.count("batch_size", batch_size)
        self.clip_norm = None if clip_norm is None else validate.real("clip_norm", clip_norm, above=0)
        self.seed = validate.count("seed", seed, at_least=0)
        self.callbacks = _in_order(callbacks)
        self.extra = dict(extra or {})
        if loss.outputs != network.config.outputs:
            raise ConfigError(
                f"the loss {loss.name!r} needs {loss.outputs} outputs per target, the network gives "
                f"{network.config.outputs}"
            )
        half = network.params.flat.dtype == np.float16
        self._masters = masters(network.params) if half else None
        self.loss_scale = LossScale(network.backend) if half else None
        self.optimizer.init(self.weights)
        self.epoch, self.batch = 0, 0
        self.history = History()
        self._best: Array | None = None  # flat weights of the best epoch
        self._last: Array | None = None  # flat weights that training goes on from, while the best are in the network
        self._windows = 0  # of the training set that the present epoch began with
        self._log: np.ndarray | None = None  # of the present epoch, while no loop runs
        self._live: StepLog | None = None  # the same while one does
        self._state: Any = None  # of the lanes after the last step, where a run carries it on; None within no epoch
        self._whole = True  # False while weights and moments are being changed

    @property
    def weights(self) -> ParamDict:
        """What is trained: the network's parameters, or, for a network in float16, the float32 masters of the run.

        Masters are made with the run; what is put into the network from outside afterwards is overwritten.
        """
        return self.network.params if self._masters is None else self._masters

    @property
    def step(self) -> int:
        """Optimizer steps taken so far."""
        return self.optimizer.steps

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch; 0 before the first `fit`."""
        return -(-self._windows // self.batch_size)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint that `restore` goes on from, on this device or another.

        Raises:
            TrainingError: the last step was cut off in the middle by a second Ctrl-C, or one was not finite.
            CheckpointError: the file cannot be written; one that was there is as it was.
        """
        if not self._whole:
            raise TrainingError("the last step was cut off in the middle, so there is no whole state to save")
        arrays = {f"weights.{name}": value for name, value in self._named(self._last).items()}
        if self._best is not None:
            arrays |= {f"best.{name}": value for name, value in self._named(self._best).items()}
        arrays |= {f"optimizer.{name}": value for name, value in self.optimizer.arrays().items()}
        if self.loss_scale is not None:
            arrays["loss_scale"] = self.loss_scale.state
        log = self._present_log()
        if log is not None:
            arrays["log"] = log
        if self._state is not None:
            parts = self._state if isinstance(self._state, tuple) else (self._state,)
            arrays |= {f"state.{name}": part for name, part in zip("hc", parts, strict=False)}
        meta = {
            "kind": "training",
            "run": self._run_config(),
            "optimizer": self.optimizer.scalars(),
            "schedule": self.schedule.scalars(),
            "counters": {
                "epoch": self.epoch,
                "batch": self.batch,
                "calls": self.network.calls,
                "windows": self._windows,
            },
            "history": self.history.state(),
            "callbacks": {callback.name: callback.scalars() for callback in self.callbacks if callback.scalars()},
            "extra": self.extra,
        }
        checkpoint.save(path, arrays, meta)

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Go on from a checkpoint: `fit` with the same windows then continues that run bit for bit.

        Network, loss, optimizer, schedule, batch size, clipping and seed must be those of the run that was saved;
        epochs, callbacks and the device may differ.  `extra` becomes that of the checkpoint.

        Raises:
            CheckpointError: the file is no training checkpoint, is damaged, or belongs to another run; the weights are
                untouched then.
        """
        arrays, meta = checkpoint.load(path)
        if meta.get("kind") != "training":
            raise CheckpointError(f"{path} holds {meta.get('kind')!r}, expected the checkpoint of a training run")
        for key, here in self._run_config().items():
            there = meta["run"].get(key)
            if there != here:
                name, first, second = _difference(key, there, here)
                raise CheckpointError(f"{path} belongs to another run: its {name} is {first!r}, here it is {second!r}")
        weights, best = _part(arrays, "weights."), _part(arrays, "best.")
        for values in (weights, best) if best else (weights,):
            self._check_weights(path, values)
        for callback in self.callbacks:
            if callback.name in meta["callbacks"]:
                callback.restore(meta["callbacks"][callback.name])
        self.schedule.restore(meta["schedule"])
        self.optimizer.restore(_part(arrays, "optimizer."), meta["optimizer"])
        self.weights.load(weights)
        self._publish()
        if self.loss_scale is not None:
            self.loss_scale.restore(arrays["loss_scale"])
        self._best = self._flat(best) if best else None
        self._last, self._log, self._live = None, arrays.get("log"), None
        state = {name: self.network.backend.from_host(part) for name, part in _part(arrays, "state.").items()}
        self._state = (state["h"], state["c"]) if "c" in state else state.get("h")
        counters = meta["counters"]
        self.epoch, self.batch, self._windows = counters["epoch"], counters["batch"], counters["windows"]
        self.network.calls = counters["calls"]
        self.history, self.extra, self._whole = History(**meta["history"]), meta["extra"], True

    def _present_log(self) -> np.ndarray | None:
        """Losses and norms of the present epoch so far, on the host; None between epochs."""
        if not self.batch:
            return None
        return self._log if self._live is None else self._live.host(self.batch)

    def _run_config(self) -> dict[str, Any]:
        """What a run that goes on must have in common with the one that was saved, as JSON gives it back."""
        found = {
            "network": self.network.config.to_dict(),
            "network_seed": self.network.seed,
            "loss": self.loss.config(),
            "optimizer": self.optimizer.config(),
            "schedule": self.schedule.config(),
            "batch_size": self.batch_size,
            "clip_norm": self.clip_norm,
            "seed": self.seed,
        }
        return json.loads(json.dumps(found))

    def _publish(self) -> None:
        """Put the weights into the network, where it has copies of its own."""
        if self._masters is not None:
            with self.network.backend.activate():
                self.network.params.flat[...] = self._masters.flat

    def _check_weights(self, path: Any, values: Mapping[str, np.ndarray]) -> None:
        params = self.weights
        odd = sorted(values.keys() ^ params.keys())
        if odd:
            raise CheckpointError(f"{path} belongs to another model: parameter {odd[0]!r} is in only one of the two")
        for name, value in values.items():
            if value.shape != params[name].shape or value.dtype != params[name].dtype:
                raise CheckpointError(
                    f"{path} belongs to another model: parameter {name!r} is {value.dtype} {value.shape}, expected "
                    f"{params[name].dtype} {params[name].shape}"
                )

    def _named(self, flat: Array | None) -> ParamDict:
        """The weights, or a flat copy of such by name."""
        if flat is None:
            return self.weights
        named = self.weights.like()
        named.flat[...] = flat
        return named

    def _flat(self, values: Mapping[str, np.ndarray]) -> Array:
        named = self.weights.like()
        named.load(values)
        return named.flat


def _in_order(callbacks: Sequence[Callback]) -> list[Callback]:
    """The callbacks as given, but those that save after the others; two with state must have names of their own."""
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise ConfigError(
                f"callbacks holds {callback!r}, expected objects of a class of gpulstm.training.callbacks"
            )
    names = [callback.name for callback in callbacks if callback.scalars()]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"callbacks has two named {name!r}, whose state a checkpoint could not tell apart")
    return sorted(callbacks, key=lambda callback: callback.last)


def _part(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}


def _difference(name: str, there: Any, here: Any) -> tuple[str, Any, Any]:
    """Where two configs first differ: the name of the entry, down through dicts, and its two values."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted(there.keys() | here.keys()):
            if there.get(key) != here.get(key):
                return _difference(f"{name}.{key}", there.get(key), here.get(key))
    return name, there, here
