"""Times as tables hold them: formats told from all rows, and written again as they came."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpulstm.data.frames import Source
from gpulstm.data.options import TableOptions
from gpulstm.data.time_column import TimeColumn
from gpulstm.data.times import TimeForm, format_time
from gpulstm.errors import DataError


def read(values: Any, *, parts: int = 1, **options: Any) -> tuple[np.ndarray, TimeForm, list[str]]:
    """A column read in some parts: its times, their form, and what was noted."""
    table = pd.Series(values)
    rows = np.array_split(np.arange(len(table)), parts)
    source = Source(
        "x.csv",
        ["t"],
        table.head().to_frame(),
        lambda _: ({0: table.iloc[part]} for part in rows),
        word="row",
        first=2,
        file=options.pop("file", True),
    )
    column = TimeColumn(source, 0, "t", TableOptions(**options))
    for part in rows:
        column.add(table.iloc[part], source.row_names(int(part[0])))
    time, form = column.done()
    return time, form, column.notes


TEXTS = {  # texts -> what they are, as ISO 8601
    ("2024-01-31", "2024-02-01"): ("2024-01-31", "2024-02-01"),
    ("2024-01", "2024-02"): ("2024-01-01", "2024-02-01"),
    ("2024-01-01 10:00", "2024-01-01 10:30"): ("2024-01-01T10:00", "2024-01-01T10:30"),
    ("2024-01-01T10:00:00", "2024-01-01T10:00:01"): ("2024-01-01T10:00:00", "2024-01-01T10:00:01"),
    ("2024-01-01 00:00:00.020", "2024-01-01 00:00:00.040"): ("2024-01-01T00:00:00.020", "2024-01-01T00:00:00.040"),
    ("2017-03-21T01:00:00Z", "2017-03-21T01:30:00Z"): ("2017-03-21T01:00", "2017-03-21T01:30"),
    ("2017-03-21 01:00:00+01:00", "2017-03-21 01:30:00+01:00"): ("2017-03-21T00:00", "2017-03-21T00:30"),
    ("01/01/1981", "01/13/1981"): ("1981-01-01", "1981-01-13"),
    ("13.01.1981", "14.01.1981"): ("1981-01-13", "1981-01-14"),
    ("13.1.1981", "1.2.1981"): ("1981-01-13", "1981-02-01"),
    ("2010/01/01 00:00:00", "2010/01/01 01:00:00"): ("2010-01-01T00:00", "2010-01-01T01:00"),
    ("Jan 1 2000", "Feb 1 2000"): ("2000-01-01", "2000-02-01"),
    ("January 5, 2000", "February 15, 2000"): ("2000-01-05", "2000-02-15"),
    ("Jan-99", "Feb-99"): ("1999-01-01", "1999-02-01"),
    ("1-Jan-99", "12-Feb-99"): ("1999-01-01", "1999-02-12"),
    ("1/2/2020 3:04 PM", "1/22/2020 3:04 AM"): ("2020-01-02T15:04", "2020-01-22T03:04"),
    ("2024Q1", "2024Q2"): ("2024-01-01", "2024-04-01"),
    ("Q1 2024", "Q4 2024"): ("2024-01-01", "2024-10-01"),
    ("20240131", "20240201"): ("2024-01-31", "2024-02-01"),
    ("1/2024", "12/2024"): ("2024-01-01", "2024-12-01"),
}


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("texts", TEXTS, ids=lambda texts: texts[0])
def test_text_is_read_and_written_again(texts: tuple[str, ...], parts: int) -> None:
    time, form, _ = read(texts, parts=parts)
    np.testing.assert_array_equal(time, np.array(TEXTS[texts], "M8[us]"))
    assert form.texts(time) == list(texts)


NUMBERS = {  # numbers -> what they are
    (20240131, 20240201): ("2024-01-31", "2024-02-01"),
    (202401, 202402): ("2024-01-01", "2024-02-01"),
    (2024013105, 2024013106): ("2024-01-31T05:00", "2024-01-31T06:00"),
    (202401310530, 202401310531): ("2024-01-31T05:30", "2024-01-31T05:31"),
}


@pytest.mark.parametrize("numbers", NUMBERS, ids=str)
def test_numbers_that_spell_dates(numbers: tuple[int, ...]) -> None:
    time, form, _ = read(numbers)
    np.testing.assert_array_equal(time, np.array(NUMBERS[numbers], "M8[us]"))
    assert form.column(time).tolist() == list(numbers)


@pytest.mark.parametrize(("unit", "ticks"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_epochs_stay_numbers_and_have_a_clock(unit: str, ticks: int) -> None:
    seconds = 1_700_000_000
    time, form, _ = read([seconds * ticks, seconds * ticks + 100])
    assert form.epoch == unit
    assert time.tolist() == [seconds * ticks, seconds * ticks + 100]
    clock = form.clock(time)
    assert clock is not None
    assert clock[0] == np.datetime64(seconds, "s")
    np.testing.assert_array_equal(form.unclock(clock, time.dtype), time)


@pytest.mark.parametrize("numbers", [(1, 2, 3), (2001, 2002), (20240131, 20240132), (202412, 202413), (0.5, 1.0)])
def test_other_numbers_are_numbers(numbers: tuple[float, ...]) -> None:
    time, form, _ = read(numbers)
    assert form == TimeForm()
    np.testing.assert_array_equal(time, numbers)


def test_day_and_month_first_are_told_apart_by_all_rows() -> None:
    ambiguous = [f"0{day}/0{month}/2020" for day in range(1, 5) for month in range(1, 5)]
    for last, pattern in (("25/04/2020", "%d/%m/%Y"), ("04/25/2020", "%m/%d/%Y")):
        assert read([*ambiguous, last], parts=3)[1].pattern == pattern
    monthly = [f"01/{month:02}/{year}" for year in (2020, 2021) for month in range(1, 13)]
    time, form, notes = read(monthly)
    assert form.pattern == "%d/%m/%Y"
    assert "evenly spaced" in notes[0]
    np.testing.assert_array_equal(time, np.arange("2020-01", "2022-01", dtype="M8[M]").astype("M8[us]"))
    with pytest.raises(
        DataError, match=r"'01/02/2020' is 2020-02-01 or 2020-01-02, .* dayfirst=True or dayfirst=False"
    ):
        read(monthly[:3])
    np.testing.assert_array_equal(
        read(monthly[:3], dayfirst=False)[0], np.array(["2020-01-01", "2020-01-02", "2020-01-03"], "M8[us]")
    )


def test_a_format_of_ones_own() -> None:
    time, form, _ = read(["at 5 of 2024", "at 6 of 2024"], time_format="at %m of %Y")
    np.testing.assert_array_equal(time, np.array(["2024-05-01", "2024-06-01"], "M8[us]"))
    assert form.pattern == "at %m of %Y"
    assert read([2401, 2402], time_format="%y%m")[0][0] == np.datetime64("2024-01-01")


OBJECTS: list[Any] = [
    [datetime.date(2024, 1, 1), datetime.date(2024, 1, 2)],
    [datetime.datetime(2024, 1, 1, 5), datetime.datetime(2024, 1, 1, 6)],
    pd.period_range("2024-01", periods=3, freq="M"),
    pd.date_range("2024-03-30", periods=3, tz="Europe/Berlin"),
    pd.date_range("2024-03-30", periods=3),
]


@pytest.mark.parametrize("values", OBJECTS, ids=lambda values: type(values[0]).__name__)
def test_objects_come_back_as_they_came(values: Any) -> None:
    time, form, _ = read(values, file=False)
    assert form.column(time).tolist() == list(values)


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/Berlin", "Australia/Sydney", "UTC", "Asia/Kolkata"])
def test_zones_are_kept_across_clock_changes(zone: str) -> None:
    index = pd.date_range("2024-03-08", periods=30 * 24, freq="12h", tz=zone)
    time, form, _ = read(index, file=False)
    assert form.zone == zone
    assert list(form.column(time)) == list(index)
    assert str(form.column(time).dtype.tz) == zone
    again = pd.to_datetime(form.texts(time), utc=True).tz_convert(zone)
    assert list(again) == list(index)


MISTAKES: dict[str, tuple[list[Any], str]] = {
    "no date": (["2024-01-01", "soon"], "row 3 of x.csv holds 'soon', expected a number or a date"),
    "empty": (["2024-01-01", None], "row 3 of x.csv is empty"),
    "zone and none": (["2024-01-01T00:00:00", "2024-01-01T01:00:00Z"], "mixes times without a zone"),
    "flags": ([True, False], "holds bool, expected dates or numbers"),
    "not finite": ([1.0, np.inf], "row 3 of x.csv is not finite"),
    "float ns": ([1.7e18, 1.7e18 + 512], "precision is too low"),
    "no such day": (["2024-02-28", "2024-02-30"], "holds '2024-02-30'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake: str) -> None:
    values, message = MISTAKES[mistake]
    with pytest.raises(DataError, match=message) as caught:
        read(values)
    assert "\n" not in str(caught.value)


def test_times_in_messages() -> None:
    assert format_time(np.datetime64("2024-01-01", "us")) == "2024-01-01"
    assert format_time(np.datetime64("2024-01-01T05:00", "us")) == "2024-01-01T05:00:00"
    assert format_time(np.datetime64("2024-01-01T05:00:00.25", "us")) == "2024-01-01T05:00:00.250"
    assert format_time(np.int64(5)) == "5"
    assert format_time(np.float64(0.1)) == "0.1"
