"""Time indices: how far apart rows are, which times follow the last one, and calendar covariates made of them.

A calendar covariate is a point on a circle, `(sin, cos)` of where in the year, month, week or day a time lies, so that
the last day of December is next to the first of January.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpulstm.errors import ConfigError, DataError

CALENDARS = ("yearly", "monthly", "weekly", "daily")
_DAY = 86_400_000_000  # microseconds
_YEAR = 365.2425 * _DAY


@dataclass(frozen=True)
class Step:
    """The distance between neighbouring rows.

    Attributes:
        amount: microseconds, months, or the unit of a numeric time.
        unit: `"us"`, `"month"` or `"number"`.
        regular: whether all rows are this far apart; if not, `amount` is the most frequent distance.
    """

    amount: float
    unit: str
    regular: bool


def step_of(time: np.ndarray) -> Step:
    """The step of a `(rows,)` time index with at least two rows.

    Raises:
        DataError: one row alone has no step.
    """
    if len(time) < 2:
        raise DataError("a series of one row has no time step; the times after it are unknown")
    if time.dtype.kind != "M":
        steps = np.diff(time)
        regular = bool((np.abs(steps - steps[0]) <= 1e-6 * abs(steps[0])).all())
        return Step(float(steps[0] if regular else _most_frequent(steps)), "number", regular)
    steps = np.diff(time.astype(np.int64))
    if steps.min() >= 28 * _DAY:  # months first: 1 July, 1 October and 1 January are also 92 days apart
        inside, length = _inside_month(time)
        counts = np.diff(time.astype("datetime64[M]").astype(np.int64))
        same_day, last_day = np.all(inside == inside[0]), np.all(inside // _DAY == length // _DAY - 1)
        if np.all(counts == counts[0]) and (same_day or last_day):
            return Step(int(counts[0]), "month", True)
    if np.all(steps == steps[0]):
        return Step(int(steps[0]), "us", True)
    return Step(int(_most_frequent(steps)), "us", False)


def continue_time(time: np.ndarray, count: int) -> np.ndarray:
    """The `count` times after the last of `time`, one step apart; months keep their day, or stay month ends."""
    step = step_of(time)
    ahead = np.arange(1, count + 1)
    if step.unit == "number":
        return time[-1] + step.amount * ahead
    if step.unit == "us":
        return time[-1] + (int(step.amount) * ahead).astype("timedelta64[us]")
    months = time[-1].astype("datetime64[M]") + int(step.amount) * ahead
    inside, length = _inside_month(time[-1:])
    starts = months.astype("datetime64[us]")
    lengths = (months + 1).astype("datetime64[us]").astype(np.int64) - starts.astype(np.int64)
    at_end = bool(inside[0] // _DAY == length[0] // _DAY - 1)
    within = lengths - (length[0] - inside[0]) if at_end else np.minimum(inside[0], lengths - _DAY + inside[0] % _DAY)
    return starts + within.astype("timedelta64[us]")


def season_of(step: Step) -> int:
    """Rows in the season of a step: 24 of hours, 7 of days, 52 of weeks, 12 of months, 4 of quarters, else 1."""
    if step.unit == "month":
        return {1: 12, 3: 4, 6: 2}.get(int(step.amount), 1)
    hour = _DAY // 24
    if step.unit == "us":
        return {hour: 24, _DAY: 7, 7 * _DAY: 52}.get(int(step.amount), 1)
    return 1


def calendar_names(calendar: Sequence[str]) -> tuple[str, ...]:
    """The names of the columns that `calendar_columns` makes.

    Raises:
        ConfigError: an entry is none of `CALENDARS`, or comes twice.
    """
    for name in calendar:
        if name not in CALENDARS:
            raise ConfigError(f"calendar has {name!r}, expected any of {', '.join(map(repr, CALENDARS))}")
    if len(set(calendar)) != len(calendar):
        raise ConfigError(f"calendar names something twice: {tuple(calendar)}")
    return tuple(f"{name}_{part}" for name in calendar for part in ("sin", "cos"))


def calendar_columns(time: np.ndarray, calendar: Sequence[str]) -> np.ndarray:
    """Sine and cosine of each cycle at each time, `(rows, 2 * len(calendar))` float64.

    Args:
        time: `(rows,)` datetime64.
        calendar: any of `"yearly"` (of 365.2425 days, counted from 1970-01-01), `"monthly"` (position within the
            month), `"weekly"` (from Monday) and `"daily"`.

    Raises:
        DataError: the times are numbers, which have no calendar.
    """
    names = calendar_names(calendar)
    if time.dtype.kind != "M":
        raise DataError("calendar covariates need dates in the time column, and it holds numbers")
    micro = time.astype("datetime64[us]").astype(np.int64)
    columns = np.empty((len(time), len(names)))
    for column, name in enumerate(calendar):
        if name == "monthly":
            inside, length = _inside_month(time)
            part = inside / length
        elif name == "weekly":
            part = (micro + 3 * _DAY) % (7 * _DAY) / (7 * _DAY)  # 1970-01-01 was a Thursday
        else:
            cycle = _YEAR if name == "yearly" else _DAY
            part = micro % cycle / cycle
        columns[:, 2 * column] = np.sin(2 * np.pi * part)
        columns[:, 2 * column + 1] = np.cos(2 * np.pi * part)
    return columns


def format_time(value: np.generic) -> str:
    """A time as text: a date where it is midnight, else a time to the second, or a number as short as it goes."""
    if not isinstance(value, np.datetime64):
        return f"{float(value):.15g}"
    day = value.astype("datetime64[D]")
    return str(day) if day == value else str(value.astype("datetime64[s]"))


def _inside_month(time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Microseconds since the month began, and the length of the month."""
    months = time.astype("datetime64[M]")
    start = months.astype("datetime64[us]").astype(np.int64)
    return time.astype("datetime64[us]").astype(np.int64) - start, (months + 1).astype("datetime64[us]").astype(
        np.int64
    ) - start


def _most_frequent(steps: np.ndarray) -> np.generic:
    values, counts = np.unique(steps, return_counts=True)
    return values[np.argmax(counts)]
