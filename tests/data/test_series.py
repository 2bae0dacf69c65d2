"""Series with the same columns: their rows, their ends, and their extension by what is known ahead."""

from __future__ import annotations

import numpy as np
import pytest

from gpulstm.data.series import SeriesSet


@pytest.fixture
def two() -> SeriesSet:
    """Two series of three and four rows; a target and a covariate known ahead."""
    values = np.stack([np.arange(7.0), 10 + np.arange(7.0)], axis=1)
    return SeriesSet(values, np.array([0, 3, 7]), ("y", "k"), targets=1, future=1, names=("a", "b"))


def test_rows_of_each_series(two: SeriesSet) -> None:
    assert (len(two), two.rows, two.target_names) == (2, 7, ("y",))
    np.testing.assert_array_equal(two.lengths, [3, 4])
    np.testing.assert_array_equal(two.series(1)[:, 0], [3, 4, 5, 6])
    assert np.shares_memory(two.series(1), two.values)
    np.testing.assert_array_equal(two.time_of(1), [0, 1, 2, 3])  # row numbers where there are no times


def test_the_tail_of_each_series(two: SeriesSet) -> None:
    tail = two.tail(np.array([2, 4]))
    np.testing.assert_array_equal(tail.values, two.values[[2, 4, 5, 6]])
    np.testing.assert_array_equal(tail.offsets, [0, 1, 4])
    np.testing.assert_array_equal(tail.time, [2, 1, 2, 3])


def test_an_extension_has_no_targets_but_what_is_known(two: SeriesSet) -> None:
    ahead = np.arange(4.0).reshape(2, 2, 1)
    longer = two.extended(2, ahead)
    np.testing.assert_array_equal(longer.lengths, [5, 6])
    np.testing.assert_array_equal(longer.series(0)[:3], two.series(0))
    np.testing.assert_array_equal(longer.series(1)[4:, 1], [2, 3])
    np.testing.assert_array_equal(longer.time_of(0), [0, 1, 2, 3, 4])


def test_gaps_are_known() -> None:
    values = np.array([[1.0], [np.nan], [3.0]])
    series = SeriesSet(values, np.array([0, 3]), ("y",), targets=1, missing="forward")
    assert series.has_missing
    np.testing.assert_array_equal(series.filled()[:, 0], [1, 1, 3])
    assert np.isnan(series.values[1, 0])  # the series itself is as it was
