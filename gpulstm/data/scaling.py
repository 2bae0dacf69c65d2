"""Scaling of series: statistics of the training rows per series and column, and of each window's own context.

`Scaler` sets the unit once, from training rows only.  `window_statistics` then moves each window to where it stands, so
that a network sees a trending series the same way everywhere (the idea of reversible instance normalization, Kim et
al., ICLR 2022, without its learned part).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gpulstm.arrays.backend import Array
from gpulstm.data.series import spans
from gpulstm.errors import ConfigError, DataError, ShapeError

KINDS = ("standard", "minmax", "robust", "none")
WINDOW_KINDS = ("none", "standard", "mean", "last")
_PIECE = 16384  # rows that are scaled at once
_MANY = 64  # series from which on the statistics of all are computed together
_LARGE = 1e150  # numbers beyond it, or below its inverse, have squares that float64 cannot hold


class Scaler:
    """`(value - location) / scale` per series and column.

    Kinds: `"standard"` (mean, standard deviation), `"minmax"` (smallest value, range), `"robust"` (median,
    interquartile range; the standard deviation where half of the values are one), `"none"`.  A column that does not
    vary gets scale 1 and is listed in `constant`.

    Attributes:
        kind: one of the four.
        location, scale: `(series, features)` float64.
        names, columns: what the rows and columns of those two belong to.
        constant, empty: `(series, column)` names of what did not vary, or had no value, in the training rows.
    """

    def __init__(self, kind: str = "standard") -> None:
        if kind not in KINDS:
            raise ConfigError(f"scaling is {kind!r}, expected any of {', '.join(map(repr, KINDS))}")
        self.kind = kind
        self.location = np.zeros((0, 0))
        self.scale = np.ones((0, 0))
        self.names: tuple[str, ...] = ()
        self.columns: tuple[str, ...] = ()
        self.constant: list[tuple[str, str]] = []
        self.empty: list[tuple[str, str]] = []

    def fit(
        self,
        values: np.ndarray,
        offsets: np.ndarray,
        stops: np.ndarray,
        *,
        names: Sequence[str],
        columns: Sequence[str],
        skip: int = 0,
        shared: Collection[int] = (),
        kept: Collection[int] = (),
    ) -> Scaler:
        """Take the statistics of the rows `offsets[s]` to `stops[s]` of every series; NaNs are left out.

        Args:
            values: `(rows, features)` float64, all series one after another.
            offsets: `(series + 1,)` int.
            stops: `(series,)` int: first row after the training rows of each series.
            names, columns: of the series and features.
            skip: how many of the last columns keep their values (those made from the times).
            shared: columns that stay the same within a series, whose statistics are those over all series.
            kept: further columns that keep their values (categories).

        Raises:
            DataError: no series has training rows.
        """
        self.names, self.columns = tuple(names), tuple(columns)
        count, width = len(self.names), len(self.columns)
        self.location, self.scale, self.constant = np.zeros((count, width)), np.ones((count, width)), []
        self.empty = []
        if self.kind == "none":
            return self
        starts, stops = np.asarray(offsets[:-1]), np.maximum(stops, offsets[:-1])
        if not (stops > starts).any():
            raise DataError("no series has training rows to fit the scaling on")
        for column in range(width - skip):
            if column in kept:
                continue
            if column in shared:  # one value a series: what varies is from series to series
                each = values[offsets[:-1][offsets[1:] > offsets[:-1]], column]
                found = np.repeat(statistics_of(self.kind, each, np.array([0]), np.array([len(each)])), count, axis=1)
            else:
                found = statistics_of(self.kind, values[:, column], starts, stops)
            self._take(column, found, whole=column in shared)
        return self

    def _take(self, column: int, found: np.ndarray, whole: bool) -> None:
        """Location and scale of a column from its statistics; those of all series where one has no value."""
        location, scale, low, high = found
        absent = np.isnan(location)
        if absent.any():
            self.empty += [(self.names[series], self.columns[column]) for series in np.flatnonzero(absent)]
            known = not absent.all()
            location = np.where(absent, location[~absent].mean() if known else 0.0, location)
            scale = np.where(absent, scale[~absent].mean() if known else 1.0, scale)
        flat = ~(scale > 1e-12 * np.fmax(np.fmax(np.abs(location), np.abs(low)), np.abs(high)))
        if not whole:
            self.constant += [(self.names[series], self.columns[column]) for series in np.flatnonzero(flat & ~absent)]
        self.location[:, column], self.scale[:, column] = location, np.where(flat, 1.0, scale)

    def notes(self) -> list[str]:
        """A sentence for each column that did not vary, or had no value, in the training rows of some series."""
        return [
            *_sentences(self.constant, "does not vary in the training rows", "centered and not scaled"),
            *_sentences(self.empty, "has no value in the training rows", "scaled as the other series are"),
        ]

    def transform(self, values: np.ndarray, offsets: np.ndarray, dtype: Any = np.float64) -> np.ndarray:
        """The scaled copy of `(rows, features)` values, computed in float64 and stored as `dtype`.

        Raises:
            DataError: a value is too large for `dtype`, as without scaling it may be.
        """
        self._check(values, offsets)
        result = np.empty(values.shape, dtype)
        with np.errstate(over="ignore"):
            for series, part in self._pieces(offsets):
                result[part] = (values[part] - self.location[series]) / self.scale[series]
        if self.kind == "none" and np.isinf(result.sum(axis=0, dtype=np.float64)).any() and np.isinf(result).any():
            raise DataError(
                f"scaling='none' leaves values that {np.dtype(dtype).name} cannot hold; choose another scaling"
            )
        return result

    def inverse(self, values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Undo `transform` on `(rows, features)` values, in float64."""
        self._check(values, offsets)
        result = np.empty(values.shape, np.float64)
        for series, part in self._pieces(offsets):
            result[part] = values[part].astype(np.float64) * self.scale[series] + self.location[series]
        return result

    def inverse_targets(self, values: np.ndarray, series: np.ndarray) -> np.ndarray:
        """Undo the scaling of forecasts.

        Args:
            values: `(B, horizon, targets)` or `(B, horizon, targets, Q)`.
            series: `(B,)` int, the series of each row.
        """
        targets = values.shape[2]
        shape = (len(series), 1, targets) + (1,) * (values.ndim - 3)
        location, scale = self.location[series, :targets].reshape(shape), self.scale[series, :targets].reshape(shape)
        return values.astype(np.float64) * scale + location

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays a checkpoint keeps."""
        return {"location": self.location, "scale": self.scale}

    def scalars(self) -> dict[str, Any]:
        """What a checkpoint keeps as JSON."""
        return {
            "kind": self.kind,
            "names": list(self.names),
            "columns": list(self.columns),
            "constant": [list(pair) for pair in self.constant],
        }

    @classmethod
    def restore(cls, arrays: Mapping[str, np.ndarray], scalars: Mapping[str, Any]) -> Scaler:
        """The scaler that `arrays` and `scalars` were taken from.

        Raises:
            ShapeError: the arrays do not fit the names.
            DataError: a location is not finite, or a scale not positive.
        """
        scaler = cls(scalars["kind"])
        scaler.names, scaler.columns = tuple(scalars["names"]), tuple(scalars["columns"])
        scaler.constant = [(series, column) for series, column in scalars["constant"]]
        expected = (len(scaler.names), len(scaler.columns))
        for name in ("location", "scale"):
            array = np.array(arrays[name], dtype=np.float64)
            if array.shape != expected:
                raise ShapeError(f"{name} of the scaler has shape {array.shape}, expected {expected}: series, columns")
            setattr(scaler, name, array)
        if not np.isfinite([scaler.location, scaler.scale]).all() or not (scaler.scale > 0).all():
            raise DataError("the scaler has a location that is not finite, or a scale that is not positive")
        return scaler

    def _pieces(self, offsets: np.ndarray) -> Iterator[tuple[Any, slice]]:
        """All rows in pieces small enough for the cache, each with the series of its rows."""
        for start in range(0, int(offsets[-1]), _PIECE):
            stop = min(start + _PIECE, int(offsets[-1]))
            first, last = np.searchsorted(offsets, [start, stop - 1], side="right") - 1
            if first == last:
                yield int(first), slice(start, stop)
            else:
                inside = np.clip(offsets[first : last + 2], start, stop)
                yield np.repeat(np.arange(first, last + 1), np.diff(inside)), slice(start, stop)

    def _check(self, values: np.ndarray, offsets: np.ndarray) -> None:
        if values.shape[1:] != (len(self.columns),) or len(offsets) != len(self.names) + 1:
            raise ShapeError(
                f"values have shape {values.shape} and {len(offsets) - 1} series, but the scaling was fitted on "
                f"{len(self.columns)} columns and {len(self.names)} series"
            )


def _sentences(pairs: Sequence[tuple[str, str]], what: str, done: str) -> list[str]:
    """One sentence a column on the series that share something."""
    by_column: dict[str, list[str]] = {}
    for series, column in pairs:
        by_column.setdefault(column, []).append(series)
    sentences = []
    for column, series_names in by_column.items():
        if len(series_names) == 1:
            sentences.append(f"column {column!r} of series {series_names[0]!r} {what}; it is {done}")
        else:
            few = ", ".join(series_names[:5]) + (", ..." if len(series_names) > 5 else "")
            sentences.append(f"column {column!r} of {len(series_names)} series ({few}) {what}; it is {done}")
    return sentences


def statistics_of(kind: str, values: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """`(4, series)` float64: location, scale, smallest and largest value of one column; NaN where a series has none.

    Args:
        kind: `"standard"` (mean, standard deviation), `"minmax"` (smallest value, range) or `"robust"` (median,
            interquartile range; the standard deviation where half of the values are one).
        values: `(rows,)` float64.
        starts, stops: `(series,)` int: the rows of each series.
    """
    if len(starts) > _MANY:
        return _grouped(kind, values, starts, stops)
    result = np.full((4, len(starts)), np.nan)
    for series, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        cells = np.ascontiguousarray(values[start:stop])
        absent = np.isnan(cells)
        cells = cells[~absent] if absent.any() else cells
        del absent  # a long series is held few times at once
        if cells.size:
            result[:, series] = *_of_cells(kind, cells), cells.min(), cells.max()
    return result


def _of_cells(kind: str, cells: np.ndarray) -> tuple[float, float]:
    if kind == "minmax":
        low, high = float(cells.min()), float(cells.max())
        return low, high - low
    largest = float(np.abs(cells).max())
    unit = largest if largest > _LARGE or 0 < largest < 1 / _LARGE else 1.0  # keeps squares within float64
    cells = cells if unit == 1.0 else cells / unit
    if kind == "robust":
        low, middle, high = np.quantile(cells, (0.25, 0.5, 0.75))
        return float(middle) * unit, (float(high - low) or float(cells.std())) * unit
    return float(cells.mean()) * unit, float(cells.std()) * unit


def _grouped(kind: str, values: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """The same for many series at once."""
    result = np.full((4, len(starts)), np.nan)
    rows, offsets = spans(starts, stops)
    cells = values[rows]
    lengths = np.diff(offsets)
    series = np.repeat(np.arange(len(starts)), lengths)
    absent = np.isnan(cells)
    if absent.any():
        cells, series = cells[~absent], series[~absent]
        lengths = np.bincount(series, minlength=len(starts))
    some = np.flatnonzero(lengths)  # the series that have a value
    if not some.size:
        return result
    lengths = lengths[some]
    first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    low, high = np.minimum.reduceat(cells, first), np.maximum.reduceat(cells, first)
    result[2:, some] = low, high
    if kind == "minmax":
        result[:2, some] = low, high - low
        return result
    largest = np.maximum(np.abs(low), np.abs(high))
    unit = np.where((largest > _LARGE) | ((largest > 0) & (largest < 1 / _LARGE)), largest, 1.0)
    cells = cells / np.repeat(unit, lengths)
    location = np.add.reduceat(cells, first) / lengths
    scale = np.sqrt(np.add.reduceat((cells - np.repeat(location, lengths)) ** 2, first) / lengths)
    if kind == "robust":
        cells = cells[np.lexsort((cells, series))]
        quarter, location, rest = (_quantiles(cells, first, lengths, share) for share in (0.25, 0.5, 0.75))
        scale = np.where(rest > quarter, rest - quarter, scale)
    result[:2, some] = location * unit, scale * unit
    return result


def _quantiles(cells: np.ndarray, first: np.ndarray, lengths: np.ndarray, share: float) -> np.ndarray:
    """Quantiles, between two values on the line through them, of the sorted cells from each of `first` on."""
    place = share * (lengths - 1)
    below = place.astype(np.int64)
    low, high = cells[first + below], cells[first + np.minimum(below + 1, lengths - 1)]
    return low + (high - low) * (place - below)


def check_window_kind(kind: str) -> str:
    """`kind` if there is such a window scaling, else ConfigError."""
    if kind not in WINDOW_KINDS:
        raise ConfigError(f"window_scaling is {kind!r}, expected any of {', '.join(map(repr, WINDOW_KINDS))}")
    return kind


def window_statistics(xp: Any, context: Array, observed: Array | None, kind: str) -> tuple[Array, Array]:
    """Location and scale of each window from its own context, two arrays `(B, targets)`.

    Kinds: `"standard"` (mean, standard deviation), `"mean"` (mean, 1), `"last"` (last value, 1).  Where a context does
    not vary, or has no observed value, the scale is 1; where it has no observed value, the location is 0.

    Args:
        xp: the array namespace of `context`.
        context: `(T, B, targets)`.
        observed: `(T, B, targets)` bool, or None where everything is.
        kind: one of `WINDOW_KINDS` besides `"none"`.
    """
    one = xp.ones(context.shape[1:], dtype=context.dtype)
    if kind == "last":
        if observed is None:
            return context[-1].copy(), one
        steps = xp.arange(1, context.shape[0] + 1)[:, None, None]
        last = xp.max(xp.where(observed, steps, 0), axis=0)  # 0: none observed
        value = xp.take_along_axis(context, xp.maximum(last - 1, 0)[None], axis=0)[0]
        return xp.where(last > 0, value, xp.zeros_like(value)), one
    if observed is None:
        mean = xp.mean(context, axis=0)
        variance = xp.mean((context - mean) ** 2, axis=0)
    else:
        count = xp.maximum(xp.sum(observed, axis=0), 1).astype(context.dtype)
        mean = xp.sum(xp.where(observed, context, 0), axis=0) / count
        variance = xp.sum(xp.where(observed, (context - mean) ** 2, 0), axis=0) / count
    if kind == "mean":
        return mean, one
    deviation = xp.sqrt(variance)
    return mean, xp.where(deviation > 1e-6 * (1 + xp.abs(mean)), deviation, one)
