"""The forecasts that every model has to beat: naive, seasonal naive, both with drift; and what OWA compares with."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import numpy as np

from gpulstm import metrics
from gpulstm.data.series import SeriesSet
from gpulstm.forecast.members.smoothing import is_seasonal, seasonal_factors
from gpulstm.forecast.results import DRIFT, NAIVE, SEASONAL, SEASONAL_DRIFT

AUTOMATIC = 200  # forecasts at most that other libraries' automatic models are fitted for
_AT_ONCE = 1 << 22  # values of histories that are looked at together


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


def automatic_baselines(series: SeriesSet, origins: np.ndarray, horizon: int, season: int) -> dict[str, np.ndarray]:
    """AutoETS and AutoTheta of statsforecast (extra `statsforecast`), fitted again at every origin, by name.

    Returns:
        nothing without statsforecast, with missing values, or for more than `AUTOMATIC` forecasts, which take too long.
    """
    if importlib.util.find_spec("statsforecast") is None:
        return {}
    targets = series.values[:, : series.targets]
    if len(origins) * series.targets > AUTOMATIC or np.isnan(targets).any():
        return {}
    from statsforecast.models import AutoETS, AutoTheta

    found = {}
    for name, model in (("AutoETS", AutoETS), ("AutoTheta", AutoTheta)):
        found[name] = np.stack(
            [
                np.stack([model(season_length=season).forecast(column, horizon)["mean"] for column in past.T], axis=1)
                for past in _histories(targets, series.offsets, origins)
            ]
        )
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


def _drift(targets: np.ndarray, starts: np.ndarray, origins: np.ndarray, naive: np.ndarray) -> np.ndarray:
    """The line through the first and the last observed value of each history, continued: `(N, horizon, targets)`."""
    horizon = naive.shape[1]
    seen = ~np.isnan(targets)
    rows = np.arange(len(targets))[:, None]
    before = np.maximum.accumulate(np.where(seen, rows, -1), axis=0)
    after = np.minimum.accumulate(np.where(seen, rows, len(targets))[::-1], axis=0)[::-1]
    last, first = before[origins - 1], np.minimum(after[starts], len(targets) - 1)
    known = last >= starts[:, None]
    line = known & (last > first)
    rise = np.take_along_axis(targets, np.maximum(last, 0), axis=0) - np.take_along_axis(targets, first, axis=0)
    slope = np.where(line, rise / np.where(line, last - first, 1), 0.0)
    ahead = (origins[:, None] - last)[:, None, :] + np.arange(horizon)[None, :, None]
    return naive + slope[:, None, :] * ahead


def naive2(targets: np.ndarray, offsets: np.ndarray, origins: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """The last value of the seasonally adjusted series, put back in season: `(N, horizon, targets)`.

    Args:
        targets: `(rows, targets)`, NaN where missing.
        offsets: `(series + 1,)` where each series begins.
        origins: `(N,)` absolute rows.

    The adjustment is the classical multiplicative one, made where the test for seasonality at the 90 % level says so
    (Makridakis et al. 2020, "The M4 Competition", Int. J. of Forecasting 36(1)).
    """
    starts = offsets[np.searchsorted(offsets, origins, side="right") - 1]
    found = metrics.seasonal_naive_from(targets, starts, origins, horizon, 1)
    if season < 2:
        return found
    for target, column in enumerate(targets.T):
        for chosen, windows in _observed(column, starts, origins, 3 * season):
            seasonal = is_seasonal(windows, season)
            if not seasonal.any():
                continue
            chosen, windows = chosen[seasonal], windows[seasonal]
            factors, multiply = seasonal_factors(windows, season)
            ahead = factors[:, np.arange(horizon) % season]
            last, phase = windows[:, -1:], factors[:, -1:]
            with np.errstate(divide="ignore", invalid="ignore"):
                found[chosen, :, target] = np.where(multiply[:, None], last / phase * ahead, last - phase + ahead)
    return found


def _observed(
    column: np.ndarray, starts: np.ndarray, origins: np.ndarray, least: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The observed values before the origins `(n, rows)` with as many of them, and which origins `(n,)` those are.

    Origins with fewer than `least` values are left out.
    """
    seen = ~np.isnan(column)
    rows = np.flatnonzero(seen)
    before = np.concatenate([[0], np.cumsum(seen)])
    first, stop = before[starts], before[origins]
    counts = stop - first
    for count in np.unique(counts[counts >= least]):
        same = np.flatnonzero(counts == count)
        for run in np.array_split(same, -(-len(same) * int(count) // _AT_ONCE)):
            yield run, column[rows[first[run][:, None] + np.arange(count)]]


def _histories(targets: np.ndarray, offsets: np.ndarray, origins: np.ndarray) -> list[np.ndarray]:
    """The targets before each origin, `(rows, targets)` each."""
    which = np.searchsorted(offsets, origins, side="right") - 1
    return [targets[offsets[index] : origin] for index, origin in zip(which, origins, strict=True)]
