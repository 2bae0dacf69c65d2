"""Scaling of series: statistics of the training rows per series and column, and of each window's own context.

`Scaler` sets the unit once, from training rows only.  `window_statistics` then moves each window to where it stands, so
that a network sees a trending series the same way everywhere (the idea of reversible instance normalisation, Kim et
al., ICLR 2022, without its learned part).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gpulstm.arrays.backend import Array
from gpulstm.errors import ConfigError, DataError, ShapeError

KINDS = ("standard", "minmax", "robust", "none")
WINDOW_KINDS = ("none", "standard", "mean", "last")
_PIECE = 16384  # rows that are scaled at once


class Scaler:
    """`(value - location) / scale` per series and column.

    Kinds: `"standard"` (mean, standard deviation), `"minmax"` (smallest value, range), `"robust"` (median,
    interquartile range), `"none"`.  A column that does not vary gets scale 1 and is listed in `constant`.

    Attributes:
        kind: one of the four.
        location, scale: `(series, features)` float64.
        names, columns: what the rows and columns of those two belong to.
        constant: `(series, column)` names of what did not vary in the training rows.
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

    def fit(
        self,
        values: np.ndarray,
        offsets: np.ndarray,
        stops: np.ndarray,
        *,
        names: Sequence[str],
        columns: Sequence[str],
        skip: int = 0,
    ) -> Scaler:
        """Take the statistics of the rows `offsets[s]` to `stops[s]` of every series; NaNs are left out.

        Args:
            values: `(rows, features)` float64, all series one after another.
            offsets: `(series + 1,)` int.
            stops: `(series,)` int: first row after the training rows of each series.
            names, columns: of the series and features.
            skip: how many of the last columns keep their values (calendar covariates).

        Raises:
            DataError: a series has no training rows, or a column no value in them.
        """
        self.names, self.columns = tuple(names), tuple(columns)
        count, width = len(self.names), len(self.columns)
        self.location, self.scale, self.constant = np.zeros((count, width)), np.ones((count, width)), []
        if self.kind == "none":
            return self
        for series in range(count):
            rows = values[offsets[series] : stops[series]]
            if not len(rows):
                raise DataError(f"series {self.names[series]!r} has no training rows to fit the scaling on")
            for column in range(width - skip):
                cells = np.ascontiguousarray(rows[:, column])
                absent = np.isnan(cells)
                cells = cells[~absent] if absent.any() else cells
                del absent  # a long series is held few times at once
                if not cells.size:
                    raise DataError(
                        f"column {self.columns[column]!r} has no value in the training rows "
                        f"of series {self.names[series]!r}"
                    )
                location, scale = _statistics(self.kind, cells)
                if scale <= 1e-12 * max(abs(location), abs(cells.min()), abs(cells.max())):
                    self.constant.append((self.names[series], self.columns[column]))
                    scale = 1.0
                self.location[series, column], self.scale[series, column] = location, scale
        return self

    def notes(self) -> list[str]:
        """A sentence for each column that did not vary."""
        return [
            f"column {column!r} of series {series!r} does not vary in the training rows; it is centred and not scaled"
            for series, column in self.constant
        ]

    def transform(self, values: np.ndarray, offsets: np.ndarray, dtype: Any = np.float64) -> np.ndarray:
        """The scaled copy of `(rows, features)` values, computed in float64 and stored as `dtype`."""
        self._check(values, offsets)
        result = np.empty(values.shape, dtype)
        for series, part in self._pieces(offsets):
            result[part] = (values[part] - self.location[series]) / self.scale[series]
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
        return scaler

    def _pieces(self, offsets: np.ndarray) -> Iterator[tuple[int, slice]]:
        """Each series in pieces, small enough that what is computed of one lies in the cache."""
        for series in range(len(self.names)):
            for start in range(int(offsets[series]), int(offsets[series + 1]), _PIECE):
                yield series, slice(start, min(start + _PIECE, int(offsets[series + 1])))

    def _check(self, values: np.ndarray, offsets: np.ndarray) -> None:
        if values.shape[1:] != (len(self.columns),) or len(offsets) != len(self.names) + 1:
            raise ShapeError(
                f"values have shape {values.shape} and {len(offsets) - 1} series, but the scaling was fitted on "
                f"{len(self.columns)} columns and {len(self.names)} series"
            )


def _statistics(kind: str, cells: np.ndarray) -> tuple[float, float]:
    if kind == "standard":
        return float(cells.mean()), float(cells.std())
    if kind == "minmax":
        return float(cells.min()), float(np.ptp(cells))
    low, middle, high = np.quantile(cells, (0.25, 0.5, 0.75))
    return float(middle), float(high - low)


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
