"""How sure a forecast is: conformal bands from the errors of the mixture at validation origins.

Source: Vovk et al. (2005), "Algorithmic learning in a random world"; errors are divided by a width `u` that each window
tells, so that they are comparable, and their quantile has rank `ceil(level (n + 1))`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpulstm.forecast.panel import View

SEASONS = 3  # last seasons whose differences are the width of a window
STEPS = 12  # differences, where there is no season
MOST = 1.3  # widening at most
ROWS = 2000  # differences at most
TREND = 0.8  # share of the mean difference above which differences are taken about their mean


def width(view: View, kind: str) -> np.ndarray:
    """u `(N,)`: mean absolute seasonal difference over the last rows, in the units of the series.

    Args:
        kind: "seasonal"; "centered" to take differences about their mean, for series whose difference from season to
            season is mostly trend; or "none" for 1.
    """
    if kind == "none":
        return np.ones(len(view))
    later, earlier, have = _pairs(view)
    difference = later - earlier
    count = np.maximum(have.sum(axis=1), 1)
    if kind == "centered":
        mean = np.where(have, difference, 0.0).sum(axis=1) / count
        difference = difference - mean[:, None]
    found = np.where(have, np.abs(difference), 0.0).sum(axis=1) / count
    steps, before = view.lags(np.arange(1, STEPS + 1))[0], view.lags(np.arange(2, STEPS + 2))
    enough = before[1]
    step = np.where(enough, np.abs(steps - before[0]), 0.0).sum(axis=1) / np.maximum(enough.sum(axis=1), 1)
    return np.maximum(found, 0.05 * step)


def mostly_trend(view: View) -> bool:
    """Whether rows differ from those a season before mostly by the same amount."""
    later, earlier, have = _pairs(view)
    difference = np.where(have, later - earlier, 0.0)
    size = np.abs(difference).sum(axis=1)
    share = np.abs(difference.sum(axis=1)) / np.where(size > 0, size, 1.0)
    return view.season > 1 and bool(np.median(share) > TREND)


def _pairs(view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    m = view.season
    pairs = min(STEPS if m == 1 else max((SEASONS - 1) * m, 2), ROWS)
    lags = np.arange(1, pairs + 1)
    later, _ = view.lags(lags)
    earlier, have = view.lags(lags + m)
    return later, earlier, have


@dataclass(eq=False)
class Bands:
    """Errors of the mixture, in widths.

    Attributes:
        sizes: `(H, n)` sorted absolute errors of each step in widths, padded with infinity; `counts` `(H,)` of them.
        shift: `(H,)` mean error of each step in widths, by which a mean differs from a median.
        factor: that bands are widened by.
        kind: of `width`.
    """

    sizes: np.ndarray
    counts: np.ndarray
    shift: np.ndarray
    factor: float = 1.0
    kind: str = "seasonal"

    @classmethod
    def of(cls, error: np.ndarray, u: np.ndarray, factor: float, kind: str, most: int = 2000) -> Bands:
        """Bands from errors `(N, H)` (actual - forecast, NaN where not observed) and widths `(N,)`."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(u[:, None] > 0, error / u[:, None], np.where(error == 0, 0.0, np.nan))
        horizon = ratio.shape[1]
        pooled = []
        shift = np.zeros(horizon)
        for step in range(horizon):
            near = ratio[:, max(0, step - 1) : step + 2].ravel()
            near = near[~np.isnan(near)]
            shift[step] = near.mean() if near.size else 0.0
            sizes = np.sort(np.abs(near))
            if len(sizes) > most:  # every so many-th keeps the quantiles
                sizes = sizes[np.round(np.linspace(0, len(sizes) - 1, most)).astype(int)]
            pooled.append(sizes)
        longest = max(1, max(len(sizes) for sizes in pooled))
        padded = np.full((horizon, longest), np.inf)
        for step, sizes in enumerate(pooled):
            padded[step, : len(sizes)] = sizes
        return cls(padded, np.array([len(sizes) for sizes in pooled]), shift, factor, kind)

    def half(self, level: float) -> np.ndarray:
        """Half the width of a band that covers `level`, in widths: `(H,)`."""
        rank = np.ceil(level * (self.counts + 1)).astype(int)
        rank = np.clip(np.minimum(rank, self.counts) - 1, 0, None)
        found = self.sizes[np.arange(len(rank)), rank]
        return self.factor * np.where(np.isfinite(found), found, 0.0)

    def quantiles(self, median: np.ndarray, u: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
        """`(N, H, levels)`, from medians `(N, H)` and widths `(N,)`."""
        steps = np.minimum(np.arange(median.shape[1]), len(self.counts) - 1)
        grown = np.sqrt(np.maximum(1.0, (np.arange(median.shape[1]) + 1) / len(self.counts)))  # beyond the horizon
        parts = []
        for level in levels:
            half = np.sign(level - 0.5) * self.half(abs(2 * level - 1))[steps] * grown if level != 0.5 else 0.0
            parts.append(median + half * u[:, None])
        return np.stack(parts, axis=-1)

    def mean(self, median: np.ndarray, u: np.ndarray) -> np.ndarray:
        """The mean `(N, H)`: the median and the mean error of its step."""
        steps = np.minimum(np.arange(median.shape[1]), len(self.counts) - 1)
        return median + self.shift[steps] * u[:, None]
