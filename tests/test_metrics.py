"""Metrics against values worked out by hand, and against the rules for zeros and gaps."""

from __future__ import annotations

import numpy as np
import pytest

from gpulstm.errors import ConfigError, DataError, ShapeError
from gpulstm.metrics import coverage, mae, mape, mase, naive, pinball, rmse, seasonal_naive, seasonal_scale, smape

ACTUAL = np.array([1.0, 2, 4, np.nan])
FORECAST = np.array([2.0, 2, 1, 100])


def test_values_by_hand() -> None:
    assert mae(ACTUAL, FORECAST) == pytest.approx(4 / 3)
    assert rmse(ACTUAL, FORECAST) == pytest.approx(np.sqrt(10 / 3))
    assert mape(ACTUAL, FORECAST) == pytest.approx(100 * (1 + 0 + 0.75) / 3)
    assert smape(ACTUAL, FORECAST) == pytest.approx(200 * (1 / 3 + 0 + 3 / 5) / 3)
    assert mase(ACTUAL, FORECAST, [1.0, 3, 2, 6], season=2) == pytest.approx(4 / 3 / 2)
    levels = np.array([[0.0, 2], [2, 3], [5, 6], [0, 0]])
    assert pinball(ACTUAL, levels, (0.1, 0.9)) == pytest.approx(
        ((0.1 * 1 + 0.1 * 1) + (0.0 + 0.1 * 1) + (0.9 * 1 + 0.1 * 2)) / 6
    )
    assert coverage(ACTUAL, levels[:, 0], levels[:, 1]) == pytest.approx(200 / 3)


def test_the_median_pinball_is_half_the_absolute_error(rng) -> None:
    actual, forecast = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    assert pinball(actual, forecast[..., None], [0.5]) == pytest.approx(mae(actual, forecast) / 2)


def test_weights() -> None:
    assert mae(ACTUAL, FORECAST, weight=[3, 1, 0, 5]) == pytest.approx(3 / 4)
    assert np.isnan(mae(ACTUAL, FORECAST, weight=0))
    with pytest.raises(ConfigError, match="below 0"):
        mae(ACTUAL, FORECAST, weight=-1)
    with pytest.raises(ShapeError, match="does not broadcast"):
        mae(ACTUAL, FORECAST, weight=[1, 2])


def test_zeros() -> None:
    assert mape([0.0, 2], [5.0, 3]) == pytest.approx(50)
    assert np.isnan(mape([0.0], [5.0]))
    assert smape([0.0, 0], [0.0, 5]) == pytest.approx(100)
    assert np.isnan(mase([1.0], [2.0], [3.0, 3, 3]))


def test_the_seasonal_naive_forecast_of_the_training_rows_has_mase_one(rng) -> None:
    rows = rng.normal(size=40)
    assert mase(rows[7:], rows[:-7], rows, season=7) == pytest.approx(1)
    gap = rows.copy()
    gap[3] = np.nan
    assert seasonal_scale(gap, 7) == pytest.approx(np.nanmean(np.abs(gap[7:] - gap[:-7])))


def test_baselines() -> None:
    history = np.array([1.0, 2, 3, 4, 5])
    np.testing.assert_array_equal(naive(history, 3), [5, 5, 5])
    np.testing.assert_array_equal(seasonal_naive(history, 5, 2), [4, 5, 4, 5, 4])
    np.testing.assert_array_equal(seasonal_naive(history[:, None], 2, 3), [[3], [4]])


def test_baselines_go_back_where_the_last_season_has_gaps() -> None:
    nan = np.nan
    np.testing.assert_array_equal(naive([1.0, 2, nan, nan], 2), [2, 2])
    np.testing.assert_array_equal(seasonal_naive([1.0, 2, 3, nan, 5, nan, nan], 3, 3), [5, 3, 1])
    np.testing.assert_array_equal(seasonal_naive([9.0, 1, 2, 3, nan, nan, nan], 3, 3), [1, 2, 3])
    np.testing.assert_array_equal(seasonal_naive([7.0, nan, nan, nan], 3, 3), [nan, nan, 7])


def test_mistakes() -> None:
    with pytest.raises(ShapeError, match=r"forecast has shape \(2,\), expected that of actual, \(1,\)"):
        mae([1.0], [1.0, 2])
    with pytest.raises(ShapeError, match=r"expected \(2, 3\)"):
        pinball([1.0, 2], np.ones((2, 2)), (0.1, 0.5, 0.9))
    with pytest.raises(DataError, match="MASE with season 3 needs at least 4"):
        mase([1.0], [1.0], [1.0, 2, 3], season=3)
    with pytest.raises(DataError, match="MASE has no scale"):
        seasonal_scale([1.0, np.nan], 1)
    with pytest.raises(DataError, match="needs a season: 4"):
        seasonal_naive([1.0], 2, 4)
    with pytest.raises(ConfigError, match="horizon 0"):
        naive([1.0], 0)
    with pytest.raises(ShapeError, match="insample"):
        seasonal_scale(np.ones((2, 2)))


def test_arrays_from_a_device(backend) -> None:
    assert mae(backend.from_host(FORECAST[:3]), backend.from_host(ACTUAL[:3])) == pytest.approx(4 / 3)
