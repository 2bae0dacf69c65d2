"""Forecasts and backtests as tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from forecasters import small, wave

from gpulstm.data.loading import load_series
from gpulstm.errors import ConfigError
from gpulstm.forecast.forecaster import Forecaster
from gpulstm.forecast.results import MODEL, NAIVE, Backtest, Forecast


def test_tables_of_forecasts(fitted: Forecaster, tmp_path: Path) -> None:
    forecast = fitted.predict()
    forecast.to_csv(tmp_path / "f.csv")
    read = load_series(tmp_path / "f.csv", time="time", target=["median", "q0.1", "q0.5", "q0.9"])
    np.testing.assert_array_equal(read.values[:, 1:], forecast.quantiles[0, :, 0])
    np.testing.assert_array_equal(read.time, forecast.index[0])
    for library in ("pandas", "polars", "pyarrow"):
        frame = forecast.to_frame(library)
        assert type(frame).__module__.partition(".")[0] == library
        np.testing.assert_array_equal(np.asarray(frame["q0.9"]), forecast.quantile(0.9)[0, :, 0])
    with pytest.raises(ConfigError, match="library is 'excel'"):
        forecast.to_frame("excel")
    with pytest.raises(ConfigError, match=r"level is 0\.2, but this forecast has the quantiles \(0\.1, 0\.5, 0\.9\)"):
        forecast.quantile(0.2)
    result = fitted.backtest()
    result.to_csv(tmp_path / "b.csv")
    assert len(load_series(tmp_path / "b.csv", target="actual").values) == result.actual.size
    two = small(np.stack([wave(), wave(seed=1)], axis=1)).predict()
    assert list(two.columns()) == ["time", "series", "target", "median", "q0.1", "q0.5", "q0.9"]
    np.testing.assert_array_equal(two.columns()["target"][:2], ["0", "1"])


def hand_made(actual: list[float], model: list[float], naive: list[float], scale: float) -> Backtest:
    """A backtest of one forecast of one target."""

    def shaped(values: list[float]) -> np.ndarray:
        return np.array(values)[None, :, None]

    steps = len(actual)
    return Backtest(
        names=("a",),
        targets=("y",),
        series=np.array([0]),
        origins=np.array([9]),
        index=np.arange(9.0, 9 + steps)[None],
        actual=shaped(actual),
        forecasts={MODEL: shaped(model), NAIVE: shaped(naive)},
        levels=(0.1, 0.9),
        quantiles=np.stack([shaped(model) - 1, shaped(model) + 1], axis=-1),
        season=1,
        scales=np.array([[scale]]),
    )


def test_metrics_of_a_backtest_by_hand() -> None:
    result = hand_made([1.0, 2.0, 4.0], [1.5, 2.0, 2.0], [3.0, 3.0, 3.0], scale=2.0)
    errors = result.metrics()
    assert errors[MODEL]["MAE"] == pytest.approx(2.5 / 3)
    assert errors[MODEL]["MASE"] == pytest.approx(2.5 / 6)
    assert errors[MODEL]["RMSE"] == pytest.approx(np.sqrt(4.25 / 3))
    assert errors[MODEL]["coverage"] == pytest.approx(200 / 3)  # 4 lies above the band from 1 to 3
    assert errors[NAIVE]["MAE"] == pytest.approx(4 / 3)
    assert "coverage" not in errors[NAIVE]
    np.testing.assert_allclose(result.errors_by_step()[MODEL], [0.5, 0, 2])
    assert " ".join(result.columns()) == "time series origin step target actual model naive q0.1 q0.9"


def test_missing_values_and_constant_series_do_not_count() -> None:
    result = hand_made([1.0, np.nan, 4.0], [1.5, 2.0, 2.0], [3.0, 3.0, 3.0], scale=0.0)
    errors = result.metrics()
    assert errors[MODEL]["MAE"] == pytest.approx(1.25)
    assert np.isnan(errors[MODEL]["MASE"])


def test_the_median_is_a_quantile_or_else_the_mean() -> None:
    mean, index = np.array([[[1.0], [2.0]]]), np.array([[5.0, 6.0]])
    assert Forecast(("a",), ("y",), index, mean).median is mean
    forecast = Forecast(("a",), ("y",), index, mean, (0.2, 0.5), np.stack([mean - 1, mean + 3], axis=-1))
    np.testing.assert_array_equal(forecast.median, mean + 3)
    np.testing.assert_array_equal(forecast.quantile(0.2), mean - 1)
    assert list(forecast.columns()) == ["time", "series", "target", "mean", "q0.2", "q0.5"]
