"""What a fit leaves behind survives a file bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forecasters import dated, small, wave

from gpulstm.arrays import checkpoint
from gpulstm.data.loading import load_series
from gpulstm.data.series import end_of
from gpulstm.errors import CheckpointError, DataError
from gpulstm.forecast import fitted as artifacts
from gpulstm.forecast.config import ForecasterConfig
from gpulstm.forecast.fitted import Fitted, new_scaler
from gpulstm.forecast.forecaster import Forecaster


@pytest.mark.parametrize("changes", [{}, {"strategy": "recursive", "draws": 16}, {"likelihood": "gaussian"}])
def test_a_saved_forecaster_forecasts_the_same_bits(changes: dict[str, Any], tmp_path: Path, device: str) -> None:
    values = wave()
    values[[134, 137, 138, 139]] = np.nan  # gaps where the context begins
    model = small(values, roles={"missing": "interpolate"}, device=device, **changes)
    model.save(tmp_path / "m.safetensors")
    again = Forecaster.load(tmp_path / "m.safetensors", device=device)
    first, second = model.predict(), again.predict()
    np.testing.assert_array_equal(first.quantiles, second.quantiles)
    np.testing.assert_array_equal(first.index, second.index)
    assert again.config.to_dict() == model.config.to_dict()
    assert again.history.rows == model.history.rows
    other = Forecaster.load(tmp_path / "m.safetensors", device="cpu").predict()
    np.testing.assert_allclose(other.quantiles, first.quantiles, rtol=1e-4)
    with pytest.raises(DataError, match="loaded has only the end of its series"):
        again.backtest(origins=2)
    np.testing.assert_array_equal(
        again.backtest(values, origins=2).quantiles, model.backtest(values, origins=2).quantiles
    )


def test_dates_covariates_and_series_survive_a_file(tmp_path: Path) -> None:
    roles = {"target": "y", "past": "z", "time": "day", "calendar": "weekly"}
    model = small(dated(), roles=roles, validation="2024-05-01", test=np.int64(0))
    model.save(tmp_path / "m.safetensors")
    again = Forecaster.load(tmp_path / "m.safetensors", device="cpu")
    first, second = model.predict(), again.predict()
    np.testing.assert_array_equal(first.mean, second.mean)
    np.testing.assert_array_equal(first.index, second.index)
    assert second.index.dtype.kind == "M"
    longer = dated(170)
    np.testing.assert_array_equal(again.predict(data=longer).mean, model.predict(data=longer).mean)
    assert again.backtest(longer, origins=1).seen is False
    assert again.backtest(longer, origins=3, stride=10).seen is True


def test_a_file_that_holds_something_else_is_refused(fitted: Forecaster, tmp_path: Path) -> None:
    fitted.save(tmp_path / "m.safetensors")
    arrays, meta = checkpoint.load(tmp_path / "m.safetensors")
    checkpoint.save(tmp_path / "other.safetensors", arrays, {**meta, "kind": "training"})
    with pytest.raises(CheckpointError, match="holds 'training', expected a forecaster"):
        Forecaster.load(tmp_path / "other.safetensors")
    arrays.pop("weights.head.b")
    checkpoint.save(tmp_path / "part.safetensors", arrays, meta)
    with pytest.raises(CheckpointError, match=r"no whole forecaster: parameter 'head.b' is in only one of"):
        Forecaster.load(tmp_path / "part.safetensors", device="cpu")
    del meta["options"]
    checkpoint.save(tmp_path / "part.safetensors", arrays, meta)
    with pytest.raises(CheckpointError, match="is no whole forecaster"):
        Forecaster.load(tmp_path / "part.safetensors", device="cpu")


def test_loading_gives_options_and_artifact(fitted: Forecaster, tmp_path: Path) -> None:
    fitted.save(tmp_path / "m.safetensors")
    config, artifact, history, notes = artifacts.load(tmp_path / "m.safetensors", "cpu")
    assert type(config) is ForecasterConfig and type(artifact) is Fitted
    assert config == fitted.config
    np.testing.assert_array_equal(artifact.network.params.flat, fitted.fitted.network.params.flat)
    assert (history.rows, notes) == (fitted.history.rows, fitted.notes)


def test_options_of_older_files_have_their_new_names(tmp_path: Path) -> None:
    small(stream_rows=3).save(tmp_path / "m.safetensors")
    arrays, meta = checkpoint.load(tmp_path / "m.safetensors")
    meta["options"]["carry"] = meta["options"].pop("stream_rows")
    checkpoint.save(tmp_path / "old.safetensors", arrays, meta)
    assert Forecaster.load(tmp_path / "old.safetensors", "cpu").config.stream_rows == 3
    meta["options"]["momentum"] = 1
    checkpoint.save(tmp_path / "odd.safetensors", arrays, meta)
    with pytest.raises(CheckpointError, match=r"no whole forecaster: .*momentum"):
        Forecaster.load(tmp_path / "odd.safetensors", "cpu")


def test_the_end_of_a_series_begins_with_a_row_without_gaps() -> None:
    values = wave(100)
    values[50:90] = np.nan
    end = end_of(load_series(values, missing="interpolate"), context=12)
    assert end.values[0, 0] == values[49]
    np.testing.assert_array_equal(end.time, np.arange(49.0, 100))
    assert end_of(load_series(wave(100)), context=12).rows == 12


def test_a_scaler_sees_the_rows_before_its_stops_alone() -> None:
    series = load_series(np.stack([wave(60), wave(60, 1)])[:, :, None])
    scaler = new_scaler(ForecasterConfig(scaling="minmax"), series, np.array([40, 90]))
    for index, rows in enumerate((wave(60)[:40], wave(60, 1)[:30])):
        np.testing.assert_allclose(scaler.location[index], rows.min(), rtol=1e-12)
        np.testing.assert_allclose(scaler.scale[index], np.ptp(rows), rtol=1e-12)
