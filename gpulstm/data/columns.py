"""The columns of a source or an array: numbers, categories as codes, times, and which series each row belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpulstm.data.cells import Growing, Labels, to_numbers
from gpulstm.data.frames import ReadAgain, Source
from gpulstm.data.options import TableOptions
from gpulstm.data.plain_arrays import numbers_of, refuse_mask
from gpulstm.data.roles import Roles
from gpulstm.data.time_column import TimeColumn
from gpulstm.data.times import TimeForm
from gpulstm.errors import ConfigError, DataError, option


@dataclass
class Columns:
    """What was read of a table, in its own order.

    Attributes:
        values: `(rows, columns)` float64, NaN where a cell is missing; categories hold codes.
        time, form: times and how they are written; None without a column of times.
        codes: `(rows,)` int32 or int64, the series of each row, or None for one series.
        ids: of each series, in their own types.
        levels: values of each category, by position.
        notes: on how it was read.
        source: what reads it; None for an array.
    """

    values: np.ndarray
    time: np.ndarray | None
    form: TimeForm
    codes: np.ndarray | None
    ids: list[tuple[Any, ...]]
    levels: dict[int, tuple[str, ...]]
    notes: list[str]
    source: Source | None = None


def read_columns(
    source: Source, roles: Roles, options: TableOptions, levels: Mapping[str, Sequence[str]] | None = None
) -> Columns:
    """Read the columns that have a role.

    Args:
        levels: known values of categories by name; others than these count as missing.

    Raises:
        DataError: a cell that cannot be used; the message names it.
    """
    try:
        return _read(source, roles, options, levels or {})
    except ReadAgain as again:
        return read_columns(again.source, roles, options, levels)


def _read(source: Source, roles: Roles, options: TableOptions, levels: Mapping[str, Sequence[str]]) -> Columns:
    names, kinds, label = roles.names, roles.kinds(), source.label
    values = Growing(len(roles.numbers), np.float64, source.rows)
    codes = Growing(len(roles.series), np.int32, source.rows if roles.series else 0)
    time = None if roles.time is None else TimeColumn(source, roles.time, names[roles.time], options)
    ids = [Labels() for _ in roles.series]
    categories = {at: Labels(levels.get(names[at])) for at in sorted(roles.categories)}
    done = 0
    for part in source.read(kinds):
        rows = len(next(iter(part.values())))
        where = source.row_names(done)
        room = values.room(rows)
        for column, at in enumerate(roles.numbers):
            if at in categories:
                numbers_of = categories[at].codes(part[at])
                room[:, column] = np.where(numbers_of < 0, np.nan, numbers_of)
            else:
                room[:, column] = to_numbers(part[at], names[at], label, where)
        if time is not None:
            time.add(part[roles.time], where)  # type: ignore[index] # it is not None
        room = codes.room(rows)
        for column, at in enumerate(roles.series):
            room[:, column] = ids[column].codes(part[at])
            absent = room[:, column] < 0
            if absent.any():
                raise DataError(
                    f"series column {names[at]!r}, {where(int(np.argmax(absent)))} of {label} is empty "
                    f"({int(absent.sum())} such), expected the name of a series"
                )
        done += rows
        del room, part
    if not done:
        raise DataError(f"{label} has no rows below the names of the columns")
    known = {at: tuple(category.texts) for at, category in categories.items()}
    times, form = (None, TimeForm()) if time is None else time.done()
    series, ids_of = _joined(codes.done(), [one.typed() if source.file else one.cells for one in ids])
    notes = [*source.notes, *([] if time is None else time.notes)]
    return Columns(values.done(), times, form, series, ids_of, known, notes, source)


def _joined(codes: np.ndarray, cells: Sequence[list[Any]]) -> tuple[np.ndarray | None, list[tuple[Any, ...]]]:
    """One code a row from those of several columns, in the order of their first rows, and the ids of each code."""
    if not cells:
        return None, []
    if len(cells) == 1:
        return codes[:, 0], [(cell,) for cell in cells[0]]
    import pandas as pd

    sizes = [len(of_column) for of_column in cells]
    together, unique = pd.factorize(np.ravel_multi_index(tuple(codes.T), sizes))
    rows = zip(*np.unravel_index(unique, sizes), strict=True)
    return together, [tuple(of[code] for of, code in zip(cells, row, strict=True)) for row in rows]


def array_columns(data: Any, options: TableOptions) -> tuple[Roles, Columns]:
    """The numbered columns of an array `(time,)`, `(time, features)` or `(series, time, features)`.

    Raises:
        DataError: another shape, or a column that is not there.
        ConfigError: a column has two roles, or an option asks for what an array has not.
    """
    if options.calendar or options.holidays:
        raise ConfigError(f"{option('calendar')} needs a time column; an array has none")
    for name in ("time", "series"):
        if getattr(options, name) not in (None, (), "none"):
            raise ConfigError(f"{option(name)} names a column, and the table is an array, whose columns have no names")
    refuse_mask(data, "the series", options.missing)
    array = numbers_of(data)
    if array.ndim not in (1, 2, 3) or array.size == 0:
        raise DataError(
            f"the series has shape {array.shape}, expected (time,), (time, features) or (series, time, features), and "
            "at least one value"
        )
    count = array.shape[0] if array.ndim == 3 else 1
    table = array.reshape(-1, 1 if array.ndim == 1 else array.shape[-1])
    known = [str(column) for column in range(table.shape[1])]
    groups = [options.past, options.future, options.static]
    others = [name for group in groups for name in group]
    targets = options.target if options.target is not None else [name for name in known if name not in others]
    absent = next((name for name in (*targets, *others) if name not in known), None)
    if absent is not None:
        raise DataError(f"the array has no column {absent!r}; it has {', '.join(known)}")
    if len({*targets, *others}) < len(targets) + len(others):
        raise ConfigError("a column of the array is given two roles; a column has one")
    if not targets:
        raise DataError("the array has no column left to forecast")
    past, future, static = ([int(name) for name in group] for group in groups)
    roles = Roles([int(name) for name in targets], past, future, static, None, [], known)
    codes = np.repeat(np.arange(count), len(table) // count) if count > 1 else None
    ids = [(number,) for number in range(count)] if count > 1 else []
    values = table if roles.numbers == list(range(table.shape[1])) else np.ascontiguousarray(table[:, roles.numbers])
    return roles, Columns(values, None, TimeForm(), codes, ids, {}, [])
