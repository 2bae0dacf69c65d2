"""What stands where a value is missing: each rule by hand, nothing from behind a cut, no series from another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpulstm.data.filling import fill

NAN = np.nan
COLUMN = np.array([NAN, 1, NAN, NAN, 4, NAN, 6, NAN])[:, None]
WHOLE = np.array([0, 8])


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("interpolate", [1, 1, 2, 3, 4, 5, 6, 6]),
        ("forward", [1, 1, 1, 1, 4, 4, 6, 6]),
        ("mask", [1, 1, 1, 1, 4, 4, 6, 6]),
        ("auto", [1, 1, 1, 1, 4, 4, 6, 6]),
        ("zero", [0, 1, 0, 0, 4, 0, 6, 0]),
    ],
)
def test_rules(rule: str, expected: list[float]) -> None:
    filled, empty = fill(COLUMN, WHOLE, rule)
    np.testing.assert_array_equal(filled[:, 0], expected)
    assert empty == []
    assert np.isnan(COLUMN).sum() == 5  # what was given stays


def test_nothing_comes_from_behind_a_cut() -> None:
    filled, _ = fill(COLUMN, WHOLE, "interpolate", [np.array([3])])
    np.testing.assert_array_equal(filled[:, 0], [1, 1, 1, 2.5, 4, 5, 6, 6])


def test_nothing_comes_from_another_series() -> None:
    values = np.array([1, NAN, NAN, 4, NAN, NAN])[:, None]
    filled, empty = fill(values, np.array([0, 2, 4, 6]), "interpolate")
    np.testing.assert_array_equal(filled[:, 0], [1, 1, 4, 4, 2.5, 2.5])  # the last has no value: the mean of all
    assert empty == [(2, 0)]


@settings(max_examples=100, deadline=None)
@given(
    cells=st.lists(st.one_of(st.none(), st.integers(-9, 9)), min_size=1, max_size=30),
    cut=st.integers(0, 30),
    rule=st.sampled_from(["interpolate", "forward"]),
)
def test_rows_before_a_cut_do_not_depend_on_those_after_it(cells: list[int | None], cut: int, rule: str) -> None:
    values = np.array([NAN if cell is None else cell for cell in cells], dtype=float)[:, None]
    cut = min(cut, len(values))
    if not (~np.isnan(values[:cut])).any():
        return  # nothing comes before the cut, so that what follows has to serve
    start = int(np.argmax(~np.isnan(values[:, 0])))
    other = values.copy()
    other[cut:] = 1000.0
    offsets = np.array([0, len(values)])
    one, two = (fill(array, offsets, rule, [np.array([cut])])[0] for array in (values, other))
    np.testing.assert_array_equal(one[start:cut], two[start:cut])
