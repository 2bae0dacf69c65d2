"""Windows made comparable: level, scale, and what a simple forecast leaves."""

from __future__ import annotations

import numpy as np

from gpulstm.forecast.features import Features
from gpulstm.forecast.members.simple import Simple
from gpulstm.forecast.members.space import Space
from gpulstm.forecast.panel import Panel, View


def space(log: bool = False, season: int = 1) -> Space:
    return Space(Simple("naive", log=log), 4, season, log, (1,), Features())


def view(values: np.ndarray, origin: int) -> View:
    panel = Panel.of(values, np.array([0, len(values)]))
    return View(panel, np.array([origin]), 2, 1, 8)


VALUES = np.array([3.0, 5.0, 4.0, 6.0, 5.0, 7.0, 6.0, 8.0, 7.0, 9.0])


def test_windows_that_differ_by_level_and_unit_look_the_same() -> None:
    one = space().scaled(view(VALUES, 8))
    other = space().scaled(view(1000 + 20 * VALUES, 8))
    np.testing.assert_allclose(one.inputs, other.inputs, rtol=1e-9)
    np.testing.assert_allclose(other.scale, 20 * one.scale, rtol=1e-9)
    assert one.inputs.shape == (1, 4 + 2 + 0 + 1) and one.extra == 0


def test_the_residual_is_what_the_base_leaves() -> None:
    seen = view(VALUES, 8)
    scaled = space().scaled(seen)
    np.testing.assert_allclose(scaled.base, [[8.0, 8.0]])
    np.testing.assert_allclose(space().residual(seen, scaled) * scaled.scale, [[-1.0, 1.0]])


def test_logarithms_are_of_values_above_zero() -> None:
    seen = view(np.exp(VALUES / 10), 8)
    scaled = space(log=True).scaled(space(log=True).view(seen))
    np.testing.assert_allclose(scaled.base, [[0.8, 0.8]])


def test_a_constant_window_is_not_divided_by_nothing() -> None:
    scaled = space().scaled(view(np.full(10, 7.0), 8))
    assert scaled.scale.tolist() == [[1.0]]
    assert np.isfinite(scaled.inputs).all()


def test_names_say_what_is_special() -> None:
    assert space().name == "on naive"
    calendar = Space(Simple("naive"), 4, 1, True, (1,), Features(calendar=True))
    assert calendar.name == "on naive, log, calendar"


def test_a_file_keeps_what_it_is() -> None:
    assert space(season=7).config()["season"] == 7
    assert space().config()["features"] == Features().config()
