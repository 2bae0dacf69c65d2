"""Series with the same columns: where each lies, what plays which role, how gaps are filled and times continued.

All series of a set lie one after another in one `(rows, features)` float64 array, with an offset per series, so that
windows of any of them are index arithmetic on one array that is uploaded to a GPU once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from gpulstm import validate
from gpulstm.data.covariates import made_columns, made_names
from gpulstm.data.filling import fill
from gpulstm.data.labels import Labels
from gpulstm.data.time_axis import Axis, Step, inner_pairs
from gpulstm.data.times import TimeForm
from gpulstm.errors import DataError, ShapeError

_KEPT = ("columns", "targets", "past", "future", "static", "names", "calendar", "holidays", "missing", "flags", "coded")
LATEST = 2.0**63  # what a time is below, a number or a count of its unit from 1970


@dataclass(frozen=True)
class Origin:
    """What another table of the same kind is read by.

    Attributes:
        roles: names of the table's columns by role: "target", "past", "future", "static".
        levels: the values of each category, by its column's name.
        time: the column of times, or None where the table had none and rows are numbered.
        series: names of the columns with ids; empty where there were none.
    """

    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    levels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    time: str | None = None
    series: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ahead:
    """The future covariates of rows after the last, which a table had at its end.

    Attributes:
        values: `(rows, columns)` float64.
        offsets: `(series + 1,)` int64.
    """

    values: np.ndarray
    offsets: np.ndarray


@dataclass(frozen=True)
class SeriesSet:
    """One or many series with the same columns.

    Attributes:
        values: `(rows, features)` float64, NaN where a cell is missing; the columns are targets, then past covariates
            (known up to now), then future covariates: those that a user knows ahead, those that stay the same within a
            series (`static` of them), and those made from the times.
        offsets: `(series + 1,)` int64; series s lies in the rows `offsets[s]` to `offsets[s + 1]`.
        columns: names of the features.
        targets, past, future: how many columns play each role.
        static: how many of the future columns stay the same within a series.
        time: `(rows,)` `datetime64` in UTC, int64 or float64, or None.
        names: names of the series.
        calendar, holidays: what the last of the future columns are made of.
        missing: the rule that `filled` applies.
        axis: how the times go on, and how they are written.
        labels: what names rows in outputs.
        origin: what another table is read by.
        flags: columns that are 1 for one value of a category and 0 for the others.
        coded: columns that hold the codes of a category, -1 where there is none, and how many values each has.
        ahead: future covariates that are known already, or None.
        notes: sentences on what was done to the table.
    """

    values: np.ndarray
    offsets: np.ndarray
    columns: tuple[str, ...]
    targets: int
    past: int = 0
    future: int = 0
    static: int = 0
    time: np.ndarray | None = None
    names: tuple[str, ...] = ("series",)
    calendar: tuple[str, ...] = ()
    holidays: str | None = None
    missing: str = "auto"
    axis: Axis = field(default_factory=Axis)
    labels: Labels = field(default_factory=Labels)
    origin: Origin = field(default_factory=Origin)
    flags: tuple[int, ...] = ()
    coded: tuple[tuple[int, int], ...] = ()
    ahead: Ahead | None = None
    notes: tuple[str, ...] = ()

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
    def made(self) -> int:
        """How many of the last columns are made from the times."""
        return len(made_names(self.calendar, self.holidays))

    @property
    def has_times(self) -> bool:
        """Whether the table had times; rows are numbered where it had none."""
        return self.origin.time is not None

    @property
    def known(self) -> int:
        """How many of the future columns a user knows ahead and has to give."""
        return self.future - self.static - self.made

    @property
    def kept(self) -> set[int]:
        """Columns that keep their values when others are scaled: categories."""
        return {*self.flags, *(column for column, _ in self.coded)}

    @property
    def shared(self) -> set[int]:
        """Columns that stay the same within a series, and are scaled over all series."""
        first = self.targets + self.past + self.known
        return set(range(first, first + self.static)) - self.kept

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the target columns."""
        return self.columns[: self.targets]

    @property
    def known_names(self) -> tuple[str, ...]:
        """Names of the future columns that a user gives."""
        first = self.targets + self.past
        return self.columns[first : first + self.known]

    @property
    def has_missing(self) -> bool:
        """Whether any cell is missing."""
        return bool(np.isnan(self.values).any())

    def identity(self) -> dict[str, Any]:
        """What tells these series from others: roles of columns, names, and a hash of all values and times."""
        digest = hashlib.blake2b(digest_size=16)
        for array in (self.values, self.offsets, self.time):
            if array is not None:
                digest.update(np.ascontiguousarray(array).view(np.uint8).data)
        names = ("columns", "targets", "past", "future", "calendar", "missing")
        return {**{name: getattr(self, name) for name in names}, "hash of the data": digest.hexdigest()}

    def check(self) -> None:
        """Raise unless all parts fit each other; for series that a file describes, since readers make whole ones.

        Raises:
            ShapeError, ConfigError, DataError: names the first part that does not fit.
        """
        counts = [validate.count(name, getattr(self, name), at_least=0) for name in ("targets", "past", "future")]
        for name in ("columns", "names", "calendar"):
            texts = getattr(self, name)
            if not isinstance(texts, tuple) or not all(isinstance(text, str) for text in texts):
                raise DataError(f"{name} of the series is {texts!r}, expected names")
            if len(set(texts)) != len(texts):
                raise DataError(f"{name} of the series has a name twice")
        if not self.targets or sum(counts) != len(self.columns):
            raise DataError(f"the series have {len(self.columns)} columns, but roles for {sum(counts)}")
        if not isinstance(self.missing, str):
            raise DataError(f"missing of the series is {self.missing!r}, expected the name of a rule")
        if self.static + self.made > self.future:
            raise DataError(
                f"the series have {self.future} future columns, but {self.static + self.made} of other kinds"
            )
        if self.values.dtype != np.float64 or self.values.ndim != 2 or self.values.shape[1] != len(self.columns):
            raise ShapeError(
                f"values of the series are {self.values.dtype} {self.values.shape}, expected float64 (rows, "
                f"{len(self.columns)})"
            )
        if np.isinf(self.values).any():
            raise DataError("the series have infinite values")
        whole = self.offsets.dtype == np.int64 and self.offsets.shape == (len(self.names) + 1,)
        if not whole or self.offsets[0] or self.offsets[-1] != self.rows or (self.lengths < 1).any():
            raise ShapeError(f"the offsets of the series do not cut {self.rows} rows into {len(self.names)}")
        if self.time is not None:
            if self.time.shape != (self.rows,) or self.time.dtype.kind not in "Mfi":
                raise ShapeError(f"times of the series are {self.time.dtype} {self.time.shape}, expected {self.rows}")
            if not (np.isfinite(self.time).all() and (np.abs(self.time.astype(np.float64)) < LATEST).all()):
                raise DataError("the series have a time that is missing or out of range")
            if not (self.time[1:] > self.time[:-1])[inner_pairs(self.offsets, self.rows)].all():
                raise DataError("times of the series do not rise")

    def series(self, index: int) -> np.ndarray:
        """The `(rows, features)` view of one series."""
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def time_of(self, index: int) -> np.ndarray:
        """The times of one series; row numbers from 0 where there is no time column."""
        if self.time is None:
            return np.arange(self.lengths[index], dtype=np.float64)
        return self.time[self.offsets[index] : self.offsets[index + 1]]

    @property
    def times(self) -> np.ndarray:
        """`(rows,)`: the times of all series; row numbers of each series from 0 where there is no time column."""
        if self.time is not None:
            return self.time
        return (np.arange(self.rows) - np.repeat(self.offsets[:-1], self.lengths)).astype(np.float64)

    def filled(self, cuts: Sequence[np.ndarray] = ()) -> np.ndarray:
        """The values with gaps filled by the rule `missing`; the same array where nothing is missing.

        See `filling.fill` for the rules.

        Args:
            cuts: arrays `(series,)` of rows, absolute as `offsets`, that no value is filled across from behind.
        """
        if not self.has_missing:
            return self.values
        return fill(self.values, self.offsets, self.missing, cuts)[0]

    @property
    def observed(self) -> np.ndarray | None:
        """`(rows, features)` bool: which cells count; None where all do."""
        if self.missing == "zero" or not self.has_missing:
            return None
        return ~np.isnan(self.values)

    def select(self, index: int) -> SeriesSet:
        """One series as a set of its own, over the same memory."""
        start, stop = self.offsets[index], self.offsets[index + 1]
        return replace(
            self,
            values=self.values[start:stop],
            offsets=np.array([0, stop - start], dtype=np.int64),
            time=None if self.time is None else self.time[start:stop],
            names=(self.names[index],),
            axis=self.axis.select([index]),
            labels=self.labels.select([index]),
            ahead=None if self.ahead is None else _part(self.ahead, np.array([index])),
        )

    def tail(self, starts: np.ndarray) -> SeriesSet:
        """The rows of each series from the absolute row `starts[s]` on; where there are no times, they become row
        numbers.

        Row numbers count from the first row of the whole series, so that what follows the tail is still numbered
        rightly.
        """
        rows, offsets = spans(np.asarray(starts, dtype=np.int64), self.offsets[1:])
        return replace(self, values=self.values[rows], offsets=offsets, time=self.times[rows])

    def extended(self, count: int, known: np.ndarray | None = None) -> SeriesSet:
        """The set with `count` more rows a series: targets and past covariates missing, times continued.

        Args:
            known: `(series, count, columns)` values of the future covariates that a user knows in those rows, as
                `loading.known_ahead` gives them; None where the set has none.

        Raises:
            DataError: a series has no row.
        """
        short = np.flatnonzero(self.lengths == 0)
        if short.size:
            raise DataError(f"series {self.names[int(short[0])]!r} has no row")
        width = self.values.shape[1]
        first = self.targets + self.past
        tail = np.full((len(self), count, width), np.nan)
        if known is not None:
            tail[:, :, first : first + self.known] = known
        if self.static:
            columns = slice(first + self.known, first + self.known + self.static)
            tail[:, :, columns] = self.values[self.offsets[1:] - 1, columns][:, None, :]
        after = self.after(count)
        if self.made:
            tail[:, :, width - self.made :] = self.made_of(after.ravel()).reshape(len(self), count, self.made)
        return self.grown(tail, after)

    def after(self, count: int) -> np.ndarray:
        """`(series, count)`: the times that follow each series; row numbers where it has no times."""
        if self.axis.step.kind == "none" and not self.has_times:
            last = self.times[self.offsets[1:] - 1]
            return last[:, None] + np.arange(1, count + 1)
        assert self.time is not None
        return self.axis.after(self.time[self.offsets[1:] - 1], count)

    def made_of(self, time: np.ndarray) -> np.ndarray:
        """`(rows, made)`: the covariates made from some times."""
        seconds = self.axis.step.seconds
        days = max(1, round(seconds / 86400)) if np.isfinite(seconds) else 1
        return made_columns(self.axis.clock(time), self.calendar, self.holidays, days)

    def grown(self, rows: np.ndarray, time: np.ndarray) -> SeriesSet:
        """The set with rows `(series, count, features)` at times `(series, count)` put at the end of every series."""
        count = rows.shape[1]
        offsets = self.offsets + count * np.arange(len(self) + 1)
        new = np.zeros(int(offsets[-1]), bool)
        ends = (offsets[1:, None] - count + np.arange(count)).ravel()
        new[ends] = True
        values = np.empty((len(new), self.values.shape[1]))
        values[new], values[~new] = rows.reshape(-1, rows.shape[2]), self.values
        times = self.times
        together = np.empty(len(new), np.result_type(times.dtype, time.dtype))
        together[new], together[~new] = time.ravel(), times
        return replace(self, values=values, offsets=offsets, time=None if self.time is None else together)


def spans(starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows from each start to each stop, one span after another, and the offsets of the spans."""
    lengths = np.maximum(stops - starts, 0)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths), offsets


def end_of(series: SeriesSet, context: int) -> SeriesSet:
    """The end of each series: the context, and before it back to a row without gaps, so that gaps are filled alike."""
    starts = series.offsets[:-1]
    start = np.maximum(starts, series.offsets[1:] - context)
    if series.has_missing and len(series.values):
        whole = ~np.isnan(series.values).any(axis=1)
        last = np.maximum.accumulate(np.where(whole, np.arange(series.rows), -1))
        start = np.maximum(starts, last[np.minimum(start, series.rows - 1)])
    return series.tail(start)


def _part(ahead: Ahead, series: np.ndarray) -> Ahead:
    rows, offsets = spans(ahead.offsets[series], ahead.offsets[series + 1])
    return Ahead(ahead.values[rows], offsets)


def save_series(tail: SeriesSet) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What a checkpoint keeps of a set whose times are not None: arrays, and the rest as JSON."""
    assert tail.time is not None
    time = tail.time
    plain = time.view(np.int64) if time.dtype.kind == "M" else time
    arrays = {"values": tail.values, "offsets": tail.offsets, "time": np.ascontiguousarray(plain)}
    if tail.ahead is not None:
        arrays |= {"ahead.values": tail.ahead.values, "ahead.offsets": tail.ahead.offsets}
    meta = {name: getattr(tail, name) for name in _KEPT}
    axis, labels, days = asdict(tail.axis), asdict(tail.labels), tail.axis.days
    del labels["form"]  # that of the axis
    axis["days"] = None if days is None else days.tolist()
    return arrays, meta | {"axis": axis, "labels": labels, "origin": asdict(tail.origin), "dtype": str(time.dtype)}


def restore_series(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> SeriesSet:
    """The set that `save_series` took apart.

    Raises:
        KeyError, TypeError, ValueError: they do not hold a set.
    """
    axis, dtype = meta["axis"], np.dtype(meta["dtype"])
    days = None if axis["days"] is None else np.array(axis["days"], dtype=np.int64)
    form = TimeForm(**axis["form"])
    time = np.asarray(arrays["time"])
    return SeriesSet(
        values=arrays["values"],
        offsets=arrays["offsets"],
        time=time.view(dtype) if dtype.kind == "M" else time.astype(dtype),
        axis=Axis(Step(**_tuples(axis["step"])), form, days),
        labels=Labels(**_tuples(meta["labels"]), form=form),
        origin=Origin(**_tuples(meta["origin"])),
        ahead=Ahead(arrays["ahead.values"], arrays["ahead.offsets"]) if "ahead.values" in arrays else None,
        **{name: _tuples(meta[name]) for name in _KEPT if name in meta},
    )


def _tuples(value: Any) -> Any:
    """What JSON gives, with tuples for its lists."""
    if isinstance(value, Mapping):
        return {name: _tuples(inner) for name, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
