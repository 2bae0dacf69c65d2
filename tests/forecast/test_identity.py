"""A run goes on only as what it was: options, roles of columns and data are its identity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.arrays import checkpoint
from gpulstm.errors import CheckpointError, ConfigError
from gpulstm.training.callbacks import Callback, Run
from gpulstm.training.history import Row

VALUES = 5000 + 1000 * np.sin(np.arange(120) / 4)
OPTIONS: dict[str, Any] = {
    "horizon": 3,
    "context": 8,
    "hidden_size": 4,
    "num_layers": 1,
    "epochs": 4,
    "device": "cpu",
    "window_scaling": "none",
    "members": ("network",),
    "schedule": "constant",
    "validation": 0.1,
    "learning_rate": 1e-3,
}


class Stop(Callback):
    name = "stop"

    def on_epoch(self, run: Run, row: Row) -> None:
        run.stop("enough")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "run.safetensors"
    gl.Forecaster(**OPTIONS).fit({"y": VALUES}, target="y", progress=False, checkpoint=path, callbacks=[Stop()])
    return path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scaling": "none"}, "its scaling is 'standard', here it is 'none'"),
        ({"window_scaling": "last"}, "its window_scaling is 'none', here it is 'last'"),
        ({"context": 9}, "its context is 8, here it is 9"),
        ({"stride": 2}, "its stride is 1, here it is 2"),
        ({"validation": 0.2}, "its validation is 0.1, here it is 0.2"),
        ({"learning_rate": 1e-4}, "its learning_rate is 0.001, here it is 0.0001"),
    ],
)
def test_another_option_is_refused_by_name(run: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=f"belongs to another run: {message}"):
        gl.Forecaster(**{**OPTIONS, **options}).fit({"y": VALUES}, target="y", progress=False, resume=run)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"y": VALUES[::-1] * 100}, "its hash of the data is '[0-9a-f]{32}', here it is"),
        ({"z": VALUES}, r"its columns is \['y'\], here it is \['z'\]"),
    ],
)
def test_other_series_are_refused(run: Path, table: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=f"belongs to another run: {message}"):
        gl.Forecaster(**OPTIONS).fit(table, target=next(iter(table)), progress=False, resume=run)


def test_a_run_of_an_older_version_is_refused_with_what_to_do(run: Path, tmp_path: Path) -> None:
    arrays, meta = checkpoint.load(run)
    del meta["run"]["hash of the data"], meta["run"]["scaling"]
    checkpoint.save(tmp_path / "older", arrays, meta)
    message = "was written by an older version of gpulstm, which did not keep the scaling of a run: begin the run again"
    with pytest.raises(CheckpointError, match=message):
        gl.Forecaster(**OPTIONS).fit({"y": VALUES}, target="y", progress=False, resume=tmp_path / "older")


def test_what_changes_no_number_may_differ(run: Path) -> None:
    options = {**OPTIONS, "epochs": 3, "memory": "64MiB", "patience": 99}
    again = gl.Forecaster(**options).fit({"y": VALUES}, target="y", progress=False, resume=run)
    assert len(again.history.rows) == 3


def test_numpy_scalars_are_options_that_can_be_saved(tmp_path: Path) -> None:
    options = {**OPTIONS, "recurrent_dropout": np.float32(0.1), "epochs": np.int64(1), "memory": np.int64(2**26)}
    forecaster = gl.Forecaster(**{**options, "learning_rate": np.float32(1e-3), "layer_norm": np.bool_(True)})
    forecaster.fit(VALUES, progress=False, checkpoint=tmp_path / "run").save(tmp_path / "model")
    loaded = gl.Forecaster.load(tmp_path / "model", device="cpu")
    np.testing.assert_array_equal(loaded.predict().mean, forecaster.predict().mean)


def test_what_cannot_be_saved_is_refused_before_training() -> None:
    from runs import make, windows

    trainer = make(extra={"scaler": object()})
    with pytest.raises(ConfigError, match="extra cannot be saved: Object of type object is not JSON serializable"):
        trainer.fit(windows())
    assert trainer.step == 0
