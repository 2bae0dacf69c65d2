"""Forecast errors, and the two forecasts that every model has to beat: the last value, and the last season again.

All metrics are means over the steps that count.  A step counts where its actual value is not NaN and its weight is
above zero; where no step counts the metric is NaN.  Arrays may live on any device; results are Python floats, computed
in float64 on the host.

References:
    Hyndman and Koehler (2006), Another look at measures of forecast accuracy, Int. J. of Forecasting 22(4): MAE, RMSE,
    MAPE, sMAPE, MASE.
    Koenker and Bassett (1978), Regression quantiles, Econometrica 46(1): the pinball loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpulstm.arrays.devices import to_host
from gpulstm.errors import ConfigError, DataError, ShapeError


def mae(actual: Any, forecast: Any, weight: Any = None) -> float:
    """Mean absolute error, in the unit of the series.

    Args:
        actual, forecast: arrays of one shape.
        weight: of each step, broadcastable to that shape, at least 0; None for 1 everywhere.

    Raises:
        ShapeError: the shapes differ.
    """
    actual, forecast, weight = _prepare(actual, forecast, weight)
    return _mean(np.abs(forecast - actual), weight)


def rmse(actual: Any, forecast: Any, weight: Any = None) -> float:
    """Root mean squared error, in the unit of the series.  Arguments as in `mae`."""
    actual, forecast, weight = _prepare(actual, forecast, weight)
    error = np.abs(forecast - actual)
    largest = float(error.max(initial=0.0))  # squares of 1e300 are infinite, of 1e-300 zero
    unit = largest if np.isfinite(largest) and largest > 0 and not 1e-100 < largest < 1e100 else 1.0
    return float(np.sqrt(_mean((error / unit) ** 2, weight))) * unit


def mape(actual: Any, forecast: Any, weight: Any = None) -> float:
    """Mean absolute percentage error, in percent.  Steps whose actual value is 0 have none and do not count."""
    actual, forecast, weight = _prepare(actual, forecast, weight)
    weight = np.where(actual == 0, 0.0, weight)
    return 100 * _mean(np.abs(forecast - actual) / np.where(actual == 0, 1.0, np.abs(actual)), weight)


def smape(actual: Any, forecast: Any, weight: Any = None) -> float:
    """Symmetric mean absolute percentage error, 0 to 200 percent: `200 |f - a| / (|a| + |f|)`, 0 where both are 0."""
    actual, forecast, weight = _prepare(actual, forecast, weight)
    size = np.abs(actual) + np.abs(forecast)
    return 200 * _mean(np.abs(forecast - actual) / np.where(size == 0, 1.0, size), weight)


def mase(actual: Any, forecast: Any, insample: Any, season: int = 1, weight: Any = None) -> float:
    """Mean absolute scaled error: the error over that of the seasonal-naive forecast within the training rows.

    Below 1 is better than repeating the last season was there.  NaN where the training rows repeat exactly, so that
    there is no scale.

    Args:
        actual, forecast: arrays of one shape, of one series.
        insample: `(rows,)` the series' training rows, NaN where missing.
        season: rows in a season; 1 scales by the naive forecast.

    Raises:
        DataError: the training rows are fewer than a season and one.
    """
    scale = seasonal_scale(insample, season)
    return float("nan") if not scale > 0 else mae(actual, forecast, weight) / scale


def seasonal_scale(insample: Any, season: int = 1) -> float:
    """Mean of `|y_t - y_{t-season}|` over the training rows: the denominator of MASE.

    Raises:
        ConfigError: a season below 1.
        DataError: the training rows are fewer than a season and one, or no pair of them is observed.
    """
    rows = np.asarray(to_host(insample), dtype=np.float64)
    if rows.ndim != 1:
        raise ShapeError(f"insample has shape {rows.shape}, expected (rows,): one series and one target")
    if season < 1:
        raise ConfigError(f"season is {season}, expected at least 1")
    if len(rows) <= season:
        raise DataError(
            f"the training part has {len(rows)} rows, MASE with season {season} needs at least {season + 1}"
        )
    steps = np.abs(rows[season:] - rows[:-season])
    steps = steps[~np.isnan(steps)]
    if not steps.size:
        raise DataError(f"no two training rows {season} apart are both observed, so MASE has no scale")
    return float(steps.mean())


def pinball(actual: Any, quantile_forecasts: Any, quantiles: Sequence[float], weight: Any = None) -> float:
    """Mean pinball loss over all quantiles, in the unit of the series: `max(q (a - f), (q - 1) (a - f))`.

    Args:
        actual: array of any shape.
        quantile_forecasts: that shape with one more axis at the end, one entry per quantile.
        quantiles: levels between 0 and 1.
        weight: as in `mae`.
    """
    actual, forecasts = (
        np.asarray(to_host(actual), dtype=np.float64),
        np.asarray(to_host(quantile_forecasts), dtype=np.float64),
    )
    levels = np.asarray(quantiles, dtype=np.float64)
    if forecasts.shape != (*actual.shape, len(levels)):
        raise ShapeError(f"quantile forecasts have shape {forecasts.shape}, expected {(*actual.shape, len(levels))}")
    _, _, weight = _prepare(actual, actual, weight)
    error = np.nan_to_num(actual)[..., None] - forecasts
    return _mean(np.maximum(levels * error, (levels - 1) * error).mean(axis=-1), weight)


def coverage(actual: Any, lower: Any, upper: Any, weight: Any = None) -> float:
    """Share of the steps with `lower <= actual <= upper`, in percent; a good 80 % band covers 80."""
    plain, lower, weight = _prepare(actual, lower, weight)
    _, upper, _ = _prepare(actual, upper, None)
    return 100 * _mean(((lower <= plain) & (plain <= upper)).astype(np.float64), weight)


def naive(history: Any, horizon: int) -> np.ndarray:
    """The last observed value again: `(horizon, ...)` from a history `(rows, ...)`."""
    return seasonal_naive(history, horizon, 1)


def seasonal_naive(history: Any, horizon: int, season: int) -> np.ndarray:
    """The last season again: step h is the value of the same phase one season back, or more seasons where that is
    missing.

    Args:
        history: `(rows,)` or `(rows, targets)`, NaN where missing.
        horizon: steps ahead.
        season: rows in a season; 1 repeats the last value.

    Returns:
        `(horizon,)` or `(horizon, targets)` float64; NaN where a phase was never observed.

    Raises:
        DataError: the history is shorter than a season.
    """
    rows = np.asarray(to_host(history), dtype=np.float64)
    if season < 1 or horizon < 1:
        raise ConfigError(f"season is {season} and horizon {horizon}, expected at least 1 for both")
    if len(rows) < season:
        raise DataError(f"the history has {len(rows)} rows, the seasonal-naive forecast needs a season: {season}")
    last = rows[len(rows) - season :].copy()
    back = len(rows) - 2 * season
    while np.isnan(last).any() and back > -season:
        earlier = rows[max(back, 0) : back + season]
        part = last[season - len(earlier) :]
        part[...] = np.where(np.isnan(part), earlier, part)
        back -= season
    return last[np.arange(horizon) % season]


def seasonal_naive_from(
    values: np.ndarray, starts: np.ndarray, origins: np.ndarray, horizon: int, season: int
) -> np.ndarray:
    """`seasonal_naive` from many origins at once; the last value again where a series is shorter than a season.

    Args:
        values: `(rows, targets)` float64 of all series, NaN where missing.
        starts, origins: `(N,)` int: the first row of each forecast's series, and the row at which it begins.

    Returns:
        `(N, horizon, targets)` float64; NaN where nothing was observed.
    """
    long = origins - starts >= season
    phase = np.arange(horizon) % season
    rows = origins[:, None] - season + phase[None, :]
    rows = np.where(long[:, None], rows, origins[:, None] - 1)
    back = np.where(long, season, 1)[:, None]
    first = starts[:, None]
    result = np.full((*rows.shape, values.shape[1]), np.nan)
    for target in range(values.shape[1]):
        cells = values[:, target]
        row = rows.copy()
        last = np.where(row >= first, cells[np.maximum(row, 0)], np.nan)
        open_ = np.isnan(last) & (row - back >= first)
        while open_.any():
            row = np.where(open_, row - back, row)
            last = np.where(open_, cells[np.maximum(row, 0)], last)
            open_ = np.isnan(last) & (row - back >= first)
        result[:, :, target] = last
    return result


def seasonal_scales(values: np.ndarray, starts: np.ndarray, stops: np.ndarray, season: int) -> np.ndarray:
    """`seasonal_scale` of the rows from `starts` to `stops` `(series,)` of each series and target, `(series, targets)`.

    NaN where a series is too short for it, or no two of its rows a season apart are observed.
    """
    counts = np.maximum(stops - starts - season, 0)
    series = np.repeat(np.arange(len(starts)), counts)
    rows = np.arange(int(counts.sum())) + np.repeat(starts + season - (np.cumsum(counts) - counts), counts)
    result = np.full((len(starts), values.shape[1]), np.nan)
    for target in range(values.shape[1]):
        steps = np.abs(values[rows, target] - values[rows - season, target])
        seen = ~np.isnan(steps)
        number = np.bincount(series[seen], minlength=len(starts))
        total = np.bincount(series[seen], weights=steps[seen], minlength=len(starts))
        result[:, target] = np.where(number > 0, total / np.maximum(number, 1), np.nan)
    return result


def _prepare(actual: Any, forecast: Any, weight: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Float64 host arrays; NaN actuals become 0 with weight 0."""
    actual, forecast = np.asarray(to_host(actual), dtype=np.float64), np.asarray(to_host(forecast), dtype=np.float64)
    if actual.shape != forecast.shape:
        raise ShapeError(f"forecast has shape {forecast.shape}, expected that of actual, {actual.shape}")
    weights = np.ones(actual.shape) if weight is None else np.asarray(to_host(weight), dtype=np.float64)
    try:
        weights = np.broadcast_to(weights, actual.shape)
    except ValueError:
        raise ShapeError(f"weight has shape {weights.shape}, which does not broadcast to {actual.shape}") from None
    if (weights < 0).any():
        raise ConfigError("weight has entries below 0")
    missing = np.isnan(actual)
    return np.where(missing, 0.0, actual), np.where(missing, 0.0, forecast), np.where(missing, 0.0, weights)


def _mean(values: np.ndarray, weight: np.ndarray) -> float:
    total = weight.sum()
    return float((values * weight).sum() / total) if total > 0 else float("nan")
