"""The columns of a source as arrays: numbers, categories as codes, times, and which series each row belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpulstm.data.cells import Codes, Growing, numbers, plain, typed
from gpulstm.data.frames import Source
from gpulstm.data.options import TableOptions
from gpulstm.data.roles import Roles
from gpulstm.data.time_column import TimeColumn
from gpulstm.data.times import TimeForm
from gpulstm.errors import DataError, option

MOST_LEVELS = 200  # values of a category that are one column each


@dataclass
class Collected:
    """What was read of a table, in its own order.

    Attributes:
        values: `(rows, columns)` float64, NaN where a cell is missing; categories hold codes.
        time, form: times and how they are written; None without a column of times.
        codes: `(rows,)` int64, the series of each row, or None for one series.
        keys, ids: of each series, the texts and the values of its ids.
        levels: values of each category, by position.
        notes: on how it was read.
    """

    values: np.ndarray
    time: np.ndarray | None
    form: TimeForm
    codes: np.ndarray | None
    keys: list[tuple[str, ...]]
    ids: list[tuple[Any, ...]]
    levels: dict[int, tuple[str, ...]]
    notes: list[str]


def collect(source: Source, roles: Roles, options: TableOptions, levels: Mapping[str, Sequence[str]]) -> Collected:
    """Read the columns that have a role.

    Args:
        levels: known values of categories by name; others than these count as missing.

    Raises:
        DataError: a cell that cannot be used; the message names it.
    """
    try:
        return _collect(source, roles, options, levels)
    except UnicodeDecodeError as error:
        if source.other is None:
            raise DataError(
                f"{source.label} is not in the encoding {error.encoding} (byte {error.start}); name it as "
                f"{option('encoding')}"
            ) from None
    return _collect(source.other(), roles, options, levels)


def _collect(source: Source, roles: Roles, options: TableOptions, levels: Mapping[str, Sequence[str]]) -> Collected:
    names, label = roles.names, source.label
    kinds = roles.kinds()
    positions = roles.numbers
    grown = Growing(len(positions), np.float64)
    time = None
    if roles.time is not None:
        time = TimeColumn(
            names[roles.time],
            label,
            options.time_format,
            options.dayfirst,
            source.word,
            source.first,
            source.file,
        )
    series = Codes([names[at] for at in roles.series], label) if roles.series else None
    codes = Growing(None, np.int64)
    categories = {
        at: {text: code for code, text in enumerate(levels.get(names[at], ()))} for at in sorted(roles.categories)
    }
    fixed = {at for at in categories if names[at] in levels}
    done = 0
    for chunk in source.read(kinds):
        where = _where(source, done)
        rows = len(next(iter(chunk.values())))
        room = grown.room(rows)
        for column, at in enumerate(positions):
            if at in categories:
                room[:, column] = _category(chunk[at], categories[at], at in fixed)
            else:
                room[:, column] = numbers(chunk[at], names[at], label, where)
        if time is not None:
            time.add(chunk[roles.time])  # type: ignore[index] # it is not None
        if series is not None:
            parts = [chunk[at] for at in roles.series]
            codes.room(rows)[:] = series.add(parts, where, "the name of a series")
        done += rows
        del room, chunk
    if not done:
        raise DataError(f"{label} has no rows below the names of the columns")
    times, form = (None, TimeForm()) if time is None else time.done()
    ids = [] if series is None else series.values
    if source.file and ids:
        ids = list(zip(*(typed(column) for column in zip(*ids, strict=True)), strict=True))
    notes = [*source.notes, *([] if time is None else time.notes)]
    found = {at: tuple(known) for at, known in categories.items()}
    for at, texts in found.items():
        if len(texts) > MOST_LEVELS:
            raise DataError(
                f"column {names[at]!r} of {label} has {len(texts)} different texts, such as {texts[0]!r}, more than "
                f"{MOST_LEVELS}; leave the column out, or join its rare values"
            )
    keys = [] if series is None else series.keys
    return Collected(grown.done(), times, form, None if series is None else codes.done(), keys, ids, found, notes)


def _where(source: Source, done: int) -> Callable[[int], str]:
    return lambda row: f"{source.word} {source.first + done + row}"


def _category(column: Any, known: dict[str, int], fixed: bool) -> np.ndarray:
    """The codes of a category's cells, NaN where one is empty or none of those that are known."""
    import pandas as pd

    codes, labels = pd.factorize(column)
    numbers_of = np.full(len(labels) + 1, np.nan)  # the last one is for code -1: missing
    for at, cell in enumerate(labels):
        text = str(plain(cell))
        if not text:
            continue
        code = known.get(text) if fixed else known.setdefault(text, len(known))
        if code is not None:
            numbers_of[at] = code
    return numbers_of[codes]
