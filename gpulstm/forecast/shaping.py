"""What a single network need not learn: a transform of the values, a simple forecast and a linear map.

The network forecasts what these leave.  Each is chosen by the options, or by the validation rows (`"auto"`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gpulstm.arrays.backend import NUMPY, Array, Backend
from gpulstm.data.scaling import Scaler
from gpulstm.data.series import SeriesSet
from gpulstm.data.windows import Batch, WindowSet
from gpulstm.errors import ConfigError, DataError
from gpulstm.forecast.config import AUTO
from gpulstm.forecast.members.ridge import PENALTIES, Moments

POWERS = tuple(np.round(np.arange(-1.0, 2.01, 0.1), 1).tolist())  # that Box-Cox chooses from
MOST = 4096  # windows at most that a linear map is fitted to or judged by
GAIN = 0.01  # by which validation has to find something better than what is simpler
PENALTY = 1e-2  # of the linear map, where nothing judges it


@dataclass(frozen=True)
class Transform:
    """`x -> (x^power - 1) / power`, the logarithm for 0 and nothing for 1.

    Source: Box & Cox (1964), "An analysis of transformations", J. of the Royal Statistical Society B 26(2).
    """

    power: float = 1.0

    def forward(self, series: SeriesSet) -> SeriesSet:
        """The series with transformed targets.

        Raises:
            DataError: a target is not above zero.
        """
        if self.power == 1.0:
            return series
        values = series.values.copy()
        targets = values[:, : series.targets]
        low = targets <= 0
        if low.any():
            row, column = (int(index[0]) for index in np.nonzero(low))
            raise DataError(
                f"column {series.columns[column]!r} holds {targets[row, column]:g}, but a transform needs values above "
                "zero; fit with transform='none'"
            )
        values[:, : series.targets] = self.of(targets)
        return replace(series, values=values)

    def of(self, values: np.ndarray) -> np.ndarray:
        """Values above zero, transformed."""
        return np.log(values) if self.power == 0 else (values**self.power - 1) / self.power

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Back in the units of the series; a forecast of a mean becomes one of about the median."""
        if self.power == 1.0:
            return values
        if self.power == 0:
            return np.exp(np.minimum(values, 700.0))
        return np.maximum(1 + self.power * values, 1e-12) ** (1 / self.power)


@dataclass(frozen=True, eq=False)
class Base:
    """What the network's forecast is added to, in the scale of each window.

    Attributes:
        season: rows back to the value that is said again; 0 for none.
        weights: `(context * targets + 1, horizon * targets)` of a linear map from the window, or None.
    """

    season: int = 0
    weights: np.ndarray | None = None

    def of(self, batch: Batch, backend: Backend) -> Array:
        """`(B, horizon, targets)` for the windows of a batch."""
        xp, (_, horizon, targets) = backend.xp, batch.target.shape
        x = batch.x[..., :targets]
        base = xp.zeros(batch.target.shape, dtype=x.dtype)
        if self.season:
            rows = np.arange(horizon) % self.season + len(x) - self.season
            base = x[backend.from_host(rows)].transpose(1, 0, 2)
        if self.weights is not None:
            weights = backend.from_host(self.weights.astype(x.dtype))
            linear = x.transpose(1, 0, 2).reshape(x.shape[1], -1) @ weights[:-1] + weights[-1]
            base = base + linear.reshape(base.shape)
        return base


@dataclass(frozen=True, eq=False)
class Shape:
    """All that a single network need not learn."""

    transform: Transform = field(default_factory=Transform)
    base: Base | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """Weights by name, for a file."""
        return {} if self.base is None or self.base.weights is None else {"linear": self.base.weights}

    def scalars(self) -> dict[str, Any]:
        """As JSON holds the rest."""
        return {"power": self.transform.power, "season": None if self.base is None else self.base.season}

    @classmethod
    def restore(cls, arrays: Mapping[str, np.ndarray], scalars: Mapping[str, Any]) -> Shape:
        """What `arrays` and `scalars` gave."""
        base = None if scalars["season"] is None else Base(int(scalars["season"]), arrays.get("linear"))
        return cls(Transform(float(scalars["power"])), base)


class Left:
    """Windows whose targets are what a base leaves; a trainer reads them as it reads a `WindowSet`."""

    def __init__(self, windows: WindowSet, base: Base) -> None:
        self._windows, self._base = windows, base
        self.inputs, self.horizon, self.targets = windows.inputs, windows.horizon, windows.targets
        self.future, self.context, self.skipped = windows.future, windows.context, windows.skipped

    def __len__(self) -> int:
        return len(self._windows)

    def batches(self, size: int, order: np.ndarray | None = None) -> list[np.ndarray]:
        """As of `WindowSet`."""
        return self._windows.batches(size, order)

    def gather(self, indices: Any, backend: Backend) -> Batch:
        """As of `WindowSet`."""
        batch = self._windows.gather(indices, backend)
        with backend.activate():
            batch.target = batch.target - self._base.of(batch, backend)
        return batch


def best_power(series: SeriesSet, stops: np.ndarray) -> float | None:
    """The power of Box-Cox under which steps from row to row vary as evenly as can be; None unless all is above zero.

    Args:
        series: in their own units.
        stops: `(series,)` first absolute row after those that are looked at.
    """
    parts = []
    for start, stop in zip(series.offsets[:-1], stops, strict=True):
        for column in series.values[start:stop, : series.targets].T:
            seen = column[~np.isnan(column)]
            if (seen <= 0).any():
                return None
            if len(seen) > 2:
                parts.append(seen / np.exp(np.log(seen).mean()))  # by its geometric mean: powers are comparable
    if not parts:
        return None
    losses = []
    for power in POWERS:
        steps = [np.diff(Transform(power).of(part)) for part in parts]
        losses.append(sum(len(step) * np.log(max(float(step.var()), 1e-300)) for step in steps))
    return float(POWERS[int(np.argmin(losses))])


@dataclass(frozen=True)
class Units:
    """What brings the scaled forecasts of one batch of windows back to the units of the series.

    Attributes:
        scaler: fitted on the series, transformed.
        series: `(B,)` the scaler's row of each window.
        location, scale: of the windows, `(B, targets)` on the device, or None.
        transform: of the values.
    """

    scaler: Scaler
    series: np.ndarray
    location: Array | None
    scale: Array | None
    transform: Transform = field(default_factory=Transform)

    def restore(self, backend: Backend, values: Array) -> np.ndarray:
        """`(B, horizon, targets[, Q])` from the device to the host and to the units of the series, float64."""
        if self.location is not None and self.scale is not None:
            extra = (1,) * (values.ndim - 3)
            shape = (self.location.shape[0], 1, self.location.shape[1], *extra)
            values = values * self.scale.reshape(shape) + self.location.reshape(shape)
        return self.transform.inverse(self.scaler.inverse_targets(backend.to_host(values), self.series))


@dataclass(frozen=True, eq=False)
class Cut:
    """Series under a transform, as training and validation see them.

    Attributes:
        transform: of the values.
        scaler: fitted on them.
        train, judge: windows; `judge` is None where nothing is kept for validation.
    """

    transform: Transform
    scaler: Scaler
    train: WindowSet
    judge: WindowSet | None

    def based(self, season: int, linear: bool) -> Base | None:
        """The base with that season, 0 for none, and with a linear map fitted to the training windows or without."""
        plain = Base(season)
        if not linear:
            return plain if season else None
        inputs, left = _flat(self.train, plain)
        moments = Moments(inputs, left)
        if self.judge is None or not len(self.judge):
            return replace(plain, weights=moments.solve(PENALTY))
        judged, left = _flat(self.judge, plain)
        errors = [np.nanmean(np.abs(judged @ moments.solve(penalty) - left)) for penalty in PENALTIES]
        return replace(plain, weights=moments.solve(PENALTIES[int(np.nanargmin(errors))]))

    def error(self, base: Base | None, sizes: np.ndarray) -> float:
        """Mean absolute error of a base alone at the validation windows, over `sizes` `(series, targets)`."""
        assert self.judge is not None
        indices = _some(self.judge)
        batch, series = self.judge.gather(indices, NUMPY), self.judge.series_of(indices)
        units = Units(self.scaler, series, batch.location, batch.scale, self.transform)
        forecast = (Base() if base is None else base).of(batch, NUMPY)
        target = batch.target if batch.weight is None else np.where(batch.weight > 0, batch.target, np.nan)
        error = np.abs(units.restore(NUMPY, forecast) - units.restore(NUMPY, target)) / sizes[series][:, None]
        return float(np.nanmean(error))


def _some(windows: WindowSet) -> np.ndarray:
    """Indices of at most `MOST` windows, evenly apart."""
    return np.unique(np.linspace(0, len(windows) - 1, min(len(windows), MOST)).round().astype(np.int64))


def _flat(windows: WindowSet, base: Base) -> tuple[np.ndarray, np.ndarray]:
    """Windows as rows `(N, context * targets + 1)`, and what a base leaves of them `(N, horizon * targets)`."""
    batch = windows.gather(_some(windows), NUMPY)
    count, targets = len(batch.target), batch.target.shape[2]
    left = batch.target - base.of(batch, NUMPY)
    if batch.weight is not None:
        left = np.where(batch.weight > 0, left, np.nan)
    rows = batch.x[..., :targets].transpose(1, 0, 2).reshape(count, -1)
    ones = np.ones((count, 1), rows.dtype)
    return np.concatenate([rows, ones], axis=1).astype(np.float64), left.reshape(count, -1).astype(np.float64)


def chosen(
    asked: tuple[str, str, str], series: SeriesSet, stops: np.ndarray, season: int, cut: Callable[[Transform], Cut]
) -> tuple[Shape, Cut]:
    """What the options ask for; of what is "auto" the simplest that validation finds nothing clearly better than.

    Args:
        asked: the options `transform`, `residual` and `skip`.
        series: in their own units.
        stops: `(series,)` first absolute row after those of training.
        season: rows in the shortest season.
        cut: makes the windows under a transform.

    Raises:
        ConfigError: a residual that the series, or the context, does not allow.
        DataError: a transform that the values do not allow.
    """
    transform, residual, skip = asked
    power = best_power(series, stops) if transform in (AUTO, "boxcox") else None
    if transform == "boxcox" and power is None:
        power = 0.0  # the transform itself says which value it cannot take
    every_power = [1.0, 0.0, power] if transform == AUTO else [{"none": 1.0, "log": 0.0}.get(transform, power)]
    if transform == AUTO and power is None:  # not all values are above zero
        every_power = [1.0]
    cuts = [cut(Transform(float(one))) for one in dict.fromkeys(every_power) if one is not None]
    room = season > 1 and cuts[0].train.context >= season
    if residual == "seasonal" and not room:
        raise ConfigError(
            f"residual is 'seasonal', but the season is of {season} rows and the context of {cuts[0].train.context}; "
            "expected a season above 1 and a context that holds it"
        )
    lags = {"none": [0], "seasonal": [season]}.get(residual, [0, *([season] if room else [])])
    linear = {"none": [False], "linear": [True]}.get(skip, [False, True])
    every = [(one, one.based(lag, with_map)) for one in cuts for lag in lags for with_map in linear]
    best = every[0]
    if len(every) > 1 and best[0].judge is not None:
        sizes = _sizes(series, stops)
        least = best[0].error(best[1], sizes)
        for one, base in every[1:]:
            error = one.error(base, sizes)
            if error < (1 - GAIN) * least:
                best, least = (one, base), error
    return Shape(best[0].transform, best[1]), best[0]


def _sizes(series: SeriesSet, stops: np.ndarray) -> np.ndarray:
    """Mean absolute step of each training part `(series, targets)`; 1 where there is none."""
    results = np.ones((len(series), series.targets))
    for row, (start, stop) in enumerate(zip(series.offsets[:-1], stops, strict=True)):
        steps = np.abs(np.diff(series.values[start:stop, : series.targets], axis=0))
        seen = ~np.isnan(steps)
        mean = np.where(seen, steps, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
        results[row] = np.where(mean > 0, mean, 1.0)
    return results
