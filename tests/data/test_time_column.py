"""A column of times that is read part by part: one format for all rows, and rows that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpulstm.data.frames import columns_source
from gpulstm.data.loading import load_series
from gpulstm.data.options import TableOptions
from gpulstm.data.time_column import TimeColumn
from gpulstm.data.times import TimeForm
from gpulstm.errors import DataError


def read(*parts: Any, **options: Any) -> tuple[np.ndarray, TimeForm]:
    columns = [part if isinstance(part, pd.Series) else pd.Series(part) for part in parts]
    source = columns_source([pd.concat(columns, ignore_index=True)], ["day"], "the frame")
    column, done = TimeColumn(source, 0, "day", TableOptions(**options)), 0
    for part in columns:
        column.add(part, source.row_names(done))
        done += len(part)
    return column.done()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["2024-01-31", "2024-02-01"], ["2024-01-31", "2024-02-01"]),
        (["31.01.2024", "01.02.2024"], ["2024-01-31", "2024-02-01"]),
        (pd.to_datetime(["2024-01-31"]), ["2024-01-31"]),
        (pd.period_range("2024-01", periods=2, freq="M"), ["2024-01-01", "2024-02-01"]),
        ([20240131, 20240201], ["2024-01-31", "2024-02-01"]),
    ],
)
def test_dates_of_all_kinds(values: Any, expected: list[str]) -> None:
    time, _ = read(values)
    np.testing.assert_array_equal(time.astype("datetime64[D]"), np.array(expected, "datetime64[D]"))


def test_a_later_row_tells_how_the_first_are_read() -> None:
    time, _ = read(["01.02.2024", "02.02.2024"], ["13.02.2024"])
    assert str(time[0].astype("datetime64[D]")) == "2024-02-01"


def test_times_of_a_zone_are_kept_in_utc() -> None:
    time, form = read(pd.to_datetime(["2024-01-31 10:00"]).tz_localize("Europe/Berlin"))
    assert form.zone == "Europe/Berlin"
    assert str(time[0].astype("datetime64[h]")) == "2024-01-31T09"


def test_numbers_stay_numbers() -> None:
    time, form = read([1, 2], [3])
    assert time.tolist() == [1, 2, 3] and not form.pattern
    seconds, form = read([1_700_000_000, 1_700_003_600])
    assert form.epoch == "s" and seconds.dtype.kind == "i"


@pytest.mark.parametrize(
    ("parts", "options", "message"),
    [
        ((["2024-01-31", None],), {}, "position 1 of the frame is empty"),
        ((["2024-01-31"], ["tomorrow"]), {}, "position 1 of the frame holds 'tomorrow'"),
        ((["01.02.2024", "05.03.2024"],), {}, "can be read in two ways: .* is 2024-02-01 or 2024-01-02"),
        ((["2024-01-31"],), {"time_format": "%d.%m.%Y"}, "holds '2024-01-31', expected the format '%d.%m.%Y'"),
        (([True, False],), {}, "holds bool, expected dates or numbers"),
    ],
)
def test_rows_that_have_no_time(parts: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(*parts, **options)


@pytest.mark.parametrize(
    ("zone", "start", "freq"),
    [
        ("Europe/Berlin", "2024-03-25", "D"),
        ("America/New_York", "2024-03-09", "h"),
        ("America/New_York", "2023-10-01", "B"),
        ("Australia/Sydney", "2023-01-01", "MS"),
        ("Australia/Lord_Howe", "2024-03-20", "D"),
    ],
)
def test_offsets_that_change_are_those_of_a_zone(zone: str, start: str, freq: str, tmp_path: Path) -> None:
    index = pd.date_range(start, periods=45, freq=freq, tz=zone)
    path = tmp_path / "t.csv"
    path.write_text("t,y\n" + "".join(f"{time.isoformat()},{row}\n" for row, time in enumerate(index[:40])))
    series = load_series(path, target="y", time="t")
    assert series.rows == 40
    after = series.axis.form.texts(series.after(5)[0])
    assert [pd.Timestamp(text).isoformat() for text in after] == [time.isoformat() for time in index[40:]]
    assert any(f"these are those of {zone}" in note for note in series.notes)


def test_offsets_of_no_zone_are_read_in_utc(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("t,y\n" + "".join(f"2024-01-{row + 1:02}T00:00:00+0{row % 3}:00,1\n" for row in range(9)))
    assert load_series(path).axis.form.zone == "UTC"
