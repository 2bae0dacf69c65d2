"""Covariates that are made from the times: points on the circles of a calendar, and holidays.

A calendar covariate is `(sin, cos)` of where in the year, month, week or day a time lies, so that the last day of
December is next to the first of January.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpulstm.data.times import MONTH
from gpulstm.errors import ConfigError, DataError, MissingExtraError, option

CALENDARS = ("yearly", "monthly", "weekly", "daily")
HOLIDAY = "holiday"
_DAY = 86_400_000_000  # microseconds
_YEAR = 365.2425 * _DAY


def made_names(calendar: Sequence[str], holidays: str | None) -> tuple[str, ...]:
    """The names of the columns that `made_columns` makes.

    Raises:
        ConfigError: an entry is none of `CALENDARS`, or comes twice.
    """
    for name in calendar:
        if name not in CALENDARS:
            raise ConfigError(f"{option('calendar')} has {name!r}, expected any of {', '.join(map(repr, CALENDARS))}")
    if len(set(calendar)) != len(calendar):
        raise ConfigError(f"{option('calendar')} names something twice: {tuple(calendar)}")
    names = tuple(f"{name}_{part}" for name in calendar for part in ("sin", "cos"))
    return (*names, HOLIDAY) if holidays else names


def made_columns(dates: np.ndarray | None, calendar: Sequence[str], holidays: str | None, days: int = 1) -> np.ndarray:
    """The covariates of each time, `(rows, columns)` float64.

    Args:
        dates: `(rows,)` `datetime64` on the clock of their zone; None for times that are numbers.
        calendar: any of `"yearly"` (of 365.2425 days, counted from 1970-01-01), `"monthly"` (position within the
            month), `"weekly"` (from Monday) and `"daily"`.
        holidays: a country as ISO 3166 has it, with its part after a hyphen ("US-CA"); the column counts the holidays
            among the `days` days from a row's on.

    Raises:
        DataError: the times are numbers, which have no calendar.
    """
    names = made_names(calendar, holidays)
    if dates is None:
        what = option("calendar") if calendar else option("holidays")
        raise DataError(f"{what} needs dates in the time column, and it holds numbers")
    micro = dates.astype("datetime64[us]").astype(np.int64)
    columns = np.empty((len(dates), len(names)))
    for column, name in enumerate(calendar):
        if name == "monthly":
            months = dates.astype("datetime64[M]")
            start = months.astype("datetime64[us]").astype(np.int64)
            length = (months + MONTH).astype("datetime64[us]").astype(np.int64) - start
            part = (micro - start) / length
        elif name == "weekly":
            part = (micro + 3 * _DAY) % (7 * _DAY) / (7 * _DAY)  # 1970-01-01 was a Thursday
        else:
            cycle = _YEAR if name == "yearly" else _DAY
            part = micro % cycle / cycle
        columns[:, 2 * column] = np.sin(2 * np.pi * part)
        columns[:, 2 * column + 1] = np.cos(2 * np.pi * part)
    if holidays:
        columns[:, -1] = _holidays(dates.astype("datetime64[D]"), holidays, days)
    return columns


def _holidays(days: np.ndarray, country: str, span: int) -> np.ndarray:
    try:
        import holidays as library
    except ImportError:
        raise MissingExtraError(
            "holidays as a covariate need the library holidays, which is not installed; run: pip install holidays"
        ) from None
    code, _, part = country.partition("-")
    first, last = days.min().astype(object).year, (days.max() + span).astype(object).year
    try:
        known: Any = library.country_holidays(code, subdiv=part or None, years=range(first, last + 1))
    except (NotImplementedError, KeyError) as error:
        raise ConfigError(
            f"{option('holidays')} is {country!r}, expected a country such as 'US', 'DE' or 'US-CA': {error}"
        ) from None
    listed = np.sort(np.array(list(known), dtype="datetime64[D]"))
    return np.searchsorted(listed, days + span).astype(np.float64) - np.searchsorted(listed, days)
