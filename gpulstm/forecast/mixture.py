"""Who counts how much: weights of members by their errors at validation origins.

Weights are powers of errors, so that the forecast is a mean of nearly all members: choosing the single best one by few
validation rows is worse and less stable.  In a panel the weights may differ from series to series.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

POWER = 8.0
SPAN = 1.25  # members whose error is up to so much above the smallest count
SPAN_SERIES = 1.5  # the same by the errors of one series
GATE = {0.5: 3.0, 1.0: 10.0}  # and up to so much by those of all series
GAIN = 0.005  # gain for which weights move from those of all series to those of each
SAME = 1e-3


@dataclass(eq=False)
class Trial:
    """Forecasts of members at validation origins, and what came.

    Attributes:
        names: of the members.
        forecasts: `(members, N, H)`.
        actual: `(N, H)`, NaN where not observed.
        scale: `(N,)` what MASE divides the errors of each origin's series by.
        series: `(N,)` int64.
        age: `(N,)` rows that an origin lies before the latest of its series.
        reference: which member errors are compared to: the seasonal-naive or the naive forecast.
        positive: whether sMAPE is meaningful.
    """

    names: list[str]
    forecasts: np.ndarray
    actual: np.ndarray
    scale: np.ndarray
    series: np.ndarray
    age: np.ndarray
    reference: int
    positive: bool

    def __post_init__(self) -> None:
        self.seen = ~np.isnan(self.actual)
        self._actual = np.where(self.seen, self.actual, 0.0)
        self._yardstick: tuple[float, float] | None = None

    def only(self, members: Sequence[int]) -> Trial:
        """The same of some members; errors are compared to the same reference."""
        names = [self.names[index] for index in members]
        part = replace(self, names=names, forecasts=self.forecasts[list(members)])
        part._yardstick = self.yardstick
        return part

    def errors(self, forecast: np.ndarray) -> np.ndarray:
        """Mean absolute error of each origin `(N,)` of forecasts `(N, H)`; 0 where nothing was observed."""
        error = np.where(self.seen, np.abs(forecast - self._actual), 0.0)
        return error.sum(axis=1) / np.maximum(self.seen.sum(axis=1), 1)

    def _measures(self, forecast: np.ndarray, rows: np.ndarray | None = None) -> tuple[float, float]:
        use = self.seen.any(axis=1)
        if rows is not None:
            use = use & rows
        error = np.where(self.seen, np.abs(forecast - self._actual), 0.0)
        count = np.maximum(self.seen.sum(axis=1), 1)
        scaled = float((error.sum(axis=1) / count / self.scale)[use].mean())
        if not self.positive:
            return scaled, scaled
        size = np.abs(self._actual) + np.abs(forecast)
        relative = (error / np.where(size > 0, size, 1.0)).sum(axis=1) / count
        return scaled, 200 * float(relative[use].mean())

    @property
    def yardstick(self) -> tuple[float, float]:
        """MASE and sMAPE of the reference."""
        if self._yardstick is None:
            first, second = self._measures(self.forecasts[self.reference])
            self._yardstick = max(first, 1e-12), max(second, 1e-12)
        return self._yardstick

    def criterion(self, forecast: np.ndarray, rows: np.ndarray | None = None) -> float:
        """Mean of MASE and sMAPE, each over that of the reference."""
        scaled, relative = self._measures(forecast, rows)
        first, second = self.yardstick
        return (scaled / first + relative / second) / 2


def distinct(trial: Trial, order: Sequence[int]) -> list[int]:
    """The members that say something else than each before them in `order`."""
    naive = trial.forecasts[order[0]]
    kept: list[int] = []
    for index in order:
        apart = max(float(np.abs(trial.forecasts[index] - naive).mean()), 1e-300)
        same = (float(np.abs(trial.forecasts[index] - trial.forecasts[other]).mean()) < SAME * apart for other in kept)
        if not any(same):
            kept.append(index)
    return kept


def power_weights(errors: np.ndarray) -> np.ndarray:
    """`(members,)` weights that add up to 1: `(smallest error / error)^8`, none far above the smallest."""
    errors = np.maximum(errors, 1e-12)
    ratio = errors / errors.min()
    weights = np.where(ratio <= SPAN, ratio**-POWER, 0.0)
    return weights / weights.sum()


def series_weights(trial: Trial, errors: np.ndarray, share: float, rows: np.ndarray, count: int) -> np.ndarray:
    """Weights `(count, members)` of each series, by its own errors at the origins `rows` and by those of all series.

    Args:
        errors: `(members,)` of all series.
        share: how much a series' own errors count, above 0 up to 1.
        count: number of series; those without an origin get the weights of all.
    """
    errors = np.maximum(errors, 1e-12)
    ratio = errors / errors.min()
    members = np.flatnonzero(ratio <= GATE[share])
    own = np.stack([_per_series(trial, trial.errors(trial.forecasts[k]), rows, count) for k in members], axis=1)
    own = np.maximum(own, 1e-12 * np.maximum(own.max(axis=1, keepdims=True), 1e-300))
    logs = np.log(own)
    r = share * (logs - logs.mean(axis=1, keepdims=True)) + (1 - share) * np.log(ratio[members])
    r -= r.min(axis=1, keepdims=True)
    weights = np.zeros((count, len(errors)))
    weights[:, members] = np.where(r <= np.log(SPAN_SERIES), np.exp(-POWER * r), 0.0)
    known = np.bincount(trial.series[rows], minlength=count) > 0
    weights[~known] = power_weights(errors)
    return weights / weights.sum(axis=1, keepdims=True)


def _per_series(trial: Trial, values: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    sums = np.bincount(trial.series[rows], weights=values[rows], minlength=count)
    return sums / np.maximum(np.bincount(trial.series[rows], minlength=count), 1)


def blend(forecasts: np.ndarray, weights: np.ndarray, series: np.ndarray) -> np.ndarray:
    """The weighted mean `(N, H)` of forecasts `(members, N, H)`, by weights `(1, members)` or `(series, members)`."""
    own = weights[series] if len(weights) > 1 else weights
    return np.einsum("nk,knh->nh", np.broadcast_to(own, (len(series), len(forecasts))), forecasts)


def choose_share(trial: Trial, horizon: int, count: int) -> float:
    """How much a series' own errors should count: weighed on the older origins, judged by the newest."""
    older, newest = trial.age >= horizon, trial.age == 0
    per_series = np.bincount(trial.series[older], minlength=count)
    if older.sum() == 0 or len(np.unique(trial.series)) < 2 or per_series[np.unique(trial.series)].min() < 1:
        return 0.0
    errors = np.array([trial.criterion(forecast, older) for forecast in trial.forecasts])
    best, best_error = 0.0, trial.criterion(blend(trial.forecasts, power_weights(errors)[None], trial.series), newest)
    for share in (0.5, 1.0):
        weights = series_weights(trial, errors, share, older, count)
        error = trial.criterion(blend(trial.forecasts, weights, trial.series), newest)
        if error < best_error * (1 - GAIN):
            best, best_error = share, error
    return best
