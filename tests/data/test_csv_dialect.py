"""How a text file is written, told from its first bytes."""

from __future__ import annotations

from typing import Any

import pytest

from gpulstm.data.csv_dialect import Dialect, find_dialect, find_encoding
from gpulstm.errors import DataError


def dialect(text: str, *, whole: bool = True, **options: Any) -> Dialect:
    marks = options.pop("decimal", None), options.pop("thousands", None)
    data = text.encode(options.get("encoding") or "utf-8")
    return find_dialect(data, whole, "a.csv", options.get("sep"), marks, options.get("encoding"))


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        ("a,b\n1,2\n", "utf-8", "utf-8"),
        ("größe\n1\n", "utf-8", "utf-8"),
        ("größe\n1\n", "utf-8-sig", "utf-8-sig"),
        ("größe\n1\n", "cp1252", "cp1252"),
        ("a,b\n1,2\n", "utf-16", "utf-16"),
        ("a,b\n1,2\n", "utf-16-le", "utf-16-le"),
        ("a,b\n1,2\n", "utf-16-be", "utf-16-be"),
    ],
)
def test_the_encoding_is_told_from_marks_and_zeros(text: str, encoding: str, expected: str) -> None:
    assert find_encoding(text.encode(encoding)) == expected


@pytest.mark.parametrize("mark", list(",;\t|"))
def test_the_separator_cuts_all_rows_alike(mark: str) -> None:
    read = dialect(f"day{mark}a\n1{mark}2\n3{mark}4\n")
    assert (read.sep, read.names) == (mark, ("day", "a"))
    assert read.rows == (("1", "2"), ("3", "4"))


@pytest.mark.parametrize(
    ("rows", "decimal", "thousands"),
    [
        ("1.5;2\n", ".", None),
        ("1,5;2\n", ",", None),
        ("1.234,5;2\n", ",", "."),
        ("1 234,5;2\n", ",", " "),
        ("1,234.5;2\n", ".", ","),
        ("1,234,567;2\n", ".", ","),
        ("1,500;2\n", ",", None),  # between semicolons a comma is decimal
    ],
)
def test_marks_are_told_from_the_numbers(rows: str, decimal: str, thousands: str | None) -> None:
    read = dialect("a;b\n" + rows)
    assert (read.decimal, read.thousands) == (decimal, thousands)


def test_marks_that_were_named_are_taken() -> None:
    assert dialect("a;b\n1,500;2\n", decimal=".", thousands=",").thousands == ","


def test_names_of_rows_and_ends_with_a_separator_make_a_column_without_a_name() -> None:
    assert dialect("a,b\nfirst,1,2\nsecond,3,4\n").names == ("", "a", "b")
    assert dialect("a,b\n1,2,\n3,4,\n").names == ("a", "b", "")


def test_a_row_that_is_cut_off_is_not_judged() -> None:
    assert dialect("a,b\n1,2\n3,4\n5", whole=False).rows == (("1", "2"),)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "a.csv is empty, expected a first row with the names"),
        ("abcdefghijkl\0m,b\n1,2\n", {}, "holds bytes that are no text"),
        ("a,b\n1,2,3\n1,2\n", {}, "row 2 of a.csv has 3 cells, expected 2"),
        ("a\t b\n1,500\t2\n", {}, "can be read in two ways: '1,500' is 1.500 or 1500"),
    ],
)
def test_files_that_cannot_be_told(text: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        dialect(text, **options)


def test_an_encoding_that_python_does_not_know() -> None:
    with pytest.raises(DataError, match="which Python does not know"):
        find_dialect(b"a,b\n", True, "a.csv", None, (None, None), "klingon")
