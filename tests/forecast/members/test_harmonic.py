"""Harmonic least squares against numpy's own solver."""

from __future__ import annotations

import numpy as np
import pytest

from gpulstm.forecast.members.harmonic import harmonic

WAVES = ((10.0, 2), (7.0, 1))


def test_waves_and_a_trend_are_continued() -> None:
    steps = np.arange(-80, 6)
    values = 3 + 0.1 * steps + 2 * np.sin(2 * np.pi * steps / 10 + 1) - np.cos(4 * np.pi * steps / 10)
    forecast = harmonic(values[None, :80], 6, WAVES, True, 0)
    np.testing.assert_allclose(forecast[0], values[80:], rtol=1e-9)


@pytest.mark.parametrize("level", [0, 4])
def test_what_is_left_dies_out_or_stays(level: int) -> None:
    window = np.random.default_rng(0).normal(size=60).cumsum()
    steps = np.arange(-60, 5.0)
    columns = [np.ones(65)]
    for period, harmonics in WAVES:
        for k in range(1, harmonics + 1):
            columns += [np.sin(2 * np.pi * k * steps / period), np.cos(2 * np.pi * k * steps / period)]
    design = np.stack(columns, axis=1)
    fit = np.linalg.lstsq(design[:60], window, rcond=None)[0]
    left = window - design[:60] @ fit
    expected = design[60:] @ fit
    if level:
        expected = expected + left[-level:].mean()
    else:
        phi = np.clip((left[1:] @ left[:-1]) / (left[:-1] @ left[:-1]), 0, 0.99)
        expected = expected + left[-1] * phi ** np.arange(1, 6)
    np.testing.assert_allclose(harmonic(window[None], 5, WAVES, False, level)[0], expected, rtol=1e-9)
