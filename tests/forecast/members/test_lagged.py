"""Windows regressed on their own values a day, a week and two days before."""

from __future__ import annotations

import numpy as np
import pytest

from gpulstm.forecast.members import lagged as module
from gpulstm.forecast.members.lagged import USUAL, lagged

H, DAY, WEEK = 40, 24, 168
OWN = np.array([[24, 168, 48] if step < 24 else [48, 168, 72] for step in range(H)])


def hours(rows: int, seed: int = 0) -> np.ndarray:
    """Three series with seasons of a day and a week."""
    t, rng = np.arange(rows), np.random.default_rng(seed)
    return 10 + np.sin(2 * np.pi * t / DAY) + 0.5 * np.sin(2 * np.pi * t / WEEK) + 0.05 * rng.normal(size=(3, rows))


def test_weights_come_from_the_window() -> None:
    values = hours(504 + H)
    forecast = lagged(values[:, :504], DAY, WEEK, H)
    usual = values[:, 504 + np.arange(H)[:, None] - OWN] @ USUAL
    actual = values[:, 504:]
    assert np.abs(forecast - actual).mean() < 0.5 * np.abs(usual - actual).mean()


def test_a_large_penalty_leaves_the_usual_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PENALTY", 1e12)
    values = hours(504)
    usual = values[:, 504 + np.arange(H)[:, None] - OWN] @ USUAL
    np.testing.assert_allclose(lagged(values, DAY, WEEK, H), usual, rtol=1e-9)


def test_constants_stay_and_windows_do_not_know_of_each_other() -> None:
    np.testing.assert_allclose(lagged(np.full((2, 504), 5.0), DAY, WEEK, H), 5.0, rtol=1e-12)
    values = hours(504)
    np.testing.assert_array_equal(lagged(values, DAY, WEEK, H)[[1]], lagged(values[[1]], DAY, WEEK, H))
