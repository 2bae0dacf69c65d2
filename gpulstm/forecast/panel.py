"""Series as one array, and the rows that a forecast from an origin may see.

Members read their windows through a `View`, which never gives them a row at or behind an origin: a gap that was filled
with a line to a later value ends, as seen from within it, with its last observed value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Seasons:
    """The rows in the seasons of a time step.

    Attributes:
        short: m, rows in the season; 1 for none.
        long: rows in a second, longer season that holds whole short ones (168 of hours), or 0.
        year: rows in a year where that is no whole number (52.18 weeks, 365.25 days), or 0.
    """

    short: int = 1
    long: int = 0
    year: float = 0.0


@dataclass(frozen=True, eq=False)
class Panel:
    """Univariate series, one after another.

    Attributes:
        values: `(rows,)` float64 with gaps filled; NaN only in rows that are to be forecast.
        offsets: `(series + 1,)` int64.
        observed: `(rows,)` bool, False where a value was filled or is unknown.
        last: `(rows,)` int64, the last observed row up to each row, where a gap is filled by more than what came before
            it; None where each filled value comes from earlier rows alone.
        starts: `(series,)` int64, the first observed row of each series.
        known: `(rows, columns)` float64, covariates known ahead, NaN where nothing is known yet, or None.
        past: `(rows, columns)` float64, covariates known up to now, NaN where nothing is known, or None.
        time: `(rows,)` datetime64, or None.
        static: `(series, columns)` float64 or None.
    """

    values: np.ndarray
    offsets: np.ndarray
    observed: np.ndarray
    starts: np.ndarray
    last: np.ndarray | None = None
    known: np.ndarray | None = None
    past: np.ndarray | None = None
    time: np.ndarray | None = None
    static: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """`(series,)` int64: rows of each series."""
        return np.diff(self.offsets)

    @cached_property
    def low(self) -> np.ndarray:
        """`(rows + 1,)` int64: observed values before each row that are not above zero."""
        return np.concatenate([[0], np.cumsum(self.observed & ~(self.values > 0))])

    @classmethod
    def of(cls, values: np.ndarray, offsets: np.ndarray, rule: str = "forward", **columns: Any) -> Panel:
        """Fill the gaps of `values` `(rows,)`.

        Args:
            rule: "interpolate" draws lines between the neighbors of a gap, "zero" puts 0, which counts as observed;
                with any other the last value stays.
        """
        values = np.array(values, dtype=np.float64)
        offsets = np.asarray(offsets, dtype=np.int64)
        if rule == "zero":
            values = np.nan_to_num(values)
        observed = ~np.isnan(values)
        if observed.all():
            return cls(values, offsets, observed, offsets[:-1].copy(), **columns)
        starts = np.repeat(offsets[:-1], np.diff(offsets))
        ends = np.repeat(offsets[1:], np.diff(offsets))
        rows = np.arange(len(values))
        last = np.maximum.accumulate(np.where(observed, rows, -1))
        later = np.minimum.accumulate(np.where(observed, rows, len(values))[::-1])[::-1]
        has_last, has_later = last >= starts, later < ends
        before = values[np.where(has_last, last, np.where(has_later, later, 0))]
        before[~(has_last | has_later)] = np.nan
        filled = before
        if rule == "interpolate":
            inside = has_last & has_later & ~observed
            left, right = last[inside], later[inside]
            share = (rows[inside] - left) / (right - left)
            filled[inside] = values[left] * (1 - share) + values[right] * share
        first = np.minimum(later[offsets[:-1]], offsets[1:] - 1)
        kept = np.where(has_last, last, starts) if rule == "interpolate" else None
        return cls(filled, offsets, observed, first, kept, **columns)


class View:
    """Forecast origins over a panel, and the values before them.

    Args:
        panel: the series.
        origins: `(N,)` int64, the row of each forecast's first step.
        horizon: H, steps of a forecast.
        season: m, rows in a season.
        reach: rows of the window within which all values have to be above zero for logarithms.

    Attributes:
        series: `(N,)` the series of each origin.
        rows: `(N,)` rows of its series before each origin.
        logs: whether values are logarithms, in windows that hold only values above zero.
    """

    def __init__(self, panel: Panel, origins: np.ndarray, horizon: int, season: int, reach: int) -> None:
        self.panel, self.origins = panel, np.asarray(origins, dtype=np.int64)
        self.horizon, self.season, self.reach = horizon, season, reach
        self.series = np.searchsorted(panel.offsets, self.origins, side="right") - 1
        last = self.origins >= panel.offsets[-1]  # an origin right behind the last row of all
        self.series[last] = len(panel) - 1
        self.rows = self.origins - panel.starts[self.series]
        self.logs = False
        self._positive: np.ndarray | None = None
        self._logged: View | None = None
        self._kept: dict[Any, Any] = {}

    def __len__(self) -> int:
        return len(self.origins)

    def at(self, keep: np.ndarray | slice) -> View:
        """The origins of a mask, of indices or of a slice."""
        part = View.__new__(View)
        part.__dict__.update(self.__dict__, origins=self.origins[keep], series=self.series[keep], rows=self.rows[keep])
        part._positive = None if self._positive is None else self._positive[keep]
        part._logged, part._kept = None, {}
        return part

    def kept(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` gives, made once for this view."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    @property
    def positive(self) -> np.ndarray:
        """`(N,)` bool: whether all of the last `reach` values are above zero."""
        if self._positive is None:
            first = np.maximum(self.origins - self.reach, self.panel.starts[self.series])
            self._positive = self.panel.low[self.origins] == self.panel.low[first]
        return self._positive

    @property
    def logged(self) -> View:
        """The same origins over logarithms."""
        if self._logged is None:
            positive = self.positive
            part = View.__new__(View)
            part.__dict__.update(self.__dict__, logs=True, _positive=positive, _kept={})
            self._logged = part
        return self._logged

    def back(self, values: np.ndarray) -> np.ndarray:
        """Forecasts `(N, ...)` of this view's values in the units of the series."""
        if not self.logs:
            return values
        shape = (-1,) + (1,) * (values.ndim - 1)
        return np.where(self.positive.reshape(shape), np.exp(np.minimum(values, 700.0)), values)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The values at absolute rows `(N, k)`, each before its origin and within its series."""
        panel = self.panel
        if panel.last is not None:
            rows = np.minimum(rows, panel.last[self.origins - 1][:, None])
        values = panel.values[rows]
        if self.logs:
            positive = self.positive
            if positive.all():
                return np.log(values)
            values[positive] = np.log(values[positive])
        return values

    def window(self, length: int) -> np.ndarray:
        """The last `length` values `(N, length)`; a shorter series is preceded by its first season, again and again."""
        rows = self.origins[:, None] + np.arange(-length, 0)
        starts = self.panel.starts[self.series][:, None]
        if (self.rows < length).any():
            season = np.minimum(self.season, self.rows)[:, None]
            rows = np.where(rows < starts, starts + (rows - starts) % season, rows)
        return self.take(rows)

    def lags(self, lags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The values `lags` `(k,)` rows before the origin `(N, k)`, 1 the last one; and whether the series has them."""
        lags = np.asarray(lags)
        have = lags[None, :] <= self.rows[:, None]
        rows = self.origins[:, None] - np.minimum(lags[None, :], self.rows[:, None])
        return self.take(rows), have

    def groups(self, limit: int, multiple: int = 1) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Origins that have equally many rows, up to `limit`: their indices `(k,)` and windows `(k, rows)`.

        Args:
            multiple: windows of more rows than that have a multiple of it, so that there are fewer lengths.
        """
        length = np.minimum(self.rows, limit)
        length = np.where((length < limit) & (length > multiple), length - length % multiple, length)
        for rows in np.unique(length):
            index = np.flatnonzero(length == rows)
            step = max(1, (1 << 20) // int(rows))
            for start in range(0, len(index), step):
                run = index[start : start + step]
                part = self.at(run)
                yield run, part.take(part.origins[:, None] + np.arange(-int(rows), 0))

    def actual(self) -> np.ndarray:
        """What came, in the units of the series: `(N, H)`, NaN where it was not observed."""
        rows = self.origins[:, None] + np.arange(self.horizon)
        return np.where(self.panel.observed[rows], self.panel.values[rows], np.nan)
