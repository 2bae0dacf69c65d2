"""Bands from errors in widths."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpulstm.forecast.bands import Bands, mostly_trend, width
from gpulstm.forecast.panel import Panel, View


def test_the_half_width_has_the_conformal_rank() -> None:
    rng = np.random.default_rng(0)
    error, u = rng.normal(size=(40, 5)), np.full(40, 2.0)
    bands = Bands.of(error, u, 1.1, "seasonal")
    for step in range(5):
        near = np.sort(np.abs(error[:, max(0, step - 1) : step + 2].ravel())) / 2
        for level in (0.5, 0.8, 0.95):
            rank = min(math.ceil(level * (len(near) + 1)), len(near))
            assert bands.half(level)[step] == pytest.approx(1.1 * near[rank - 1], rel=1e-12)


def test_quantiles_rise_and_the_mean_is_shifted() -> None:
    error = np.random.default_rng(1).normal(0.5, 1, size=(200, 3))
    bands = Bands.of(error, np.ones(200), 1.0, "none")
    median = np.zeros((2, 3))
    quantiles = bands.quantiles(median, np.array([1.0, 2.0]), (0.05, 0.1, 0.5, 0.9, 0.95))
    assert (np.diff(quantiles, axis=-1) > 0).all()
    np.testing.assert_allclose(quantiles[..., 2], 0)
    np.testing.assert_allclose(quantiles[1], 2 * quantiles[0])
    np.testing.assert_allclose(bands.mean(median, np.ones(2))[0, 1], error.mean(), rtol=1e-9)


def test_bands_cover_what_they_say() -> None:
    rng = np.random.default_rng(2)
    bands = Bands.of(rng.standard_t(4, size=(400, 6)), np.ones(400), 1.0, "none")
    low, high = np.moveaxis(bands.quantiles(np.zeros((3000, 6)), np.ones(3000), (0.1, 0.9)), -1, 0)
    actual = rng.standard_t(4, size=(3000, 6))
    assert ((low <= actual) & (actual <= high)).mean() == pytest.approx(0.8, abs=0.02)


def test_missing_errors_do_not_count_and_steps_beyond_the_horizon_grow() -> None:
    error = np.array([[1.0, np.nan], [2.0, np.nan]])
    bands = Bands.of(error, np.ones(2), 1.0, "none")
    assert bands.counts.tolist() == [2, 2]
    quantiles = bands.quantiles(np.zeros((1, 8)), np.ones(1), (0.9,))[0, :, 0]
    np.testing.assert_allclose(quantiles[7] / quantiles[1], 2.0)


def test_widths_are_seasonal_differences() -> None:
    values = np.random.default_rng(3).normal(size=60).cumsum()
    view = View(Panel.of(values, np.array([0, 60])), np.array([50]), 3, 4, 20)
    pairs = [values[t] - values[t - 4] for t in range(42, 50)]
    assert width(view, "seasonal")[0] == pytest.approx(np.abs(pairs).mean(), rel=1e-12)
    assert width(view, "centered")[0] == pytest.approx(np.abs(pairs - np.mean(pairs)).mean(), rel=1e-12)
    assert width(view, "none")[0] == 1.0


def test_a_trend_is_told_from_noise() -> None:
    steps = np.arange(100.0)
    noise = np.random.default_rng(4).normal(size=100)
    for values, expected in ((steps + noise, True), (noise, False)):
        view = View(Panel.of(values, np.array([0, 100])), np.arange(40, 90), 3, 12, 20)
        assert mostly_trend(view) is expected


def test_a_constant_series_has_no_width() -> None:
    view = View(Panel.of(np.full(60, 3.0), np.array([0, 60])), np.array([50]), 3, 4, 20)
    u = width(view, "seasonal")
    assert u[0] == 0
    bands = Bands.of(np.zeros((4, 3)), np.zeros(4), 1.3, "seasonal")
    np.testing.assert_array_equal(bands.quantiles(np.full((1, 3), 3.0), u, (0.1, 0.9)), 3.0)
