"""Simple forecasts against plain loops, and what they may look at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpulstm.forecast.members.simple import Simple, simple_members
from gpulstm.forecast.panel import Panel, Seasons, View

MEMBERS = [
    *simple_members(Seasons(4), 80, 40, True),
    *simple_members(Seasons(1), 80, 40, True),
    *simple_members(Seasons(24, 168), 2000, 696, True),
    *simple_members(Seasons(52, 0, 52.1775), 600, 520, True),
    *simple_members(Seasons(7, 0, 365.25), 900, 70, True),
]


def panel(rows: int = 1000, seed: int = 0) -> Panel:
    values = 60 + 5 * np.sin(np.arange(rows) / 3) + np.random.default_rng(seed).normal(size=rows)
    return Panel.of(values, np.array([0, rows]))


def test_seasonal_naive_and_means_are_those_of_a_loop() -> None:
    series = panel(60)
    view = View(series, np.array([9, 20, 55]), 5, 4, 40)
    for count in (1, 3):
        result = Simple("seasonal", season=4, count=count).forecast(view)
        for origin, forecast in zip((9, 20, 55), result, strict=True):
            for step in range(5):
                phase = [row for row in range(origin) if row % 4 == (origin + step) % 4][::-1]
                assert forecast[step] == pytest.approx(np.mean(series.values[phase[:count]]), rel=1e-12)


def test_naive_and_drift() -> None:
    series = panel(60)
    view = View(series, np.array([1, 30]), 3, 1, 40)
    np.testing.assert_array_equal(Simple("naive").forecast(view)[1], np.repeat(series.values[29], 3))
    slope = (series.values[29] - series.values[10]) / 19
    expected = series.values[29] + slope * np.arange(1, 4)
    np.testing.assert_allclose(Simple("drift", limit=20).forecast(view)[1], expected, rtol=1e-12)
    np.testing.assert_array_equal(Simple("drift", limit=20).forecast(view)[0], np.repeat(series.values[0], 3))


def test_members_for_hours_move_weeks_to_the_present_level() -> None:
    hours = np.arange(2000)
    values = 100 + hours // 168 * 10.0 + 5 * np.sin(2 * np.pi * hours / 24)
    view = View(Panel.of(values, np.array([0, 2000])), np.array([1848]), 24, 24, 696)
    plain = Simple("seasonal", season=168).forecast(view)
    moved = Simple("seasonal", season=168, move=24).forecast(view)
    np.testing.assert_allclose(moved - plain, 10, rtol=1e-9)
    four = Simple("seasonal", season=168, count=4)
    np.testing.assert_allclose(replace(four, move=168).forecast(view) - four.forecast(view), 15, rtol=1e-9)


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.name)
def test_nothing_behind_the_origin_is_seen(member: Simple) -> None:
    series, origins = panel(), np.array([3, 40, 500, 960])
    view = View(series, origins, 30, 4, 100)
    expected = member.forecast(view)
    for index, origin in enumerate(origins):
        values = series.values.copy()
        values[origin:] = -1e6
        other = View(replace(series, values=values), origins[[index]], 30, 4, 100)
        np.testing.assert_allclose(member.forecast(other)[0], expected[index], rtol=1e-12)


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.name)
@pytest.mark.parametrize("value", [0.0, 5.0, -3.0])
def test_a_constant_series_stays(member: Simple, value: float) -> None:
    series = Panel.of(np.full(800, value), np.array([0, 800]))
    result = member.forecast(View(series, np.array([1, 5, 50, 780]), 20, 4, 100))
    np.testing.assert_allclose(result, value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.name)
def test_a_file_gives_the_member_back(member: Simple) -> None:
    assert Simple.from_config(member.config()) == member


def test_names_tell_members_apart() -> None:
    for seasons, rows in ((Seasons(24, 168), 2000), (Seasons(52, 0, 52.18), 600), (Seasons(7, 0, 365.25), 900)):
        names = [member.name for member in simple_members(seasons, rows, 500, True)]
        assert len(set(names)) == len(names)
