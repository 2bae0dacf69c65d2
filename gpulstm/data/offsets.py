"""The dates of pandas offsets, and of the days of a month that pandas has no offset for.

Those are the n-th business day of a month, `BMS#2` from its start and `BME#3` from its end, and the last weekday of a
name in it, `LWOM-FRI`, which pandas has from version 3 on.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpulstm.data.times import MONTH
from gpulstm.validate import whole_of

_MOST = 20  # business days that every month has
_WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


def own_rule(alias: str) -> bool:
    """Whether an alias names the n-th business day of a month from its start or end, which pandas has not, or the last
    weekday of a name in it, which pandas has from version 3 on.
    """
    if alias.startswith("LWOM-"):
        return alias[5:] in _WEEKDAYS
    name, mark, number = alias.partition("#")
    return name in ("BMS", "BME") and mark == "#" and 1 <= (whole_of(number) or 0) <= _MOST


def dates_of(alias: str, low: np.datetime64, high: np.datetime64, more: int) -> np.ndarray:
    """The dates of an alias from `low` to `high`, at least one, and `more` or a few more after them."""
    if own_rule(alias) or alias in ("MS", "ME"):
        name, _, number = alias.partition("#")
        months = np.arange(low.astype("datetime64[M]"), high.astype("datetime64[M]") + (more + 1) * MONTH)
        if alias in ("MS", "ME"):  # pandas says the same, but takes a millisecond
            return months.astype("datetime64[D]") if alias == "MS" else (months + MONTH).astype("datetime64[D]") - 1
        if not number:
            ends = (months + MONTH).astype("datetime64[D]")
            return np.busday_offset(ends, -1, roll="forward", weekmask=alias[-3:].capitalize())
        if name == "BMS":
            return np.busday_offset(months.astype("datetime64[D]"), int(number) - 1, roll="forward")
        return np.busday_offset((months + MONTH).astype("datetime64[D]"), -int(number), roll="forward")
    import pandas as pd

    dates: Any = pd.bdate_range(low, high) if alias == "B" else pd.date_range(low, high, freq=alias)
    if more or not len(dates):
        last = dates[-1] if len(dates) else pd.Timestamp(low if not more else high)
        dates = dates.append(pd.date_range(last, periods=more + 2 if more else 1, freq=alias)).unique()
    return dates.to_numpy()


def aliases_of_months(day: np.datetime64, count: int) -> list[str]:
    """Aliases of months, quarters or years that rows `count` months apart may have, the first of them on `day`."""
    month = day.astype("datetime64[M]")
    at = int(month.astype(np.int64)) % 12
    length = "Y" if count % 12 == 0 else "Q" if count % 3 == 0 else "M"
    start, end = {"Y": (at, at), "Q": (at % 3, 9 + at % 3), "M": (None, None)}[length]
    marks = ["" if place is None else f"-{_MONTHS[place]}" for place in (start, end)]
    names = [f"{kind}{length}{edge}{mark}" for kind in ("", "B") for edge, mark in zip("SE", marks, strict=True)]
    nth = int(np.busday_count(month.astype("datetime64[D]"), day)) + 1
    back = int(np.busday_count(day, (month + MONTH).astype("datetime64[D]")))
    weekday = _WEEKDAYS[(int(day.astype(np.int64)) + 3) % 7]
    week = int((day - month.astype("datetime64[D]")).astype(np.int64)) // 7 + 1
    own = [f"{name}#{number}" for name, number in (("BMS", nth), ("BME", back)) if 1 <= number <= _MOST]
    return [*names, *own, *([f"WOM-{week}{weekday}"] if week < 5 else []), f"LWOM-{weekday}"]
