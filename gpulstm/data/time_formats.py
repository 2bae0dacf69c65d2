"""Text and numbers that spell times: the patterns that one label may have, and labels read by a pattern."""

from __future__ import annotations

import numbers
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpulstm.data.times import MONTH, TIME, TimeForm, finer
from gpulstm.validate import number_of

_NUMBER_DATES = {  # digits of a whole number that spells a date -> its format
    6: "%Y%m",
    8: "%Y%m%d",
    10: "%Y%m%d%H",
    12: "%Y%m%d%H%M",
    14: "%Y%m%d%H%M%S",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_ISO = re.compile(
    r"\d{8}T\d{4}(\d{2})?Z?|"
    r"\d{4}-\d{1,2}(-\d{1,2}([T ]\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?)?(\s*(Z|[+-]\d{2}(:?\d{2})?))?)?",
    re.ASCII,
)
_QUARTER = re.compile(r"(\d{4})([-\s.:/]*[Qq])([1-4])|([Qq])([1-4])([-\s.:/]*)(\d{4})", re.ASCII)
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")


def looks_like_date(text: str) -> bool:
    """Whether text, which is no number, is a date in some format."""
    text = text.strip()
    if len(text) < 6 or not any(mark.isdigit() for mark in text):
        return False
    return any(parse([text], pattern)[1] is None for pattern in guesses(text, None))


def zone_of(text: str) -> str | None:
    """The zone that text of a time ends in: "UTC", "+01:00", or None."""
    if ":" not in text:
        return None
    if text.endswith(("Z", "UTC", "GMT")):
        return "UTC"
    end = re.search(r"([+-])(\d{2}):?(\d{2})?$", text[text.index(":") :])
    if not end:
        return None
    offset = f"{end[1]}{end[2]}:{end[3] or '00'}"
    return "UTC" if offset in ("+00:00", "-00:00") else offset


def zones_of(texts: Sequence[str]) -> list[str | None]:
    """The zone that each text ends in; what follows the first colon is the same in many of them."""
    ends = [text.partition(":")[2] for text in texts]
    known = {end: zone_of(f":{end}") for end in set(ends)}
    return [known[end] for end in ends]


def guesses(text: str, dayfirst: bool | None) -> list[str]:
    """The patterns that one label may have; "ISO" for ISO 8601, "quarter" for 2024Q1."""
    if _ISO.fullmatch(text):
        return ["ISO"]
    if _QUARTER.fullmatch(text):
        return ["quarter"]
    pattern, rest = "", text
    dates: list[str] = []
    tokens = re.findall(r"\d+|[A-Za-z]+|[^\dA-Za-z]", rest)
    clock = False
    at = 0
    while at < len(tokens):
        token = tokens[at]
        after = tokens[at + 1] if at + 1 < len(tokens) else ""
        if token.isdigit() and after == ":" and not clock:
            clock, pattern = True, pattern + ("%I" if re.search(r"[AaPp]\.?[Mm]", rest) else "%H") + ":%M"
            at += 3
            if at + 1 < len(tokens) and tokens[at] == ":":
                pattern, at = pattern + ":%S", at + 2
                if at + 1 < len(tokens) and tokens[at] in ".," and tokens[at + 1].isdigit():
                    pattern, at = pattern + tokens[at] + "%f", at + 2
            continue
        if clock and token in "+-" and after.isdigit():
            return [found + "%z" for found in _orders(pattern, dates, dayfirst)]
        if token.isdigit():
            pattern += f"\0{len(dates)}\0"
            dates.append(token)
        elif token[:3].lower() in _MONTHS:
            pattern += "%B" if len(token) > 3 else "%b"
        elif token[:3].lower() in _DAYS:
            pattern += "%A" if len(token) > 3 else "%a"
        elif token.upper() in ("AM", "PM"):
            pattern += "%p"
        elif token.upper() in ("UTC", "GMT", "Z") and clock:
            pattern += "%Z" if token.upper() != "Z" else "%z"
        elif token.isalpha() and token != "T":
            return []
        else:
            pattern += token.replace("%", "%%")
        at += 1
    return _orders(pattern, dates, dayfirst)


def _orders(pattern: str, dates: list[str], dayfirst: bool | None) -> list[str]:
    """A pattern with the numbers of its date put in the orders that they can have."""
    named = "%b" in pattern or "%B" in pattern
    long = [at for at, text in enumerate(dates) if len(text) == 4]
    choices: list[tuple[str, ...]]
    if len(dates) == 1 and len(dates[0]) == 8:
        choices = [("%Y%m%d",)]
    elif any(len(text) > 4 or len(text) == 3 for text in dates):
        return []
    elif named and len(dates) == 1:
        choices = [("%Y",)] if long else [("%y",)]
    elif named and len(dates) == 2:
        choices = [("%Y", "%d")] if long == [0] else [("%d", "%Y" if long else "%y")]
    elif len(dates) == 2 and long == [0]:
        choices = [("%Y", "%m")]
    elif len(dates) == 2 and long == [1]:
        choices = [("%m", "%Y")]
    elif len(dates) == 3 and long == [0]:
        choices = [("%Y", "%m", "%d")]
    elif len(dates) == 3 and long in ([2], []):
        year = "%Y" if long else "%y"
        choices = [("%d", "%m", year), ("%m", "%d", year)]
        if dayfirst is not None:
            choices = choices[:1] if dayfirst else choices[1:]
    else:
        return []
    found = []
    for choice in choices:
        text = pattern
        for at, directive in enumerate(choice):
            text = text.replace(f"\0{at}\0", directive)
        found.append(text)
    return found


def parse(
    texts: Sequence[str], pattern: str, zones: Sequence[str | None] | None = None
) -> tuple[np.ndarray, int | None]:
    """Labels as `datetime64` in UTC, and the first that the pattern cannot read, or None.

    Args:
        zones: `zones_of` the labels, where that is known.
    """
    import pandas as pd

    labels: Any = pd.Series(list(texts), dtype=object)
    if pattern == "quarter":
        matches = [_QUARTER.fullmatch(text) for text in texts]
        bad = next((at for at, match in enumerate(matches) if match is None), None)
        pairs = [(match[1] or match[7], match[3] or match[5]) for match in matches if match]
        months = [f"{year}-{3 * int(quarter) - 2:02}" for year, quarter in pairs]
        return np.array(months, dtype="datetime64[M]").astype(TIME), bad
    zoned = (
        "%z" in pattern or "%Z" in pattern or (pattern == "ISO" and any(zones_of(texts) if zones is None else zones))
    )
    pattern = "ISO8601" if pattern == "ISO" else pattern
    if pattern == "ISO8601" and "," in "".join(texts):
        labels = labels.str.replace(",", ".")
    dates = pd.to_datetime(labels, format=pattern, errors="coerce", utc=zoned)
    absent = dates.isna().to_numpy()
    bad = int(np.argmax(absent)) if absent.any() else None
    if dates.dtype == object:
        return np.full(len(texts), np.datetime64("NaT", "us"), TIME), bad if bad is not None else 0
    if zoned:
        dates = dates.dt.tz_localize(None)
    return datetimes(dates), bad


def datetimes(column: Any) -> np.ndarray:
    """A column of dates as `datetime64[us]`, or `[ns]` where it holds fractions of a microsecond."""
    values = column.to_numpy()
    if values.dtype == np.dtype("datetime64[ns]"):
        coarse = values.astype(TIME)
        return coarse if bool(((coarse == values) | np.isnat(values)).all()) else values
    return values.astype(TIME)


def text_form(texts: Sequence[str], pattern: str, zone: str | None) -> TimeForm:
    """How labels that a pattern reads are written."""
    first = texts[0]
    if pattern == "ISO":
        separator = "T" if "T" in first else " "
        return TimeForm(zone=zone, unit=finest("", texts), separator=separator, kind="text")
    if pattern == "quarter":
        match = _QUARTER.fullmatch(first)
        assert match is not None
        pattern = f"%Y{match[2]}%q" if match[1] else f"{match[4]}%q{match[6]}%Y"
        return TimeForm(pattern=pattern, kind="text")
    plain = any(re.search(r"(?<!\d)\d(?!\d)", text) for text in texts[:1000])
    fraction = re.search(r"[.,](\d+)(?!.*[.,]\d)", first) if "%f" in pattern else None
    digits = len(fraction[1]) if fraction else 6
    return TimeForm(zone=zone, pattern=pattern.replace("%Z", "UTC"), plain=plain, digits=digits, kind="text")


def finest(known: str, texts: Sequence[str]) -> str:
    """The resolution that ISO text shows."""
    unit = known
    for text in texts if len(texts) < 1000 else [*texts[:500], *texts[-500:]]:
        if len(text) <= 7:
            here = "M"
        elif ":" not in text:
            here = "D"
        else:
            seconds = re.search(r":\d{2}:\d{2}(?:[.,](\d+))?", text)
            digits = len(seconds[1]) if seconds and seconds[1] else 0
            here = "m" if not seconds else ("s", "ms", "us", "ns")[-(-digits // 3)]
        unit = here if not unit or unit == "M" else finer(unit, here)
    return unit


def as_numbers(texts: Sequence[str]) -> np.ndarray | None:
    """Labels as whole numbers or floats, or None where one is neither."""
    if all(map(_WHOLE.fullmatch, texts)):
        return np.array(list(map(int, texts)), dtype=np.int64)
    if number_of(texts[0]) is None:
        return None
    values = list(map(number_of, texts))
    return None if None in values else np.array(values, dtype=np.float64)


def plain_numbers(values: Sequence[Any]) -> np.ndarray | None:
    """Python's numbers as an array, or None where one is none."""
    if not all(isinstance(value, numbers.Real) and not isinstance(value, bool) for value in values):
        return None
    whole = all(isinstance(value, numbers.Integral) for value in values)
    return np.array(list(values), dtype=np.int64 if whole else np.float64)


def spelling(values: np.ndarray) -> str:
    """The pattern of whole numbers that all spell a date between 1900 and 2100, or ""."""
    if values.dtype.kind == "f" and not bool((values == np.floor(values)).all()):
        return ""
    low, high = int(values.min()), int(values.max())
    pattern = _NUMBER_DATES.get(len(str(high)), "")
    if low <= 0 or len(str(low)) != len(str(high)) or not pattern:
        return ""
    scale = 10 ** (len(str(high)) - 4)
    if not (low // scale >= 1900 and high // scale <= 2100):
        return ""
    return pattern if not np.isnat(spelled_dates(values, pattern)).any() else ""


def spelled_dates(values: np.ndarray, pattern: str) -> np.ndarray:
    """Numbers such as 20240131 as `datetime64[us]`; NaT where there is no such day."""
    rest, parts = values.astype(np.int64), {}
    for directive, size in reversed(list(zip("YmdHMS", (10_000, 100, 100, 100, 100, 100), strict=True))):
        if f"%{directive}" in pattern:
            rest, parts[directive] = np.divmod(rest, size)
    month = parts["m"]
    months = (12 * (parts["Y"] - 1970) + month - 1).astype("datetime64[M]")
    day, hour = parts.get("d", np.int64(1)), parts.get("H", np.int64(0))
    minute, second = parts.get("M", np.int64(0)), parts.get("S", np.int64(0))
    length = ((months + MONTH).astype("datetime64[D]") - months.astype("datetime64[D]")).astype(np.int64)
    good = (month >= 1) & (month <= 12) & (day >= 1) & (day <= length) & (hour < 24) & (minute < 60) & (second < 60)
    seconds = ((day - 1) * 24 + hour) * 3600 + minute * 60 + second
    dates = months.astype(TIME) + (seconds * 1_000_000).astype("timedelta64[us]")
    return np.where(good, dates, np.datetime64("NaT", "us"))


def is_even(dates: np.ndarray) -> bool:
    """Whether sorted dates are evenly spaced, in days or in months."""
    dates = np.unique(dates)
    if len(dates) < 3:
        return False
    steps = np.diff(dates)
    if bool((steps == steps[0]).all()):
        return True
    months = np.diff(dates.astype("datetime64[M]").astype(np.int64))
    inside = dates - dates.astype("datetime64[M]").astype(dates.dtype)
    return bool((months == months[0]).all() and months[0] > 0 and (inside == inside[0]).all())
