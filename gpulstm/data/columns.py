"""What sources give, and how it is read: columns, their cells as text, and arrays that grow while a file is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpulstm.errors import DataError


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
