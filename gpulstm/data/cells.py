"""Cells of pandas columns as numbers and as codes of ids and categories, and arrays that grow while a file is read."""

from __future__ import annotations

import numbers as number_types
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpulstm import validate
from gpulstm.errors import DataError

MISSING = (  # cells that mean "no value", besides empty ones
    *("NA", "N/A", "n/a", "na", "<NA>", "NaN", "nan", "NAN", "-nan", "NULL", "Null", "null", "None", "none", "NONE"),
    *("#N/A", "#NA", "#DIV/0!", "#VALUE!", "#REF!", "-", "?", "."),
)
_MISSING = frozenset(cell.lower() for cell in ("", *MISSING))
_INFINITE = ("inf", "-inf", "infinity", "-infinity")  # which are refused by row
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")  # a number that is written back as it came
_TRUTH = {"true": 1.0, "false": 0.0}

Where = Callable[[int], str]  # a row's name for messages, from its number in the part of the table at hand


def to_numbers(column: Any, name: str, label: str, where: Where) -> np.ndarray:
    """A pandas column as `(rows,)` float64, NaN where a cell is missing; true is 1 and false 0.

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
    values = np.full(len(labels) + 1, np.nan)  # the last one is for code -1: missing
    for at, cell in enumerate(labels):
        number = number_of(cell)
        if number is None:
            row = where(int(np.argmax(codes == at)))
            raise DataError(f"column {name!r}, {row} of {label} holds {cell!r}, expected a number")
        values[at] = number
    return values[codes]


def number_of(cell: Any) -> float | None:
    """A cell as a number, NaN where it means that there is none; None where it is something else."""
    if not isinstance(cell, str):
        try:
            return float(cell) if isinstance(cell, number_types.Number) or hasattr(cell, "as_tuple") else None
        except (TypeError, ValueError):
            return None
    text = cell.strip().lower()
    if text in _MISSING:
        return float("nan")
    if text in _TRUTH:
        return _TRUTH[text]
    return float(text) if text in _INFINITE else validate.number_of(text)


def plain(cell: Any) -> Any:
    """A cell of an id as a plain value: 1.0 is 1, since a join makes floats of ids; text has no blanks around it."""
    value = cell.item() if isinstance(cell, np.generic) else cell
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value if isinstance(value, (bool, int, float)) else str(value)


class Labels:
    """The distinct cells of a column, numbered in the order of their first rows.

    Args:
        known: texts that are numbered already, where no others count.

    Attributes:
        cells: each as it came.
        texts: each as text.
    """

    def __init__(self, known: Sequence[str] | None = None) -> None:
        self._fixed = known is not None
        self._numbers = {text: number for number, text in enumerate(known or ())}
        self.cells: list[Any] = list(self._numbers)

    @property
    def texts(self) -> list[str]:
        """Each cell as text."""
        return list(self._numbers)

    def codes(self, column: Any) -> np.ndarray:
        """`(rows,)` int64: the numbers of a pandas column's cells; -1 where one is empty, or not known."""
        import pandas as pd

        heads = _run_heads(column)
        if heads is not None:  # the ids of a long table stand in runs
            first = np.flatnonzero(heads)
            return np.repeat(self._numbered(column.array[first]), np.diff(first, append=len(column)))
        codes, labels = pd.factorize(column)
        return np.append(self._numbered(labels), -1)[codes]  # code -1: missing

    def _numbered(self, column: Any) -> np.ndarray:
        known, numbers_of = self._numbers, []
        for cell in np.asarray(column, dtype=object).tolist():
            cell = cell.strip() if type(cell) is str else plain(cell)
            text = cell if type(cell) is str else str(cell)
            number = known.get(text, -1)
            if number < 0 and text and not self._fixed:
                number = known[text] = len(known)
                self.cells.append(cell)
            numbers_of.append(number)
        return np.array(numbers_of, dtype=np.int64)

    def typed(self) -> list[Any]:
        """The cells of a text file: whole numbers where all of them are, as a reader of the file would have them."""
        whole = all(map(_WHOLE.fullmatch, self.texts))
        return list(map(int, self.texts)) if whole else self.cells


def _run_heads(column: Any) -> np.ndarray | None:
    """`(rows,)` bool: which cells of a column differ from the one before; None where runs are short."""
    import pandas as pd

    if len(column) < 1000 or isinstance(column.dtype, pd.CategoricalDtype) or column.hasnans:
        return None
    cells = column.array
    heads = np.concatenate([[True], np.asarray(cells[1:] != cells[:-1], dtype=bool)])
    return heads if 4 * np.count_nonzero(heads) < len(heads) else None


class Growing:
    """An array that grows at its end and is never held twice: large blocks are moved by the system, not copied.

    Args:
        width: columns.
        dtype: of its elements.
        rows: about how many there will be; memory is taken as they come.
    """

    def __init__(self, width: int, dtype: Any, rows: int = 0) -> None:
        self._array = np.empty((rows, width), dtype)
        self._rows = 0

    def room(self, rows: int) -> np.ndarray:
        """A view of `rows` new rows, to be written before the next call."""
        start, self._rows = self._rows, self._rows + rows
        if self._rows > len(self._array):
            self._resize(self._rows if not start else max(self._rows, len(self._array) + len(self._array) // 8))
        return self._array[start : self._rows]

    def done(self) -> np.ndarray:
        """All rows; nothing may be added afterwards."""
        self._resize(self._rows)
        return self._array

    def _resize(self, rows: int) -> None:
        self._array.resize((rows, self._array.shape[1]), refcheck=False)  # views of it were let go by then
