"""Simple forecasts of series that are too short for the network: the last season or value, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpulstm import metrics
from gpulstm.data.scaling import Scaler
from gpulstm.data.series import SeriesSet
from gpulstm.data.splits import Cuts
from gpulstm.forecast.predictor import Predictor, point_of
from gpulstm.forecast.results import Forecast

_LISTED = 5  # names that a sentence has
SIMPLE = "simple forecasts"  # how the sentence on series that got them begins
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
    from statistics import NormalDist  # here, because it takes a while to import

    normal = np.array([NormalDist().inv_cdf(level) for level in levels])
    return mean, mean[..., None] + (spread[:, None, :] * growth[None, :, None])[..., None] * normal


def forecast_all(predictor: Predictor, known: SeriesSet, length: int, season: int) -> tuple[Forecast, list[str]]:
    """Forecast every series: by the network, or simply where one is too short for it.

    Args:
        predictor: with a row of its scaler for each series.
        known: the series, with the `length` rows that are forecast.
        season: rows in a season.

    Returns:
        the forecast, and the names of the series that are too short for the network.
    """
    origins = known.offsets[1:] - length
    long = origins - known.offsets[:-1] >= predictor.config.least
    cuts, levels = Cuts(origins, origins), predictor.loss.levels
    if long.all():
        mean, quantiles = predictor.forecast(predictor.windows(known, origins, horizon=length, cuts=cuts))
    else:
        transform = predictor.shape.transform
        simple = forecast_short(transform.forward(known), origins, length, season, levels, predictor.scaler)
        mean = transform.inverse(simple[0])
        quantiles = None if simple[1] is None else transform.inverse(simple[1])
        if long.any():
            own, bands = predictor.forecast(predictor.windows(known, origins[long], horizon=length, cuts=cuts))
            mean[long] = own
            if quantiles is not None and bands is not None:
                quantiles[long] = bands
    index = known.times[origins[:, None] + np.arange(length)]
    point = point_of(predictor.loss)
    forecast = Forecast(
        known.names, known.target_names, index, mean, levels, quantiles, point=point, labels=known.labels
    )
    return forecast, [known.names[at] for at in np.flatnonzero(~long)]


def too_short(names: Sequence[str], least: int) -> list[str]:
    """A sentence on the series that got simple forecasts; nothing where there are none."""
    return [f"{SIMPLE}, for fewer than {least} rows: {listed(names)}"] if names else []


def listed(names: Sequence[str]) -> str:
    """The first names of many, and how many there are."""
    few = ", ".join(names[:_LISTED])
    return few if len(names) <= _LISTED else f"{few} and {len(names) - _LISTED} more ({len(names)} in all)"
