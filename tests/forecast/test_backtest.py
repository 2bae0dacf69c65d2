"""Backtests: forecasts from origins in the past that see nothing of what followed."""

from __future__ import annotations

import numpy as np
import pytest
from forecasters import SMALL, many, small, wave

from gpulstm import metrics
from gpulstm.errors import ConfigError, DataError
from gpulstm.forecast.forecaster import Forecaster
from gpulstm.forecast.results import DRIFT, MODEL, NAIVE, SEASONAL, SEASONAL_DRIFT


def test_a_backtest_is_a_forecast_from_each_truncated_series(fitted: Forecaster) -> None:
    result = fitted.backtest(stride=3)
    values = wave()
    np.testing.assert_array_equal(result.origins, np.arange(120, 147, 3))
    assert not result.seen
    for row, origin in enumerate(result.origins):
        alone = fitted.predict(data=values[:origin])
        np.testing.assert_allclose(result.quantiles[row], alone.quantiles[0], rtol=1e-6)
        np.testing.assert_array_equal(result.actual[row, :, 0], values[origin : origin + 4])
        np.testing.assert_array_equal(result.forecasts[NAIVE][row, :, 0], metrics.naive(values[:origin], 4))
        np.testing.assert_array_equal(result.index[row], np.arange(origin, origin + 4))
    assert SEASONAL not in result.forecasts  # without times the season is 1
    errors = result.metrics()
    assert errors[MODEL]["MASE"] == pytest.approx(
        metrics.mase(result.actual[..., 0], result.forecasts[MODEL][..., 0], values[:120], 1)
    )
    assert errors[MODEL]["MAE"] == pytest.approx(np.mean(result.errors_by_step()[MODEL]))
    assert errors[MODEL]["pinball"] == pytest.approx(metrics.pinball(result.actual, result.quantiles, (0.1, 0.5, 0.9)))
    assert "pinball" not in errors[NAIVE]


@pytest.mark.parametrize("rule", ["interpolate", "forward", "mask"])
def test_a_backtest_sees_nothing_behind_its_origin(rule: str) -> None:
    values = wave()
    values[116:122] = np.nan
    model = small(values, roles={"missing": rule})
    changed = values.copy()
    changed[122:] += 50
    first, second = (model.backtest(array, origins=[120]) for array in (values, changed))
    np.testing.assert_array_equal(first.quantiles, second.quantiles)
    assert np.isnan(first.actual[0, :2]).all()
    assert np.isfinite(first.metrics()[MODEL]["MAE"])
    assert first.seen


def test_origins_by_number_and_by_row(fitted: Forecaster) -> None:
    np.testing.assert_array_equal(fitted.backtest(origins=3, stride=5).origins, [136, 141, 146])
    np.testing.assert_array_equal(fitted.backtest(origins=[50, 146]).origins, [50, 146])
    assert fitted.backtest(origins=[50, 146]).seen
    for origins, message in (
        (60, "60 origins 3 apart, context 12 and horizon 4 need 193 rows"),
        (10**15, "1000000000000000 origins 3 apart"),
        ([11], "may lie in the rows 12 to 146"),
        ([10**15], "may lie in the rows 12 to 146"),
        ([147], "may lie in the rows 12 to 146"),
    ):
        with pytest.raises(DataError, match=message):
            fitted.backtest(origins=origins, stride=3)
    assert len(fitted.backtest(stride=10**15).origins) == 1
    with pytest.raises(ConfigError, match="no test part to backtest on"):
        small().backtest()


def test_a_backtest_of_many_series_weighs_them_by_their_scales() -> None:
    model = Forecaster(**{**SMALL, "validation": 8, "season": 8})
    model.fit(many((80, 120)), target="y", time="t", series="id", progress=False)
    result = model.backtest(origins=4)
    np.testing.assert_array_equal(result.series, [0, 0, 0, 0, 1, 1, 1, 1])
    scaled = [
        metrics.mase(
            result.actual[result.series == index, :, 0],
            result.forecasts[MODEL][result.series == index, :, 0],
            many((80, 120)).query(f"id == 's{index}'")["y"].to_numpy()[: result.origins[result.series == index].min()],
            8,
        )
        for index in (0, 1)
    ]
    assert result.metrics()[MODEL]["MASE"] == pytest.approx(np.mean(scaled))
    assert set(result.forecasts) == {MODEL, SEASONAL, SEASONAL_DRIFT, NAIVE, DRIFT}
    assert set(result.columns()) >= {"id", "origin", "step", "t", "actual", "seasonal_naive", "q0.1"}
