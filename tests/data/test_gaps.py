"""Rows in order, each time once, and a row for every time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpulstm.data.loading import load_series
from gpulstm.errors import DataError

DAYS = pd.date_range("2024-01-01", periods=12)


def table(rows: list[int], **columns: Any) -> dict[str, Any]:
    return {"day": DAYS[rows], "y": np.array(rows, dtype=float), **columns}


def test_rows_in_any_order_are_sorted_and_said() -> None:
    series = load_series(table([3, 1, 0, 2]))
    np.testing.assert_array_equal(series.values[:, 0], [0, 1, 2, 3])
    assert "position 1 is the first that is earlier than the row before it (2 such)" in series.notes[-1]
    long = load_series(
        {"id": ["a", "b"] * 3, "day": DAYS[[0, 0, 1, 1, 2, 2]], "y": np.arange(6.0)}, series="id", target="y"
    )
    np.testing.assert_array_equal(long.series(1)[:, 0], [1, 3, 5])
    assert not any("sorted" in note for note in long.notes)  # series one below another are in order


def test_missing_rows_are_put_in_and_masked() -> None:
    series = load_series(table([0, 1, 3, 7, 8, 9, 10, 11]))
    expected = np.arange(12.0)
    expected[[2, 4, 5, 6]] = np.nan
    np.testing.assert_array_equal(series.values[:, 0], expected)
    np.testing.assert_array_equal(series.time, DAYS.to_numpy())
    assert series.notes[-2:] == (
        "4 rows were missing and put in (2 gaps at 2024-01-03, 2024-01-05; the longest has 3 from 2024-01-05)",
        "missing rows: carried forward in the input, masked in the loss",
    )
    np.testing.assert_array_equal(series.filled()[:, 0], [0, 1, 1, 3, 3, 3, 3, 7, 8, 9, 10, 11])
    assert series.observed is not None and series.observed.sum() == 8


def test_absent_rows_of_a_table_of_events_are_zero() -> None:
    series = load_series(table([0, 11]), missing="zero", freq="D")
    np.testing.assert_array_equal(series.filled()[:, 0], [0] * 11 + [11])
    assert series.observed is None


def test_mostly_gaps_are_refused() -> None:
    with pytest.raises(DataError, match=r"mostly gaps: its 3 rows are 25 % .* missing='zero'"):
        load_series(table([0, 1, 11]))
    with pytest.raises(DataError, match=r"mostly gaps: 75 % of the values of y"):
        load_series({"day": DAYS, "y": np.where(np.arange(12) % 4, np.nan, 1.0)})
    assert load_series(table([0, 1, 11]), missing="forward").rows == 12
    numbered = load_series(table([0, 1, 11]), time="none")
    assert numbered.rows == 3 and numbered.time is None
    assert load_series(table([3, 7]), like=numbered).time is None
    with pytest.raises(DataError, match=r"10 rows were missing .*; missing='auto' would mask them"):
        load_series(table([0, 11]), missing="refuse", freq="D")


@pytest.mark.parametrize(
    ("rule", "expected"), [("first", [0, 1, 5]), ("last", [0, 3, 5]), ("mean", [0, 2, 5]), ("sum", [0, 6, 5])]
)
def test_duplicates(rule: str, expected: list[float]) -> None:
    data = {"day": DAYS[[0, 1, 1, 1, 2]], "y": [0.0, 1, np.nan if rule in ("mean", "sum") else 2, 3, 5]}
    if rule == "sum":
        data["y"][2] = 2.0
    np.testing.assert_array_equal(load_series(data, duplicates=rule).values[:, 0], expected)
    with pytest.raises(DataError, match=r"position 2 of the dict has the time 2024-01-02 of position 1 .* \(2 such\)"):
        load_series(data)


def test_a_panel_tells_itself() -> None:
    data = {"shop": ["a"] * 12 + ["b"] * 12, "day": DAYS.append(DAYS), "y": np.arange(24.0)}
    with pytest.raises(DataError, match="column 'shop' tells the series apart; say series='shop'"):
        load_series(data)
    guessed = load_series(data, guess=True)
    assert guessed.names == ("a", "b")
    assert "taken as series=..." in guessed.notes[0]
    items = {**data, "item": [1, 2] * 12, "day": np.repeat(DAYS.to_numpy(), 2)}
    items["shop"] = (["a"] * 2 + ["b"] * 2) * 6
    assert load_series({**items, "day": np.repeat(DAYS[:6].to_numpy(), 4)}, guess=True).names[:2] == ("a/1", "a/2")


def test_uneven_rows_are_taken_as_even() -> None:
    rng = np.random.default_rng(1)
    time = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.cumsum(60 + rng.integers(-5, 6, 100)), "s")
    series = load_series({"t": time, "y": np.arange(100.0)})
    assert series.rows == 100
    assert any("not evenly spaced" in note for note in series.notes)


def test_merged_rows_have_the_category_of_the_first() -> None:
    table = {"t": [1, 2, 2, 3], "y": [1.0, 2.0, 4.0, 5.0], "sky": ["a", "b", "c", "a"]}
    series = load_series(table, target="y", past="sky", time="t", duplicates="mean")
    np.testing.assert_array_equal(series.values, [[1, 1, 0, 0], [3, 0, 1, 0], [5, 1, 0, 0]])
