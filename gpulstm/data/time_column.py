"""A column of times while a table is read: which format it has, decided from all rows, and the times themselves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpulstm.data.time_formats import (
    as_numbers,
    datetimes,
    finest,
    guesses,
    is_even,
    parse,
    plain_numbers,
    spelled_dates,
    spelling,
    text_form,
    zone_of,
    zones_of,
)
from gpulstm.data.times import EPOCHS, ZONES, TimeForm, zones_like
from gpulstm.errors import DataError, option

if TYPE_CHECKING:
    from gpulstm.data.cells import Where
    from gpulstm.data.frames import Source
    from gpulstm.data.options import TableOptions

_FEW = 5000  # labels that are kept from part to part
_FIRST, _LAST = 631_152_000, 4_102_444_800  # seconds of 1990 and 2100: numbers between them count since 1970
_KINDS = {"zoned": "times with a zone", "dates": "times without a zone", "numbers": "numbers"}


class TimeColumn:
    """The column of times of a source, which is read part by part.

    Args:
        at, name: its position and its name.
    """

    def __init__(self, source: Source, at: int, name: str, options: TableOptions) -> None:
        self._source, self._at, self._options = source, at, options
        self._label = f"time column {name!r} of {source.label}"
        self._cell = f"time column {name!r}, {{}} of {source.label}"
        self.notes: list[str] = []
        self._parts: list[np.ndarray] = []
        self._pattern = options.time_format or ""
        self._form: TimeForm | None = None
        self._kind = ""
        self._zones: set[str] = set()  # offsets from UTC that texts have
        self._like = ZONES  # zones that have just these offsets
        self._known: dict[str, np.datetime64] = {}  # few labels of a long table, that are parsed once

    def add(self, column: Any, where: Where) -> None:
        """The next rows, as a pandas Series.

        Raises:
            DataError: a row has no time, or one of another kind than those before it.
        """
        import pandas as pd

        self._where = where
        absent = column.isna().to_numpy()
        if absent.any():
            raise self._empty(int(np.argmax(absent)), int(absent.sum()))
        dtype = column.dtype
        if isinstance(dtype, pd.PeriodDtype):
            self._take("dates", TimeForm(kind=f"period:{str(dtype)[7:-1]}"), datetimes(column.dt.to_timestamp()))
        elif isinstance(dtype, pd.DatetimeTZDtype):
            self._take(
                "zoned", TimeForm(zone=str(dtype.tz)), datetimes(column.dt.tz_convert("UTC").dt.tz_localize(None))
            )
        elif pd.api.types.is_datetime64_dtype(dtype):
            self._take("dates", TimeForm(), datetimes(column))
        elif pd.api.types.is_bool_dtype(dtype) or pd.api.types.is_timedelta64_dtype(dtype):
            raise DataError(f"{self._label} holds {dtype}, expected dates or numbers")
        elif pd.api.types.is_numeric_dtype(dtype):
            whole = pd.api.types.is_integer_dtype(dtype)
            self._take("numbers", TimeForm(), column.to_numpy(dtype=np.int64 if whole else np.float64))
        else:
            codes, labels = pd.factorize(column)
            cells = labels.tolist()
            if set(map(type, cells)) == {str}:
                self._take_texts(list(map(str.strip, cells)), codes)
            else:
                self._take_objects(cells, codes)

    def done(self) -> tuple[np.ndarray, TimeForm]:
        """All times, `datetime64` in UTC or numbers, and their form."""
        time = self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts)
        self._parts.clear()
        form = self._form or TimeForm()
        if self._kind == "numbers":
            return self._spelled(time)
        if len(self._zones) > 1:
            zone, shown = next(iter(self._like), "UTC"), ", ".join(sorted(self._zones)[:3])
            which = f"these are those of {zone}" if self._like else "times are in UTC"
            self.notes.append(f"{self._label} has several offsets from UTC ({shown}) and no zone; {which}")
            form = replace(form, zone=zone)
        if form.kind == "text" and self._source.file:  # dates of a file are text only because files hold text
            form = replace(form, kind="dates")
        return time, form

    # -- parts -------------------------------------------------------------------------------------------------------
    def _take(self, kind: str, form: TimeForm, times: np.ndarray) -> None:
        if self._kind and kind != self._kind:
            raise DataError(
                f"{self._label} mixes {_KINDS[self._kind]} and {_KINDS[kind]} (from {self._where(0)} on); make them "
                "all alike"
            )
        if kind == "numbers" and not np.isfinite(times).all():
            raise DataError(f"{self._cell.format(self._where(int(np.argmin(np.isfinite(times)))))} is not finite")
        self._kind, self._form = kind, self._form or form
        self._parts.append(times)

    def _take_texts(self, texts: list[str], codes: np.ndarray) -> None:
        if "" in texts:
            blank = codes == texts.index("")
            raise self._empty(int(np.argmax(blank)), int(blank.sum()))
        if self._known and all(text in self._known for text in texts):
            self._parts.append(np.array([self._known[text] for text in texts])[codes])
            return
        if not self._pattern:
            numbers = as_numbers(texts)
            if numbers is not None:
                self._take("numbers", TimeForm(), numbers[codes])
                return
            self._pattern = self._decide(guesses(texts[0], self._options.dayfirst))
        zones = zones_of(texts)
        dates, bad = parse(texts, self._pattern, zones) if self._pattern else (np.empty(0), 0)
        if bad is not None:
            raise self._refused(texts[bad], int(np.argmax(codes == bad)))
        self._zones |= set(zones) - {None}  # type: ignore[arg-type]
        if self._zones and None in zones:
            one, other = texts[zones.index(None)], next((text for text in texts if zone_of(text)), "those before")
            raise DataError(
                f"{self._label} mixes times without a zone ({one!r}) and with one ({other!r}); make them all alike"
            )
        if self._zones - {"UTC"}:
            self._like = zones_like(self._like, dates, [zone or "" for zone in zones])
        self._take("zoned" if self._zones else "dates", text_form(texts, self._pattern, zones[0]), dates[codes])
        if self._form is not None and not self._form.pattern:
            self._form = replace(self._form, unit=finest(self._form.unit, texts))
        if len(texts) + len(self._known) <= _FEW:
            self._known |= dict(zip(texts, dates, strict=True))

    def _decide(self, patterns: list[str]) -> str:
        """The pattern that reads the texts of all rows, or in which they are evenly spaced; "" for none.

        Raises:
            DataError: the rows can be read day first and month first alike.
        """
        if len(patterns) < 2:
            return patterns[0] if patterns else ""
        seen: set[str] = set()
        for part in self._source.read({self._at: "time"}):
            texts = [str(text).strip() for text in part[self._at].dropna().unique()]
            bad = {pattern: parse(texts, pattern)[1] for pattern in patterns}
            good = [pattern for pattern, row in bad.items() if row is None]
            if len(good) < 2:
                return good[0] if good else max(patterns, key=lambda pattern: bad[pattern] or 0)
            seen.update(texts)
        texts = list(seen)
        even = [pattern for pattern in patterns if is_even(parse(texts, pattern)[0])]
        if len(even) == 1:
            self.notes.append(f"times are read as {even[0]}, in which the rows are evenly spaced")
            return even[0]
        shown = min((text for text in texts if len(set(re.findall(r"\d+", text)[:2])) > 1), default=texts[0])
        first, second = (str(parse([shown], pattern)[0][0].astype("datetime64[D]")) for pattern in patterns)
        raise DataError(
            f"{self._label} can be read in two ways: {shown!r} is {first} or {second}, and no row tells which; say "
            f"{option('dayfirst', True)} or {option('dayfirst', False)}"
        )

    def _take_objects(self, values: Sequence[Any], codes: np.ndarray) -> None:
        """Dates, datetimes, Timestamps, Periods or numbers that came as Python objects."""
        import pandas as pd

        numbers = plain_numbers(values)
        if numbers is not None:
            self._take("numbers", TimeForm(), numbers[codes])
            return
        if all(isinstance(value, pd.Period) for value in values):
            self.add(pd.Series(pd.PeriodIndex(list(values)).take(codes)), self._where)
            return
        aware = [getattr(value, "tzinfo", None) is not None for value in values]
        if any(aware) and not all(aware):
            raise DataError(f"{self._label} mixes times without a zone and with one; make them all alike")
        try:
            dates = pd.to_datetime(pd.Series(list(values), dtype=object), utc=any(aware))
        except (ValueError, TypeError, OverflowError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{self._label} holds {values[0]!r}, expected dates or numbers: {reason}") from None
        form = TimeForm(kind="date" if all(type(value).__name__ == "date" for value in values) else "dates")
        if any(aware):
            zones = {str(getattr(value.tzinfo, "key", value.tzinfo)) for value in values}
            form = TimeForm(zone=zones.pop() if len(zones) == 1 else "UTC")
            dates = dates.dt.tz_localize(None)
        self._take("zoned" if any(aware) else "dates", form, datetimes(dates)[codes])

    def _empty(self, row: int, count: int) -> DataError:
        return DataError(f"{self._cell.format(self._where(row))} is empty ({count} such); every row needs a time")

    def _refused(self, text: str, row: int) -> DataError:
        expected = (
            f"the format {self._options.time_format!r}"
            if self._options.time_format
            else "a number or a date such as 2024-01-31; name another format as " + option("time_format", "%d.%m.%Y")
        )
        return DataError(f"{self._cell.format(self._where(row))} holds {text!r}, expected {expected}")

    def _spelled(self, values: np.ndarray) -> tuple[np.ndarray, TimeForm]:
        """Numbers that spell a date (20240131) or count since 1970; else the numbers."""
        pattern = self._options.time_format
        if pattern is not None:
            unique, codes = np.unique(values, return_inverse=True)
            texts = [f"{value:.0f}" if float(value).is_integer() else str(value) for value in unique.tolist()]
            dates, bad = parse(texts, pattern)
            if bad is not None:
                self._where = self._source.row_names(0)
                raise self._refused(texts[bad], int(np.argmax(codes == bad)))
            return dates[codes], TimeForm(pattern=pattern, kind="int")
        pattern = spelling(values)
        if pattern:
            return spelled_dates(values, pattern), TimeForm(pattern=pattern, kind="int")
        low, high = float(values.min()), float(values.max())
        for unit, ticks in EPOCHS.items():
            if _FIRST * ticks <= low and high <= _LAST * ticks:
                if values.dtype.kind == "f" and unit in ("us", "ns") and high > 2**53:
                    raise DataError(
                        f"{self._label} holds {unit} since 1970 as floats, whose precision is too low for them; pass "
                        "whole numbers or dates"
                    )
                return values, TimeForm(epoch=unit)
        return values, TimeForm()
