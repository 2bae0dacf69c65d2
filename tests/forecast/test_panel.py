"""Which rows a forecast may see."""

from __future__ import annotations

import numpy as np
import pytest

from gpulstm.forecast.panel import Panel, View

NAN = np.nan


def test_a_line_through_a_gap_is_not_seen_from_within_it() -> None:
    values = np.array([1.0, 2.0, NAN, NAN, 5.0, 6.0, 7.0])
    panel = Panel.of(values, np.array([0, 7]), "interpolate")
    np.testing.assert_allclose(panel.values, [1, 2, 3, 4, 5, 6, 7])
    view = View(panel, np.array([3, 4, 5]), 1, 1, 3)
    np.testing.assert_allclose(view.window(3), [[1, 2, 2], [2, 2, 2], [3, 4, 5]])


@pytest.mark.parametrize("rule", ["interpolate", "forward", "mask"])
def test_a_window_is_that_of_the_rows_before_its_origin_alone(rule: str) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=80) + 5
    values[rng.random(80) < 0.4] = NAN
    values[0] = 1.0
    panel = Panel.of(values, np.array([0, 80]), rule)
    view = View(panel, np.arange(1, 80), 2, 4, 10)
    together, logs = view.window(12), view.logged.window(12)
    for index, origin in enumerate(range(1, 80)):
        cut = values.copy()
        cut[origin:] = NAN
        alone = View(Panel.of(cut, np.array([0, 80]), rule), np.array([origin]), 2, 4, 10)
        np.testing.assert_array_equal(alone.window(12)[0], together[index])
        np.testing.assert_array_equal(alone.logged.window(12)[0], logs[index])


def test_short_series_are_preceded_by_their_first_season() -> None:
    panel = Panel.of(np.array([9.0, 1.0, 2.0, 3.0, 4.0, 5.0]), np.array([0, 1, 6]))
    view = View(panel, np.array([5]), 1, 3, 4)
    np.testing.assert_array_equal(view.window(8)[0], [3, 1, 2, 3, 1, 2, 3, 4])


def test_rows_before_the_first_observed_one_are_none() -> None:
    panel = Panel.of(np.array([NAN, NAN, 3.0, 4.0, 5.0]), np.array([0, 5]))
    assert panel.starts.tolist() == [2]
    assert View(panel, np.array([4]), 1, 1, 4).rows.tolist() == [2]


def test_logarithms_only_where_all_that_is_seen_is_above_zero() -> None:
    panel = Panel.of(np.array([-1.0, 2.0, 3.0, 4.0, 5.0]), np.array([0, 5]))
    view = View(panel, np.array([3, 4, 5]), 1, 1, 3)
    assert view.positive.tolist() == [False, True, True]
    np.testing.assert_allclose(view.logged.window(2), [[2, 3], np.log([3, 4]), np.log([4, 5])])
    np.testing.assert_allclose(view.logged.back(view.logged.window(2)), view.window(2))


def test_what_came_is_nan_where_it_was_not_observed() -> None:
    panel = Panel.of(np.array([1.0, 2.0, NAN, 4.0]), np.array([0, 4]))
    np.testing.assert_array_equal(View(panel, np.array([2]), 2, 1, 2).actual(), [[NAN, 4.0]])
