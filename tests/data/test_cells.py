"""Cells as numbers and as codes, and arrays that grow."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpulstm.data.cells import Growing, Labels, number_of, plain, to_numbers
from gpulstm.errors import DataError


@pytest.mark.parametrize(
    ("cell", "expected"),
    [("1.5", 1.5), (" 2 ", 2.0), ("true", 1.0), ("False", 0.0), (3, 3.0), (Decimal("0.5"), 0.5), ("1e3", 1000.0)],
)
def test_cells_that_are_numbers(cell: Any, expected: float) -> None:
    assert number_of(cell) == expected


@pytest.mark.parametrize("cell", ["", "NA", "n/a", "NULL", "-", "?", "#DIV/0!", float("nan")])
def test_cells_that_mean_no_value(cell: Any) -> None:
    number = number_of(cell)
    assert number is not None and np.isnan(number)


@pytest.mark.parametrize("cell", ["abc", "1_000", "1,5", "٣", "0x10", "1 000", object(), 1j])
def test_cells_that_are_something_else(cell: Any) -> None:
    assert number_of(cell) is None


def test_a_column_of_text_is_read_as_numbers() -> None:
    column = pd.Series(["1", "NA", "2.5", "1"])
    np.testing.assert_array_equal(to_numbers(column, "a", "the table", str), [1.0, np.nan, 2.5, 1.0])
    assert to_numbers(pd.Series([True, False]), "a", "the table", str).tolist() == [1.0, 0.0]
    nullable = pd.array([1, None], dtype="Int64")
    np.testing.assert_array_equal(to_numbers(pd.Series(nullable), "a", "the table", str), [1.0, np.nan])


def test_the_first_cell_that_is_no_number_is_named() -> None:
    column = pd.Series(["1", "x", "2", "x"])
    with pytest.raises(DataError, match="column 'a', row 1 of the table holds 'x', expected a number"):
        to_numbers(column, "a", "the table", lambda row: f"row {row}")
    with pytest.raises(DataError, match=r"column 'a' of the table holds complex128"):
        to_numbers(pd.Series([1j]), "a", "the table", str)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [(1.0, 1), (np.int64(3), 3), (" a ", "a"), (1.5, 1.5), (True, True), (Decimal("2"), "2")],
)
def test_ids_are_plain_values(cell: Any, expected: Any) -> None:
    value = plain(cell)
    assert value == expected and type(value) is type(expected)


def test_cells_are_numbered_in_the_order_of_their_first_rows() -> None:
    labels = Labels()
    assert labels.codes(pd.Series(["b", "a", "b"])).tolist() == [0, 1, 0]
    assert labels.codes(pd.Series(["c", " a", None, ""])).tolist() == [2, 1, -1, -1]
    assert labels.texts == ["b", "a", "c"]


def test_runs_of_a_long_column_are_numbered_as_its_cells_are() -> None:
    column = pd.Series(np.repeat([7, 3, 7], 500))
    assert Labels().codes(column).tolist() == [0] * 500 + [1] * 500 + [0] * 500


def test_known_texts_stay_the_only_ones() -> None:
    labels = Labels(["x", "y"])
    assert labels.codes(pd.Series(["y", "z", "x"])).tolist() == [1, -1, 0]
    assert labels.texts == ["x", "y"]


def test_whole_numbers_of_a_text_file_become_numbers() -> None:
    labels = Labels()
    labels.codes(pd.Series(["1", "20"]))
    assert labels.typed() == [1, 20]
    labels.codes(pd.Series(["03"]))
    assert labels.typed() == ["1", "20", "03"]


@pytest.mark.parametrize("text", ["--5", "-0", "٣", "9" * 5000, "+1"])
def test_a_text_that_a_number_would_not_give_back_stays_text(text: str) -> None:
    labels = Labels()
    labels.codes(pd.Series(["1", text]))
    assert labels.typed() == ["1", text]


def test_an_array_grows_by_its_parts() -> None:
    grown = Growing(2, np.float64)
    for number, rows in enumerate((3, 1, 40)):
        grown.room(rows)[:] = number
    array = grown.done()
    assert array.shape == (44, 2)
    assert array[:, 0].tolist() == [0.0] * 3 + [1.0] + [2.0] * 40
