"""What a learned member knows besides the window: the calendar, covariates known ahead, past ones and static ones."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gpulstm.forecast.panel import Panel, View

YEAR = 365.2425
PAST_LAGS = 8  # rows of a past covariate that a member sees, spread over the last season
_DAY = 86_400_000_000  # microseconds


@dataclass(frozen=True, eq=False)
class Features:
    """Columns that are appended to a window.

    Args:
        calendar: the weekday and the hour of the origin, and the one times the other.
        yearly: the day of the year of the origin.
        known, past, static: whether covariates of each kind are read.
        back: rows before the origin from which on covariates known ahead are read.
        scales: what `fitted` found out: `{"known": (2, columns), ...}`, mean and deviation of each column; and
            `"hinge"` `(columns,)`, the level above which a known column counts once more.
    """

    calendar: bool = False
    yearly: bool = False
    known: bool = False
    past: bool = False
    static: bool = False
    back: int = 1
    scales: dict[str, np.ndarray] = field(default_factory=dict)

    def fitted(self, panel: Panel, stops: np.ndarray) -> Features:
        """The same with means, deviations and hinges of the rows before `stops` `(series,)`."""
        rows = np.concatenate([np.arange(a, b) for a, b in zip(panel.offsets[:-1], stops, strict=True)])
        scales: dict[str, np.ndarray] = {}
        for name, values in (("known", panel.known), ("past", panel.past), ("static", panel.static)):
            if not getattr(self, name) or values is None:
                continue
            values = values if name == "static" else values[rows]
            seen = ~np.isnan(values)
            count = np.maximum(seen.sum(axis=0), 1)
            mean = np.where(seen, values, 0).sum(axis=0) / count
            deviation = np.sqrt((np.where(seen, values - mean, 0) ** 2).sum(axis=0) / count)
            scales[name] = np.stack([mean, np.where(deviation > 1e-9 * (1 + np.abs(mean)), deviation, 1.0)])
            if name == "known":
                filled = np.where(seen, values, mean)
                many = np.array([len(np.unique(column[:1000])) > 8 for column in filled.T])
                scales["hinge"] = np.where(many, np.quantile(filled, 0.9, axis=0), np.inf)
        return replace(self, scales=scales)

    def columns(self, view: View) -> np.ndarray:
        """`(N, columns)`, each about as large as one."""
        parts = [np.zeros((len(view), 0))]
        if self.calendar or self.yearly:
            assert view.panel.time is not None
            micro = view.panel.time[view.origins].astype("datetime64[us]").astype(np.int64)
            if self.calendar:
                parts.append(_week(micro))
            if self.yearly:
                angle = 2 * np.pi * (micro % (YEAR * _DAY)) / (YEAR * _DAY)
                parts.append(np.stack([f(k * angle) for k in (1, 2) for f in (np.sin, np.cos)], axis=1))
        if self.known and view.panel.known is not None:
            rows = view.origins[:, None] + np.arange(-self.back, view.horizon)
            rows = np.maximum(rows, view.panel.offsets[view.series][:, None])
            values = view.panel.known[rows]  # (N, back + H, columns)
            parts.append(self._scaled("known", values).reshape(len(view), -1))
            hinge = self.scales["hinge"]
            use = np.isfinite(hinge)
            if use.any():
                above = np.maximum(np.nan_to_num(values[..., use]) - hinge[use], 0) / self.scales["known"][1, use]
                parts.append(above.reshape(len(view), -1))
        if self.past and view.panel.past is not None:
            lags = np.unique(np.linspace(1, max(view.season, 2), PAST_LAGS).round().astype(int))
            rows = np.maximum(view.origins[:, None] - lags, view.panel.offsets[view.series][:, None])
            parts.append(self._scaled("past", view.panel.past[rows]).reshape(len(view), -1))
        if self.static and view.panel.static is not None:
            parts.append(self._scaled("static", view.panel.static[view.series]))
        return np.concatenate(parts, axis=1)

    def _scaled(self, name: str, values: np.ndarray) -> np.ndarray:
        mean, deviation = self.scales[name]
        return np.clip(np.nan_to_num((values - mean) / deviation), -20.0, 20.0)

    def config(self) -> dict[str, Any]:
        """As a file keeps it, without `scales`."""
        names = ("calendar", "yearly", "known", "past", "static", "back")
        return {name: getattr(self, name) for name in names}


def _week(micro: np.ndarray) -> np.ndarray:
    """One-hot weekday, sine and cosine of the hour, and their products: `(N, 23)`."""
    day = (micro // _DAY + 3) % 7  # 1970-01-01 was a Thursday
    weekday = (day[:, None] == np.arange(7)).astype(np.float64)
    angle = 2 * np.pi * (micro % _DAY) / _DAY
    sine, cosine = np.sin(angle)[:, None], np.cos(angle)[:, None]
    return np.concatenate([weekday, sine, cosine, weekday * sine, weekday * cosine], axis=1)
