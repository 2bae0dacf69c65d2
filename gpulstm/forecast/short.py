"""Simple forecasts of series that are too short for the network: the last season or value, and how sure it is."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from gpulstm import metrics
from gpulstm.data.scaling import Scaler
from gpulstm.data.series import SeriesSet

_ENOUGH = 5  # changes from which a series tells its own spread


def forecast_short(
    series: SeriesSet, origins: np.ndarray, horizon: int, season: int, levels: tuple[float, ...], scaler: Scaler
) -> tuple[np.ndarray, np.ndarray | None]:
    """The seasonal-naive forecast of each series, or its last value, with the bands of a random walk.

    Args:
        origins: `(series,)` absolute row at which each forecast begins.
        season: rows in a season.
        levels: of the quantiles; none for a point forecast.
        scaler: its scale is the spread of a series with too few changes of its own.

    Returns:
        mean `(series, horizon, targets)` and quantiles `(series, horizon, targets, levels)` or None, float64.
    """
    targets = series.values[:, : series.targets]
    starts = series.offsets[:-1]
    mean = metrics.seasonal_naive_from(targets, starts, origins, horizon, season)
    location = scaler.location[:, None, : series.targets]
    mean = np.where(np.isnan(mean), location, mean)
    if not levels:
        return mean, None
    changes = metrics.seasonal_scales(targets, starts, origins, 1) * np.sqrt(np.pi / 2)  # of a normal distribution
    few = (origins - starts < _ENOUGH + 1)[:, None] | ~(changes > 0)
    spread = np.where(few, scaler.scale[:, : series.targets], changes)
    growth = np.sqrt(np.arange(1, horizon + 1))
    normal = np.array([NormalDist().inv_cdf(level) for level in levels])
    return mean, mean[..., None] + (spread[:, None, :] * growth[None, :, None])[..., None] * normal
