"""Cells of pandas columns as numbers and as codes of ids and categories, and arrays that grow while a file is read."""

from __future__ import annotations

import numbers as number_types
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpulstm.errors import DataError

MISSING = (  # cells that mean "no value", besides empty ones
    *("NA", "N/A", "n/a", "na", "<NA>", "NaN", "nan", "NAN", "-nan", "NULL", "Null", "null", "None", "none", "NONE"),
    *("#N/A", "#NA", "#DIV/0!", "#VALUE!", "#REF!", "-", "?", "."),
)
_MISSING = frozenset(cell.lower() for cell in ("", *MISSING))
_TRUTH = {"true": 1.0, "false": 0.0}


class Growing:
    """An array that grows at its end and is never held twice: large blocks are moved by the system, not copied.

    Args:
        width: columns; None for one-dimensional.
        dtype: of its elements.
    """

    def __init__(self, width: int | None, dtype: Any) -> None:
        self._array = np.empty((0,) if width is None else (0, width), dtype)
        self._rows = 0

    def room(self, rows: int) -> np.ndarray:
        """A view of `rows` new rows, to be written before the next call."""
        start, self._rows = self._rows, self._rows + rows
        if self._rows > len(self._array):
            self._resize(self._rows if not start else max(self._rows, len(self._array) + len(self._array) // 8))
        return self._array[start : self._rows]

    def done(self) -> np.ndarray:
        """All rows; nothing may be added afterwards."""
        if self._rows < len(self._array):
            self._resize(self._rows)
        return self._array

    def _resize(self, rows: int) -> None:
        self._array.resize((rows, *self._array.shape[1:]), refcheck=False)  # views of it were let go by then


def numbers(column: Any, name: str, label: str, where: Any) -> np.ndarray:
    """A pandas column as `(rows,)` float64, NaN where a cell is missing; true is 1 and false 0.

    Args:
        where: a row's name for messages, from its number in this column.

    Raises:
        DataError: a cell is no number.
    """
    import pandas as pd

    dtype = column.dtype
    if pd.api.types.is_bool_dtype(dtype) or (pd.api.types.is_numeric_dtype(dtype) and dtype.kind != "c"):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    if dtype.kind != "O" and not pd.api.types.is_string_dtype(dtype) and not isinstance(dtype, pd.CategoricalDtype):
        raise DataError(f"column {name!r} of {label} holds {dtype}, expected numbers")
    codes, labels = pd.factorize(column)  # each text is read once
    values = np.empty(len(labels) + 1)
    values[-1] = np.nan  # code -1: missing
    for at, cell in enumerate(labels):
        number = number_of(cell)
        if number is None:
            raise DataError(
                f"column {name!r}, {where(int(np.argmax(codes == at)))} of {label} holds {cell!r}, expected a number"
            )
        values[at] = number
    return values[codes]


def number_of(cell: Any) -> float | None:
    """A cell as a number, NaN where it means that there is none; None where it is something else."""
    if not isinstance(cell, str):
        try:
            return float(cell) if isinstance(cell, number_types.Number) or hasattr(cell, "as_tuple") else None
        except (TypeError, ValueError):
            return None
    text = cell.strip()
    low = text.lower()
    if low in _MISSING:
        return float("nan")
    if low in _TRUTH:
        return _TRUTH[low]
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


class Codes:
    """Ids of series, or values of a category, as numbers in the order of their first rows.

    Attributes:
        labels: the text of each code.
        values: each code's value in the type that it came in, or a tuple of them for several columns.
    """

    def __init__(self, names: Sequence[str], label: str) -> None:
        self._names, self._table = tuple(names), label
        self._known: dict[tuple[str, ...], int] = {}
        self.values: list[tuple[Any, ...]] = []

    @property
    def keys(self) -> list[tuple[str, ...]]:
        """The texts of each code's cells."""
        return list(self._known)

    def add(self, columns: Sequence[Any], where: Any, empty: str) -> np.ndarray:
        """The codes of the next rows.

        Args:
            columns: one pandas column for each name.
            where: as in `numbers`.
            empty: what an empty cell should have been, for the message.

        Raises:
            DataError: a cell is empty.
        """
        import pandas as pd

        together: np.ndarray | None = None
        parts = []
        for name, column in zip(self._names, columns, strict=True):
            codes, labels = pd.factorize(column)
            cells = [plain(cell) for cell in np.asarray(labels, dtype=object).tolist()]
            blank = [at for at, cell in enumerate(cells) if cell == "" or (isinstance(cell, float) and cell != cell)]
            absent = (codes < 0) | np.isin(codes, blank) if blank else codes < 0
            if absent.any():
                raise DataError(
                    f"series column {name!r}, {where(int(np.argmax(absent)))} of {self._table} is empty "
                    f"({int(absent.sum())} such), expected {empty}"
                )
            parts.append((codes, cells))
            together = codes if together is None else together * len(cells) + codes
        assert together is not None
        if len(parts) == 1:
            firsts = None
            local, pairs = parts[0][0], [(cell,) for cell in parts[0][1]]
        else:
            local, unique = pd.factorize(together)
            firsts = [int(code) for code in unique]
            pairs = []
            for code in firsts:
                cells_of_row = []
                for _, cells in reversed(parts):
                    code, at = divmod(code, len(cells))
                    cells_of_row.append(cells[at])
                pairs.append(tuple(reversed(cells_of_row)))
        numbers_of = np.empty(len(pairs), np.int64)
        for at, pair in enumerate(pairs):
            key = tuple(map(str, pair))
            code = self._known.setdefault(key, len(self._known))
            if code == len(self.values):
                self.values.append(pair)
            numbers_of[at] = code
        return numbers_of[local]


def plain(cell: Any) -> Any:
    """A cell of an id as a plain value: 1.0 is 1, since a join makes floats of ids; text has no blanks around it."""
    value = cell.item() if isinstance(cell, np.generic) else cell
    if isinstance(value, str):
        text = value.strip()
        return text
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value if isinstance(value, (bool, int, float)) else str(value)


def typed(values: Sequence[Any]) -> list[Any]:
    """Ids of a text file: whole numbers where all of them are, as a reader of the file would have them."""
    texts = [str(value) for value in values]
    whole = all(text.lstrip("-").isdecimal() and str(int(text)) == text for text in texts)
    return [int(text) for text in texts] if whole else list(values)


def joined(keys: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """One name a series from the texts of its ids; several stand between slashes, escaped where a text has one."""
    return tuple("/".join(key) if len(key) == 1 else "/".join(text.replace("/", "//") for text in key) for key in keys)
