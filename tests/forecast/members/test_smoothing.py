"""Theta and damped Holt for all windows at once, against loops over one window."""

from __future__ import annotations

import numpy as np
import pytest

from gpulstm.forecast.members.smoothing import ALPHAS, BLOCK, HOLT, damped, is_seasonal, seasonal_factors, smooth, theta


def walks(count: int, rows: int, seed: int = 0) -> np.ndarray:
    """Random walks that stay above zero."""
    return 50 + np.cumsum(np.random.default_rng(seed).normal(size=(count, rows)), axis=1)


def level_errors(values: np.ndarray, alpha: float) -> tuple[float, float]:
    level, total = values[0], 0.0
    for value in values:
        error = value - level
        total += error * error
        level += alpha * error
    return total, level


def holt_errors(
    values: np.ndarray, alpha: float, beta: float, phi: float, slope: float
) -> tuple[float, tuple[float, float]]:
    level, total = values[0], 0.0
    for value in values:
        expected = level + phi * slope
        error = value - expected
        total += error * error
        level, slope = expected + alpha * error, phi * slope + alpha * beta * error
    return total, (level, slope)


def factors(window: np.ndarray, season: int, ratio: bool) -> np.ndarray:
    """Classical decomposition by the book: centered moving average, mean of each phase, normalized."""
    rows, half = len(window), season // 2
    by_phase: dict[int, list[float]] = {phase: [] for phase in range(season)}
    for row in range(half, rows - half):
        part = window[row - half : row + half + 1]
        weights = np.ones(len(part))
        if season % 2 == 0:
            weights[[0, -1]] = 0.5
        mean = float((part * weights).sum() / weights.sum())
        by_phase[(row - rows) % season].append(window[row] / mean if ratio else window[row] - mean)
    phases = np.array([np.mean(by_phase[phase]) for phase in range(season)])
    return phases / phases.mean() if ratio else phases - phases.mean()


@pytest.mark.parametrize("rows", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_the_level_is_that_of_a_loop(rows: int) -> None:
    values = walks(6, rows)
    best, state = smooth("level", values, values[:, :1])
    for window, index, last in zip(values, best, state, strict=True):
        each = [level_errors(window, alpha) for alpha in ALPHAS]
        assert each[index][0] <= min(total for total, _ in each) * (1 + 1e-9) + 1e-12
        assert last[0] == pytest.approx(each[index][1], rel=1e-12)


@pytest.mark.parametrize("rows", [2, BLOCK, 2 * BLOCK + 7])
def test_the_damped_trend_is_that_of_a_loop(rows: int) -> None:
    values, slope = walks(5, rows), np.linspace(-1, 1, 5)
    best, state = smooth("holt", values, np.stack([values[:, 0], slope], axis=1))
    for window, first, index, last in zip(values, slope, best, state, strict=True):
        each = [holt_errors(window, *parameters, first) for parameters in HOLT]
        assert each[index][0] <= min(total for total, _ in each) * (1 + 1e-9) + 1e-12
        np.testing.assert_allclose(last, each[index][1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("season", [3, 4, 12])
@pytest.mark.parametrize("ratio", [True, False])
def test_seasonal_factors_are_those_of_the_book(season: int, ratio: bool) -> None:
    values = walks(4, 5 * season + 2) + 8 * np.sin(2 * np.pi * np.arange(5 * season + 2) / season)
    seasonal, multiply = seasonal_factors(values, season, ratio)
    assert multiply.tolist() == [ratio] * 4
    for window, own in zip(values, seasonal, strict=True):
        np.testing.assert_allclose(own, factors(window, season, ratio), rtol=1e-10, atol=1e-12)


def test_a_season_is_told_from_noise() -> None:
    noise = np.random.default_rng(1).normal(size=(200, 60))
    waves = noise + 2 * np.sin(2 * np.pi * np.arange(60) / 12)
    assert is_seasonal(waves, 12).mean() > 0.9
    assert is_seasonal(noise, 12).mean() < 0.25
    assert not is_seasonal(np.full((3, 60), 7.0), 12).any()


def test_theta_is_its_formula() -> None:
    window = walks(1, 40, seed=3)
    alpha = ALPHAS[int(np.argmin([level_errors(window[0], alpha)[0] for alpha in ALPHAS]))]
    level = level_errors(window[0], alpha)[1]
    slope = np.polyfit(np.arange(40), window[0], 1)[0]
    expected = [level + slope / 2 * (h - 1 + (1 - (1 - alpha) ** 40) / alpha) for h in range(1, 7)]
    np.testing.assert_allclose(theta(window, 1, 6)[0], expected, rtol=1e-10)


def test_a_damped_trend_adds_up() -> None:
    window = walks(1, 30, seed=4)
    slope = (window[0, 4] - window[0, 0]) / 4
    each = [holt_errors(window[0], *parameters, slope) for parameters in HOLT]
    index = int(np.argmin([total for total, _ in each]))
    level, trend = each[index][1]
    phi = HOLT[index][2]
    expected = [level + trend * sum(phi**k for k in range(1, h + 1)) for h in range(1, 6)]
    np.testing.assert_allclose(damped(window, 1, 5)[0], expected, rtol=1e-10)


@pytest.mark.parametrize("forecast", [theta, damped])
@pytest.mark.parametrize("rows", [1, 2, 9, 40])
def test_a_constant_stays_and_short_windows_are_served(forecast: object, rows: int) -> None:
    assert callable(forecast)
    np.testing.assert_allclose(forecast(np.full((2, rows), 5.0), 4, 3, test=False), 5.0, rtol=1e-12)
    assert np.isfinite(forecast(walks(3, rows), 4, 9, test=False)).all()


@pytest.mark.parametrize("forecast", [theta, damped])
def test_a_season_comes_back(forecast: object) -> None:
    assert callable(forecast)
    steps = np.arange(60)
    season = np.array([0.8, 1.0, 1.3, 0.9])
    window = (100 * season[steps % 4])[None]
    np.testing.assert_allclose(forecast(window, 4, 8, test=True)[0], 100 * season[np.arange(60, 68) % 4], rtol=1e-6)


@pytest.mark.parametrize("forecast", [theta, damped])
def test_windows_do_not_know_of_each_other(forecast: object) -> None:
    assert callable(forecast)
    values = walks(300, 37)
    together = forecast(values, 12, 5, test=False)
    alone = np.concatenate([forecast(values[[k]], 12, 5, test=False) for k in (0, 7, 299)])
    np.testing.assert_allclose(together[[0, 7, 299]], alone, rtol=1e-12)
