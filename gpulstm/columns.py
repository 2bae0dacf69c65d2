"""What sources give, and how it is read: columns, their cells as text, and arrays that grow while a file is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np

from gpulstm.errors import DataError

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})  # cells that mean "no value", in lower case
TIME = "datetime64[us]"


@dataclass
class Columns:
    """What was read from a source.

    Attributes:
        numbers: `(rows,)` float64 arrays by column, NaN where missing; they may be columns of one array.
        time: `(rows,)` datetime64[us] or float64, or None.
        codes: `(rows,)` int64, which entry of `labels` each row belongs to, or None for one series.
        labels: names of the series in the order of their first rows.
        word, first: how rows are named in messages: `"row"` from 2 in a file (the header is row 1), `"position"` from 0
            else.
    """

    numbers: dict[str, np.ndarray]
    time: np.ndarray | None
    codes: np.ndarray | None
    labels: list[str]
    word: str
    first: int

    def together(self, names: Sequence[str]) -> np.ndarray:
        """The named columns side by side, `(rows, names)` float64; without a copy where they lie so already.

        The columns are let go, so that never more than one of them exists twice.
        """
        parts = [self.numbers[name] for name in names]
        base = parts[0].base
        if isinstance(base, np.ndarray) and base.shape == (len(parts[0]), len(self.numbers)) == (
            len(parts[0]),
            len(names),
        ):
            inside = [_start(part) == _start(base[:, place]) for place, part in enumerate(parts)]
            if all(inside):
                self.numbers.clear()
                return base
        values = np.empty((len(parts[0]), len(parts)))
        del parts
        for place, name in enumerate(names):
            values[:, place] = self.numbers.pop(name)
        return values

    def where(self, index: int) -> str:
        """How to name row `index` to a user."""
        return f"{self.word} {self.first + int(index)}"


class Growing:
    """An array that grows at its end and is never held twice: large blocks are moved by the system, not copied.

    Args:
        width: columns; None for one-dimensional.
        dtype: of its elements.
        rows: to make room for at first; where their number is known, nothing grows.
    """

    def __init__(self, width: int | None, dtype: Any, rows: int = 0) -> None:
        self._array = np.empty((rows,) if width is None else (rows, width), dtype)
        self._rows = 0

    def room(self, rows: int) -> np.ndarray:
        """A view of `rows` new rows, to be written before the next call."""
        start, self._rows = self._rows, self._rows + rows
        if self._rows > len(self._array):
            self._resize(max(self._rows, len(self._array) + len(self._array) // 8, 1024))
        return self._array[start : self._rows]

    def done(self) -> np.ndarray:
        """All rows; nothing may be added afterwards."""
        if self._rows < len(self._array):
            self._resize(self._rows)
        return self._array

    def _resize(self, rows: int) -> None:
        self._array.resize((rows, *self._array.shape[1:]), refcheck=False)  # views of it were let go by then


class Reading:
    """Columns while a file is read part by part.

    Args:
        numbers: names of the columns of numbers.
        rows: how many there will be, where that is known.
    """

    def __init__(self, numbers: Sequence[str], rows: int = 0) -> None:
        self._names, self._expected = list(numbers), rows
        self._values = Growing(len(self._names), np.float64, rows)
        self._time: Growing | None = None
        self._kind = ""
        self._codes: Growing | None = None
        self.rows = 0

    def add(self, parts: Mapping[str, np.ndarray], rows: int) -> None:
        """The numbers of the next rows, by column."""
        values = self._values.room(rows)
        for place, name in enumerate(self._names):
            values[:, place] = parts[name]
        self.rows += rows

    def add_time(self, part: np.ndarray, name: str, label: str) -> None:
        """The times of the next rows."""
        self._time = self._time or Growing(None, part.dtype, self._expected)
        self._kind = self._kind or part.dtype.kind
        if part.dtype.kind != self._kind:
            raise DataError(f"time column {name!r} of {label} holds numbers in some rows and dates in others")
        self._time.room(len(part))[:] = part

    def add_codes(self, part: np.ndarray) -> None:
        """Which series the next rows belong to."""
        self._codes = self._codes or Growing(None, np.int64, self._expected)
        self._codes.room(len(part))[:] = part

    def done(self, labels: list[str], word: str, first: int) -> Columns:
        """All that was added."""
        values = self._values.done()
        return Columns(
            {name: values[:, place] for place, name in enumerate(self._names)},
            None if self._time is None else self._time.done(),
            None if self._codes is None else self._codes.done(),
            labels,
            word,
            first,
        )


def _start(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def parse_numbers(cells: Sequence[str], name: str, label: str, first: int) -> np.ndarray:
    """Cells as float64; cells of `MISSING` become NaN."""
    try:
        if "_" in "".join(cells):  # float() takes 1_000, which no file of numbers means
            raise ValueError
        return np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        values = np.empty(len(cells))
        for row, cell in enumerate(cells):
            text = cell.strip()
            if text.lower() in MISSING:
                values[row] = np.nan
                continue
            try:
                if "_" in text:
                    raise ValueError
                values[row] = float(text)
            except ValueError:
                raise DataError(
                    f"column {name!r}, row {first + row} of {label} holds {text!r}, expected a number"
                ) from None
        return values


def parse_times(cells: Sequence[str], name: str, label: str, first: int) -> np.ndarray:
    """Cells as float64 where all are numbers, else as ISO 8601 dates and times; offsets are turned into UTC."""
    try:
        return np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        pass
    values = np.empty(len(cells), TIME)
    for row, cell in enumerate(cells):
        text = cell.strip()
        try:
            values[row] = _moment(text)
        except ValueError:
            raise DataError(
                f"time column {name!r}, row {first + row} of {label} holds {text!r}, "
                "expected a number or an ISO date such as 2024-01-31"
            ) from None
    return values


def _moment(text: str) -> np.datetime64:
    """One ISO 8601 date, month or time; ValueError for anything else."""
    if len(text) == 7 and text[4] == "-":  # a month: 2024-01
        return np.datetime64(text, "us")
    moment = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
    if moment.tzinfo is not None:
        moment = moment.astimezone(timezone.utc).replace(tzinfo=None)
    return np.datetime64(moment, "us")


def parse_codes(cells: Sequence[Any], known: dict[str, int], name: str, label: str, first: int) -> np.ndarray:
    """The number of each cell's series; new names are added to `known`."""
    codes = np.empty(len(cells), np.int64)
    for row, cell in enumerate(cells):
        text = "" if cell is None else str(cell).strip()
        if not text:
            raise DataError(
                f"series column {name!r}, row {first + row} of {label} is empty, expected the name of a series"
            )
        codes[row] = known.setdefault(text, len(known))
    return codes


def cells_of_frame(parse: Callable[..., np.ndarray], cells: list[str], name: str, label: str, first: int) -> np.ndarray:
    """Cells of a frame, whose rows are positions from 0; `first` is that of the first of them."""
    try:
        return parse(cells, name, label, first)
    except DataError as error:
        raise DataError(str(error).replace(", row ", ", position ")) from None
