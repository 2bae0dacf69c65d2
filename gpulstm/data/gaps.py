"""Rows in order, each time once, and a row for every time: sorting, duplicates, and rows that are missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpulstm.data.time_axis import Axis, at, inner_pairs, positions
from gpulstm.data.times import format_time
from gpulstm.errors import DataError, option


@dataclass
class Rows:
    """Rows of all series, one series after another.

    Attributes:
        values: `(rows, features)` float64.
        time: `(rows,)`, or None.
        offsets: `(series + 1,)` int64.
        order: `(rows,)` int64, where each row stood in the table; None where the table's order was right.
        notes: what was done to them.
    """

    values: np.ndarray
    time: np.ndarray | None
    offsets: np.ndarray
    order: np.ndarray | None
    notes: list[str]
    backwards: tuple[int, int] | None = None  # first row that was earlier than the one before it, and their count

    def number(self, row: int) -> int:
        """Where a row stood in the table."""
        return int(row if self.order is None else self.order[row])

    def take(self, keep: np.ndarray, offsets: np.ndarray) -> None:
        """Keep some of the rows, in the order given."""
        self.values = self.values[keep]
        self.time = None if self.time is None else self.time[keep]
        self.order = keep if self.order is None else self.order[keep]
        self.offsets = offsets


def grouped(values: np.ndarray, time: np.ndarray | None, codes: np.ndarray | None, count: int) -> Rows:
    """Rows of each series together and in the order of time."""
    sizes = np.array([len(values)]) if codes is None else np.bincount(codes, minlength=count)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    rows = Rows(values, time, offsets, None, [])
    group = codes if codes is not None else np.zeros(len(values), np.int64)
    together = codes is None or bool((codes[1:] >= codes[:-1]).all())
    if time is None:
        if not together:
            rows.take(np.argsort(group, kind="stable"), offsets)
        return rows
    if together:
        backwards = (time[1:] < time[:-1]) & (group[1:] == group[:-1])
    else:
        order = np.argsort(group, kind="stable")
        rows.take(order, offsets)
        assert rows.time is not None
        sorted_group = group[order]
        backwards = (rows.time[1:] < rows.time[:-1]) & (sorted_group[1:] == sorted_group[:-1])
    if backwards.any():
        first = rows.number(int(np.argmax(backwards)) + 1)
        order = np.lexsort((time, group))
        rows = Rows(values[order], time[order], offsets, order, [])
        rows.backwards = first, int(backwards.sum())
    return rows


def equal_times(rows: Rows) -> np.ndarray:
    """`(rows - 1,)` bool: which rows have the time of the row before them, in the same series."""
    assert rows.time is not None
    return (rows.time[1:] == rows.time[:-1]) & inner_pairs(rows.offsets, len(rows.time))


def merge_duplicates(rows: Rows, equal: np.ndarray, rule: str, coded: Sequence[int] = ()) -> None:
    """Make one row of those with the same time: the first, the last, their mean, or their sum.

    Args:
        coded: columns with codes of categories, which have no mean: that of the first row is taken.
    """
    starts = np.concatenate([[0], np.flatnonzero(~equal) + 1])
    stops = np.concatenate([starts[1:], [len(rows.values)]])
    values = rows.values
    if rule in ("mean", "sum"):
        seen = ~np.isnan(values)
        total = np.add.reduceat(np.where(seen, values, 0.0), starts, axis=0)
        count = np.add.reduceat(seen.astype(np.float64), starts, axis=0)
        size = np.maximum(count, 1) if rule == "mean" else 1.0
        merged = np.where(count > 0, total / size, np.nan)
        merged[:, coded] = values[starts][:, coded]
    series = np.searchsorted(rows.offsets, starts, side="right") - 1
    sizes = np.bincount(series, minlength=len(rows.offsets) - 1)
    rows.take(stops - 1 if rule == "last" else starts, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
    if rule in ("mean", "sum"):
        rows.values = merged


def check_axis(rows: Rows, axis: Axis, where: Callable[[int], str], own: bool) -> np.ndarray:
    """`(rows,)` int64: the place of every row on the axis of its series.

    Args:
        where: a row's name for messages, from its number in the table.
        own: whether the step was given by the user.

    Raises:
        DataError: a row lies off the axis.
    """
    assert rows.time is not None
    place, off = positions(axis.step, rows.time, rows.offsets, axis.form)
    if off.any():
        row = int(np.argmax(off))
        named = option("freq", axis.step.freq) if own else f"the step {axis.step.freq}"
        raise DataError(
            f"{where(rows.number(row))} is at {format_time(rows.time[row], axis.form)}, which {named} does not reach; "
            f"name the step as {option('freq', ...)}"
        )
    return place


def put_in(rows: Rows, axis: Axis, place: np.ndarray) -> np.ndarray | None:
    """Put in the rows that are missing, with NaN in all columns.

    Returns:
        `(rows,)` bool, which rows were put in; None where none was.
    """
    assert rows.time is not None
    lengths = np.diff(rows.offsets)
    last = np.where(lengths > 0, place[np.maximum(rows.offsets[1:] - 1, 0)], -1)
    full = (last + 1).astype(np.int64)
    if np.array_equal(full, lengths):
        return None
    offsets = np.concatenate([[0], np.cumsum(full)]).astype(np.int64)
    target = np.repeat(offsets[:-1], lengths) + place
    new = np.ones(int(offsets[-1]), bool)
    new[target] = False
    values = np.full((len(new), rows.values.shape[1]), np.nan)
    values[target] = rows.values
    time = np.empty(len(new), rows.time.dtype)
    time[target] = rows.time
    time[new] = _times_between(rows, axis, offsets, new)
    order = np.full(len(new), -1, np.int64)
    order[target] = np.arange(len(rows.values)) if rows.order is None else rows.order
    rows.values, rows.time, rows.offsets, rows.order = values, time, offsets, order
    return new


def _times_between(rows: Rows, axis: Axis, offsets: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The times of the rows that are put in, each from the first row of its series."""
    assert rows.time is not None
    at_rows = np.flatnonzero(new)
    series = np.searchsorted(offsets, at_rows, side="right") - 1
    place = at_rows - offsets[series]
    origin = rows.time[rows.offsets[series]]
    days = None if axis.days is None else axis.days[series]
    if not axis.step.even:  # places are counted from the row before
        return _between_uneven(rows, axis, offsets, at_rows, series)
    return at(axis.step, origin, place[:, None], axis.form, days)[:, 0]


def _between_uneven(rows: Rows, axis: Axis, offsets: np.ndarray, at_rows: np.ndarray, series: np.ndarray) -> np.ndarray:
    assert rows.time is not None
    place, _ = positions(axis.step, rows.time, rows.offsets, axis.form)
    target = np.repeat(offsets[:-1], np.diff(rows.offsets)) + place
    before = np.searchsorted(target, at_rows) - 1
    steps = at_rows - target[before]
    return at(axis.step, rows.time[before], steps[:, None], axis.form)[:, 0]


def describe_gaps(new: np.ndarray, time: np.ndarray, offsets: np.ndarray, names: Any, axis: Axis) -> str:
    """How many rows were put in, the longest gap and the first places."""
    edges = np.diff(np.concatenate([[0], new.astype(np.int8), [0]]))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    longest = int(np.argmax(stops - starts))

    def place(at_row: int) -> str:
        series = int(np.searchsorted(offsets, at_row, side="right") - 1)
        of = f" of {names[series]}" if len(offsets) > 2 else ""
        return format_time(time[at_row], axis.form) + of

    first = ", ".join(place(int(row)) for row in starts[:3])
    more = ", ..." if len(starts) > 3 else ""
    count = int(new.sum())
    return (
        f"{count} row{'s' if count > 1 else ''} {'were' if count > 1 else 'was'} missing and put in "
        f"({len(starts)} gap{'s' if len(starts) > 1 else ''} at {first}{more}; the longest has "
        f"{stops[longest] - starts[longest]} from {place(int(starts[longest]))})"
    )
