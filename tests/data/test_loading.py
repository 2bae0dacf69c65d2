"""Reading tables: roles, kinds of sources, gaps, and every mistake by name and row."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gpulstm.data.readers
from gpulstm.data.loading import known_ahead, load_series
from gpulstm.data.series import SeriesSet
from gpulstm.errors import ConfigError, DataError

DAYS = np.arange("2024-01-01", "2024-01-07", dtype="datetime64[D]")


@pytest.fixture
def csv_file(tmp_path: Path):
    """Write text to a CSV and give its path."""

    def write(text: str, name: str = "t.csv", encoding: str = "utf-8") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding=encoding, newline="")
        return path

    return write


def test_csv_roles_and_order(csv_file) -> None:
    path = csv_file("day,b,a,k\n2024-01-01,1,10,5\n2024-01-02,2,20,6\n")
    series = load_series(path, target="a", past="b", future=["k"], time="day", calendar="weekly")
    assert series.columns == ("a", "b", "k", "weekly_sin", "weekly_cos")
    assert (series.targets, series.past, series.future) == (1, 1, 3)
    np.testing.assert_array_equal(series.values[:, :3], [[10, 1, 5], [20, 2, 6]])
    np.testing.assert_array_equal(series.time, DAYS[:2].astype("datetime64[us]"))
    np.testing.assert_allclose(series.values[0, 3:], [0, 1], atol=1e-15)  # 2024-01-01 was a Monday


def test_default_target_is_what_has_no_other_role(csv_file) -> None:
    path = csv_file("t,x,y\n1,2,3\n2,4,5\n")
    assert load_series(path, time="t").target_names == ("x", "y")
    assert load_series(path, time="t", past="x").target_names == ("y",)


@pytest.mark.parametrize("delimiter", [";", "\t", "|", ","])
def test_delimiter_is_found(csv_file, delimiter: str) -> None:
    text = "a,b\n1.5,2\n3,4e2\n".replace(",", delimiter)
    np.testing.assert_array_equal(load_series(csv_file(text)).values, [[1.5, 2], [3, 400]])


def test_csv_byte_order_mark_quotes_and_blank_end(csv_file) -> None:
    path = csv_file('"a","b, c"\r\n1,"2"\r\n3,4\r\n\r\n\r\n', encoding="utf-8-sig")
    series = load_series(path)
    assert series.columns == ("a", "b, c")
    np.testing.assert_array_equal(series.values, [[1, 2], [3, 4]])


def test_csv_in_several_chunks(csv_file, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpulstm.data.readers, "_CHUNK", 3)
    rows = "".join(f"2024-01-{day:02},{name},{day}\n" for name in "xy" for day in range(1, 12))
    series = load_series(csv_file("t,id,v\n" + rows + "\n"), time="t", series="id")
    assert series.names == ("x", "y")
    np.testing.assert_array_equal(series.values[:, 0], [*range(1, 12), *range(1, 12)])
    bad = rows.replace("2024-01-09,y,9", "2024-01-09,y,nine")
    with pytest.raises(DataError, match=r"column 'v', row 21 .* 'nine'"):
        load_series(csv_file("t,id,v\n" + bad), time="t", series="id")


def test_csv_memory_is_bounded(csv_file) -> None:
    rows = 200_000
    path = csv_file("v,w\n" + "".join(f"{row},{row}.5\n" for row in range(rows)))
    tracemalloc.start()
    series = load_series(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert series.rows == rows
    assert peak < 40e6  # as Python strings the cells alone would take over 20 MB more: 400,000 x 55 bytes


def test_long_format_interleaved_series_are_grouped(csv_file) -> None:
    path = csv_file("t,id,v\n1,b,10\n1,a,20\n2,b,11\n2,a,21\n3,b,12\n")
    series = load_series(path, time="t", series="id")
    assert series.names == ("b", "a")
    np.testing.assert_array_equal(series.offsets, [0, 3, 5])
    np.testing.assert_array_equal(series.series(0)[:, 0], [10, 11, 12])
    np.testing.assert_array_equal(series.series(1)[:, 0], [20, 21])
    np.testing.assert_array_equal(series.time_of(1), [1, 2])


def test_tails_keep_the_numbers_of_their_rows(rng) -> None:
    series = load_series(rng.normal(size=(2, 6, 1)))
    tail = series.tail(np.array([3, 10]))
    np.testing.assert_array_equal(tail.offsets, [0, 3, 5])
    np.testing.assert_array_equal(tail.values, series.values[[3, 4, 5, 10, 11]])
    np.testing.assert_array_equal(tail.time, [3, 4, 5, 4, 5])
    np.testing.assert_array_equal(tail.extended(2).time, [3, 4, 5, 6, 7, 4, 5, 6, 7])


def frames() -> list[object]:
    columns = {"when": DAYS, "y": [1.0, 2, 3, 4, 5, 6], "z": [6, 5, 4, 3, 2, 1]}
    return [
        pytest.param(pd.DataFrame(columns), id="pandas"),
        pytest.param(pl.DataFrame(columns), id="polars"),
        pytest.param(pa.table(columns), id="pyarrow"),
        pytest.param(columns, id="dict"),
    ]


@pytest.mark.parametrize("frame", frames())
def test_frames_of_every_library(frame: object) -> None:
    series = load_series(frame, target="y", past="z", time="when")
    np.testing.assert_array_equal(series.values, np.stack([np.arange(1.0, 7), np.arange(6, 0, -1)], axis=1))
    np.testing.assert_array_equal(series.time, DAYS.astype("datetime64[us]"))


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": ["a", "a", "b"], "y": [1, None, 3], "unused": ["x", "y", "z"]}), path)
    series = load_series(path, target="y", series="id", missing="mask")
    np.testing.assert_array_equal(series.values[:, 0], [1, np.nan, 3])
    assert series.names == ("a", "b")
    with pytest.raises(DataError, match=r"column 'y' of t\.parquet has 1 missing value, the first in position 1"):
        load_series(path, target="y", series="id")


def test_pandas_index_of_times_and_series() -> None:
    index = pd.date_range("2024-01-31", periods=4, freq="ME")
    series = load_series(pd.Series([1.0, 2, 3, 4], index=index, name="sales"))
    assert series.columns == ("sales",)
    np.testing.assert_array_equal(series.time, index.to_numpy().astype("datetime64[us]"))
    longer = series.extended(3)
    np.testing.assert_array_equal(
        longer.time[-3:], np.array(["2024-05-31", "2024-06-30", "2024-07-31"], dtype="datetime64[us]")
    )


def test_time_zones_become_utc() -> None:
    times = pd.date_range("2024-03-31", periods=3, freq="h", tz="Europe/Berlin")
    series = load_series(pd.DataFrame({"t": times, "y": [1.0, 2, 3]}), time="t")
    assert str(series.time[0]).startswith("2024-03-30T23:00:00")
    text = load_series({"t": ["2024-01-01T01:00:00+01:00", "2024-01-01T01:00:00Z"], "y": [1.0, 2]}, time="t")
    np.testing.assert_array_equal(text.time, np.array(["2024-01-01T00", "2024-01-01T01"], dtype="datetime64[us]"))


@pytest.mark.parametrize(
    ("shape", "series", "columns"), [((5,), 1, ("0",)), ((5, 2), 1, ("0", "1")), ((3, 5, 2), 3, ("0", "1"))]
)
def test_arrays(rng, shape: tuple[int, ...], series: int, columns: tuple[str, ...]) -> None:
    array = rng.normal(size=shape)
    loaded = load_series(array)
    assert (len(loaded), loaded.columns) == (series, columns)
    np.testing.assert_array_equal(loaded.values.ravel(), array.ravel())
    assert load_series(loaded) is loaded


def test_masked_cells_are_missing() -> None:
    series = load_series(np.ma.array([1, 2, 3], mask=[0, 1, 0]), missing="forward")
    np.testing.assert_array_equal(series.values[:, 0], [1, np.nan, 3])


NULLABLE = [
    pytest.param(pd.DataFrame({"a": pd.array([1, None, 3], dtype="Int64")}), id="Int64"),
    pytest.param(pd.DataFrame({"a": pd.array([1, None, 3], dtype="int64[pyarrow]")}), id="pandas on pyarrow"),
    pytest.param(pd.DataFrame({"a": [1, None, "3"]}, dtype=object), id="object"),
    pytest.param(pl.DataFrame({"a": [1, None, 3]}), id="polars"),
    pytest.param(pa.table({"a": pa.array([1, None, 3], pa.int8())}), id="pyarrow"),
]


@pytest.mark.parametrize("frame", NULLABLE)
def test_nulls_of_every_kind_are_missing(frame: object) -> None:
    np.testing.assert_array_equal(load_series(frame, missing="forward").values[:, 0], [1, np.nan, 3])


def test_array_columns_by_number(rng) -> None:
    array = rng.normal(size=(5, 3))
    loaded = load_series(array, target=2, past=[0])
    np.testing.assert_array_equal(loaded.values, array[:, [2, 0]])


def gaps(rule: str) -> SeriesSet:
    nan = np.nan
    return load_series(np.array([nan, 1, nan, nan, 4, nan, 6, nan]), missing=rule)


def test_filling_rules() -> None:
    np.testing.assert_array_equal(gaps("interpolate").filled()[:, 0], [1, 1, 2, 3, 4, 5, 6, 6])
    np.testing.assert_array_equal(gaps("forward").filled()[:, 0], [1, 1, 1, 1, 4, 4, 6, 6])
    np.testing.assert_array_equal(gaps("mask").filled()[:, 0], [1, 1, 1, 1, 4, 4, 6, 6])
    assert np.isnan(gaps("mask").values).sum() == 5  # the raw values stay


def test_filling_does_not_look_across_a_cut() -> None:
    series = gaps("interpolate")
    np.testing.assert_array_equal(series.filled([np.array([3])])[:, 0], [1, 1, 1, 2.5, 4, 5, 6, 6])
    changed = series.values.copy()
    changed[4:] = 100
    other = load_series(changed[:, 0], missing="interpolate")
    np.testing.assert_array_equal(series.filled([np.array([3])])[:3], other.filled([np.array([3])])[:3])


def extend(series: SeriesSet, count: int, future: Any = None) -> SeriesSet:
    return series.extended(count, known_ahead(series, count, future))


def test_extension_with_future_covariates() -> None:
    data = {"t": DAYS[:3], "y": [1.0, 2, 3], "k": [7.0, 8, 9]}
    series = load_series(data, target="y", future="k", time="t", calendar=("weekly",))
    longer = extend(series, 2, {"t": DAYS[3:6], "k": [1.0, 2, 3]})
    assert longer.rows == 5
    assert np.isnan(longer.values[3:, 0]).all()
    np.testing.assert_array_equal(longer.values[3:, 1], [1, 2])
    assert np.isfinite(longer.values[3:, 2:]).all()
    np.testing.assert_array_equal(longer.time, DAYS[:5].astype("datetime64[us]"))
    np.testing.assert_array_equal(extend(series, 2, np.array([1.0, 2])).values, longer.values)
    with pytest.raises(DataError, match="future is missing"):
        extend(series, 2)
    with pytest.raises(DataError, match="expected 2024-01-04"):
        extend(series, 2, {"t": DAYS[4:6], "k": [1.0, 2]})
    with pytest.raises(DataError, match="has 1 rows for series 'series', the forecast needs 2"):
        extend(series, 2, {"t": DAYS[3:4], "k": [1.0]})
    with pytest.raises(DataError, match=r"future has shape \(1, 1\), expected \(1, 2, 1\)"):
        extend(series, 2, np.ones((1, 1)))
    with pytest.raises(DataError, match="missing or not finite"):
        extend(series, 2, np.array([1.0, np.nan]))
    with pytest.raises(DataError, match="no future covariates besides"):
        extend(load_series(np.ones(4)), 2, np.ones(2))


MISTAKES = {  # text of the file, arguments, what the message must say
    "no file": (None, {}, "there is no file"),
    "empty file": ("", {}, "is empty"),
    "no rows": ("a,b\n", {}, "has no rows below"),
    "ragged row": ("a,b\n1,2\n3\n", {}, "row 3 of t.csv has 1 cells, expected 2"),
    "blank row inside": ("a,b\n1,2\n\n3,4\n", {}, "row 3 of t.csv has 0 cells, expected 2"),
    "twice the same name": ("a,a\n1,2\n", {}, "two columns named 'a'"),
    "column without a name": ("a,,b\n1,2,3\n", {}, "column 2 of t.csv has no name"),
    "text cell": ("a,b\n1,2\n3,x4\n", {}, "column 'b', row 3 of t.csv holds 'x4', expected a number"),
    "underscore": ("a\n1_000\n", {}, "holds '1_000', expected a number"),
    "missing": ("a,b\n1,\n2,3\n4,NA\n", {}, "column 'b' of t.csv has 2 missing values, the first in row 2"),
    "infinite": ("a\n1\ninf\n", {}, "column 'a', row 3 of t.csv is infinite"),
    "no such column": ("temperature,b\n1,2\n", {"target": "temprature"}, "nearest are: 'temperature'"),
    "no such time": ("a,b\n1,2\n", {"time": "t"}, "no column 't'"),
    "two roles": ("a,b\n1,2\n", {"target": "a", "past": "a"}, "'a' is given two roles"),
    "nothing to forecast": ("t\n1\n", {"time": "t"}, "no column left to forecast"),
    "time repeats": (
        "t,a\n2024-01-01,2\n2024-01-01,3\n",
        {"time": "t"},
        "row 3 of t.csv holds 2024-01-01, which repeats",
    ),
    "time goes back": ("t,a\n5,2\n4,3\n", {"time": "t"}, "holds 4, which is earlier than 5 in row 2"),
    "no series named": ("t,s,a\n1,x,2\n1,y,3\n", {"time": "t", "target": "a"}, "name the column of the series"),
    "time repeats in a series": (
        "t,s,a\n1,x,2\n1,y,3\n1,x,4\n",
        {"time": "t", "series": "s"},
        "row 4 of t.csv of series 'x' holds 1, which repeats 1 in row 2",
    ),
    "no time": (
        "t,a\n2024-01-01,2\nsoon,3\n",
        {"time": "t"},
        "row 3 of t.csv holds 'soon', expected a number or an ISO",
    ),
    "time missing": ("t,a\n2024-01-01,2\n,3\n", {"time": "t"}, "row 3 of t.csv holds ''"),
    "time not finite": ("t,a\n1,2\nnan,3\n", {"time": "t"}, "row 3 of t.csv is missing or not finite"),
    "series missing": ("s,a\n,2\n", {"series": "s"}, "row 2 of t.csv is empty, expected the name of a series"),
    "calendar of numbers": ("t,a\n1,2\n2,3\n", {"time": "t", "calendar": "weekly"}, "it holds numbers"),
    "calendar without time": ("a\n2\n3\n", {"calendar": "weekly"}, "calendar needs a time column"),
    "unknown calendar": ("t,a\n1,2\n", {"time": "t", "calendar": "moon"}, "calendar has 'moon'"),
    "unknown rule": ("a\n2\n", {"missing": "drop"}, "missing is 'drop'"),
    "masked future": ("a,k\n1,\n2,3\n", {"future": "k", "missing": "mask"}, "'mask' covers targets and past"),
    "quote never closed": ('a,b\n1,"2\n' + "x" * 200_000, {}, "cannot be read as CSV"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_a_file(mistake: str, csv_file, tmp_path: Path) -> None:
    text, arguments, message = MISTAKES[mistake]
    path = tmp_path / "absent.csv" if text is None else csv_file(text)
    with pytest.raises((DataError, ConfigError)) as caught:
        load_series(path, **arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mistakes_in_other_sources(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        load_series(tmp_path)
    other = tmp_path / "t.xlsx"
    other.write_bytes(b"PK")
    with pytest.raises(DataError, match=r"ends in '\.xlsx', expected \.csv"):
        load_series(other)
    latin = tmp_path / "t.csv"
    latin.write_bytes(b"a\n1\n" + b"\xe9\n")
    with pytest.raises(DataError, match="is not UTF-8"):
        load_series(latin)
    broken = tmp_path / "t.parquet"
    broken.write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        load_series(broken)
    with pytest.raises(DataError, match="different lengths"):
        load_series({"a": [1, 2], "b": [1]})
    with pytest.raises(DataError, match=r"shape \(1, 1, 1, 1\)"):
        load_series(np.ones((1, 1, 1, 1)))
    with pytest.raises(DataError, match="at least one value"):
        load_series(np.ones((0, 2)))
    with pytest.raises(DataError, match="real numbers"):
        load_series(np.array(["a"]))
    clash = pd.DataFrame({"d": [1.0]}, index=pd.DatetimeIndex(["2024-01-01"], name="d"))
    with pytest.raises(DataError, match="a column 'd' and a time index of that name"):
        load_series(clash)
    with pytest.raises(DataError, match="came as object"):
        load_series(object())
    with pytest.raises(DataError, match="no array of numbers"):
        load_series([[1, 2], [3]])
    with pytest.raises(DataError, match="has no rows"):
        load_series(pd.DataFrame({"a": []}))
    with pytest.raises(DataError, match="two columns named 'a'"):
        load_series(pd.DataFrame([[1, 2]], columns=["a", "a"]))
    with pytest.raises(DataError, match="column 'a', position 1 of the frame holds 'x'"):
        load_series(pl.DataFrame({"a": ["1", "x"]}))
    with pytest.raises(DataError, match="has no value at all"):
        load_series(np.array([[1.0, np.nan], [2.0, np.nan]]), missing="forward").filled()


@pytest.mark.cuda
def test_an_array_on_a_device_is_not_moved_silently() -> None:
    import gpulstm.arrays.backend

    array = gpulstm.arrays.devices.to_device(np.ones(5), "cuda")
    with pytest.raises(DataError, match=r"gpulstm\.to_host"):
        load_series(array)
