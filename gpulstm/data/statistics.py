"""Location and scale of the rows of each series, NaN left out: one series at a time, or all short ones at once."""

from __future__ import annotations

import numpy as np

from gpulstm.data.series import spans

_MANY = 64  # series from which on all are computed together


def by_series(kind: str, values: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """`(4, series)` float64: location, scale, smallest and largest value of one column; NaN where a series has none.

    Args:
        kind: `"standard"` (mean, standard deviation), `"minmax"` (smallest value, range) or `"robust"` (median,
            interquartile range; the standard deviation where half of the values are one).
        values: `(rows,)` float64.
        starts, stops: `(series,)` int: the rows of each series.
    """
    if len(starts) > _MANY:
        return _together(kind, values, starts, stops)
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
    unit = _unit(float(np.abs(cells).max()))
    cells = cells if unit == 1.0 else cells / unit
    if kind == "robust":
        low, middle, high = np.quantile(cells, (0.25, 0.5, 0.75))
        return float(middle) * unit, (float(high - low) or float(cells.std())) * unit
    return float(cells.mean()) * unit, float(cells.std()) * unit


def _unit(largest: float) -> float:
    """A divisor that keeps squares of the values within float64; 1 where they are."""
    return largest if largest > 1e150 or 0 < largest < 1e-150 else 1.0


def _together(kind: str, values: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    result = np.full((4, len(starts)), np.nan)
    rows, _ = spans(starts, stops)
    cells = values[rows]
    series = np.repeat(np.arange(len(starts)), np.maximum(stops - starts, 0))
    present = ~np.isnan(cells)
    if not present.all():
        cells, series = cells[present], series[present]
    if not cells.size:
        return result
    which, first, count = np.unique(series, return_index=True, return_counts=True)
    low, high = np.minimum.reduceat(cells, first), np.maximum.reduceat(cells, first)
    result[2, which], result[3, which] = low, high
    if kind == "minmax":
        result[0, which], result[1, which] = low, high - low
        return result
    largest = np.maximum(np.abs(low), np.abs(high))
    unit = np.where((largest > 1e150) | ((largest > 0) & (largest < 1e-150)), largest, 1.0)
    cells = cells / np.repeat(unit, count)
    mean = np.add.reduceat(cells, first) / count
    deviation = np.sqrt(np.add.reduceat((cells - np.repeat(mean, count)) ** 2, first) / count)
    if kind == "standard":
        result[0, which], result[1, which] = mean * unit, deviation * unit
        return result
    ordered = cells[np.lexsort((cells, series))]
    quartiles = []
    for level in (0.25, 0.5, 0.75):
        place = level * (count - 1)
        below = np.floor(place).astype(np.int64)
        left, right = ordered[first + below], ordered[first + np.minimum(below + 1, count - 1)]
        quartiles.append(left + (right - left) * (place - below))
    spread = quartiles[2] - quartiles[0]
    result[0, which] = quartiles[1] * unit
    result[1, which] = np.where(spread > 0, spread, deviation) * unit
    return result
