"""Series with the same columns: where each lies, what plays which role, how gaps are filled and times continued.

All series of a set lie one after another in one `(rows, features)` float64 array, with an offset per series, so that
windows of any of them are index arithmetic on one array that is uploaded to a GPU once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from gpulstm.data.calendars import calendar_columns, continue_time
from gpulstm.errors import DataError


@dataclass(frozen=True)
class SeriesSet:
    """One or many series with the same columns.

    Attributes:
        values: `(rows, features)` float64, NaN where a cell is missing; the columns are targets, then past covariates
            (known up to now), then future covariates (known ahead; calendar covariates are the last of them).
        offsets: `(series + 1,)` int64; series s lies in the rows `offsets[s]` to `offsets[s + 1]`.
        columns: names of the features.
        targets, past, future: how many columns play each role.
        time: `(rows,)` datetime64[us] or float64, or None.
        names: names of the series.
        calendar: the calendar covariates among the future ones.
        missing: the rule that `filled` applies.
        time_name, series_name: the columns that times and names came from, or None.
    """

    values: np.ndarray
    offsets: np.ndarray
    columns: tuple[str, ...]
    targets: int
    past: int = 0
    future: int = 0
    time: np.ndarray | None = None
    names: tuple[str, ...] = ("series",)
    calendar: tuple[str, ...] = ()
    missing: str = "refuse"
    time_name: str | None = None
    series_name: str | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def rows(self) -> int:
        """Rows of all series together."""
        return self.values.shape[0]

    @property
    def lengths(self) -> np.ndarray:
        """`(series,)` int64: rows of each series."""
        return np.diff(self.offsets)

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the target columns."""
        return self.columns[: self.targets]

    @property
    def has_missing(self) -> bool:
        """Whether any cell is missing."""
        return bool(np.isnan(self.values).any())

    def series(self, index: int) -> np.ndarray:
        """The `(rows, features)` view of one series."""
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def time_of(self, index: int) -> np.ndarray:
        """The times of one series; row numbers from 0 where there is no time column."""
        if self.time is None:
            return np.arange(self.lengths[index], dtype=np.float64)
        return self.time[self.offsets[index] : self.offsets[index + 1]]

    def filled(self, cuts: Sequence[np.ndarray] = ()) -> np.ndarray:
        """The values with gaps filled by the rule `missing`; the same array where nothing is missing.

        `"interpolate"` draws a straight line between the neighbours of a gap and carries the nearest value outward at
        the ends; `"forward"` carries the last value on (and the first one back to the start of its series, where
        nothing precedes it); `"mask"` puts the last value, which the network is told not to trust.

        Args:
            cuts: arrays `(series,)` of rows, absolute as `offsets`.  No value before a cut is made from rows after it:
                the part of a gap that lies before a cut is filled forward.

        Raises:
            DataError: a column has no value at all in a series.
        """
        missing = np.isnan(self.values)
        if not missing.any():
            return self.values
        values = self.values.copy()
        for index in range(len(self)):
            start, stop = int(self.offsets[index]), int(self.offsets[index + 1])
            edges = sorted({start, stop, *(int(np.clip(cut[index], start, stop)) for cut in cuts)})
            for column in np.flatnonzero(missing[start:stop].any(axis=0)):
                if missing[start:stop, column].all():
                    raise DataError(
                        f"column {self.columns[column]!r} of series {self.names[index]!r} has no value at all"
                    )
                for first, last in pairwise(edges):
                    before = values[first - 1, column] if first > start else np.nan
                    _fill(values[first:last, column], before, self.missing)
        if np.isnan(values).any():
            row, column = np.argwhere(np.isnan(values))[0]
            raise DataError(
                f"column {self.columns[column]!r} has no value in the training rows of series "
                f"{self.names[int(np.searchsorted(self.offsets, row, side='right')) - 1]!r}"
            )
        return values

    def tail(self, starts: np.ndarray) -> SeriesSet:
        """The rows of each series from the absolute row `starts[s]` on; where there are no times, they become row
        numbers.

        Row numbers count from the first row of the whole series, so that what follows the tail is still numbered
        rightly.
        """
        parts = [slice(int(start), int(stop)) for start, stop in zip(starts, self.offsets[1:], strict=True)]
        times = [self.time_of(index)[part.start - self.offsets[index] :] for index, part in enumerate(parts)]
        return replace(
            self,
            values=np.concatenate([self.values[part] for part in parts]),
            offsets=np.concatenate([[0], np.cumsum([part.stop - part.start for part in parts])]).astype(np.int64),
            time=np.concatenate(times),
        )

    def extended(self, count: int, known: np.ndarray | None = None) -> SeriesSet:
        """The set with `count` more rows a series: targets and past covariates missing, times continued.

        Args:
            known: `(series, count, columns)` values of the future covariates in those rows, but for the calendar's, as
                `loading.known_ahead` gives them; None where the set has none.
        """
        own = self.future - 2 * len(self.calendar)
        known = np.empty((len(self), count, 0)) if known is None else known
        values, times = [], []
        for index in range(len(self)):
            tail = np.full((count, self.values.shape[1]), np.nan)
            tail[:, self.targets + self.past : self.targets + self.past + own] = known[index]
            if self.time is not None:
                after = continue_time(self.time_of(index), count)
                tail[:, self.targets + self.past + own :] = (
                    calendar_columns(after, self.calendar) if self.calendar else 0
                )
                times += [self.time_of(index), after]
            values += [self.series(index), tail]
        offsets = self.offsets + count * np.arange(len(self) + 1)
        time = None if self.time is None else np.concatenate(times)
        return replace(self, values=np.concatenate(values), offsets=offsets, time=time)


def _fill(column: np.ndarray, before: float, rule: str) -> None:
    """Fill the NaNs of a `(rows,)` view in place; `before` is the value of the row ahead of it, or NaN."""
    present = np.flatnonzero(~np.isnan(column))
    rows = np.arange(len(column))
    if not present.size:
        column[:] = before
        return
    if rule == "interpolate" and np.isnan(before):
        column[:] = np.interp(rows, present, column[present])
        return
    if rule == "interpolate":
        column[:] = np.interp(rows, np.concatenate([[-1], present]), np.concatenate([[before], column[present]]))
        return
    last = np.maximum.accumulate(np.where(np.isnan(column), -1, rows))
    start = column[present[0]] if np.isnan(before) else before
    column[:] = np.where(last >= 0, column[np.maximum(last, 0)], start)
