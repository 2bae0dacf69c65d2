"""Windows of series: a context that is seen and a horizon that is to be forecast, as index arithmetic on one array.

Nothing is stored per window but the row where its horizon begins, so memory grows with the series and not with series
times window.  On a GPU the series are uploaded once, and batches are gathered there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpulstm.arrays.backend import Array, Backend
from gpulstm.data.scaling import check_window_kind, window_statistics
from gpulstm.data.series import SeriesSet
from gpulstm.data.splits import Cuts
from gpulstm.errors import ConfigError, DataError, ShapeError
from gpulstm.validate import count


@dataclass
class Batch:
    """Windows gathered for one step of training or one forecast; all arrays are of one dtype on one device.

    Attributes:
        x: `(T, B, I)`: targets, past and future covariates of the context, then what tells observed from missing.
        target: `(B, horizon, targets)`, zero where missing.
        future: `(B, horizon, K)` future covariates of the horizon, or None.
        weight: `(B, horizon, targets)`, 1 where the target was observed and 0 where not, or None where all were.
        location, scale: `(B, targets)` that the window's targets were moved and divided by, or None.
        read: how many steps at the end of x have a forecast each; target, future and weight are `(read*B, ...)` then,
            step after step.  None: the last step alone.
        carry: steps of x after which the state goes on to the next batch, or None where batches do not hang together.
        fresh: `(B,)` bool on the host, which rows begin from the state of zeros; with `carry` only.
    """

    x: Array
    target: Array
    future: Array | None = None
    weight: Array | None = None
    location: Array | None = None
    scale: Array | None = None
    read: int | None = None
    carry: int | None = None
    fresh: np.ndarray | None = None


class WindowSet:
    """Windows over one or many series.

    A window is known by its origin: the row where its horizon begins.  Its context is the `context` rows before.

    Args:
        values: `(rows, features)`, scaled, without NaN, in the dtype of the model; columns as in `SeriesSet`.
        offsets: `(series + 1,)` int.
        context, horizon: lengths in rows.
        targets, past, future: how many columns play each role.
        observed: `(rows, features)` bool, False where a value was missing before it was filled, or None.
        stride: rows between the origins of neighbouring windows.
        window_scaling: `"none"`, `"standard"`, `"mean"` or `"last"`; see `scaling.window_statistics`.
        carry: location and scale of a window come from its context up to 0 to `carry` rows before its end, so that a
            network learns to go on after the rows that set them; how many is a fixed function of the origin.
        mask: whether x also tells, for each target and past covariate, whether it was observed (1) or not (0).
        origins: `(N,)` rows, where not all windows are wanted.

    Raises:
        ConfigError: lengths below 1.
        DataError: no series is long enough for one window.
    """

    def __init__(
        self,
        values: np.ndarray,
        offsets: np.ndarray,
        *,
        context: int,
        horizon: int,
        targets: int = 1,
        past: int = 0,
        future: int = 0,
        observed: np.ndarray | None = None,
        stride: int = 1,
        window_scaling: str = "none",
        carry: int = 0,
        mask: bool = False,
        names: Sequence[str] | None = None,
        origins: np.ndarray | None = None,
    ) -> None:
        for name, length in (("context", context), ("horizon", horizon), ("stride", stride)):
            if isinstance(length, bool) or not isinstance(length, (int, np.integer)) or length < 1:
                raise ConfigError(f"{name} is {length!r}, expected a whole number of at least 1")
        if values.ndim != 2 or values.shape[1] != targets + past + future or targets < 1:
            raise ShapeError(
                f"values have shape {values.shape}, expected (rows, {targets + past + future}): {targets} targets, "
                f"{past} past and {future} future covariates"
            )
        if observed is not None and observed.shape != values.shape:
            raise ShapeError(f"observed has shape {observed.shape}, expected {values.shape} as the values")
        self.values, self.offsets, self.observed = values, np.asarray(offsets, dtype=np.int64), observed
        self.context, self.horizon = int(context), int(horizon)
        self.targets, self.past, self.future = targets, past, future
        self.stride, self.mask = int(stride), mask
        self.window_scaling = check_window_kind(window_scaling)
        self.carry = count("carry", carry, at_least=0)
        if self.carry >= self.context:
            raise ConfigError(f"carry is {carry}, expected less than the context of {context}")
        self.names = tuple(names) if names is not None else tuple(str(index) for index in range(len(offsets) - 1))
        self.origins = self._all_origins() if origins is None else np.asarray(origins, dtype=np.int64)
        self._resident: dict[str, tuple[Array, Array | None]] = {}

    def _all_origins(self) -> np.ndarray:
        """Origins of all whole windows with something to learn from, `stride` apart in each series."""
        parts = [
            np.arange(start + self.context, stop - self.horizon + 1, self.stride, dtype=np.int64)
            for start, stop in zip(self.offsets[:-1], self.offsets[1:], strict=True)
        ]
        origins = np.concatenate(parts)
        self._check_length()
        origins = self._informative(origins)
        if not origins.size:
            raise DataError("no window has an observed target both in its context and in its horizon")
        return origins

    def _check_length(self) -> None:
        longest = int(np.diff(self.offsets).max())
        if longest < self.context + self.horizon:
            raise DataError(
                f"the longest series has {longest} rows, but a window needs {self.context + self.horizon}: "
                f"context {self.context} + horizon {self.horizon}"
            )

    def _informative(self, origins: np.ndarray) -> np.ndarray:
        """The origins with an observed target in the horizon and, where gaps are masked, one in the context."""
        if self.observed is None:
            return origins
        seen = self.observed[:, : self.targets].any(axis=1)
        before = np.concatenate([[0], np.cumsum(seen, dtype=np.int64)])  # observed rows before each row
        useful = before[origins + self.horizon] > before[origins]
        if self.mask:
            useful &= before[origins] > before[origins - self.context]
        return origins[useful]

    def __len__(self) -> int:
        return len(self.origins)

    @property
    def inputs(self) -> int:
        """I: features of x."""
        return self.values.shape[1] + (self.targets + self.past if self.mask else 0)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the batches."""
        return self.values.dtype

    @property
    def skipped(self) -> list[str]:
        """Names of the series that are too short for a window."""
        short = np.diff(self.offsets) < self.context + self.horizon
        return [name for name, is_short in zip(self.names, short, strict=True) if is_short]

    def series_of(self, indices: Any = slice(None)) -> np.ndarray:
        """`(N,)` int64: the series that each window belongs to."""
        return np.searchsorted(self.offsets, self.origins[indices], side="right") - 1

    def window(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Context `(context, features)` and horizon `(horizon, features)` of one window: views, nothing is copied."""
        origin = int(self.origins[index])
        return self.values[origin - self.context : origin], self.values[origin : origin + self.horizon]

    def subset(self, keep: np.ndarray | slice) -> WindowSet:
        """The windows of a mask, of indices or of a slice, over the same memory; what lies on a device is shared."""
        return self.at(self.origins[keep])

    def at(self, origins: np.ndarray) -> WindowSet:
        """The windows with the given origins, over the same memory; what lies on a device is shared.

        Raises:
            DataError: a window would reach over the ends of its series.
        """
        origins = np.asarray(origins, dtype=np.int64)
        index = np.clip(np.searchsorted(self.offsets, origins, side="right") - 1, 0, len(self.offsets) - 2)
        bad = (origins - self.context < self.offsets[index]) | (origins + self.horizon > self.offsets[index + 1])
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            start, stop = self.offsets[index[first]], self.offsets[index[first] + 1]
            raise DataError(
                f"a forecast from row {origins[first] - start} of series {self.names[index[first]]!r} "
                f"({stop - start} rows) needs {self.context} rows before it and {self.horizon} from it on"
            )
        return self._with(origins)

    def _with(self, origins: np.ndarray) -> WindowSet:
        part = object.__new__(WindowSet)
        part.__dict__.update(self.__dict__, origins=origins)
        return part

    def within(self, begin: np.ndarray, end: np.ndarray, stride: int = 1) -> WindowSet:
        """The windows with something to learn from whose horizon lies wholly in the rows `begin[s]` to `end[s]`.

        Contexts may reach back before `begin`.  Only the origins of these windows are made, every `stride`-th of them,
        so that a part of a long series costs what it holds.
        """
        parts, count, step = [], 0, stride if self.observed is None else 1
        for start, first, stop in zip(self.offsets[:-1], begin, end, strict=True):
            origins = np.arange(max(start + self.context, first), stop - self.horizon + 1, dtype=np.int64)
            parts.append(origins if step == 1 else origins[-count % step :: step].copy())
            count += len(origins)
            del origins
        origins = parts.pop() if len(parts) == 1 else np.concatenate(parts)
        return self._with(origins if self.observed is None else self._informative(origins)[::stride].copy())

    def split(self, cuts: Cuts) -> tuple[WindowSet, WindowSet, WindowSet]:
        """Training, validation and test windows.

        The horizon of a window lies wholly in its part; windows whose horizon lies across a cut are left out, so no
        target of one part is a target of another.  Contexts may reach back into earlier parts.

        Raises:
            DataError: no training window is left.
        """
        series = self.series_of()
        end, train, validation = self.origins + self.horizon, cuts.train[series], cuts.validation[series]
        parts = (
            self.subset(end <= train),
            self.subset((self.origins >= train) & (end <= validation)),
            self.subset(self.origins >= validation),
        )
        self.check_training(parts[0], cuts)
        return parts

    def check_training(self, train: WindowSet, cuts: Cuts) -> None:
        """Refuse an empty training part.

        Raises:
            DataError: it is empty; the message says what the windows need.
        """
        if len(train):
            return
        self._check_length()
        rows = int((cuts.train - self.offsets[:-1]).max())
        if rows < self.context + self.horizon:
            raise DataError(
                f"the longest training part has {rows} rows, but a window needs {self.context + self.horizon}: "
                f"context {self.context} + horizon {self.horizon}; shorten them or the validation and test parts"
            )
        raise DataError("no window has an observed target both in its context and in its horizon")

    def batches(self, size: int, order: np.ndarray | None = None) -> list[np.ndarray]:
        """Indices of all windows in runs of `size`, the last maybe shorter; `order` is a permutation of them."""
        if size < 1:
            raise ConfigError(f"batch_size is {size}, expected at least 1")
        order = np.arange(len(self)) if order is None else order
        return [order[start : start + size] for start in range(0, len(order), size)]

    def gather(self, indices: Any, backend: Backend) -> Batch:
        """The windows of `indices` as one batch on `backend`.

        Args:
            indices: `(B,)` int, a slice, or one int.
            backend: where the batch is made; the first call for a device uploads the series to it.
        """
        xp = backend.xp
        with backend.activate():
            origins = backend.from_host(np.atleast_1d(self.origins[indices]))
            back = origins[None, :] + xp.arange(-self.context, 0)[:, None]  # (T, B)
            ahead = origins[:, None] + xp.arange(self.horizon)[None, :]  # (B, horizon)
            batch, seen = self.take(back, ahead, backend)
            if self.window_scaling != "none":
                x = batch.x
                known = None if seen is None else seen[..., : self.targets]
                if self.carry:
                    stops = backend.from_host(self.context - _spread(self.origins[indices], self.carry))
                    before = (xp.arange(self.context)[:, None] < stops[None, :])[:, :, None]
                    known = xp.broadcast_to(before, x[..., : self.targets].shape) if known is None else known & before
                location, scale = window_statistics(xp, x[..., : self.targets], known, self.window_scaling)
                x[..., : self.targets] = (x[..., : self.targets] - location) / scale
                batch.target = (batch.target - location[:, None]) / scale[:, None]
                batch.location, batch.scale = location, scale
            return self.masked(batch, seen, backend)

    def take(self, back: Array, ahead: Array, backend: Backend) -> tuple[Batch, Array | None]:
        """The values at rows `back` `(T, B)` as x and at rows `ahead` `(N, horizon)` as targets and future covariates.

        Returns:
            the batch, which `masked` completes; and, where gaps are masked, what of x was observed.
        """
        xp = backend.xp
        values, observed = self._on(backend)
        x, later = xp.take(values, back, axis=0), xp.take(values, ahead, axis=0)
        batch = Batch(x, xp.ascontiguousarray(later[..., : self.targets]))
        if self.future:
            batch.future = xp.ascontiguousarray(later[..., self.targets + self.past :])
        if observed is None:
            return batch, None
        batch.weight = xp.take(observed, ahead, axis=0)[..., : self.targets].astype(values.dtype)
        return batch, xp.take(observed, back, axis=0)[..., : self.targets + self.past] if self.mask else None

    def masked(self, batch: Batch, seen: Array | None, backend: Backend) -> Batch:
        """The batch with what tells observed from missing, and zeros for what is missing."""
        xp, x = backend.xp, batch.x
        if self.mask:
            if seen is None:
                seen = xp.ones((*x.shape[:2], self.targets + self.past), dtype=bool)
            x[..., : self.targets + self.past] *= seen
            batch.x = xp.concatenate([x, seen.astype(x.dtype)], axis=-1)
        if batch.weight is not None:
            batch.target *= batch.weight
        return batch

    def _on(self, backend: Backend) -> tuple[Array, Array | None]:
        """The series on a device, uploaded at the first call."""
        if backend.device not in self._resident:
            observed = None if self.observed is None else backend.from_host(self.observed)
            self._resident[backend.device] = (backend.from_host(self.values), observed)
        return self._resident[backend.device]


def _spread(origins: Any, most: int) -> np.ndarray:
    """A number from 0 to `most` for each origin, spread evenly by multiplicative hashing (Knuth, TAOCP 3, 6.4)."""
    words = np.atleast_1d(origins).astype(np.uint64) * np.uint64(2654435761) & np.uint64(0xFFFFFFFF)
    return (words * np.uint64(most + 1) >> np.uint64(32)).astype(np.int64)


def window_set(
    series: SeriesSet,
    scale: Callable[[np.ndarray, np.ndarray, Any], np.ndarray],
    *,
    context: int,
    horizon: int,
    cuts: Cuts | None = None,
    stride: int = 1,
    window_scaling: str = "none",
    carry: int = 0,
    dtype: Any = np.float32,
    origins: np.ndarray | None = None,
) -> WindowSet:
    """Fill, scale and window a set of series.

    Args:
        series: raw values, NaN where missing.
        scale: `Scaler.transform` of a scaler fitted on training rows only.
        cuts: gaps are filled without looking across these.
    """
    values = series.filled() if cuts is None else series.filled((cuts.train, cuts.validation))
    observed = ~np.isnan(series.values) if series.has_missing else None
    return WindowSet(
        scale(values, series.offsets, dtype),
        series.offsets,
        context=context,
        horizon=horizon,
        targets=series.targets,
        past=series.past,
        future=series.future,
        observed=observed,
        stride=stride,
        window_scaling=window_scaling,
        carry=carry,
        mask=series.missing == "mask",
        names=series.names,
        origins=origins,
    )
