"""Members that forecast together, and how sure they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from gpulstm.forecast import bands as band
from gpulstm.forecast.bands import Bands
from gpulstm.forecast.panel import Panel, View
from gpulstm.forecast.setup import Setup


class Member(Protocol):
    """Who forecasts."""

    @property
    def name(self) -> str:
        """As tables of members show it."""

    def forecast(self, view: View) -> np.ndarray:
        """Medians `(N, H)` in the units of the series, from the rows before each origin."""


@dataclass(eq=False)
class Ensemble:
    """Members that forecast together.

    Attributes:
        members: those that count, and `weights` `(members,)` of each.
        series_weights: `(series, members)` where weights differ from series to series, by the names of the fit.
        bands: how sure the mixture is.
        report: for the table of members: name, validation error, weight.
    """

    setup: Setup
    members: list[Any]
    weights: np.ndarray
    bands: Bands
    series_weights: np.ndarray | None = None
    report: dict[str, Any] = field(default_factory=dict)

    def view(self, panel: Panel, origins: np.ndarray, horizon: int | None = None) -> View:
        """The origins as members see them."""
        setup = self.setup
        return View(panel, origins, setup.horizon if horizon is None else horizon, setup.seasons.short, setup.sight)

    def median(self, view: View, series: np.ndarray | None = None) -> np.ndarray:
        """The mixture `(N, H)`; `series` `(N,)` are rows of `series_weights`, -1 for a series that was not fitted."""
        weights = np.broadcast_to(self.weights, (len(view), len(self.weights)))
        if self.series_weights is not None and series is not None:
            weights = np.where(series[:, None] >= 0, self.series_weights[np.maximum(series, 0)], weights)
        total = np.zeros((len(view), view.horizon))
        for index, member in enumerate(self.members):
            use = np.flatnonzero(weights[:, index] > 0)
            if len(use):
                part = view if len(use) == len(view) else view.at(use)
                total[use] += weights[use, index][:, None] * member.forecast(part)
        return total

    def width(self, view: View) -> np.ndarray:
        """u `(N,)`; where a level has jumped, those of before and after have little to do with each other, so half
        of the widest 80 % band is at most what the window's values range over.
        """
        u, half = band.width(view, self.bands.kind), float(self.bands.half(0.8).max())
        if self.bands.kind == "none" or half == 0:
            return u
        spread = np.empty(len(view))
        for index, windows in view.groups(self.setup.limit):
            spread[index] = np.ptp(windows, axis=1)
        return np.minimum(u, spread / half)
