"""Forecasts of series that are too short for the network."""

from __future__ import annotations

import numpy as np
import pytest

from gpulstm.data.loading import load_series
from gpulstm.data.scaling import Scaler
from gpulstm.forecast.short import SIMPLE, forecast_short, listed, too_short


def forecast(
    values: np.ndarray, horizon: int, season: int, levels: tuple[float, ...] = ()
) -> tuple[np.ndarray, np.ndarray | None]:
    series = load_series(values)
    ends = series.offsets[1:]
    scaler = Scaler("standard").fit(series.values, series.offsets, ends, names=series.names, columns=series.columns)
    return forecast_short(series, ends, horizon, season, levels, scaler)


def test_the_last_season_comes_again_or_the_last_value() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert forecast(values, 4, 3)[0][0, :, 0].tolist() == [4.0, 5.0, 6.0, 4.0]
    assert forecast(values, 2, 1)[0][0, :, 0].tolist() == [6.0, 6.0]


def test_bands_of_a_random_walk_grow_with_the_root_of_the_steps() -> None:
    mean, quantiles = forecast(np.cumsum(np.tile([1.0, -1.0], 10)), 4, 1, (0.1, 0.5, 0.9))
    assert quantiles is not None
    width = quantiles[0, :, 0, 2] - quantiles[0, :, 0, 0]
    np.testing.assert_allclose(width, width[0] * np.sqrt(np.arange(1, 5)), rtol=1e-12)
    np.testing.assert_allclose(quantiles[..., 1], mean, rtol=0, atol=1e-12)


def test_a_series_of_few_rows_takes_the_spread_of_the_scaler() -> None:
    _, quantiles = forecast(np.array([5.0, 7.0]), 1, 1, (0.1, 0.9))
    assert quantiles is not None
    assert quantiles[0, 0, 0, 1] - quantiles[0, 0, 0, 0] == pytest.approx(2 * 1.2815515655446004)


def test_a_sentence_names_the_first_of_them() -> None:
    assert too_short([], 10) == []
    assert too_short(["a", "b"], 10) == [f"{SIMPLE}, for fewer than 10 rows: a, b"]
    assert listed(list("abcdefg")) == "a, b, c, d, e and 2 more (7 in all)"
