"""How windows are made comparable for what learns from them: moved by their level, divided by their scale, and the
target as what a simple forecast leaves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpulstm.forecast.features import Features
from gpulstm.forecast.members.simple import Simple
from gpulstm.forecast.panel import View

LEVEL = 336  # rows at most whose mean is the level of a window
PAIRS = 512  # differences at most whose mean is its scale
RUN = 1024  # windows that are scaled together
FURTHEST = 64  # lags further back than the window that it sees of a season longer than itself


@dataclass
class Scaled:
    """Windows in their own scale.

    Attributes:
        inputs: `(N, L + H + columns + 1)`: the window, the base, the features, and 1.
        base: `(N, H)` what the simple forecast says, in the view's own space.
        scale: `(N, 1)`.
        extra: columns of `inputs` that are features.
    """

    inputs: np.ndarray
    base: np.ndarray
    scale: np.ndarray
    extra: int


@dataclass(frozen=True, eq=False)
class Space:
    """A way to see windows.

    Args:
        base: the simple forecast whose residual is learned.
        length: L, rows of the window.
        season: m.
        log: over logarithms, in windows of values above zero.
        apart: seasons whose mean absolute difference is the scale; of several the smallest.
        features: what is known besides.
    """

    base: Simple
    length: int
    season: int
    log: bool
    apart: tuple[int, ...]
    features: Features

    @property
    def name(self) -> str:
        """As tables of members show it."""
        notes = ["log"] if self.log else []
        if self.features.calendar or self.features.yearly:
            notes.append("calendar")
        return ", ".join([f"on {self.base.name}", *notes])

    def view(self, view: View) -> View:
        """The view in the space's own values."""
        return view.logged if self.log else view

    def scaled(self, view: View) -> Scaled:
        """The windows of a view (of this space), kept with it."""
        return view.kept((self, "scaled"), lambda: self._scaled(view))

    def _scaled(self, view: View) -> Scaled:
        base, parts = self.base.raw(view), []
        for first in range(0, len(view), RUN):  # what is computed on the way is larger than the result
            run = slice(first, first + RUN)
            parts.append(self._inputs(view.at(run), base[run]))
        inputs, scale = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
        return Scaled(inputs, base, scale, inputs.shape[1] - base.shape[1] - self._seen - 1)

    @property
    def _seen(self) -> int:
        """Columns of the inputs that are values before the origin."""
        return self.length + (FURTHEST if self.season > self.length else 0)

    def _inputs(self, view: View, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        window = view.window(self.length)
        level, scale = self._level(view, window), self._scale(view)
        parts = [window, base, self.features.columns(view), np.ones((len(view), 1))]
        if self.season > self.length:
            lags = np.linspace(self.length, self.season + self.length, FURTHEST).round().astype(int)
            values, have = view.lags(lags)
            parts.insert(0, np.where(have, values, level))
        inputs = np.concatenate(parts, axis=1)
        values = inputs[:, : self._seen + base.shape[1]]
        values -= level
        values /= scale
        np.clip(values, -50, 50, out=values)
        return inputs, scale

    def residual(self, view: View, scaled: Scaled) -> np.ndarray:
        """What the base leaves of what came: `(N, H)`, in the windows' scale, NaN where it was not observed."""
        actual = view.actual()
        if self.log:
            positive = view.positive[:, None]
            with np.errstate(divide="ignore", invalid="ignore"):
                actual = np.where(positive, np.where(actual > 0, np.log(actual), np.nan), actual)
        return np.clip((actual - scaled.base) / scaled.scale, -20, 20)

    def _level(self, view: View, window: np.ndarray) -> np.ndarray:
        rows = min(self.season, LEVEL)
        if self.season == 1:
            return window[:, -1:]
        recent = window[:, -rows:] if rows <= self.length else view.window(rows)
        return recent.mean(axis=1, keepdims=True)

    def _scale(self, view: View) -> np.ndarray:
        """Mean absolute difference of rows a season apart, but not much less than that of neighbors."""
        found = None
        for apart in self.apart:
            pairs = min(max(self.length, 2 * apart, 8) - apart, PAIRS)
            found_here = _difference(view, pairs, apart)
            found = found_here if found is None else np.minimum(found, found_here)
        assert found is not None
        steps = _difference(view, min(max(self.length, 8) - 1, PAIRS), 1)
        last = np.abs(view.take(view.origins[:, None] - 1))
        scale = np.maximum(found, 0.1 * steps)[:, None]
        return np.where(scale < 1e-9 * (1 + last), 1.0, scale)

    def config(self) -> dict[str, Any]:
        """As a file keeps it, without the features' scales."""
        return {
            "base": self.base.config(),
            "length": self.length,
            "season": self.season,
            "log": self.log,
            "apart": list(self.apart),
            "features": self.features.config(),
        }


def _difference(view: View, pairs: int, apart: int) -> np.ndarray:
    """Mean of `|x_t - x_{t-apart}|` over the last `pairs` rows `(N,)`, of those that the series has; 0 for none."""

    lags = np.arange(1, pairs + 1)
    later, _ = view.lags(lags)
    earlier, have = view.lags(lags + apart)
    return np.where(have, np.abs(later - earlier), 0.0).sum(axis=1) / np.maximum(have.sum(axis=1), 1)
