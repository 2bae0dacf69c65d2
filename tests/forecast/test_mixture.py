"""Weights of members by their errors."""

from __future__ import annotations

import numpy as np
import pytest

from gpulstm.forecast import mixture as mix


def trial(forecasts: np.ndarray, actual: np.ndarray, series: np.ndarray | None = None) -> mix.Trial:
    count = len(actual)
    series = np.zeros(count, np.int64) if series is None else series
    age = np.zeros(count, np.int64)
    return mix.Trial([str(k) for k in range(len(forecasts))], forecasts, actual, np.ones(count), series, age, 0, True)


def test_the_criterion_is_the_mean_of_two_ratios() -> None:
    rng = np.random.default_rng(0)
    actual, forecasts = 10 + rng.random((6, 3)), 10 + rng.random((2, 6, 3))
    actual[2, 1] = np.nan
    result = trial(forecasts, actual).criterion(forecasts[1])

    def both(forecast: np.ndarray) -> tuple[float, float]:
        error = np.abs(forecast - actual)
        relative = 2 * error / (np.abs(actual) + np.abs(forecast))
        return float(np.nanmean(error, axis=1).mean()), float(np.nanmean(relative, axis=1).mean())

    first, second = both(forecasts[0]), both(forecasts[1])
    assert result == pytest.approx((second[0] / first[0] + second[1] / first[1]) / 2, rel=1e-12)
    assert trial(forecasts, actual).criterion(forecasts[0]) == pytest.approx(1.0)


def test_weights_are_powers_of_errors_without_the_bad_ones() -> None:
    weights = mix.power_weights(np.array([1.0, 1.1, 1.3]))
    expected = np.array([1.0, 1.1**-8, 0.0])
    np.testing.assert_allclose(weights, expected / expected.sum(), rtol=1e-12)


def test_a_member_that_says_the_same_as_another_is_left_out() -> None:
    actual = np.arange(12.0).reshape(4, 3) + 20
    naive, other = actual - 3, actual + 1
    result = trial(np.stack([naive, other, other + 1e-5, actual + 2]), actual)
    assert mix.distinct(result, range(4)) == [0, 1, 3]


def test_series_get_the_member_that_serves_them() -> None:
    rng = np.random.default_rng(0)
    series = np.repeat(np.arange(10), 6)
    actual = 50 + rng.random((60, 4))
    good = actual + 0.01 * rng.normal(size=actual.shape)
    bad = actual + 5
    even = (series % 2 == 0)[:, None]
    forecasts = np.stack([actual + 20, np.where(even, good, bad), np.where(even, bad, good)])
    result = trial(forecasts, actual, series)
    result.age = np.tile(np.arange(6) * 2, 10)
    errors = np.array([result.criterion(forecast) for forecast in forecasts])
    assert mix.choose_share(result, 4, 10) > 0
    weights = mix.series_weights(result, errors, 1.0, np.ones(60, bool), 11)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-12)
    assert (weights[0:10:2, 1] > 0.99).all() and (weights[1:10:2, 2] > 0.99).all()
    np.testing.assert_allclose(weights[10], mix.power_weights(errors), rtol=1e-12)


def test_series_alike_share_their_weights() -> None:
    rng = np.random.default_rng(0)
    series = np.repeat(np.arange(40), 4)
    actual = 50 + rng.random((160, 4))
    forecasts = actual + np.array([3.0, 1.0, 1.2])[:, None, None] * rng.normal(size=(3, 160, 4))
    result = trial(forecasts, actual, series)
    result.age = np.tile(np.arange(4) * 2, 40)
    assert mix.choose_share(result, 4, 40) == 0.0


def test_a_mixture_is_the_weighted_mean() -> None:
    forecasts = np.stack([np.full((3, 2), 1.0), np.full((3, 2), 5.0)])
    shared = mix.blend(forecasts, np.array([[0.25, 0.75]]), np.zeros(3, int))
    np.testing.assert_allclose(shared, 4.0)
    own = mix.blend(forecasts, np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1, 0]))
    np.testing.assert_allclose(own[:, 0], [1, 5, 1])
