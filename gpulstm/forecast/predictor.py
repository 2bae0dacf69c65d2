"""From a trained network to forecasts in the units of the series: all steps at once, or one after another.

`direct` reads a forecast of the whole horizon from the head.  `recursive` forecasts one step, draws it, feeds it back
and goes on from the state that the network is in, many draws side by side; the quantiles are those of the draws
(Salinas et al. 2020, "DeepAR", Int. J. of Forecasting 36(3), section 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpulstm.arrays.backend import Array
from gpulstm.arrays.random import host_generator
from gpulstm.data.scaling import Scaler
from gpulstm.data.windows import Batch, WindowSet
from gpulstm.losses import GaussianNLL, Loss, Pinball
from gpulstm.model.memory import Memory
from gpulstm.model.network import Network

_DRAWS = 0xD4A3  # which stream of the seed the draws come from
BATCH = 256  # windows in one forward pass


@dataclass(frozen=True)
class Draws:
    """How `recursive` samples.

    Args:
        count: draws per forecast.
        seed: of their random numbers, which are the same on every device.
    """

    count: int = 200
    seed: int = 0


@dataclass(frozen=True)
class Anchor:
    """Where windows of one batch stand: what brings their scaled forecasts back to the units of the series.

    Attributes:
        scaler: fitted on the series.
        series: `(B,)` the scaler's row of each window.
        location, scale: of the windows, `(B, targets)` on the device, or None.
    """

    scaler: Scaler
    series: np.ndarray
    location: Array | None
    scale: Array | None

    @classmethod
    def of(cls, batch: Batch, scaler: Scaler, series: np.ndarray) -> Anchor:
        """Where the windows of `batch` stand."""
        return cls(scaler, series, batch.location, batch.scale)

    def undo(self, network: Network, values: Array) -> np.ndarray:
        """`(B, horizon, targets[, Q])` from the device to the host and to the units of the series, float64."""
        if self.location is not None and self.scale is not None:
            extra = (1,) * (values.ndim - 3)
            shape = (self.location.shape[0], 1, self.location.shape[1], *extra)
            values = values * self.scale.reshape(shape) + self.location.reshape(shape)
        return self.scaler.inverse_targets(network.backend.to_host(values), self.series)


Predicted = tuple[np.ndarray, np.ndarray | None]  # mean (N, horizon, targets), quantiles (N, horizon, targets, Q)


def forecast_windows(
    network: Network,
    loss: Loss,
    windows: WindowSet,
    scaler: Scaler,
    draws: Draws | None = None,
    *,
    batch: int = BATCH,
    memory: Memory = None,
) -> Predicted:
    """Forecast every window, `batch` of them a pass.

    Args:
        windows: of the horizon wanted; its targets are not looked at.
        scaler: with one row for each series of the windows.
        draws: None for `direct`, else how `recursive` samples.
        memory: as `Network.forward`, of the passes over the contexts.

    Returns:
        mean `(N, horizon, targets)` and quantiles `(N, horizon, targets, Q)` or None, in the units of the series.
    """
    parts = []
    for run in windows.batches(batch):
        given = windows.gather(run, network.backend)
        anchor = Anchor.of(given, scaler, windows.series_of(run))
        if draws is None:
            raw, _, _ = network.forward(given.x, given.future, memory=memory)
            parts.append(direct(network, loss, raw, anchor))
        else:
            first = None if given.future is None else given.future[:, :1]
            raw, state, _ = network.forward(given.x, first, memory=memory)
            start = int(run[0])
            parts.append(recursive(network, loss, raw, state, given.future, windows.horizon, anchor, draws, start))
    quantiles = [part[1] for part in parts if part[1] is not None]
    return np.concatenate([part[0] for part in parts]), np.concatenate(quantiles) if quantiles else None


def direct(network: Network, loss: Loss, raw: Array, anchor: Anchor) -> Predicted:
    """Read `raw` `(B, horizon, targets, P)` as mean and quantiles in the units of the series."""
    with network.backend.activate():
        found = loss.predict(raw)
        quantiles = found.get("quantiles")
        mean = found["mean"] if "mean" in found else _level(quantiles, loss.levels, 0.5)
        return anchor.undo(network, mean), None if quantiles is None else anchor.undo(network, quantiles)


def recursive(
    network: Network,
    loss: Loss,
    raw: Array,
    state: Any,
    future: Array | None,
    horizon: int,
    anchor: Anchor,
    draws: Draws,
    start: int = 0,
) -> Predicted:
    """Feed the forecast of one step back as the input of the next, `horizon` times, in `draws.count` draws.

    Args:
        raw: `(B, 1, targets, P)` forecast of the first step.
        state: of the network after the context; it is not changed.
        future: `(B, horizon, K)` covariates known ahead, or None.
        start: number of the batch's first window; draws differ from window to window and not by how they are batched.
    """
    backend, xp = network.backend, network.backend.xp
    config = network.config
    certain = not loss.levels and not isinstance(loss, GaussianNLL)
    count = 1 if certain else draws.count
    rows, targets = raw.shape[0], config.targets
    with backend.activate():
        numbers = None
        if not certain:  # (rows, count, horizon, targets), a stream of the generator for each window
            streams = [host_generator(draws.seed, _DRAWS, start + row) for row in range(rows)]
            shape = (count, horizon, targets)
            normal = isinstance(loss, GaussianNLL)
            numbers = backend.from_host(
                np.stack([g.standard_normal(shape) if normal else g.random(shape) for g in streams])
            )
        state = _each(state, lambda part: xp.repeat(part, count, axis=1))
        raw = xp.repeat(raw, count, axis=0)
        steps = []
        for step in range(horizon):
            given = None if numbers is None else numbers[:, :, step].reshape(rows * count, targets)
            value = _draw(xp, loss, raw, given)  # (rows * count, targets)
            steps.append(value.reshape(rows, count, targets))
            if step + 1 < horizon:
                parts = [value[None]]
                ahead = None
                if future is not None:
                    parts.append(xp.repeat(future[:, step], count, axis=0)[None])
                    ahead = xp.repeat(future[:, step + 1 : step + 2], count, axis=0)
                missing = config.stack.input_size - sum(part.shape[-1] for part in parts)
                parts.append(xp.ones((1, rows * count, missing), dtype=value.dtype))  # fed back: counts as observed
                raw, state, _ = network.forward(xp.concatenate(parts, axis=2), ahead, state)
        paths = anchor.undo(network, xp.stack(steps, axis=1).transpose(0, 1, 3, 2))  # (rows, horizon, targets, count)
    if certain:
        return paths[..., 0], None
    quantiles = np.moveaxis(np.quantile(paths, loss.levels, axis=-1), 0, -1) if loss.levels else None
    mean = np.median(paths, axis=-1) if isinstance(loss, Pinball) else paths.mean(axis=-1)
    return mean, quantiles


def _draw(xp: Any, loss: Loss, raw: Array, numbers: Array | None) -> Array:
    """One value `(rows, targets)` from each forecast of one step.

    `numbers` are standard normal for a Gaussian forecast, uniform for quantiles, and None for a point forecast.
    """
    found = loss.predict(raw)
    if numbers is None:
        return found["mean"][:, 0]
    if "scale" in found:
        return found["mean"][:, 0] + found["scale"][:, 0] * numbers.astype(raw.dtype)
    return _level_each(xp, found["quantiles"][:, 0], loss.levels, numbers).astype(raw.dtype)


def _level(quantiles: Array, levels: tuple[float, ...], wanted: float) -> Array:
    """The quantile `wanted` by a straight line between its neighbours; the nearest one beyond the ends."""
    right = int(np.searchsorted(levels, wanted))
    if right == len(levels) or levels[right] == wanted or right == 0:
        return quantiles[..., min(right, len(levels) - 1)]
    share = (wanted - levels[right - 1]) / (levels[right] - levels[right - 1])
    return quantiles[..., right - 1] * (1 - share) + quantiles[..., right] * share


def _level_each(xp: Any, quantiles: Array, levels: tuple[float, ...], uniform: Array) -> Array:
    """Another quantile for each element: `quantiles` `(rows, targets, Q)` read at `uniform` `(rows, targets)`.

    The quantile function is taken as straight between the levels, and beyond the outermost ones as going on like the
    nearest piece, so that draws reach further than the outermost level.
    """
    if len(levels) == 1:
        return quantiles[..., 0]
    place = sum((uniform > level).astype(np.int64) for level in levels[1:-1])
    place = xp.zeros(uniform.shape, dtype=np.int64) + place
    grid = xp.asarray(levels)
    low, high = grid[place], grid[place + 1]
    start = xp.take_along_axis(quantiles, place[..., None], axis=-1)[..., 0]
    stop = xp.take_along_axis(quantiles, place[..., None] + 1, axis=-1)[..., 0]
    return start + (stop - start) * (uniform - low) / (high - low)


def _each(state: Any, change: Any) -> Any:
    """Apply `change` to h, or to h and c."""
    return tuple(change(part) for part in state) if isinstance(state, tuple) else change(state)
