"""The forecasts that every model has to beat: naive, seasonal naive, both with drift; and what OWA compares with."""

from __future__ import annotations

import importlib.util

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
    found: dict[str, list[np.ndarray]] = {name: [] for name in (SEASONAL, SEASONAL_DRIFT, NAIVE, DRIFT)}
    for past in _histories(series.values[:, : series.targets], series.offsets, origins):
        if season > 1:
            short = len(past) < season
            again = metrics.seasonal_naive(past, horizon, 1 if short else season)
            found[SEASONAL].append(again)
            found[SEASONAL_DRIFT].append(again + _growth(past, horizon, season))
        found[NAIVE].append(metrics.naive(past, horizon))
        found[DRIFT].append(drift(past, horizon))
    return {name: np.stack(parts) for name, parts in found.items() if parts}


def _growth(past: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """What the last season was above the one before it, once for each season ahead: `(horizon, targets)`."""
    if len(past) < 2 * season:
        return np.zeros((horizon, past.shape[1]))
    step = past[-season:] - past[-2 * season : -season]
    seen = ~np.isnan(step)
    mean = np.where(seen, step, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    return (np.arange(horizon) // season + 1)[:, None] * mean


AUTOMATIC = 200  # forecasts at most that other libraries' automatic models are fitted for


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


def drift(past: np.ndarray, horizon: int) -> np.ndarray:
    """The straight line through the first and the last observed value of `(rows, targets)`, continued."""
    found = np.empty((horizon, past.shape[1]))
    for target, column in enumerate(past.T):
        rows = np.flatnonzero(~np.isnan(column))
        if not rows.size:
            found[:, target] = np.nan
            continue
        first, last = rows[0], rows[-1]
        slope = (column[last] - column[first]) / (last - first) if last > first else 0.0
        found[:, target] = column[last] + slope * (np.arange(1, horizon + 1) + len(column) - 1 - last)
    return found


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
