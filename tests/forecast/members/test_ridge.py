"""The ridge against its normal equations, and the space it works in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpulstm.forecast.features import Features
from gpulstm.forecast.members.ridge import Moments, Ridge
from gpulstm.forecast.members.simple import Simple
from gpulstm.forecast.members.space import Space
from gpulstm.forecast.panel import Panel, View


def space(log: bool = False) -> Space:
    return Space(Simple("seasonal", season=4), 9, 4, log, (4,), Features())


def series(rows: int = 200) -> Panel:
    steps = np.arange(rows)
    noise = np.random.default_rng(0).normal(0, 0.3, rows)
    return Panel.of(20 + 0.02 * steps + 3 * np.sin(2 * np.pi * steps / 4) + noise, np.array([0, rows]))


@pytest.mark.parametrize("penalty", [1e-4, 1.0])
def test_weights_solve_the_normal_equations(penalty: float) -> None:
    rng = np.random.default_rng(0)
    inputs, residual, weight = rng.normal(size=(60, 7)), rng.normal(size=(60, 3)), rng.random(60)
    residual[4, 1] = np.nan  # leaves the whole row out
    solution = Moments(inputs, residual, weight).solve(penalty)
    weight[4], residual[4] = 0, 0
    square = (inputs * weight[:, None]).T @ inputs / weight.sum()
    right = (inputs * weight[:, None]).T @ residual / weight.sum()
    mean = np.diag(square).mean()
    np.testing.assert_allclose(solution, np.linalg.solve(square + penalty * mean * np.eye(7), right), rtol=1e-8)


def test_windows_can_be_taken_out_again() -> None:
    rng = np.random.default_rng(1)
    inputs, residual = rng.normal(size=(50, 5)), rng.normal(size=(50, 2))
    out = np.arange(50) < 20
    solution = (Moments(inputs, residual) - Moments(inputs[out], residual[out])).solve(0.1)
    np.testing.assert_allclose(solution, Moments(inputs[~out], residual[~out]).solve(0.1), rtol=1e-8)


@pytest.mark.parametrize("log", [False, True])
def test_a_perfect_residual_gives_back_what_came(log: bool) -> None:
    panel = series()
    view = space(log).view(View(panel, np.arange(20, 190), 3, 4, 20))
    own = space(log)
    scaled = own.scaled(view)
    back = view.back(scaled.base + scaled.scale * own.residual(view, scaled))
    np.testing.assert_allclose(back, view.actual(), rtol=1e-10)


def test_level_scale_and_window_are_those_of_a_loop() -> None:
    panel = series()
    view = View(panel, np.array([50]), 3, 4, 20)
    scaled = space().scaled(view)
    values = panel.values[:50]
    level = values[-4:].mean()
    pairs = [abs(values[t] - values[t - 4]) for t in range(50 - 5, 50)]  # the last 9 rows hold five pairs
    scale = max(np.mean(pairs), 0.1 * np.abs(np.diff(values[-9:])).mean())
    assert scaled.scale[0, 0] == pytest.approx(scale, rel=1e-12)
    np.testing.assert_allclose(scaled.inputs[0, :9], (values[-9:] - level) / scale, rtol=1e-10)
    np.testing.assert_allclose(scaled.base[0], values[[46, 47, 48]], rtol=1e-12)


def test_it_learns_and_sees_nothing_behind_the_origin() -> None:
    panel, own = series(), space()
    view = View(panel, np.arange(20, 150), 3, 4, 20)
    scaled = own.scaled(view)
    ridge = Ridge(own, Moments(scaled.inputs, own.residual(view, scaled)).solve(1e-2), 1e-2)
    test = View(panel, np.arange(160, 190), 3, 4, 20)
    forecast = ridge.forecast(test)
    assert np.abs(forecast - test.actual()).mean() < np.abs(own.base.forecast(test) - test.actual()).mean()
    values = panel.values.copy()
    values[175:] = 1e6
    other = View(replace(panel, values=values), np.array([175]), 3, 4, 20)
    np.testing.assert_allclose(ridge.forecast(other)[0], forecast[15], rtol=1e-12)


def test_a_constant_window_has_scale_one() -> None:
    panel = Panel.of(np.full(60, 4.0), np.array([0, 60]))
    scaled = space().scaled(View(panel, np.array([30]), 3, 4, 20))
    assert scaled.scale[0, 0] == 1.0
    np.testing.assert_allclose(scaled.inputs[0, :-1], 0, atol=1e-12)
