"""Time axes against pandas': every offset in every zone, inferred and given; days of a month against relativedelta."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from dateutil.relativedelta import relativedelta
from hypothesis import given, settings
from hypothesis import strategies as st

from gpulstm.data.time_axis import Axis, Step, at, given_step, infer_step, month_days, positions
from gpulstm.data.times import TimeForm
from gpulstm.errors import ConfigError, DataError

OFFSETS = (
    *("B", "2B", "D", "2D", "5D", "10D", "W", "W-MON", "W-WED", "2W", "WOM-1MON", "WOM-3FRI", "LWOM-TUE"),
    *("ME", "2ME", "MS", "4MS", "BME", "BMS", "SME", "SMS", "SME-20", "SMS-10", "QE", "QE-NOV", "QS", "QS-FEB"),
    *("BQE", "BQS", "BQS-NOV", "YE", "YE-JUN", "YS", "YS-APR", "BYE", "BYE-MAR", "BYS", "h", "2h", "6h", "12h", "36h"),
    *("min", "5min", "15min", "30min", "90min", "s", "10s", "ms", "20ms", "us", "bh"),
)
ZONES = (None, "UTC", "America/New_York", "Europe/Berlin", "Australia/Sydney", "Asia/Kolkata")
ROWS, AHEAD = 48, 12


def follow(step: Step, last: np.ndarray, count: int, form: TimeForm, days: np.ndarray | None = None) -> np.ndarray:
    """The times after the last rows of some series."""
    return Axis(step, form, days).after(last, count)


def utc(index: pd.DatetimeIndex) -> np.ndarray:
    """The times of an index as the package keeps them."""
    return (index if index.tz is None else index.tz_convert("UTC").tz_localize(None)).to_numpy().astype("M8[us]")


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("freq", OFFSETS)
@pytest.mark.parametrize("start", ["2024-01-15", "2023-02-27 09:00"])
def test_times_go_on_as_pandas_has_them(freq: str, zone: str | None, start: str) -> None:
    offset = pd.offsets.LastWeekOfMonth(weekday=1) if freq == "LWOM-TUE" else freq  # pandas 2 has no alias of it
    index = pd.date_range(start, periods=ROWS + AHEAD, freq=offset, tz=zone)
    time, form, offsets = utc(index), TimeForm(zone=zone), np.array([0, ROWS])
    past = time[:ROWS]
    for step in (infer_step(past, offsets, form), given_step(freq, past, form)):
        days = month_days(step, past, offsets, form)
        np.testing.assert_array_equal(follow(step, past[-1:], AHEAD, form, days)[0], time[ROWS:])
        steps_on, off = positions(step, past, offsets, form)
        assert not off.any()
        np.testing.assert_array_equal(steps_on, np.arange(ROWS))


@pytest.mark.parametrize("freq", ["1_000", " 5", "nan", "inf", "0", "-1", "D", "", 0, True, float("nan"), [1]])
def test_a_step_of_numbers_is_a_number_above_0(freq: Any) -> None:
    with pytest.raises(ConfigError, match="expected a number above 0 or freq='auto'"):
        given_step(freq, np.arange(3), TimeForm())


@pytest.mark.parametrize("freq", ["1_000", "5", "nan", "٣D", "-1D", "", "M", 5, True, [1]])
def test_a_step_of_dates_is_an_alias(freq: Any) -> None:
    with pytest.raises(ConfigError, match="expected an alias of pandas such as 'D', 'B' or 'MS'"):
        given_step(freq, np.arange(3).astype("M8[D]").astype("M8[us]"), TimeForm())


@pytest.mark.parametrize("freq", ["B", "D", "h", "15min", "MS", "ME", "BMS", "SMS", "W-WED", "WOM-3FRI", "QS-FEB"])
@pytest.mark.parametrize("zone", [None, "America/New_York"])
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_rows_that_are_missing_change_nothing(freq: str, zone: str | None, data: st.DataObject) -> None:
    time = utc(pd.date_range("2024-01-15", periods=ROWS, freq=freq, tz=zone))
    gone = data.draw(st.sets(st.integers(3, ROWS - 2), max_size=8))
    keep = np.array([row for row in range(ROWS) if row not in gone])
    form, offsets = TimeForm(zone=zone), np.array([0, len(keep)])
    step = infer_step(time[keep], offsets, form)
    steps_on, off = positions(step, time[keep], offsets, form)
    np.testing.assert_array_equal(steps_on, keep)
    assert not off.any()


@settings(max_examples=60, deadline=None)
@given(day=st.integers(2, 31), months=st.sampled_from([1, 2, 3, 4, 6, 12]), start=st.integers(0, 47))
def test_days_of_a_month_that_no_alias_has(day: int, months: int, start: int) -> None:
    first = pd.Timestamp(2020 + start // 12, start % 12 + 1, 1) + pd.offsets.Day(0)
    first = first + pd.Timedelta(days=min(day, first.days_in_month) - 1)
    if first.day == first.days_in_month:
        return  # a month end, which has an alias
    dates = [first + relativedelta(months=months * row) for row in range(36)]
    time, form, offsets = np.array(dates, "M8[us]"), TimeForm(), np.array([0, 24])
    step = infer_step(time[:24], offsets, form)
    days = month_days(step, time[:24], offsets, form)
    np.testing.assert_array_equal(follow(step, time[23:24], 12, form, days)[0], time[24:])


def test_the_nth_business_day_of_a_month() -> None:
    months = np.arange("2020-01", "2024-01", dtype="M8[M]").astype("M8[D]")
    for count, alias in ((2, "BMS#3"), (-2, "BME#2")):
        start = months if count > 0 else np.append(months[1:], np.datetime64("2024-01-01"))
        time = np.busday_offset(start, count, roll="forward").astype("M8[us]")
        step = infer_step(time[:36], np.array([0, 36]), TimeForm())
        assert step.freq == alias
        np.testing.assert_array_equal(follow(step, time[35:36], 12, TimeForm())[0], time[36:])
        assert given_step(alias, time, TimeForm()) == step


def test_one_step_serves_series_that_stand_on_other_days() -> None:
    form = TimeForm()
    parts = [pd.date_range(f"2024-01-{day:02}", periods=5, freq="7D") for day in (1, 3)]
    time = np.concatenate([utc(part) for part in parts])
    step = infer_step(time, np.array([0, 5, 10]), form)
    np.testing.assert_array_equal(
        follow(step, time[[4, 9]], 1, form)[:, 0], [utc(part)[-1] + np.timedelta64(7, "D") for part in parts]
    )
    dates = [[pd.Timestamp(2023, 1, day) + relativedelta(months=row) for row in range(6)] for day in (30, 12)]
    time = np.array(dates, "M8[us]").ravel()
    offsets = np.array([0, 6, 12])
    step = infer_step(time, offsets, form)
    ahead = follow(step, time[[5, 11]], 8, form, month_days(step, time, offsets, form))
    assert ahead[0, 7] == np.datetime64("2024-02-29")
    assert ahead[1, 7] == np.datetime64("2024-02-12")


@pytest.mark.parametrize("zone", [None, "America/New_York", "Europe/Berlin", "Australia/Sydney"])
@pytest.mark.parametrize(
    ("freq", "first", "last", "days"),
    [
        ("5min", "09:30", "16:00", 5),
        ("30min", "09:30", "15:30", 5),
        ("h", "00:00", "23:00", 5),
        ("h", "08:00", "19:00", 7),
    ],
)
def test_hours_of_a_market_or_a_shop_have_no_gaps(
    freq: str, first: str, last: str, days: int, zone: str | None
) -> None:
    index = pd.date_range("2024-03-04", "2024-04-12 23:59", freq=freq, tz=zone)
    index = index[index.day_of_week < days]
    index = index[index.indexer_between_time(first, last)]
    time, form, rows = utc(index), TimeForm(zone=zone), len(index) - 200
    keep = np.delete(np.arange(rows), [3, 40, 41, rows - 5])  # holidays and gaps are rows that are missing
    for chosen in (np.arange(rows), keep):
        offsets = np.array([0, len(chosen)])
        step = infer_step(time[chosen], offsets, form)
        steps_on, off = positions(step, time[chosen], offsets, form)
        assert not off.any()
        np.testing.assert_array_equal(steps_on, chosen)
        np.testing.assert_array_equal(follow(step, time[chosen][-1:], 200, form)[0], time[rows:])


def test_numbers() -> None:
    whole = np.array([3, 5, 7, 11])
    step = infer_step(whole, np.array([0, 4]), TimeForm())
    assert step == Step("number", 2)
    np.testing.assert_array_equal(follow(step, whole[-1:], 2, TimeForm()), [[13, 15]])
    assert follow(step, whole[-1:], 1, TimeForm()).dtype.kind == "i"
    tenths = np.arange(50) * 0.1
    assert infer_step(tenths, np.array([0, 50]), TimeForm()) == Step("number", 0.1)
    epoch = TimeForm(epoch="ms")
    months = np.arange("2020-01", "2022-01", dtype="M8[M]").astype("M8[ms]").astype(np.int64)
    step = infer_step(months[:20], np.array([0, 20]), epoch)
    assert step.freq == "MS"
    np.testing.assert_array_equal(follow(step, months[19:20], 4, epoch)[0], months[20:])


def test_uneven_rows_keep_about_their_step() -> None:
    rng = np.random.default_rng(0)
    seconds = np.cumsum(300 + rng.integers(-20, 20, size=200))
    time = np.datetime64("2024-01-01", "us") + seconds.astype("m8[s]")
    step = infer_step(time, np.array([0, 200]), TimeForm())
    assert not step.even
    assert 295e9 < step.amount < 305e9
    np.testing.assert_array_equal(positions(step, time, np.array([0, 200]), TimeForm())[0], np.arange(200))


def test_mistakes() -> None:
    days = utc(pd.date_range("2024-01-01", periods=9))
    with pytest.raises(ConfigError, match="expected an alias of pandas"):
        given_step("fortnight", days, TimeForm())
    with pytest.raises(ConfigError, match="the times are numbers"):
        given_step("D", np.arange(3), TimeForm())
    with pytest.raises(DataError, match="one row has no time step"):
        at(Step(), days[:1], np.ones((1, 1), int), TimeForm())
    _, off = positions(given_step("MS", days, TimeForm()), days, np.array([0, 9]), TimeForm())
    np.testing.assert_array_equal(np.flatnonzero(off), np.arange(1, 9))
