"""What comes after series that were read: covariates known ahead, and new rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpulstm.data.future import known_ahead, new_rows, places_of
from gpulstm.data.loading import load_series
from gpulstm.data.series import SeriesSet
from gpulstm.errors import DataError

DAYS = pd.date_range("2024-01-01", periods=6)


def past(**roles: Any) -> SeriesSet:
    table = {"day": DAYS[:4], "y": np.arange(4.0), "k": np.arange(4.0) + 0.5}
    return load_series(table, target="y", time="day", **{"future": "k", **roles})


def panel() -> SeriesSet:
    table = {"id": list("aabb"), "day": [*DAYS[:2], *DAYS[:2]], "y": np.arange(4.0), "k": np.ones(4)}
    return load_series(table, target="y", time="day", series="id", future="k")


def test_covariates_come_as_an_array_or_as_a_table() -> None:
    expected = [[[7.0], [8.0]]]
    for future in ([7.0, 8.0], [[7.0], [8.0]], {"day": DAYS[4:], "k": [7.0, 8.0]}):
        ahead = known_ahead(past(), 2, future)
        assert ahead is not None and ahead.tolist() == expected


def test_rows_before_the_forecast_are_left_out() -> None:
    ahead = known_ahead(past(), 2, {"day": DAYS, "k": np.arange(6.0)})
    assert ahead is not None and ahead.tolist() == [[[4.0], [5.0]]]


@pytest.mark.parametrize(
    ("future", "message"),
    [
        (None, "future is missing: the forecast needs the next 2 rows of the future covariates k"),
        ([[1.0]], r"future has shape \(1, 1\), expected \(1, 2, 1\)"),
        ([1.0, np.nan], "future holds values that are missing or not finite; k must be known for all 2 steps"),
        ({"day": DAYS[4:5], "k": [1.0]}, "future has 1 rows .* after its last time, the forecast needs 2"),
        ({"day": DAYS[4:] + pd.Timedelta(days=1), "k": [1.0, 2.0]}, "is at 2024-01-06.*, expected 2024-01-05"),
    ],
)
def test_covariates_that_do_not_follow(future: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        known_ahead(past(), 2, future)


def test_series_without_known_covariates_take_none() -> None:
    assert known_ahead(past(future=()), 2, None) is None
    with pytest.raises(DataError, match="the series have no future covariates"):
        known_ahead(past(future=()), 2, [1.0, 2.0])


def test_series_are_matched_by_name() -> None:
    one = panel()
    table = {"id": list("bbaa"), "day": [*DAYS[2:4], *DAYS[2:4]], "k": [3.0, 4.0, 1.0, 2.0]}
    ahead = known_ahead(one, 2, table)
    assert ahead is not None and ahead[:, :, 0].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert places_of(one, one, "future").tolist() == [0, 1]
    with pytest.raises(DataError, match="future has no rows for series 'b'"):
        known_ahead(one, 1, {"id": ["a"], "day": [DAYS[2]], "k": [1.0]})


def test_new_rows_go_on_from_the_last() -> None:
    values, times = new_rows(past(), np.array([[9.0, 1.0], [8.0, 2.0]]))
    assert values[0, :, :2].tolist() == [[9.0, 1.0], [8.0, 2.0]]
    np.testing.assert_array_equal(times[0].astype("datetime64[D]"), DAYS[4:].to_numpy().astype("datetime64[D]"))
    with pytest.raises(DataError, match=r"rows has shape \(1, 3\), expected \(1, n, 2\)"):
        new_rows(past(), np.ones((1, 3)))
