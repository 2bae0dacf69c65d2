"""A column of times while a table is read: which format it has, decided from all rows, and the times themselves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpulstm.data.time_text import (
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
)
from gpulstm.data.times import EPOCHS, TimeForm
from gpulstm.errors import DataError, option

if TYPE_CHECKING:
    import pandas as pd

_FIRST, _LAST = 631_152_000, 4_102_444_800  # seconds of 1990 and 2100: numbers between them count since 1970


class TimeColumn:
    """A column of times that is read in parts.

    Args:
        name, label: of the column and the table, for messages.
        time_format: one `strptime` pattern for all rows, or None to find it.
        dayfirst: how 01/02/2024 is read, or None to tell it from all rows.
        word, first: how rows are named in messages: `"row"` from 2 in a file, `"position"` from 0 else.
        file: whether the table is a file, whose dates are text only because files hold text.
    """

    def __init__(
        self, name: str, label: str, time_format: str | None, dayfirst: bool | None, word: str, first: int, file: bool
    ) -> None:
        self.name, self.label, self.word, self.first, self.file = name, label, word, first, file
        self.time_format, self.dayfirst = time_format, dayfirst
        self.notes: list[str] = []
        self._parts: list[np.ndarray] = []
        self._texts: list[tuple[np.ndarray, Any]] = []  # codes and labels of parts that can be read in several ways
        self._formats: list[str] = []
        self._form: TimeForm | None = None
        self._kind = ""
        self._offsets: set[str] = set()
        self._rows = 0

    def add(self, part: Any) -> None:
        """The next rows, as a pandas Series or an array."""
        import pandas as pd

        column = part if isinstance(part, pd.Series) else pd.Series(part)
        self._missing(column.isna().to_numpy())
        dtype = column.dtype
        if isinstance(dtype, pd.PeriodDtype):
            self._set("dates", TimeForm(kind=f"period:{str(dtype)[7:-1]}"))
            self._parts.append(datetimes(column.dt.to_timestamp()))
        elif isinstance(dtype, pd.DatetimeTZDtype):
            self._set("zoned", TimeForm(zone=str(dtype.tz)))
            self._parts.append(datetimes(column.dt.tz_convert("UTC").dt.tz_localize(None)))
        elif pd.api.types.is_datetime64_dtype(dtype):
            self._set("dates", TimeForm())
            self._parts.append(datetimes(column))
        elif pd.api.types.is_bool_dtype(dtype) or pd.api.types.is_timedelta64_dtype(dtype):
            raise DataError(f"time column {self.name!r} of {self.label} holds {dtype}, expected dates or numbers")
        elif pd.api.types.is_numeric_dtype(dtype):
            whole = pd.api.types.is_integer_dtype(dtype)
            self._numbers(column.to_numpy(dtype=np.int64 if whole else np.float64))
        else:
            self._objects(column)
        self._rows += len(column)

    def done(self) -> tuple[np.ndarray, TimeForm]:
        """All times, `datetime64` in UTC or numbers, and their form.

        Raises:
            DataError: the rows can be read day first and month first alike, or hold no dates.
        """
        if self._texts:
            self._decide()
        time = self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts)
        self._parts.clear()
        form = self._form or TimeForm()
        if self._kind == "numbers":
            return self._spelled(time)
        if len(self._offsets) > 1:
            self.notes.append(
                f"time column {self.name!r} holds several offsets from UTC ({', '.join(sorted(self._offsets)[:3])}) "
                "and no zone; times are kept in UTC"
            )
            form = replace(form, zone="UTC")
        if form.kind == "text":
            form = replace(form, kind="dates" if self.file else "text")
        return time, form

    # -- parts -------------------------------------------------------------------------------------------------------
    def _where(self, row: int) -> str:
        return f"{self.word} {self.first + self._rows + row}"

    def _missing(self, absent: np.ndarray) -> None:
        if absent.any():
            raise DataError(
                f"time column {self.name!r}, {self._where(int(np.argmax(absent)))} of {self.label} is empty "
                f"({int(absent.sum())} such); every row needs a time"
            )

    def _set(self, kind: str, form: TimeForm) -> None:
        if self._kind and kind != self._kind:
            words = {"zoned": "times with a zone", "dates": "times without a zone", "numbers": "numbers"}
            raise DataError(
                f"time column {self.name!r} of {self.label} mixes {words[self._kind]} and {words[kind]} "
                f"(from {self._where(0)} on); make them all alike"
            )
        self._kind = kind
        self._form = self._form or form

    def _numbers(self, values: np.ndarray) -> None:
        self._set("numbers", TimeForm())
        bad = ~np.isfinite(values)
        if bad.any():
            raise DataError(
                f"time column {self.name!r}, {self._where(int(np.argmax(bad)))} of {self.label} is not finite"
            )
        self._parts.append(values)

    def _objects(self, column: pd.Series) -> None:
        import pandas as pd

        codes, labels = pd.factorize(column)
        if isinstance(labels, pd.CategoricalIndex):
            labels = labels.astype(labels.categories.dtype)
        values = list(labels)
        if not all(isinstance(value, str) for value in values):
            self._python_objects(values, codes)
            return
        texts = [text.strip() for text in values]
        for row, text in enumerate(texts):
            if not text:
                raise DataError(
                    f"time column {self.name!r}, {self._where(int(np.argmax(codes == row)))} of {self.label} is empty; "
                    "every row needs a time"
                )
        if self.time_format is None and not self._formats:
            numbers = as_numbers(texts)
            if numbers is not None:
                self._numbers(numbers[codes])
                return
        if not self._formats:
            self._formats = [self.time_format] if self.time_format else guesses(texts[0], self.dayfirst)
        if not self._formats:
            self._refuse(texts[0], int(np.argmax(codes == 0)))
        self._narrow(texts, codes)

    def _narrow(self, texts: list[str], codes: np.ndarray) -> None:
        """Keep the formats that read all of some labels; with one left, read them."""
        survivors, worst = [], (0, texts[0])
        results: dict[str, Any] = {}
        for pattern in self._formats:
            dates, bad = parse(texts, pattern)
            if bad is None:
                survivors.append(pattern)
                results[pattern] = dates
            elif bad >= worst[0]:
                worst = (bad, texts[bad])
        if not survivors:
            self._refuse(worst[1], int(np.argmax(codes == worst[0])))
        self._formats = survivors
        if len(survivors) > 1:
            self._texts.append((codes, texts))
            return
        pending, self._texts = self._texts, []
        for old_codes, old_texts in pending:
            self._accept(old_texts, old_codes, parse(old_texts, survivors[0])[0], survivors[0])
        self._accept(texts, codes, results[survivors[0]], survivors[0])

    def _accept(self, texts: list[str], codes: np.ndarray, dates: np.ndarray, pattern: str) -> None:
        zoned = [zone_of(text) for text in texts]
        offsets = {zone for zone in zoned if zone}
        if offsets and None in zoned:
            one, other = zoned.index(None), next(at for at, zone in enumerate(zoned) if zone)
            raise DataError(
                f"time column {self.name!r} of {self.label} mixes times without a zone ({texts[one]!r}) and with one "
                f"({texts[other]!r}); make them all alike"
            )
        self._offsets |= offsets
        zone = next(iter(offsets)) if offsets else None
        self._set("zoned" if offsets else "dates", text_form(texts, pattern, zone))
        if self._form is not None and not self._form.pattern:
            self._form = replace(self._form, unit=finest(self._form.unit, texts))
        self._parts.append(dates[codes])

    def _decide(self) -> None:
        """Day first or month first: the reading whose rows are evenly spaced, or a refusal that shows both."""
        texts = [text for _, labels in self._texts for text in labels]
        even = [pattern for pattern in self._formats if is_even(parse(texts, pattern)[0])]
        if len(even) != 1:
            shown = next((text for text in texts if len(set(re.findall(r"\d+", text)[:2])) > 1), texts[0])
            readings = [str(parse([shown], pattern)[0][0].astype("datetime64[D]")) for pattern in self._formats]
            raise DataError(
                f"time column {self.name!r} of {self.label} can be read in two ways: {shown!r} is {readings[0]} or "
                f"{readings[1]}, and no row tells which; say {option('dayfirst', True)} or {option('dayfirst', False)}"
            )
        self._formats = even
        self.notes.append(f"times are read as {even[0]}, in which the rows are evenly spaced")
        pending, self._texts = self._texts, []
        for codes, labels in pending:
            self._accept(labels, codes, parse(labels, even[0])[0], even[0])

    def _python_objects(self, values: Sequence[Any], codes: np.ndarray) -> None:
        """Dates, datetimes, Timestamps, Periods or numbers that came as Python objects."""
        import pandas as pd

        numbers = plain_numbers(values)
        if numbers is not None:
            self._numbers(numbers[codes])
            return
        if all(isinstance(value, pd.Period) for value in values):
            index = pd.PeriodIndex(list(values))
            self._set("dates", TimeForm(kind=f"period:{str(index.dtype)[7:-1]}"))
            self._parts.append(datetimes(index.to_timestamp().to_series())[codes])
            return
        aware = [getattr(value, "tzinfo", None) is not None for value in values]
        if any(aware) and not all(aware):
            raise DataError(
                f"time column {self.name!r} of {self.label} mixes times without a zone and with one; "
                "make them all alike"
            )
        try:
            dates = pd.to_datetime(pd.Series(list(values), dtype=object), utc=any(aware))
        except (ValueError, TypeError, OverflowError) as error:
            raise DataError(
                f"time column {self.name!r} of {self.label} holds {values[0]!r}, expected dates or numbers: "
                f"{str(error).splitlines()[0]}"
            ) from None
        if any(aware):
            zones = {str(getattr(value.tzinfo, "key", value.tzinfo)) for value in values}
            self._set("zoned", TimeForm(zone=zones.pop() if len(zones) == 1 else "UTC"))
            dates = dates.dt.tz_localize(None)
        else:
            bare = all(type(value).__name__ == "date" for value in values)
            self._set("dates", TimeForm(kind="date" if bare else "dates"))
        self._parts.append(datetimes(dates)[codes])

    def _refuse(self, text: str, row: int) -> None:
        wanted = (
            f"expected the format {self.time_format!r}"
            if self.time_format
            else "expected a number or a date such as 2024-01-31; name another format as "
            + option("time_format", "%d.%m.%Y")
        )
        raise DataError(f"time column {self.name!r}, {self._where(row)} of {self.label} holds {text!r}, {wanted}")

    def _spelled(self, values: np.ndarray) -> tuple[np.ndarray, TimeForm]:
        """Numbers that spell a date (20240131) or count since 1970; else the numbers."""
        if self.time_format is not None:
            unique, codes = np.unique(values, return_inverse=True)
            texts = [f"{value:.0f}" if float(value).is_integer() else str(value) for value in unique.tolist()]
            dates, bad = parse(texts, self.time_format)
            if bad is not None:
                self._rows = 0
                self._refuse(texts[bad], int(np.argmax(codes == bad)))
            return dates[codes], TimeForm(pattern=self.time_format, kind="int")
        if not len(values):
            return values, TimeForm()
        pattern = spelling(values)
        if pattern:
            return spelled_dates(values, pattern), TimeForm(pattern=pattern, kind="int")
        size = float(np.abs(values).min()), float(np.abs(values).max())
        for unit, ticks in EPOCHS.items():
            if _FIRST * ticks <= size[0] and size[1] <= _LAST * ticks and values.min() > 0:
                if values.dtype.kind == "f" and unit in ("us", "ns") and size[1] > 2**53:
                    raise DataError(
                        f"time column {self.name!r} of {self.label} holds {unit} since 1970 as floats, whose precision "
                        "is too low for them; pass whole numbers or dates"
                    )
                return values, TimeForm(epoch=unit)
        return values, TimeForm()
