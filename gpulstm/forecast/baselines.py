"""The forecasts that every model has to beat: naive, seasonal naive, both with drift; and what OWA compares with."""

from __future__ import annotations

import numpy as np

from gpulstm import metrics
from gpulstm.data.series import SeriesSet
from gpulstm.forecast.members.smoothing import is_seasonal, seasonal_factors
from gpulstm.forecast.results import DRIFT, NAIVE, SEASONAL, SEASONAL_DRIFT


def baselines(series: SeriesSet, origins: np.ndarray, horizon: int, season: int) -> dict[str, np.ndarray]:
    """The simple forecasts from every origin `(N, horizon, targets)`, by name.

    Args:
        origins: `(N,)` absolute rows.
        season: rows in a season; 1 leaves the seasonal ones out.
    """
    targets = series.values[:, : series.targets]
    starts = series.offsets[np.searchsorted(series.offsets, origins, side="right") - 1]
    found: dict[str, np.ndarray] = {}
    if season > 1:
        again = metrics.seasonal_naive_from(targets, starts, origins, horizon, season)
        found[SEASONAL] = again
        found[SEASONAL_DRIFT] = again + _growth(targets, starts, origins, (horizon, season))
    found[NAIVE] = metrics.seasonal_naive_from(targets, starts, origins, horizon, 1)
    found[DRIFT] = _drift(targets, starts, origins, found[NAIVE])
    return found


def _growth(targets: np.ndarray, starts: np.ndarray, origins: np.ndarray, sizes: tuple[int, int]) -> np.ndarray:
    """What the last season was above the one before it, once for each season ahead: `(N, horizon, targets)`."""
    horizon, season = sizes
    rows = origins[:, None] - season + np.arange(season)
    long = origins - starts >= 2 * season
    step = targets[np.maximum(rows, 0)] - targets[np.maximum(rows - season, 0)]
    seen = ~np.isnan(step) & long[:, None, None]
    mean = np.where(seen, step, 0.0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
    return (np.arange(horizon) // season + 1)[None, :, None] * mean[:, None, :]


def _drift(targets: np.ndarray, starts: np.ndarray, origins: np.ndarray, last_value: np.ndarray) -> np.ndarray:
    """The line through the first and the last observed value of each history, continued: `(N, horizon, targets)`."""
    horizon = last_value.shape[1]
    seen = ~np.isnan(targets)
    rows = np.arange(len(targets))[:, None]
    before = np.maximum.accumulate(np.where(seen, rows, -1), axis=0)
    after = np.minimum.accumulate(np.where(seen, rows, len(targets))[::-1], axis=0)[::-1]
    last, first = before[origins - 1], np.minimum(after[starts], len(targets) - 1)
    known = last >= starts[:, None]
    span = np.where(known & (last > first), last - first, 1)
    rise = np.take_along_axis(targets, np.maximum(last, 0), axis=0) - np.take_along_axis(targets, first, axis=0)
    slope = np.where(known & (last > first), rise / span, 0.0)
    ahead = (origins[:, None] - last)[:, None, :] + np.arange(horizon)[None, :, None]
    return last_value + slope[:, None, :] * ahead


def naive2(targets: np.ndarray, offsets: np.ndarray, origins: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """The last value of the seasonally adjusted series, put back in season: `(N, horizon, targets)`.

    Args:
        targets: `(rows, targets)`, NaN where missing.
        offsets: `(series + 1,)` where each series begins.
        origins: `(N,)` absolute rows.

    The adjustment is the classical multiplicative one, made where the test for seasonality at the 90 % level says so
    (Makridakis et al. 2020, "The M4 Competition", Int. J. of Forecasting 36(1)).
    """
    found = []
    for past in _histories(targets, offsets, origins):
        each = metrics.naive(past, horizon)
        for target, column in enumerate(past.T):
            column = column[~np.isnan(column)][None]
            if season > 1 and column.shape[1] >= 3 * season and bool(is_seasonal(column, season)[0]):
                factors, multiply = seasonal_factors(column, season)
                ahead = factors[0, np.arange(horizon) % season]
                last = column[0, -1]
                each[:, target] = last / factors[0, -1] * ahead if multiply[0] else last - factors[0, -1] + ahead
        found.append(each)
    return np.stack(found)


def _histories(targets: np.ndarray, offsets: np.ndarray, origins: np.ndarray) -> list[np.ndarray]:
    """The targets before each origin, `(rows, targets)` each."""
    which = np.searchsorted(offsets, origins, side="right") - 1
    return [targets[offsets[index] : origin] for index, origin in zip(which, origins, strict=True)]
