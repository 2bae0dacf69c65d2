"""The text of a cell as a number, a time, or the code of a series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np

from gpulstm.errors import DataError

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})  # cells that mean "no value", in lower case


TIME = "datetime64[us]"


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
