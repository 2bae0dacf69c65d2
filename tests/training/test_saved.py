"""The checkpoint of a training run, read and checked before it changes anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpulstm.arrays import checkpoint
from gpulstm.errors import CheckpointError
from gpulstm.training.history import History
from gpulstm.training.saved import read

Arrays, Meta = dict[str, np.ndarray], dict[str, Any]


def parts() -> tuple[Arrays, Meta]:
    """What a run saves after the second batch of an epoch."""
    arrays = {"weights.rnn.b_l0": np.ones(4), "optimizer.mean": np.zeros(4), "state.h": np.zeros((1, 2, 3))}
    arrays["log"] = np.zeros((3, 2))
    meta = {
        "kind": "training",
        "run": {"seed": 1},
        "callbacks": {"early": {"best": 0.5}},
        "counters": {"epoch": 1, "batch": 2, "calls": 7, "windows": 40},
        "optimizer": {"steps": 5},
        "schedule": {},
        "history": History().state(),
        "extra": {"note": "mine"},
        "way": "fused form with cuBLAS",
    }
    return arrays, meta


def written(folder: Path, change: Callable[[Arrays, Meta], object]) -> Path:
    arrays, meta = parts()
    change(arrays, meta)
    checkpoint.save(folder / "run.safetensors", arrays, meta)
    return folder / "run.safetensors"


def test_the_parts_come_back_without_their_prefixes(tmp_path: Path) -> None:
    saved = read(written(tmp_path, lambda arrays, meta: None))
    assert list(saved.weights) == ["rnn.b_l0"] and list(saved.optimizer) == ["mean"] and list(saved.state) == ["h"]
    assert saved.best == {} and saved.loss_scale is None and saved.log is not None
    assert saved.counters == {"epoch": 1, "batch": 2, "calls": 7, "windows": 40}
    assert saved.callbacks["early"] == {"best": 0.5} and saved.extra == {"note": "mine"}
    assert saved.way == "fused form with cuBLAS"
    assert read(written(tmp_path, lambda arrays, meta: meta.pop("way"))).way == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda arrays, meta: meta.update(kind="forecaster"),
            "holds 'forecaster', expected the checkpoint of",
        ),
        (lambda arrays, meta: meta.pop("counters"), "is no whole training run"),
        (lambda arrays, meta: meta.update(callbacks=[]), "is no whole training run"),
        (lambda arrays, meta: meta["counters"].update(batch=-1), "batch is -1"),
        (lambda arrays, meta: arrays.pop("log"), "stands after batch 2 of an epoch, but there is no log"),
        (
            lambda arrays, meta: arrays.update(log=np.zeros((3, 1))),
            r"log is float64 \(3, 1\), expected",
        ),
        (lambda arrays, meta: arrays.update({"state.x": np.zeros(1)}), "the state has the parts h, x, expected h"),
        (lambda arrays, meta: meta.update(history={}), "is no whole training run"),
    ],
)
def test_what_is_no_whole_run(tmp_path: Path, change: Callable[[Arrays, Meta], object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(written(tmp_path, change))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        read(tmp_path / "none.safetensors")
