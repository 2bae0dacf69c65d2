"""Times as tables hold them: text in any one format, whole numbers such as 20240131, epochs, dates, dates with a zone.

A series set keeps times as `datetime64` in UTC or as the numbers that came.  A `TimeForm` tells how they were written,
so that every output carries them the same way.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

TIME = "datetime64[us]"
MONTH = np.timedelta64(1, "M")  # NumPy 2.5 adds no bare 1
UNITS = ("D", "m", "s", "ms", "us", "ns")  # resolutions that text of times may have, coarse to fine
ZONES: tuple[str, ...] = (  # whose clocks change, one for each rule
    *("Europe/Berlin", "Europe/London", "Europe/Athens", "America/New_York", "America/Chicago", "America/Denver"),
    *("America/Los_Angeles", "America/Halifax", "America/St_Johns", "America/Anchorage", "America/Havana"),
    *("America/Sao_Paulo", "America/Santiago", "America/Asuncion", "America/Mexico_City", "America/Nuuk"),
    *("Australia/Sydney", "Australia/Adelaide", "Australia/Lord_Howe", "Pacific/Auckland", "Pacific/Chatham"),
    *("Asia/Jerusalem", "Asia/Beirut", "Africa/Cairo", "Africa/Casablanca", "Atlantic/Azores", "Europe/Chisinau"),
    *("Europe/Istanbul", "Europe/Moscow", "Asia/Tehran", "America/Adak", "America/Miquelon", "Pacific/Norfolk"),
)
EPOCHS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}  # ticks in a second


@dataclass(frozen=True)
class TimeForm:
    """How times were written where they came from.

    Attributes:
        zone: the zone they belong to ("Europe/Berlin", "UTC", "+05:30"), or None where they have none.
        epoch: "s", "ms", "us" or "ns" for numbers that count since 1970, else "".
        pattern: `strftime` pattern of dates written otherwise than ISO 8601, or of numbers such as 20240131, else "".
        unit: of `UNITS`, or "M" for months: the resolution that ISO text has.
        separator: between date and time of ISO text.
        plain: whether numbers in ISO text and patterns have no leading zeros.
        digits: how many digits a fraction of a second has in a pattern.
        kind: what a frame holds: "dates", "text", "int" (with `pattern`), "date" objects, or "period:FREQ".
    """

    zone: str | None = None
    epoch: str = ""
    pattern: str = ""
    unit: str = ""
    separator: str = " "
    plain: bool = False
    digits: int = 6
    kind: str = "dates"

    def clock(self, time: np.ndarray) -> np.ndarray | None:
        """The times as `datetime64` in UTC; None for numbers that are no dates."""
        if time.dtype.kind == "M":
            return time
        if not self.epoch:
            return None
        if time.dtype.kind in "iu":
            dates = time.astype(f"datetime64[{self.epoch}]")
            return dates if self.epoch == "ns" else dates.astype(TIME)
        return np.round(time * (1e6 / EPOCHS[self.epoch])).astype(np.int64).astype(TIME)

    def unclock(self, dates: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
        """The reverse of `clock`, for times of `dtype`."""
        if dtype.kind == "M":
            return dates.astype(dtype)
        if dtype.kind in "iu":
            return dates.astype(f"datetime64[{self.epoch}]").astype(np.int64)
        return dates.astype(TIME).astype(np.int64) / (1e6 / EPOCHS[self.epoch])

    def texts(self, time: np.ndarray) -> list[str]:
        """The times as a file would hold them, in the form that they came in."""
        if time.dtype.kind in "iu":
            return [str(value) for value in time.tolist()]
        if time.dtype.kind != "M":
            return [format_time(value) for value in time]
        if self.pattern:
            return self._by_pattern(time)
        local, suffixes = localize(time, self.zone)
        if self.unit == "M":
            return np.datetime_as_string(local, unit="M").tolist()
        unit = finer(self.unit or "D", resolution(local))
        if unit == "m" and not self.unit:
            unit = "s"
        texts = np.datetime_as_string(local, unit=unit)  # type: ignore[call-overload] # a unit in a variable
        if unit != "D" and self.separator != "T":
            texts = np.char.replace(texts, "T", self.separator)
        if suffixes is None or (unit == "D" and self.kind == "text"):
            return texts.tolist()
        if unit == "D":
            texts = np.char.replace(np.datetime_as_string(local, unit="s"), "T", self.separator)
        return [text + suffix for text, suffix in zip(texts.tolist(), suffixes, strict=True)]

    def column(self, time: np.ndarray) -> Any:
        """The times as a pandas column of the type that they came in."""
        import pandas as pd

        if time.dtype.kind != "M":
            return pd.Series(time)
        if self.kind == "text":
            return pd.Series(self.texts(time), dtype=object).astype("str")
        if self.kind == "int":
            return pd.Series([int(text) for text in self.texts(time)])
        dates = pd.DatetimeIndex(time)
        if self.zone is not None:
            dates = dates.tz_localize("UTC").tz_convert(self.zone)
        if self.kind == "date":
            return pd.Series(dates.date, dtype=object)
        if self.kind.startswith("period:"):
            return pd.Series(dates.to_period(self.kind.removeprefix("period:")))
        return pd.Series(dates)

    def _by_pattern(self, time: np.ndarray) -> list[str]:
        import pandas as pd

        local, suffixes = localize(time, self.zone)
        pattern, quarter = self.pattern.replace("%z", ""), "%q" in self.pattern
        dates = pd.DatetimeIndex(local)
        if quarter:
            numbers = [str(number) for number in dates.quarter]
            texts = [date.strftime(pattern.replace("%q", number)) for date, number in zip(dates, numbers, strict=True)]
        else:
            texts = list(dates.strftime(pattern))
        if self.digits < 6 and "%f" in pattern:
            texts = [re.sub(rf"([.,]\d{{{self.digits}}})\d*", r"\1", text) for text in texts]
        if self.plain:
            texts = [re.sub(r"(?<![\d:])(?<!:\d\d[.,])0(\d)(?!\d)", r"\1", text) for text in texts]
        if suffixes is None or "%z" not in self.pattern:
            return texts
        return [text + suffix for text, suffix in zip(texts, suffixes, strict=True)]


def finer(one: str, other: str) -> str:
    """The finer of two resolutions of `UNITS`."""
    return max(one, other, key=lambda unit: UNITS.index(unit) if unit in UNITS else 0)


def resolution(time: np.ndarray) -> str:
    """The coarsest of `UNITS` that holds all of some `datetime64`."""
    for unit in UNITS[:-1]:
        if bool((time.astype(f"datetime64[{unit}]") == time).all()):
            return unit
    return "ns"


def localize(time: np.ndarray, zone: str | None) -> tuple[np.ndarray, list[str] | None]:
    """Wall-clock times in a zone, and what tells the offset from UTC: "Z", "+01:00"; None without a zone."""
    if zone is None:
        return time, None
    if zone == "UTC":
        return time, ["Z"] * len(time)
    offsets = zone_offsets(time, zone)
    texts = {int(value): _offset_text(int(value)) for value in np.unique(offsets)}
    return time + offsets.astype("timedelta64[s]"), [texts[int(value)] for value in offsets]


def zone_offsets(time: np.ndarray, zone: str) -> np.ndarray:
    """Seconds between UTC and the wall clock of a zone at each time, `(rows,)` int64."""
    fixed = re.fullmatch(r"(?:UTC)?([+-])(\d{2}):?(\d{2})", zone)
    if zone == "UTC":
        return np.zeros(len(time), np.int64)
    if fixed:
        sign = 1 if fixed[1] == "+" else -1
        return np.full(len(time), sign * (int(fixed[2]) * 3600 + int(fixed[3]) * 60), np.int64)
    import pandas as pd

    dates = pd.DatetimeIndex(time)
    wall = dates.tz_localize("UTC").tz_convert(zone).tz_localize(None)
    return ((wall - dates) // pd.Timedelta(seconds=1)).to_numpy(dtype=np.int64)


def zones_like(zones: Sequence[str], time: np.ndarray, suffixes: Sequence[str]) -> tuple[str, ...]:
    """Those of some zones whose clocks differ from UTC at some times as `suffixes` say, such as "+02:00" or "UTC"."""
    seconds = {text: int(zone_offsets(time[:1], text)[0]) for text in set(suffixes)}
    offsets = np.array([seconds[text] for text in suffixes])
    return tuple(zone for zone in zones if np.array_equal(zone_offsets(time, zone), offsets))


def to_utc(local: np.ndarray, zone: str | None) -> np.ndarray:
    """Wall-clock times of a zone in UTC: an hour that the clock skips is moved on, one it repeats is its first."""
    if zone is None or zone == "UTC" or not len(local):
        return local
    if re.fullmatch(r"(?:UTC)?[+-]\d{2}:?\d{2}", zone):
        return local - zone_offsets(local, zone).astype("timedelta64[s]")
    import pandas as pd

    dates = pd.DatetimeIndex(local).tz_localize(zone, ambiguous=np.ones(len(local), bool), nonexistent="shift_forward")
    return dates.tz_convert("UTC").tz_localize(None).to_numpy().astype(local.dtype)


def _offset_text(seconds: int) -> str:
    sign, minutes = ("-" if seconds < 0 else "+"), abs(seconds) // 60
    return f"{sign}{minutes // 60:02}:{minutes % 60:02}"


def format_time(value: np.generic | float, form: TimeForm | None = None) -> str:
    """A time for a message: a date where it is midnight, else to the second or finer; a number as short as it goes."""
    if not isinstance(value, np.datetime64):
        number = value.item() if isinstance(value, np.generic) else value
        return str(number) if isinstance(number, int) else f"{number:.15g}"
    if form is not None and (form.zone is not None or form.pattern):
        return form.texts(np.array([value]))[0]
    unit = resolution(np.array([value]))
    unit = "s" if unit == "m" else unit
    return str(np.datetime_as_string(value, unit=unit))  # type: ignore[call-overload] # a unit in a variable
