"""Simple forecasts by hand."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from gpulstm.data.loading import load_series
from gpulstm.forecast.baselines import automatic_baselines, baselines
from gpulstm.forecast.results import DRIFT, NAIVE, SEASONAL, SEASONAL_DRIFT


def test_of_a_rising_season() -> None:
    values = np.array([1.0, 5.0, 2.0, 6.0, 3.0, 7.0, *[99.0] * 3])
    results = baselines(load_series(values), np.array([6]), 3, 2)
    assert results[NAIVE][0, :, 0].tolist() == [7.0, 7.0, 7.0]
    assert results[SEASONAL][0, :, 0].tolist() == [3.0, 7.0, 3.0]
    assert results[SEASONAL_DRIFT][0, :, 0].tolist() == [4.0, 8.0, 5.0]
    np.testing.assert_allclose(results[DRIFT][0, :, 0], 7.0 + 1.2 * np.arange(1, 4))


def test_without_a_season_there_are_two() -> None:
    assert set(baselines(load_series(np.arange(6.0)), np.array([4]), 2, 1)) == {NAIVE, DRIFT}


def test_nothing_behind_the_origin_counts() -> None:
    values = np.arange(10.0)
    changed = np.where(np.arange(10) < 6, values, 99.0)
    one, other = (baselines(load_series(each), np.array([6]), 2, 3) for each in (values, changed))
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_each_series_has_its_own_past() -> None:
    series = load_series(np.array([[[1.0], [2.0], [3.0], [9.0]], [[10.0], [20.0], [30.0], [9.0]]]))
    results = baselines(series, np.array([3, 7]), 1, 1)
    assert results[NAIVE][:, 0, 0].tolist() == [3.0, 30.0]
    assert results[DRIFT][:, 0, 0].tolist() == [4.0, 40.0]


def test_missing_values_are_skipped() -> None:
    series = load_series(np.array([1.0, np.nan, 3.0, np.nan, 9.0]), missing="mask")
    results = baselines(series, np.array([4]), 1, 1)
    assert results[NAIVE][0, 0, 0] == 3.0 and results[DRIFT][0, 0, 0] == 5.0


def test_without_statsforecast_there_are_no_automatic_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert automatic_baselines(load_series(np.arange(9.0)), np.array([8]), 1, 1) == {}
