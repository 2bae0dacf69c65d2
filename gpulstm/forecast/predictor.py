"""From a trained network to forecasts in the units of the series: all steps at once, or one after another.

The direct strategy reads a forecast of the whole horizon from the head.  The recursive one forecasts one step, draws
it, feeds it back and goes on from the state that the network is in, many draws at a time; the quantiles are those of
the draws (Salinas et al. 2020, "DeepAR", Int. J. of Forecasting 36(3), section 3.2).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gpulstm.arrays.backend import Array
from gpulstm.arrays.random import host_generator
from gpulstm.data.scaling import Scaler
from gpulstm.data.series import SeriesSet
from gpulstm.data.splits import Cuts
from gpulstm.data.windows import Batch, WindowSet, window_set
from gpulstm.forecast.config import ForecasterConfig
from gpulstm.forecast.shaping import Shape, Units
from gpulstm.losses import GaussianNLL, Loss, Pinball
from gpulstm.model.network import Network
from gpulstm.model.state import map_state

_DRAWS = 0xD4A3  # which stream of the seed the draws come from
BATCH = 256  # windows in one forward pass

Predicted = tuple[np.ndarray, np.ndarray | None]  # mean (N, horizon, targets), quantiles (N, horizon, targets, Q)


def point_of(loss: Loss) -> str:
    """What a loss's point forecast is: "median" of quantiles around it, the nearest of others ("q0.9"), or "mean"."""
    if not isinstance(loss, Pinball):
        return "mean"
    nearest = min(max(loss.levels[0], 0.5), loss.levels[-1])
    return "median" if nearest == 0.5 else f"q{nearest!r}"


def scaled_by_context(config: ForecasterConfig, windows: WindowSet) -> WindowSet:
    """Windows that are scaled by their own context as the options say."""
    moved = windows.moved if config.past_scaling == "window" else ()
    return replace(windows, window_scaling=config.window_scaling, moved=moved)


class Predictor:
    """A trained network with all that turns series into forecasts, from any origins.

    Args:
        network: trained.
        loss: what its outputs mean.
        scaler: with one row for each series that it is asked about.
        config: lengths, strategy, window scaling, and how many windows a pass takes.
        shape: what the network need not learn; None for nothing.
    """

    def __init__(
        self, network: Network, loss: Loss, scaler: Scaler, config: ForecasterConfig, shape: Shape | None = None
    ) -> None:
        self.network, self.loss, self.scaler, self.config = network, loss, scaler, config
        self.shape = Shape() if shape is None else shape

    @property
    def horizon(self) -> int:
        """Steps of a forecast."""
        return self.config.horizon

    def windows(
        self,
        series: SeriesSet,
        origins: np.ndarray,
        *,
        horizon: int | None = None,
        cuts: Cuts | None = None,
        context: int | None = None,
        window_scaling: str | None = None,
    ) -> WindowSet:
        """Windows over the scaled series.

        Args:
            series: in their own units.
            origins: `(N,)` absolute rows at which forecasts begin.
            horizon: steps; those of the config by default.
            cuts: gaps are filled without looking across these.
            context, window_scaling: other than those of the config.
        """
        config = self.config
        windows = window_set(
            self.shape.transform.forward(series),
            self.scaler.transform,
            context=config.context if context is None else context,
            horizon=config.horizon if horizon is None else horizon,
            cuts=cuts,
            dtype=self.network.config.stack.data_dtype,
            origins=origins,
            least=config.least,
        )
        windows = scaled_by_context(config, windows)
        return windows if window_scaling is None else replace(windows, window_scaling=window_scaling)

    def forecast(self, windows: WindowSet) -> Predicted:
        """Forecast every window, many of them in a pass; their targets are not looked at.

        Returns:
            mean `(N, horizon, targets)` and quantiles `(N, horizon, targets, Q)` or None, in the units of the series,
            float64.
        """
        config = self.config
        size = BATCH if config.memory is None else min(BATCH, config.batch_size)
        parts = []
        for run in windows.batches(size):
            batch = windows.gather(run, self.network.backend)
            parts.append(self.forecast_batch(batch, windows.series_of(run), first=int(run[0]))[0])
        quantiles = [part[1] for part in parts if part[1] is not None]
        return np.concatenate([part[0] for part in parts]), np.concatenate(quantiles) if quantiles else None

    def forecast_batch(
        self, batch: Batch, series: np.ndarray, state: Any = None, *, first: int = 0
    ) -> tuple[Predicted, Any]:
        """Forecast the windows of one batch.

        Args:
            batch: its targets count for nothing but their number of steps.
            series: `(B,)` the scaler's row of each window.
            state: that the network reads the batch from; zeros if None.
            first: number of the batch's first window: draws differ from window to window, however they are batched.

        Returns:
            mean and quantiles, as `forecast`, and the network's state after the batch.
        """
        network, config = self.network, self.config
        direct = config.strategy == "direct"
        future = batch.future if direct or batch.future is None else batch.future[:, :1]
        raw, state, _ = network.forward(batch.x, future, state, memory=config.memory)
        units = Units(self.scaler, series, batch.location, batch.scale, self.shape.transform)
        if direct:
            return self._read(raw, units, batch), state
        return self._feed_back(raw, state, batch, units, first), state

    def _read(self, raw: Array, units: Units, batch: Batch) -> Predicted:
        """Read `raw` `(B, horizon, targets, P)` as mean and quantiles in the units of the series."""
        backend = self.network.backend
        with backend.activate():
            parts = self.loss.predict(raw)
            quantiles = parts.get("quantiles")
            mean = parts["mean"] if "mean" in parts else _level(quantiles, self.loss.levels, 0.5)
            if self.shape.base is not None:
                base = self.shape.base.of(batch, backend)
                mean = mean + base
                quantiles = None if quantiles is None else quantiles + base[..., None]
            return units.restore(backend, mean), None if quantiles is None else units.restore(backend, quantiles)

    def _feed_back(self, raw: Array, state: Any, batch: Batch, units: Units, first: int) -> Predicted:
        """Feed the forecast of one step back as the input of the next, over the whole horizon, in many draws.

        Args:
            raw: `(B, 1, targets, P)` forecast of the first step.
            state: of the network after the context; it is not changed.
            batch: with `future` `(B, horizon, K)` and `target` `(B, horizon, targets)`, of which only the shape counts.
        """
        network, loss = self.network, self.loss
        backend, xp = network.backend, network.backend.xp
        future, horizon = batch.future, batch.target.shape[1]
        certain = not loss.levels and not isinstance(loss, GaussianNLL)
        count = 1 if certain else self.config.draws
        rows, targets = raw.shape[0], network.config.targets
        with backend.activate():
            numbers = None if certain else self._numbers(first, (rows, count, horizon, targets))
            state = map_state(lambda part: xp.repeat(part, count, axis=1), state)
            raw = xp.repeat(raw, count, axis=0)
            steps = []
            for step in range(horizon):
                drawn = None if numbers is None else numbers[:, :, step].reshape(rows * count, targets)
                value = _draw(xp, loss, raw, drawn)  # (rows * count, targets)
                steps.append(value.reshape(rows, count, targets))
                if step + 1 < horizon:
                    parts = [value[None]]
                    ahead = None
                    if future is not None:
                        parts.append(xp.repeat(future[:, step], count, axis=0)[None])
                        ahead = xp.repeat(future[:, step + 1 : step + 2], count, axis=0)
                    masks = network.config.input_size - sum(part.shape[-1] for part in parts)
                    parts.append(xp.ones((1, rows * count, masks), dtype=value.dtype))  # fed back: counts as observed
                    raw, state, _ = network.forward(xp.concatenate(parts, axis=2), ahead, state)
            paths = units.restore(
                backend, xp.stack(steps, axis=1).transpose(0, 1, 3, 2)
            )  # (B, horizon, targets, count)
        if certain:
            return paths[..., 0], None
        quantiles = np.moveaxis(np.quantile(paths, loss.levels, axis=-1), 0, -1) if loss.levels else None
        mean = np.median(paths, axis=-1) if isinstance(loss, Pinball) else paths.mean(axis=-1)
        return mean, quantiles

    def _numbers(self, first: int, shape: tuple[int, int, int, int]) -> Array:
        """Random numbers `(rows, draws, horizon, targets)`: a stream of the seed for each window, on the device."""
        generators = [host_generator(self.config.seed, _DRAWS, first + row) for row in range(shape[0])]
        normal = isinstance(self.loss, GaussianNLL)
        return self.network.backend.from_host(
            np.stack([g.standard_normal(shape[1:]) if normal else g.random(shape[1:]) for g in generators])
        )


def _draw(xp: Any, loss: Loss, raw: Array, numbers: Array | None) -> Array:
    """One value `(rows, targets)` from each forecast of one step.

    `numbers` are standard normal for a Gaussian forecast, uniform for quantiles, and None for a point forecast.
    """
    parts = loss.predict(raw)
    if numbers is None:
        return parts["mean"][:, 0]
    if "scale" in parts:
        return parts["mean"][:, 0] + parts["scale"][:, 0] * numbers.astype(raw.dtype)
    return _level_each(xp, parts["quantiles"][:, 0], loss.levels, numbers).astype(raw.dtype)


def _level(quantiles: Array, levels: tuple[float, ...], level: float) -> Array:
    """The quantile `level` by a straight line between its neighbors; the nearest one beyond the ends."""
    right = int(np.searchsorted(levels, level))
    if right == len(levels) or levels[right] == level or right == 0:
        return quantiles[..., min(right, len(levels) - 1)]
    share = (level - levels[right - 1]) / (levels[right] - levels[right - 1])
    return quantiles[..., right - 1] * (1 - share) + quantiles[..., right] * share


def _level_each(xp: Any, quantiles: Array, levels: tuple[float, ...], uniform: Array) -> Array:
    """Another quantile for each element: `quantiles` `(rows, targets, Q)` read at `uniform` `(rows, targets)`.

    The quantile function is taken as straight between the levels, and beyond the outermost ones as going on like the
    nearest piece, so that draws reach further than the outermost level.
    """
    if len(levels) == 1:
        return quantiles[..., 0]
    piece = sum((uniform > level).astype(np.int64) for level in levels[1:-1])
    piece = xp.zeros(uniform.shape, dtype=np.int64) + piece
    grid = xp.asarray(levels)
    low, high = grid[piece], grid[piece + 1]
    start = xp.take_along_axis(quantiles, piece[..., None], axis=-1)[..., 0]
    stop = xp.take_along_axis(quantiles, piece[..., None] + 1, axis=-1)[..., 0]
    return start + (stop - start) * (uniform - low) / (high - low)
