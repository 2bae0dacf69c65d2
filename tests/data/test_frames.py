"""Frames and dicts of columns as sources: names, indices, the first rows, and mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpulstm.data.frames import Source, columns_source, frame_source, mapping_source, need
from gpulstm.errors import DataError


def cells(source: Source, at: int) -> list[Any]:
    return [cell for part in source.read({at: "number"}) for cell in part[at]]


def test_a_frame_gives_its_index_and_its_columns() -> None:
    frame = pd.DataFrame({"y": [1.0, 2.0]}, index=pd.Index([10, 20], name="t"))
    source = frame_source(frame)
    names, values = source.names, {name: cells(source, at) for at, name in enumerate(source.names)}
    assert [names[at] for at in source.index] == ["t"]
    assert values == {"t": [10, 20], "y": [1.0, 2.0]}


def test_the_usual_index_is_none() -> None:
    source = frame_source(pd.DataFrame({"y": [1.0, 2.0]}))
    assert source.names == ["y"] and source.index == ()


def test_a_series_is_a_column() -> None:
    source = frame_source(pd.Series([1.0, 2.0], name="y"))
    assert "y" in source.names


def test_frames_of_polars_and_arrow() -> None:
    import polars as pl
    import pyarrow as pa

    for data in (pl.DataFrame({"a": [1, 2]}), pa.table({"a": [1, 2]}), pl.DataFrame({"a": [1, 2]}).lazy()):
        source = frame_source(data)
        assert source.names == ["a"] and [int(cell) for cell in cells(source, 0)] == [1, 2]


def test_a_dict_of_columns() -> None:
    source = mapping_source({"a": [1, 2], 3: np.array([1.5, 2.5])}, "auto")
    assert source.names == ["a", "3"] and cells(source, 1) == [1.5, 2.5]
    with pytest.raises(DataError, match="columns of the dict have different lengths"):
        mapping_source({"a": [1, 2], "b": [1]}, "auto")
    with pytest.raises(DataError, match=r"column 'a' has shape \(2, 2\), expected \(rows,\)"):
        mapping_source({"a": np.ones((2, 2))}, "auto")


def test_a_dict_of_series_is_a_panel() -> None:
    days = pd.date_range("2024-01-01", periods=2, name="day")
    source = mapping_source({"x": pd.Series([1.0, 2.0], days), "y": pd.Series([3.0, 4.0], days)}, "auto")
    assert [source.names[at] for at in source.index] == ["series", "day"]
    assert cells(source, source.names.index("series")) == ["x", "x", "y", "y"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pd.DataFrame({"y": []}), "has no rows"),
        (pd.DataFrame(index=pd.RangeIndex(3)), "has no columns"),
        (object(), "the series came as object, expected a path, a frame"),
    ],
)
def test_what_cannot_be_a_source(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        frame_source(data)


def test_a_column_is_found_by_its_name() -> None:
    assert need("b", ["a", "b"], "the frame") == 1
    with pytest.raises(DataError, match="the frame has no column 'vlaue'; the nearest are: 'value'"):
        need("vlaue", ["time", "value"], "the frame")
    with pytest.raises(DataError, match="the frame has two columns named 'a'; rename one"):
        need("a", ["a", "a"], "the frame")


def test_rows_are_named_as_their_source_counts_them() -> None:
    source = columns_source([pd.Series([1])], ["a"], "x.csv", word="row", first=2)
    assert source.row_names(100)(3) == "row 105"
