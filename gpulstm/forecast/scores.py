"""Errors of forecasts by name: of all together, or of every series, target and step by itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpulstm import metrics

IN_UNITS = ("MAE", "RMSE", "MAPE", "pinball")  # those that mean nothing over several units
METRICS = ("MAE", "RMSE", "MAPE", "sMAPE", "MASE", "OWA", "pinball", "coverage")


def together(
    actual: np.ndarray, forecast: np.ndarray, mean: np.ndarray, scale: np.ndarray, single: bool
) -> dict[str, float]:
    """Errors by name; those in the unit of the target only for a `single` one.

    Args:
        actual, forecast: of one shape; NaN where nothing came.
        mean: what RMSE judges.
        scale: what MASE divides by, to be broadcast.
    """
    safe = np.where(scale > 0, scale, np.nan)
    found = {}
    if single:
        found["MAE"] = metrics.mae(actual, forecast)
        found["RMSE"] = metrics.rmse(actual, mean)
        found["MAPE"] = metrics.mape(actual, forecast)
    found["sMAPE"] = metrics.smape(actual, forecast)
    found["MASE"] = metrics.mae(actual / safe, forecast / np.where(scale > 0, scale, 1.0))
    return found


class Each:
    """Errors of every series, target and step, where 0 stands for all steps together: `(series, K, H + 1)` by name.

    Args:
        actual: `(N, H, K)`, NaN where nothing came.
        series: `(N,)` which of the series each forecast is of.
        scale: `(series, K)` what MASE divides by.
    """

    def __init__(self, actual: np.ndarray, series: np.ndarray, scale: np.ndarray) -> None:
        self._order = np.argsort(series, kind="stable")
        self._seen = ~np.isnan(actual)
        self._actual, self._scale = np.where(self._seen, actual, 0.0), scale
        self._kept, self._first = np.unique(series[self._order], return_index=True)

    def of(self, forecast: np.ndarray, mean: np.ndarray) -> dict[str, np.ndarray]:
        """Errors of forecasts `(N, H, K)`, of whose means RMSE is."""
        actual, seen = self._actual, self._seen
        error, size = np.abs(forecast - actual), np.abs(actual) + np.abs(forecast)
        own = self._mean(error, seen)
        safe = np.where(self._scale > 0, self._scale, np.nan)
        some = seen & (actual != 0)
        return {
            "MAE": own,
            "RMSE": np.sqrt(self._mean((mean - actual) ** 2, seen)),
            "MAPE": 100 * self._mean(error / np.where(some, np.abs(actual), 1.0), some),
            "sMAPE": 200 * self._mean(error / np.where(size > 0, size, 1.0), seen),
            "MASE": own / safe[..., None],
        }

    def bands(self, quantiles: np.ndarray, levels: tuple[float, ...]) -> dict[str, np.ndarray]:
        """Pinball loss and coverage of quantiles `(N, H, K, levels)`."""
        actual = self._actual
        loss = np.zeros(actual.shape)
        for at, level in enumerate(levels):
            error = actual - quantiles[..., at]
            loss += np.maximum(level * error, (level - 1) * error) / len(levels)
        found = {"pinball": self._mean(loss, self._seen)}
        if len(levels) > 1:
            inside = (quantiles[..., 0] <= actual) & (actual <= quantiles[..., -1])
            found["coverage"] = 100 * self._mean(inside.astype(np.float64), self._seen)
        return found

    def _mean(self, values: np.ndarray, count: np.ndarray) -> np.ndarray:
        total, number = self._sums(np.where(count, values, 0.0)), self._sums(count.astype(np.float64))
        return np.where(number > 0, total / np.maximum(number, 1), np.nan)

    def _sums(self, values: np.ndarray) -> np.ndarray:
        steps = np.zeros((len(self._scale), *values.shape[1:]))
        steps[self._kept] = np.add.reduceat(values[self._order], self._first, axis=0)
        return np.moveaxis(np.concatenate([steps.sum(axis=1, keepdims=True), steps], axis=1), 1, 2)


def owa(own: dict[str, Any], second: dict[str, Any]) -> Any:
    """Mean of sMAPE and MASE, each over that of the forecast that OWA compares with; NaN where that is zero."""
    ratios = [
        np.divide(own[name], second[name], out=np.full(np.shape(own[name]), np.nan), where=np.asarray(second[name]) > 0)
        for name in ("sMAPE", "MASE")
    ]
    return (ratios[0] + ratios[1]) / 2
