"""Columns as they are read of a source or an array: numbers, categories, times, series."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpulstm.data.columns import Columns, array_columns, read_columns
from gpulstm.data.frames import frame_source
from gpulstm.data.options import TableOptions
from gpulstm.data.roles import decide
from gpulstm.errors import ConfigError, DataError

FRAME = pd.DataFrame(
    {
        "day": pd.date_range("2024-01-01", periods=4),
        "y": ["1", "NA", "3", "4"],
        "kind": list("abac"),
        "id": [1, 1, 2, 2],
    }
)


def read(frame: pd.DataFrame = FRAME, levels: Any = None, **options: Any) -> Columns:
    chosen = TableOptions(**{"target": "y", **options})
    source = frame_source(frame)
    return read_columns(source, decide(source, chosen, ()), chosen, levels)


def test_numbers_and_times_come_in_the_order_of_the_rows() -> None:
    columns = read()
    np.testing.assert_array_equal(columns.values[:, 0], [1.0, np.nan, 3.0, 4.0])
    assert columns.time is not None and len(columns.time) == 4
    assert columns.codes is None and columns.ids == []


def test_categories_are_codes_with_their_levels() -> None:
    columns = read(past="kind")
    assert columns.values[:, 1].tolist() == [0.0, 1.0, 0.0, 2.0]
    assert list(columns.levels.values()) == [("a", "b", "c")]


def test_levels_that_are_known_stay_the_only_ones() -> None:
    columns = read(past="kind", levels={"kind": ("b", "a")})
    np.testing.assert_array_equal(columns.values[:, 1], [1.0, 0.0, 1.0, np.nan])


def test_series_have_codes_and_ids_of_their_own_type() -> None:
    columns = read(series="id")
    assert columns.codes is not None and columns.codes.tolist() == [0, 0, 1, 1]
    assert columns.ids == [(1,), (2,)]


def test_a_cell_that_is_no_number_is_named() -> None:
    frame = FRAME.assign(y=["1", "2", "x", "4"])
    with pytest.raises(DataError, match="column 'y', position 2 of the frame holds 'x', expected a number"):
        read(frame)


@pytest.mark.parametrize("shape", [(6,), (6, 1), (2, 3, 1)])
def test_arrays_are_series_of_numbered_columns(shape: tuple[int, ...]) -> None:
    roles, columns = array_columns(np.arange(6.0).reshape(shape), TableOptions())
    assert columns.values[:, 0].tolist() == list(range(6))
    assert [roles.names[at] for at in roles.targets] == ["0"]
    assert len(columns.ids) == (2 if len(shape) == 3 else 0)


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        (np.ones((1, 2, 3, 4)), {}, DataError, r"the series has shape \(1, 2, 3, 4\), expected \(time,\)"),
        (np.ones(0), {}, DataError, "and at least one value"),
        (np.ones((3, 2)), {"target": 5}, DataError, "no column '5'"),
        (np.ones((3, 2)), {"target": 0, "past": 0}, ConfigError, "two roles"),
    ],
)
def test_arrays_that_are_no_series(data: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        array_columns(data, TableOptions(**options))
