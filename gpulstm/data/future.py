"""What comes after series that were read: future covariates of the steps ahead, and new rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gpulstm.data.loading import Loader, as_before, some
from gpulstm.data.options import TableOptions
from gpulstm.data.plain_arrays import is_array, numbers_of
from gpulstm.data.series import SeriesSet, spans
from gpulstm.data.time_axis import positions, same_times
from gpulstm.data.times import format_time
from gpulstm.errors import DataError, option


def known_ahead(past: SeriesSet, count: int, future: Any) -> np.ndarray | None:
    """`(series, count, columns)`: future covariates of the rows after the last; None without any.

    Args:
        past: the series that are to be continued.
        count: rows.
        future: a table with the future covariates (and the columns of time and series, where `past` has them; rows at
            other times than those that follow are left out), or an array `(count, columns)` or `(series, count,
            columns)`; needed where `past` has future covariates that a user knows, and no rows of them at its end.

    Raises:
        DataError: the future covariates are missing, of another length, or at other times.
    """
    if not past.known:
        if future is not None:
            raise DataError("future was given, but the series have no future covariates besides those made from times")
        return None
    names = ", ".join(past.known_names)
    if future is None:
        if past.ahead is None:
            raise DataError(
                f"future is missing: the forecast needs the next {count} rows of the future covariates {names}"
            )
        have = np.diff(past.ahead.offsets)
        short = np.flatnonzero(have < count)
        if short.size:
            raise DataError(
                f"the table has {have[short[0]]} rows of {names} after the last target of series "
                f"{past.names[int(short[0])]!r}, the forecast needs {count}; give them as {option('future', ...)}"
            )
        return past.ahead.values[past.ahead.offsets[:-1, None] + np.arange(count)]
    array = _ahead_of_array(past, count, future) if is_array(future) else _ahead_of_table(past, count, future)
    if not np.isfinite(array).all():
        raise DataError(
            f"future holds values that are missing or not finite; {names} must be known for all {count} steps"
        )
    return array


def _ahead_of_array(past: SeriesSet, count: int, future: Any) -> np.ndarray:
    array = numbers_of(future)
    if array.ndim == 1 and past.known == 1:
        array = array[:, None]
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.shape[0] != len(past) or array.shape[1] < count or array.shape[2] != past.known:
        raise DataError(
            f"future has shape {np.shape(future)}, expected ({len(past)}, {count}, {past.known}): "
            f"series, steps, columns {', '.join(past.known_names)}"
        )
    return array[:, :count]


def _table_like(data: Any, past: SeriesSet, roles: Sequence[str]) -> SeriesSet:
    """A table with some of the roles of `past`, the rest of them left out."""
    options = as_before(TableOptions(), past)
    left_out: dict[str, Any] = {role: () for role in ("target", "past", "future", "static") if role not in roles}
    options = replace(options, calendar=(), holidays=None, missing="forward", **left_out)
    return Loader(data, options, past, False, None, ahead=True).load()


def places_of(past: SeriesSet, table: SeriesSet, what: str) -> np.ndarray:
    """`(series,)`: which series of `table` each series of `past` is."""
    if len(past) == 1 and len(table) == 1 and not past.origin.series:
        return np.zeros(1, np.int64)
    known = {name: at for at, name in enumerate(table.names)}
    absent = next((name for name in past.names if name not in known), None)
    if absent is not None:
        raise DataError(f"{what} has no rows for series {absent!r}")
    return np.array([known[name] for name in past.names])


def _ahead_of_table(past: SeriesSet, count: int, future: Any) -> np.ndarray:
    table = _table_like(future, past, ("future",))
    which = places_of(past, table, "future")
    starts, stops = table.offsets[which], table.offsets[which + 1]
    if past.has_times and table.time is not None:
        expected = past.after(count)
        rows, offsets = spans(starts, stops)
        series = np.repeat(np.arange(len(past)), np.diff(offsets))
        came, first = table.time[rows], expected[series, 0]
        earlier = (came < first) & ~same_times(came, first, past.axis.step)
        starts = starts + np.bincount(series[earlier], minlength=len(past))
    short = np.flatnonzero(stops - starts < count)
    if short.size:
        at = int(short[0])
        raise DataError(
            f"future has {stops[at] - starts[at]} rows for series {past.names[at]!r} after its last time, "
            f"the forecast needs {count}"
        )
    index = starts[:, None] + np.arange(count)
    if past.has_times and table.time is not None:
        wrong = np.argwhere(~same_times(table.time[index], expected, past.axis.step))
        if wrong.size:
            at, step = (int(place) for place in wrong[0])
            form = past.axis.form
            raise DataError(
                f"future row {step + 1} of series {past.names[at]!r} is at "
                f"{format_time(table.time[index][at, step], form)}, expected {format_time(expected[at, step], form)}, "
                "the time that follows the series"
            )
    return table.values[index]


def new_rows(past: SeriesSet, data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Rows that came after the series: values `(series, n, features)` and times `(series, n)`.

    Args:
        data: an array `(n, columns)` (`(n,)` for one column) or `(series, n, columns)` in the order targets, past and
            future covariates; or a table with those columns, whose times follow those of the series.

    Raises:
        DataError: rows of another shape, or at times that do not follow.
    """
    width = past.values.shape[1]
    own = past.targets + past.past + past.known
    if is_array(data):
        block = numbers_of(data)
        came = block.shape
        if block.ndim == 1 and own == 1:
            block = block[:, None]
        if block.ndim == 2:
            block = block[None]
        if block.ndim != 3 or block.shape[0] != len(past) or block.shape[1] < 1 or block.shape[2] != own:
            names = ", ".join(past.columns[:own])
            raise DataError(f"rows has shape {came}, expected ({len(past)}, n, {own}): series, rows, columns {names}")
        times = past.after(block.shape[1])
    else:
        block, times = _rows_of_table(past, data, own)
    values = np.full((*block.shape[:2], width), np.nan)
    values[:, :, :own] = block
    if past.static:
        columns = slice(own, own + past.static)
        values[:, :, columns] = past.values[past.offsets[1:] - 1, columns][:, None, :]
    if past.made:
        made = past.made_of(times.ravel())
        values[:, :, width - past.made :] = made.reshape(*times.shape, past.made)
    return values, times


def _rows_of_table(past: SeriesSet, data: Any, own: int) -> tuple[np.ndarray, np.ndarray]:
    table = _table_like(data, past, ("target", "past", "future"))
    if set(table.names) != set(past.names) and (len(past) > 1 or past.origin.series):
        raise DataError(f"rows are of the series {some(table.names)}, expected {some(past.names)}")
    which = places_of(past, table, "rows")
    counts = np.unique(table.lengths[which])
    if len(counts) > 1:
        raise DataError(f"rows has {table.lengths.tolist()} rows for its series, expected as many for each")
    count = int(counts[0])
    index = table.offsets[which][:, None] + np.arange(count)
    block = table.values[index][:, :, :own]
    if not past.has_times or table.time is None:
        return block, past.after(count)
    times = table.time[index]
    assert past.time is not None
    last = past.time[past.offsets[1:] - 1]
    late = np.flatnonzero(times[:, 0] <= last)
    form = past.axis.form
    if late.size:
        at = int(late[0])
        raise DataError(
            f"rows begin at {format_time(times[at, 0], form)} in series {past.names[at]!r}, "
            f"expected a time after {format_time(last[at], form)}"
        )
    ends = np.stack([last, times[:, 0]], axis=1).ravel()
    place, _ = positions(past.axis.step, ends, 2 * np.arange(len(past) + 1), form)
    jump = np.unique(place[1::2])
    if past.axis.step.kind == "none" or (len(jump) == 1 and jump[0] <= 1):
        return block, times
    if len(jump) > 1:
        raise DataError("rows begin at different steps after the ends of their series; give the rows in between")
    between = past.after(int(jump[0]) - 1)
    empty = np.full((len(past), between.shape[1], own), np.nan)
    return np.concatenate([empty, block], axis=1), np.concatenate([between, times], axis=1)
