"""Fits and forecasts of tables in parts, by Dask's workers too, one of which dies."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from part_tables import table, written

from gpulstm import Forecaster
from gpulstm.errors import ConfigError, DataError

ROLES: dict[str, Any] = {"target": "y", "time": "t", "series": "id", "progress": False}
SMALL: dict[str, Any] = {"horizon": 3, "context": 12, "hidden_size": 8, "num_layers": 1, "device": "cpu", "epochs": 2}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("parts"), 6)


@pytest.fixture(scope="module")
def model(parts: Path) -> Forecaster:
    return Forecaster(**SMALL).fit(parts, **ROLES)


def test_a_network_learns_from_parts(model: Forecaster, parts: Path, tmp_path: Path) -> None:
    losses = model.history.columns()["train_loss"]
    assert losses[-1] < losses[0]
    assert model.notes[0] == "learned from 6 parts with 18 series, each window scaled by its own context"
    model.save(tmp_path / "model.safetensors")
    again = Forecaster.load(tmp_path / "model.safetensors", "cpu")
    np.testing.assert_array_equal(again.predict().median, model.predict().median)


def test_forecasts_of_parts_are_those_of_each(model: Forecaster, parts: Path) -> None:
    frame = model.predict(data=parts)
    assert frame.npartitions == 6  # type: ignore[attr-defined]
    result = frame.compute(scheduler="synchronous")  # type: ignore[attr-defined]
    expected = pd.concat([model.predict_frame(table(part)) for part in range(6)])
    np.testing.assert_array_equal(result["q0.5"].to_numpy(), expected["q0.5"].to_numpy())
    assert result["id"].tolist() == expected["id"].tolist()
    np.testing.assert_array_equal(model.predict_frame(table(2), 2)["q0.5"].iloc[:2], expected["q0.5"].iloc[18:20])


def test_backtests_of_parts_are_those_of_each(model: Forecaster, parts: Path) -> None:
    result = model.backtest(parts, origins=2).compute(scheduler="synchronous")  # type: ignore[attr-defined]
    expected = pd.concat([model.backtest(table(part), origins=2).to_frame() for part in range(6)])
    np.testing.assert_array_equal(result["q0.5"].to_numpy(), expected["q0.5"].to_numpy())


def test_a_dask_frame_is_learned_from_as_its_files_are(model: Forecaster, parts: Path) -> None:
    import dask.dataframe

    other = Forecaster(**SMALL).fit(dask.dataframe.read_parquet(parts), **ROLES)
    np.testing.assert_array_equal(other.predict().median, model.predict().median)


def test_options_that_need_all_series_at_once_are_refused(parts: Path) -> None:
    for options, sentence in (
        ({"members": "ridge"}, "members"),
        ({"scaling": "robust", "members": "network"}, "scaling is 'robust', expected 'standard' or 'none'"),
        ({"training": "truncated", "window_scaling": "none"}, "training is 'truncated', expected 'windows'"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            Forecaster(**{**SMALL, **options}).fit(parts, **ROLES)


def test_a_series_in_two_parts_is_refused(tmp_path: Path) -> None:
    for part in (0, 1):
        table(0).to_parquet(tmp_path / f"{part}.parquet")
    with pytest.raises(DataError, match="series 's0-0' is in part 1 and in one before it; a part has to hold whole"):
        Forecaster(**SMALL).fit(tmp_path, **ROLES)


def _slow_and_deadly(frame: pd.DataFrame, flag: str) -> pd.DataFrame:
    """A part as it is; the first worker that gets here dies."""
    try:
        os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return frame
    os.kill(os.getpid(), signal.SIGKILL)
    return frame


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of distributed, on the worker that died
def test_a_worker_that_dies_changes_nothing(model: Forecaster, parts: Path, tmp_path: Path) -> None:
    import cloudpickle
    import dask.dataframe
    import distributed

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    expected = model.predict(data=parts).compute(scheduler="synchronous")  # type: ignore[attr-defined]
    options = {"threads_per_worker": 1, "memory_limit": None, "dashboard_address": None, "processes": True}
    with distributed.LocalCluster(n_workers=2, **options) as cluster, distributed.Client(cluster):
        frame = dask.dataframe.read_parquet(parts)
        deadly = frame.map_partitions(_slow_and_deadly, str(tmp_path / "flag"), meta=frame._meta)
        trained = Forecaster(**SMALL).fit(deadly, **ROLES)
        assert (tmp_path / "flag").exists()
        (tmp_path / "flag").unlink()
        result = model.predict(data=deadly).compute()  # type: ignore[attr-defined]
    np.testing.assert_array_equal(result["q0.5"].to_numpy(), expected["q0.5"].to_numpy())
    np.testing.assert_array_equal(trained.predict().median, model.predict().median)
