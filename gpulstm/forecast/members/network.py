"""A small recurrent network on top of a ridge or a simple forecast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpulstm.forecast.members.ridge import Ridge
from gpulstm.forecast.members.space import Space
from gpulstm.forecast.panel import View
from gpulstm.model.network import Network

LEVELS = (0.1, 0.5, 0.9)
STEPS = 8  # in which about a network reads a window
PASS = 8  # windows of every forward pass: what is said of one does not depend on how many are asked for


def patches(scaled: np.ndarray, length: int, horizon: int, extra: int) -> np.ndarray:
    """The rows that a network reads `(N, T, p)`: the window in about `STEPS` steps of p rows, then the features.

    Args:
        scaled: `Scaled.inputs`.
        length: of the window, thinned lags included.
        extra: columns that are features.
    """
    patch = length // STEPS if length >= 2 * STEPS else -(-length // STEPS)  # twice the steps cost twice as much
    window = scaled[:, length % patch : length].reshape(len(scaled), -1, patch)
    if not extra:
        return window
    features = scaled[:, length + horizon : length + horizon + extra]
    steps = -(-extra // patch)
    padded = np.zeros((len(scaled), steps * patch))
    padded[:, :extra] = features
    return np.concatenate([window, padded.reshape(len(scaled), steps, patch)], axis=1)


@dataclass(eq=False)
class Residual:
    """A trained network member.

    Args:
        space: how it sees windows.
        ridge: that it starts from, or None for the space's base alone.
        network: its median is added in the windows' scale.
        epochs: of the run that made it.
        start: number of the member that it starts from.
    """

    space: Space
    ridge: Ridge | None
    network: Network
    epochs: int
    start: int

    @property
    def name(self) -> str:
        """As tables of members show it."""
        cell = self.network.config.stack.cell.upper()
        return f"{cell} on {self.ridge.name}" if self.ridge is not None else f"{cell} {self.space.name}"

    @property
    def warm_key(self) -> str:
        """Names what it starts from in later fits."""
        return f"{'base' if self.ridge is None else 'ridge'} {self.space.name}"

    def forecast(self, view: View) -> np.ndarray:
        """Medians `(N, H)` in the units of the series."""
        view = self.space.view(view)
        scaled = self.space.scaled(view)
        found = scaled.base.copy()
        if self.ridge is not None:
            found += scaled.scale * (scaled.inputs @ self.ridge.weights)
        horizon = scaled.base.shape[1]
        length = scaled.inputs.shape[1] - horizon - scaled.extra - 1
        x = patches(scaled.inputs, length, horizon, scaled.extra)
        backend, dtype = self.network.backend, self.network.config.stack.dtype
        for first in range(0, len(x), PASS):
            run = x[first : first + PASS]
            part = np.zeros((x.shape[1], PASS, x.shape[2]), dtype)
            part[:, : len(run)] = run.transpose(1, 0, 2)
            raw, _, _ = self.network.forward(backend.from_host(part))
            median = backend.to_host(raw)[: len(run), :, 0, LEVELS.index(0.5)].astype(np.float64)
            found[first : first + PASS] += scaled.scale[first : first + PASS] * median
        return view.back(found)
