"""A small recurrent network on top of a ridge or a simple forecast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpulstm.forecast.members.passes import in_passes
from gpulstm.forecast.members.ridge import Ridge
from gpulstm.forecast.members.space import Space
from gpulstm.forecast.panel import View
from gpulstm.model.network import Network

LEVELS = (0.1, 0.5, 0.9)
STEPS = 8  # in which about a network reads a window
PASS = 8  # windows of a forward pass


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
        horizon = scaled.base.shape[1]
        length = scaled.inputs.shape[1] - horizon - scaled.extra - 1
        added = in_passes(self._median, PASS, PASS, patches(scaled.inputs, length, horizon, scaled.extra))[0]
        if self.ridge is not None:
            added += self.ridge.added(scaled)
        return view.back(scaled.base + scaled.scale * added)

    def _median(self, x: np.ndarray) -> list[np.ndarray]:
        """The network's medians `(k, H)` of `(k, T, p)`, in the windows' scale."""
        backend, dtype = self.network.backend, self.network.config.stack.data_dtype
        raw, _, _ = self.network.forward(backend.from_host(x.transpose(1, 0, 2).astype(dtype, order="C")))
        return [backend.to_host(raw)[:, :, 0, LEVELS.index(0.5)].astype(np.float64)]
