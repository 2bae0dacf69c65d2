"""Where tables come from: text in every dialect, packed files, workbooks, Parquet, frames of every library."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpulstm.data import table_files
from gpulstm.data.csv_dialect import find_dialect
from gpulstm.data.loading import load_series
from gpulstm.errors import ConfigError, DataError

PLAIN = "day,temp,wind\n2024-01-01,1.5,2\n2024-01-02,3,4\n2024-01-03,,6\n"
VALUES = np.array([[1.5, 2.0], [3.0, 4.0], [np.nan, 6.0]])


def check(series: Any) -> None:
    np.testing.assert_array_equal(series.values, VALUES)
    np.testing.assert_array_equal(series.time, np.array(["2024-01-01", "2024-01-02", "2024-01-03"], "M8[us]"))


def write(folder: Path, text: str, name: str = "t.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("sep", list(",;\t|"))
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_text_of_every_dialect(sep: str, encoding: str, end: str, tmp_path: Path) -> None:
    text = PLAIN.replace("temp", "Température").replace(",", sep).replace("\n", end)
    series = load_series(write(tmp_path, text, encoding=encoding))
    check(series)
    assert series.columns == ("Température", "wind")


def test_a_byte_that_is_no_utf_8_far_down(tmp_path: Path) -> None:
    rows = "".join(f"{row},x\n" for row in range(60_000))
    path = tmp_path / "t.csv"
    path.write_bytes(("n,note\n" + rows).encode() + b"60000,\xe9\n")
    series = load_series(path, target="n", past="note")
    assert series.rows == 60_001
    assert series.columns == ("n", "note=x", "note=é")
    assert "t.csv is read as cp1252" in series.notes


@pytest.mark.parametrize("arrow", [True, False])
@pytest.mark.parametrize("first", ["10001", "A1"])
def test_ids_with_zeros_in_front_stay_as_they_are(
    first: str, arrow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the first rows hold none of them, and where pandas reads a part of the column as numbers."""
    monkeypatch.setattr(table_files, "CHUNK", 1500)
    with pd.option_context("mode.string_storage", "pyarrow" if arrow else "python"):
        body = "".join(f"{code},{row},1\n" for code in (first, "02134", "2134") for row in range(1500))
        series = load_series(write(tmp_path, "zip,t,y\n" + body), series="zip", time="t")
    assert series.names == (first, "02134", "2134")


PACKED = {
    "t.csv.gz": lambda path, data: path.write_bytes(gzip.compress(data)),
    "t.csv.bz2": lambda path, data: path.write_bytes(bz2.compress(data)),
    "t.csv.xz": lambda path, data: path.write_bytes(lzma.compress(data)),
}


@pytest.mark.parametrize("name", PACKED)
def test_packed_files(name: str, tmp_path: Path) -> None:
    PACKED[name](tmp_path / name, PLAIN.encode())
    check(load_series(tmp_path / name))
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"t\.csv\.(gz|bz2|xz) cannot be"):
        load_series(tmp_path / name)


def test_archives_of_one_file(tmp_path: Path) -> None:
    path = tmp_path / "t.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inside.csv", PLAIN)
    check(load_series(path))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more.csv", PLAIN)
    with pytest.raises(DataError, match=r"holds 2 files, expected one table: inside\.csv, more\.csv"):
        load_series(path)


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", type("Input", (), {"buffer": io.BytesIO(PLAIN.encode())}))
    check(load_series("-"))


@pytest.mark.parametrize("piped", [True, False])
def test_standard_input_of_a_process(piped: bool, tmp_path: Path) -> None:
    path = write(tmp_path, PLAIN)
    code = "from gpulstm.data import load_series; print(load_series('-').values.tolist())"
    with open(path, "rb") as file:
        stream: Any = {"input": file.read()} if piped else {"stdin": file}
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, **stream)
    assert run.stdout.decode().strip() == str(VALUES.tolist())


NUMBERS = {  # cells -> decimal and thousands mark, and the numbers
    ("20,7", "1,25"): (",", None, (20.7, 1.25)),
    ("1.207,5", "3,25"): (",", ".", (1207.5, 3.25)),
    ("1,207.5", "3.25"): (".", ",", (1207.5, 3.25)),
    ("1,207,300", "5"): (".", ",", (1207300, 5)),
    ("1.207.300", "5"): (",", ".", (1207300, 5)),
    ("1 207,5", "3,25"): (",", " ", (1207.5, 3.25)),
    ("1'207.5", "3.25"): (".", "'", (1207.5, 3.25)),
    ("1,207", "3.5"): (".", ",", (1207, 3.5)),
    ("1.207", "3.5"): (".", None, (1.207, 3.5)),
}


@pytest.mark.parametrize("cells", NUMBERS, ids=" ".join)
def test_marks_in_numbers(cells: tuple[str, str], tmp_path: Path) -> None:
    decimal, thousands, values = NUMBERS[cells]
    text = "a;b\n" + "".join(f"{cell};x\n" for cell in cells)
    dialect = find_dialect(text.encode(), True, "t.csv", None, (None, None), None)
    assert (dialect.decimal, dialect.thousands) == (decimal, thousands)
    np.testing.assert_array_equal(load_series(write(tmp_path, text), target="a").values[:, 0], values)


def test_three_digits_after_every_comma(tmp_path: Path) -> None:
    english = load_series(write(tmp_path, 'a,b\n"1,207",1\n"1,179",2\n'), target="a")
    np.testing.assert_array_equal(english.values[:, 0], [1207, 1179])
    other = load_series(write(tmp_path, "a;b\n1,207;1\n1,179;2\n"), target="a")
    np.testing.assert_array_equal(other.values[:, 0], [1.207, 1.179])
    tabs = write(tmp_path, "a\tb\n1,207\t1\n1,179\t2\n")
    with pytest.raises(DataError, match=r"'1,207' is 1\.207 or 1207; say decimal=',' or thousands=','"):
        load_series(tabs, target="a")
    np.testing.assert_array_equal(load_series(tabs, target="a", thousands=",").values[:, 0], [1207, 1179])
    np.testing.assert_array_equal(load_series(tabs, target="a", decimal=",").values[:, 0], [1.207, 1.179])


def test_a_thousands_mark_leaves_dates_alone(tmp_path: Path) -> None:
    path = write(tmp_path, "d;a\n13.01.2024;1.207,5\n14.01.2024;1.208,5\n")
    series = load_series(path)
    np.testing.assert_array_equal(series.time, np.array(["2024-01-13", "2024-01-14"], "M8[us]"))
    np.testing.assert_array_equal(series.values[:, 0], [1207.5, 1208.5])


def test_names_of_rows_that_pandas_and_r_write(tmp_path: Path) -> None:
    for text in (",day,y\n0,2024-01-01,5\n1,2024-01-02,6\n", '"","day","y"\n"1",2024-01-01,5\n"2",2024-01-02,6\n',
                 '"day","y"\n"1","2024-01-01",5\n"2","2024-01-02",6\n'):  # fmt: skip
        assert load_series(write(tmp_path, text)).columns == ("y",)
    indexed = load_series(write(tmp_path, ",y,z\n2024-01-01,5,1\n2024-01-02,6,2\n"))
    assert indexed.columns == ("y", "z")
    assert indexed.labels.time_name == "time"


def test_unused_columns_are_not_in_the_way(tmp_path: Path) -> None:
    text = 'day,a,a,"re\nmark",y\n2024-01-01,x,,"two\nlines",5\n2024-01-02,,z,"",6\n'
    np.testing.assert_array_equal(load_series(write(tmp_path, text), target="y").values[:, 0], [5, 6])
    with pytest.raises(DataError, match="two columns named 'a'"):
        load_series(write(tmp_path, text), target="a")


def test_workbooks(tmp_path: Path) -> None:
    frame = pd.DataFrame({"day": pd.date_range("2024-01-01", periods=3), "temp": VALUES[:, 0], "wind": VALUES[:, 1]})
    with pd.ExcelWriter(tmp_path / "t.xlsx") as book:
        frame.assign(temp=0).to_excel(book, sheet_name="other", index=False)
        frame.to_excel(book, sheet_name="real", index=False)
    check(load_series(tmp_path / "t.xlsx", sheet="real"))
    check(load_series(tmp_path / "t.xlsx", sheet=1))
    assert load_series(tmp_path / "t.xlsx").values[0, 0] == 0
    with pytest.raises(DataError, match="cannot be read as a workbook"):
        load_series(tmp_path / "t.xlsx", sheet="absent")
    (tmp_path / "broken.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match="cannot be read as a workbook"):
        load_series(tmp_path / "broken.xlsx")


def frames() -> list[Any]:
    days = np.arange("2024-01-01", "2024-01-04", dtype="M8[D]")
    columns = {"day": days, "temp": [1.5, 3.0, None], "wind": [2, 4, 6]}
    pandas = pd.DataFrame({**columns, "day": days.astype("M8[us]"), "temp": VALUES[:, 0]})
    return [
        pytest.param(pandas, id="pandas"),
        pytest.param(pandas.set_index("day"), id="index"),
        pytest.param(pandas.set_index("day").rename_axis(None), id="index without a name"),
        pytest.param(pandas.astype({"wind": "Int64", "temp": "Float64"}), id="nullable"),
        pytest.param(pandas.astype({"wind": "category"}), id="category"),
        pytest.param(pl.DataFrame(columns), id="polars"),
        pytest.param(pa.table(columns), id="pyarrow"),
        pytest.param({**columns, "temp": VALUES[:, 0]}, id="dict"),
        pytest.param({**columns, "temp": [1.5, 3.0, None]}, id="dict with None"),
    ]


@pytest.mark.parametrize("frame", frames())
def test_frames_of_every_library(frame: Any) -> None:
    check(load_series(frame))


@pytest.mark.parametrize("frame", frames()[:6])
def test_files_and_frames_agree(frame: Any, tmp_path: Path) -> None:
    pandas = frame.to_pandas() if isinstance(frame, pl.DataFrame) else frame
    pandas.to_parquet(tmp_path / "t.parquet")
    check(load_series(tmp_path / "t.parquet"))
    pandas.reset_index(drop="day" in pandas).to_csv(tmp_path / "t.csv", index=False)
    check(load_series(tmp_path / "t.csv"))


def test_polars_needs_no_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    check(load_series(frames()[5].values[0]))


def test_parquet_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpulstm.data.table_files._BATCH", 4)
    days = np.arange("2024-01-01", "2024-01-12", dtype="M8[D]").astype("M8[us]")
    table = {"day": days, "y": np.arange(11), "shop": ["a"] * 6 + ["b"] * 5, "text": [str(n) for n in range(11)]}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    read = load_series(tmp_path / "t.parquet", target=["y", "text"], time="day", series="shop")
    np.testing.assert_array_equal(read.values, np.stack([np.arange(11)] * 2, axis=1))
    assert read.names == ("a", "b") and read.offsets.tolist() == [0, 6, 11]
    table["text"][9] = "x"
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"column 'text', position 9 of t\.parquet holds 'x', expected a number"):
        load_series(tmp_path / "t.parquet", target="text")


MISTAKES: dict[str, tuple[str | None, dict[str, Any], str]] = {  # text of the file, options, what the message says
    "no file": (None, {}, "there is no file"),
    "empty file": ("", {}, "is empty"),
    "no rows": ("a,b\n", {}, "has no rows below"),
    "too many cells": ("a,b\n1,2\n3,4,5\n", {}, "row 3 of t.csv has 3 cells, expected 2"),
    "text cell": ("a,b\n" + "1,2\n" * 20 + "3,x4\n", {}, "column 'b', row 22 of t.csv holds 'x4', expected a number"),
    "underscore": ("a\n1_000\n", {"target": "a"}, "holds '1_000', expected a number"),
    "infinite": ("a\n1\ninf\n", {}, "column 'a', row 3 of t.csv is infinite"),
    "no such column": ("temperature,b\n1,2\n", {"target": "temprature"}, "nearest are: 'temperature'"),
    "bytes": ("a\n1\n\0\0\0\n", {}, "holds bytes that are no text"),
    "encoding": ("a\n1\n", {"encoding": "utf-99"}, "which Python does not know"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_a_file(mistake: str, tmp_path: Path) -> None:
    text, options, message = MISTAKES[mistake]
    path = tmp_path / "absent.csv" if text is None else write(tmp_path, text)
    with pytest.raises((DataError, ConfigError)) as caught:
        load_series(path, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mistakes_in_other_sources(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        load_series(tmp_path)
    (tmp_path / "t.doc").write_bytes(b"1")
    with pytest.raises(DataError, match=r"ends in '\.doc', expected \.csv"):
        load_series(tmp_path / "t.doc")
    (tmp_path / "t.parquet").write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        load_series(tmp_path / "t.parquet")
    with pytest.raises(DataError, match="different lengths"):
        load_series({"a": [1, 2], "b": [1]})
    with pytest.raises(DataError, match="came as object"):
        load_series(object())
    with pytest.raises(DataError, match="has no rows"):
        load_series(pd.DataFrame({"a": []}))
    with pytest.raises(DataError, match="two columns named 'a'"):
        load_series(pd.DataFrame([[1, 2]], columns=["a", "a"]))
    with pytest.raises(ConfigError, match="sep is"):
        load_series({"a": [1]}, sep=";;")
    with pytest.raises(ConfigError, match="decimal and thousands are both"):
        load_series({"a": [1]}, decimal=",", thousands=",")


@pytest.mark.parametrize("mark", ["\u202f", "\u00a0", "'", "."])
def test_every_mark_between_thousands(mark: str, tmp_path: Path) -> None:
    cells = [f"{mark}".join(("1", "234", f"56{row}")) + ",5" for row in range(9)]
    rows = "".join(f"2024-01-0{row + 1};{cell}\n" for row, cell in enumerate(cells))
    series = load_series(write(tmp_path, "t;y\n" + rows))
    np.testing.assert_array_equal(series.values[:, 0], 1_234_560.5 + np.arange(9))


def test_a_sheet_is_a_name_before_it_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "t.xlsx"
    with pd.ExcelWriter(path) as book:
        for number, name in enumerate(("2024", "1")):
            pd.DataFrame({"n": [1, 2, 3], "y": [number, number, number]}).to_excel(book, sheet_name=name, index=False)
    for sheet, value in (("1", 1), (1, 1), ("0", 0), ("2024", 0), (None, 0)):
        assert load_series(path, target="y", sheet=sheet).values[0, 0] == value


@pytest.mark.parametrize("target", ["y", "z"])
def test_a_row_that_is_too_long_far_down_is_refused(tmp_path: Path, target: str) -> None:
    """A decimal comma in one of many rows moves the cells after it."""
    rows = [f"{hour},{hour % 7},3" for hour in range(40_000)]
    rows[39_000] = "39000,1,5,3"
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["hour,y,z", *rows]) + "\n")
    with pytest.raises(DataError, match=r"table\.csv cannot be read as CSV: Expected 3 fields in line 39002, saw 4"):
        load_series(path, target=target, time="hour")
