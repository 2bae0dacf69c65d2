"""From a table to a `SeriesSet`: which column plays which role, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpulstm.data.calendars import calendar_columns, calendar_names, continue_time, format_time
from gpulstm.data.columns import Columns
from gpulstm.data.options import Names
from gpulstm.data.series import SeriesSet
from gpulstm.errors import ConfigError, DataError

if TYPE_CHECKING:
    from gpulstm.data.readers import Source

RULES = ("refuse", "interpolate", "forward", "mask")


def load_series(
    data: Any,
    *,
    target: Names | None = None,
    past: Names = (),
    future: Names = (),
    time: str | int | None = None,
    series: str | int | None = None,
    calendar: str | Sequence[str] = (),
    missing: str = "refuse",
    delimiter: str | None = None,
) -> SeriesSet:
    """Read series from a CSV or Parquet path, a frame, a dict of columns or an array.

    Args:
        data: the table; several series stand below one another (long format) with a column of their names, or come as
            an array `(series, time, features)`; arrays `(time,)` and `(time, features)` are one series, and their
            columns are numbered from 0.  A pandas frame with a time index needs no `time`.
        target: the column or columns to forecast; by default all that have no other role.
        past: covariates known up to now.
        future: covariates known ahead.
        time: the column of times: numbers, or ISO 8601 dates, strictly increasing within each series.
        series: the column that names each row's series.
        calendar: covariates made from the dates: `"yearly"`, `"monthly"`, `"weekly"`, `"daily"`.
        missing: `"refuse"`, `"interpolate"`, `"forward"` or `"mask"`; see `SeriesSet.filled`.  Rows that are absent
            from the table are not noticed here: a missing week is a missing row only if its date is there.
        delimiter: of a CSV; by default the most frequent of comma, semicolon, tab and bar in its first row.

    Raises:
        DataError: a file, column, cell or time that cannot be used; the message names it.
        ConfigError: roles or rules that no table can have.
    """
    if isinstance(data, SeriesSet):
        if target is not None or past or future or time is not None or series is not None or calendar:
            raise ConfigError("the series were read already; roles of columns are given when they are read")
        return data
    from gpulstm.data.readers import need, open_source  # here: a forecaster that was loaded reads no table

    if missing not in RULES:
        raise ConfigError(f"missing is {missing!r}, expected any of {', '.join(map(repr, RULES))}")
    calendar = (calendar,) if isinstance(calendar, str) else tuple(calendar)
    made = calendar_names(calendar)
    source = open_source(data, delimiter=delimiter)
    time_name = getattr(source, "index", None) if time is None else str(time)
    series_name = None if series is None else str(series)
    for name in (time_name, series_name):
        if name is not None:
            need(name, source.names, source.label)
    targets, pasts, futures = _roles(source, target, past, future, time_name, series_name, made)
    if calendar and time_name is None:
        raise ConfigError("calendar needs a time column; give its name as time")
    columns = source.read([*targets, *pasts, *futures], time_name, series_name)
    order = _grouping(columns)
    _check_values(columns, source.label, missing, futures)
    values = columns.together([*targets, *pasts, *futures])
    times, codes = columns.time, columns.codes
    if times is not None:
        _check_times(columns, order, str(time_name), source.label)
    if order is not None and codes is not None:
        values, codes = values[order], codes[order]
        times = None if times is None else times[order]
    if calendar and times is not None:
        values = np.concatenate([values, calendar_columns(times, calendar)], axis=1)
    counts = np.array([len(values)]) if codes is None else np.bincount(codes, minlength=len(columns.labels))
    return SeriesSet(
        values=np.ascontiguousarray(values),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        columns=(*targets, *pasts, *futures, *made),
        targets=len(targets),
        past=len(pasts),
        future=len(futures) + len(made),
        time=times,
        names=tuple(columns.labels) if codes is not None else ("series",),
        calendar=calendar,
        missing=missing,
        time_name=time_name,
        series_name=series_name,
    )


def known_ahead(past: SeriesSet, count: int, future: Any) -> np.ndarray | None:
    """`(series, count, columns)`: future covariates of the rows after the last; None without any.

    Args:
        past: the series that are to be continued.
        count: rows.
        future: a table with the future covariates (and the columns of time and series, where `past` has them; its times
            must be the ones that follow), or an array `(count, columns)` or `(series, count, columns)`; needed where
            `past` has future covariates besides the calendar's.

    Raises:
        DataError: the future covariates are missing, of another length, or at other times.
    """
    own = past.future - 2 * len(past.calendar)
    if not own:
        if future is not None:
            raise DataError("future was given, but the series have no future covariates besides the calendar's")
        return None
    first = past.targets + past.past
    names = past.columns[first : first + own]
    if future is None:
        listed = ", ".join(names)
        raise DataError(
            f"future is missing: the forecast needs the next {count} rows of the future covariates {listed}"
        )
    if isinstance(future, (np.ndarray, list, tuple)):
        array = np.asarray(future, dtype=np.float64)
        if array.ndim == 1 and own == 1:
            array = array[:, None]
        if array.ndim == 2:
            array = array[None]
        if array.ndim != 3 or array.shape[0] != len(past) or array.shape[1] < count or array.shape[2] != own:
            raise DataError(
                f"future has shape {np.shape(future)}, expected ({len(past)}, {count}, {own}): "
                f"series, steps, columns {', '.join(names)}"
            )
        array = array[:, :count]
    else:
        table = load_series(future, target=names, time=past.time_name, series=past.series_name)
        array = np.empty((len(past), count, own))
        for index, name in enumerate(past.names):
            if name not in table.names:
                raise DataError(f"future has no rows for series {name!r}")
            other = table.names.index(name)
            if table.lengths[other] < count:
                raise DataError(
                    f"future has {table.lengths[other]} rows for series {name!r}, the forecast needs {count}"
                )
            if past.time is not None and past.time_name is not None:
                expected, came = continue_time(past.time_of(index), count), table.time_of(other)[:count]
                wrong = np.flatnonzero(expected != came)
                if wrong.size:
                    raise DataError(
                        f"future row {wrong[0] + 1} of series {name!r} is at {format_time(came[wrong[0]])}, "
                        f"expected {format_time(expected[wrong[0]])}, the time that follows the series"
                    )
            array[index] = table.series(other)[:count]
    if not np.isfinite(array).all():
        raise DataError(
            f"future holds values that are missing or not finite; "
            f"{', '.join(names)} must be known for all {count} steps"
        )
    return array


def _roles(
    source: Source,
    target: Names | None,
    past: Names,
    future: Names,
    time: str | None,
    series: str | None,
    made: tuple[str, ...],
) -> tuple[list[str], list[str], list[str]]:
    """The names of the target, past and future columns, each there and each in one role."""
    from gpulstm.data.readers import need

    pasts, futures = _names(past), _names(future)
    given = [*pasts, *futures, *(name for name in (time, series) if name is not None)]
    targets = [name for name in source.names if name not in given] if target is None else _names(target)
    if not targets:
        raise DataError(f"{source.label} has no column left to forecast; give the target column")
    used: set[str] = set()
    for name in [*targets, *given]:
        need(name, source.names, source.label)
        if name in used:
            raise ConfigError(f"column {name!r} is given two roles among target, past, future, time and series")
        if name in made:
            raise ConfigError(f"column {name!r} has the name of a calendar covariate; rename it")
        used.add(name)
    return targets, pasts, futures


def _names(names: Names) -> list[str]:
    return [str(names)] if isinstance(names, (str, int)) else [str(name) for name in names]


def _grouping(columns: Columns) -> np.ndarray | None:
    """The order that puts the rows of each series together, or None where they are."""
    if columns.codes is None or np.all(np.diff(columns.codes) >= 0):
        return None
    return np.argsort(columns.codes, kind="stable")


def _check_values(columns: Columns, label: str, missing: str, futures: Sequence[str]) -> None:
    """Refuse infinities, and missing values where the rule does."""
    for name, values in columns.numbers.items():
        infinite = np.flatnonzero(np.isinf(values))
        if infinite.size:
            raise DataError(
                f"column {name!r}, {columns.where(infinite[0])} of {label} is infinite ({infinite.size} such)"
            )
        absent = np.flatnonzero(np.isnan(values))
        if absent.size and missing == "refuse":
            raise DataError(
                f"column {name!r} of {label} has {absent.size} missing value{'s' if absent.size > 1 else ''}, "
                f"the first in {columns.where(absent[0])}; fill the cells, or choose "
                "missing='interpolate', 'forward' or 'mask'"
            )
        if absent.size and missing == "mask" and name in futures:
            raise DataError(
                f"future covariate {name!r} of {label} has no value in {columns.where(absent[0])}; "
                "missing='mask' covers targets and past covariates only"
            )


def _check_times(columns: Columns, order: np.ndarray | None, name: str, label: str) -> None:
    """Refuse times that are missing, equal to or before the time of the row before, series by series."""
    assert columns.time is not None
    absent = np.flatnonzero(np.isnat(columns.time) if columns.time.dtype.kind == "M" else ~np.isfinite(columns.time))
    if absent.size:
        raise DataError(f"time column {name!r}, {columns.where(absent[0])} of {label} is missing or not finite")
    time = columns.time if order is None else columns.time[order]
    later = time[1:] > time[:-1]
    if columns.codes is not None:
        codes = columns.codes if order is None else columns.codes[order]
        later |= codes[1:] != codes[:-1]
    wrong = np.flatnonzero(~later)
    if not wrong.size:
        return
    before, row = (int(index if order is None else order[index]) for index in (wrong[0], wrong[0] + 1))
    old, new = format_time(columns.time[before]), format_time(columns.time[row])
    of = "" if columns.codes is None else f" of series {columns.labels[columns.codes[row]]!r}"
    problem = "repeats" if old == new else "is earlier than"
    hint = "; name the column of the series with series=..." if columns.codes is None else ""
    raise DataError(
        f"time column {name!r}, {columns.where(row)} of {label}{of} holds {new}, which {problem} {old} in "
        f"{columns.where(before)}; times must increase strictly{hint}"
    )
