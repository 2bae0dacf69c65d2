"""Windows of series: a context that is seen and a horizon that is to be forecast, as index arithmetic on one array.

Nothing is stored per window but the row where its horizon begins, so memory grows with the series and not with series
times window.  On a GPU the series are uploaded once, and batches are gathered there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

import numpy as np

from gpulstm.arrays.backend import Array, Backend
from gpulstm.data.scaling import check_window_kind, window_statistics
from gpulstm.data.series import SeriesSet, spans
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
        moved: the columns of x that were moved and divided, and their location and scale, `(B, columns)`, or None.
        read: how many steps at the end of x have a forecast each; target, future and weight are `(read*B, ...)` then,
            step after step.  None: the last step alone.
        state_at: steps of x after which the state goes on to the next batch, or None where batches do not hang
            together.
        fresh: `(B,)` bool on the host, which rows begin from the state of zeros; with `state_at` only.
    """

    x: Array
    target: Array
    future: Array | None = None
    weight: Array | None = None
    location: Array | None = None
    scale: Array | None = None
    moved: tuple[list[int], Array, Array] | None = None
    read: int | None = None
    state_at: int | None = None
    fresh: np.ndarray | None = None


@dataclass(eq=False)
class WindowSet:
    """Windows over one or many series.

    A window is known by its origin: the row where its horizon begins.  Its context is the `context` rows before.

    Args:
        values: `(rows, features)`, scaled, without NaN, in the dtype of the model; columns as in `SeriesSet`.
        offsets: `(series + 1,)` int.
        context, horizon: lengths in rows.
        targets, past, future: how many columns play each role.
        observed: `(rows, features)` bool, False where a value was missing before it was filled, or None.
        stride: rows between the origins of neighboring windows.
        window_scaling: `"none"`, `"standard"`, `"mean"` or `"last"`; see `scaling.window_statistics`.
        moved: past covariates, by column, that are scaled with their window as the targets are.
        scale_lag: location and scale of a window come from its context up to 0 to `scale_lag` rows before its end, so
            that a network learns to go on after the rows that set them; how many is a fixed function of the origin.
        mask: whether x also tells, for each target and past covariate, whether it was observed (1) or not (0).
        last: `(rows, targets + past)` int64, the last observed row up to each row, where gaps are filled by lines to
            later values: a window then sees, in a gap that reaches its origin, that row's value instead.
        least: rows that a series has to have before an origin, where it is too short for a whole context; the rows
            before its first one are then its first one again, and count as missing.  0: a whole context.
        names: of the series, by default their numbers.
        origins: `(N,)` rows, where not all windows are asked for.
        resident: values and `observed` by device, once a batch was gathered there; shared by all parts.

    Raises:
        ConfigError: lengths below 1.
        DataError: no series is long enough for one window.
    """

    values: np.ndarray
    offsets: np.ndarray
    _: KW_ONLY
    context: int
    horizon: int
    targets: int = 1
    past: int = 0
    future: int = 0
    observed: np.ndarray | None = None
    stride: int = 1
    window_scaling: str = "none"
    moved: tuple[int, ...] = ()
    scale_lag: int = 0
    mask: bool = False
    last: np.ndarray | None = None
    least: int = 0
    names: Sequence[str] = ()
    origins: np.ndarray = None  # type: ignore[assignment] # an array once it is made
    resident: dict[str, tuple[Array, Array | None]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name in ("context", "horizon", "stride"):
            setattr(self, name, count(name, getattr(self, name)))
        columns = self.targets + self.past + self.future
        if self.values.ndim != 2 or self.values.shape[1] != columns or self.targets < 1:
            raise ShapeError(
                f"values have shape {self.values.shape}, expected (rows, {columns}): {self.targets} targets, "
                f"{self.past} past and {self.future} future covariates"
            )
        if self.observed is not None and self.observed.shape != self.values.shape:
            raise ShapeError(f"observed has shape {self.observed.shape}, expected {self.values.shape} as the values")
        self.offsets = np.asarray(self.offsets, dtype=np.int64)
        check_window_kind(self.window_scaling)
        self.scale_lag = count("scale_lag", self.scale_lag, at_least=0)
        if self.scale_lag >= self.context:
            raise ConfigError(f"scale_lag is {self.scale_lag}, expected less than the context of {self.context}")
        self.least = min(count("min_context", self.least, at_least=0) or self.context, self.context)
        self.names = tuple(self.names) or tuple(map(str, range(len(self.offsets) - 1)))
        self.origins = self._all_origins() if self.origins is None else np.asarray(self.origins, dtype=np.int64)

    def _all_origins(self) -> np.ndarray:
        """Origins of all whole windows with something to learn from, `stride` apart in each series."""
        first, last = self._firsts(), self.offsets[1:] - self.horizon
        sizes = np.maximum((last - first) // self.stride + 1, 0)
        place, _ = spans(np.zeros_like(sizes), sizes)
        origins = np.repeat(first, sizes) + self.stride * place
        self._check_length()
        origins = self._informative(origins)
        if not origins.size:
            raise DataError("no window has an observed target both in its context and in its horizon")
        return origins

    def _firsts(self) -> np.ndarray:
        """`(series,)`: the first origin of each series: after a whole context, or after `least` rows of a short one."""
        starts, lengths = self.offsets[:-1], np.diff(self.offsets)
        short = lengths < self.context + self.horizon
        return starts + np.where(short, self.least, self.context)

    def _check_length(self) -> None:
        longest = int(np.diff(self.offsets).max())
        if longest < self.least + self.horizon:
            raise DataError(
                f"the longest series has {longest} rows, but a window needs {self.least + self.horizon}: "
                f"{self.least} of the context of {self.context} + horizon {self.horizon}"
            )

    def _informative(self, origins: np.ndarray) -> np.ndarray:
        """The origins with an observed target in the horizon and, where gaps are masked, one in the context."""
        if self.observed is None:
            return origins
        seen = self.observed[:, : self.targets].any(axis=1)
        before = np.concatenate([[0], np.cumsum(seen, dtype=np.int64)])  # observed rows before each row
        useful = before[origins + self.horizon] > before[origins]
        if self.mask:
            starts = self.offsets[np.searchsorted(self.offsets, origins, side="right") - 1]
            useful &= before[origins] > before[np.maximum(origins - self.context, starts)]
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
        short = np.diff(self.offsets) < self.least + self.horizon
        return [name for name, is_short in zip(self.names, short, strict=True) if is_short]

    def series_of(self, indices: Any = slice(None)) -> np.ndarray:
        """`(N,)` int64: the series that each window belongs to."""
        return np.searchsorted(self.offsets, self.origins[indices], side="right") - 1

    def within(self, begin: np.ndarray, end: np.ndarray, stride: int = 1) -> WindowSet:
        """The windows with something to learn from whose horizon lies wholly in the rows `begin[s]` to `end[s]`.

        Contexts may reach back before `begin`.  What lies on a device is shared.  Only the origins of these windows are
        made, every `stride`-th of them, so that a part of a long series costs what it holds.
        """
        first, last = np.maximum(self._firsts(), begin), np.asarray(end) - self.horizon + 1
        if len(first) == 1 and self.observed is None:
            return replace(self, origins=np.arange(int(first[0]), int(last[0]), stride, dtype=np.int64))
        origins, _ = spans(first, last)
        origins = origins if self.observed is None else self._informative(origins)
        return replace(self, origins=origins[::stride].copy() if stride > 1 else origins)

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
        size = count("batch_size", size)
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
            inside = self._inside(indices, back, backend)
            if inside is not None:
                back = xp.maximum(back, inside[1][None, :])
            ahead = origins[:, None] + xp.arange(self.horizon)[None, :]  # (B, horizon)
            batch, seen = self.take(back, ahead, backend)
            if self.last is not None:
                self._hide(
                    batch.x, back, backend.from_host(self.last[np.atleast_1d(self.origins[indices]) - 1]), backend
                )
            if inside is not None:
                here = xp.broadcast_to(inside[0][:, :, None], (*back.shape, self.targets + self.past))
                seen = here if seen is None else seen & here
            if self.window_scaling != "none":
                columns, x = [*range(self.targets), *self.moved], batch.x
                context = x[..., columns]
                known = None if seen is None else seen[..., columns]
                if self.scale_lag:
                    stops = backend.from_host(self.context - _spread(self.origins[indices], self.scale_lag))
                    before = (xp.arange(self.context)[:, None] < stops[None, :])[:, :, None]
                    known = xp.broadcast_to(before, context.shape) if known is None else known & before
                location, scale = window_statistics(xp, context, known, self.window_scaling)
                x[..., columns] = (context - location) / scale
                batch.moved = columns, location, scale
                batch.location, batch.scale = location[:, : self.targets], scale[:, : self.targets]
                batch.target = (batch.target - batch.location[:, None]) / batch.scale[:, None]
            return self.masked(batch, seen, backend)

    def _hide(self, x: Array, back: Array, last: Array, backend: Backend) -> None:
        """Put the last observed values, at rows `last` `(B, columns)`, where x holds parts of lines to later ones."""
        xp, width = backend.xp, last.shape[1]
        values, _ = self._on(backend)
        known = xp.take_along_axis(values[:, :width], last, axis=0)
        x[..., :width] = xp.where(back[:, :, None] > last[None], known[None], x[..., :width])

    def _inside(self, indices: Any, back: Array, backend: Backend) -> tuple[Array, Array] | None:
        """Which rows of the contexts lie in their series, `(T, B)` bool, and where those begin; None if all do."""
        if self.least == self.context:
            return None
        origins = np.atleast_1d(self.origins[indices])
        starts = self.offsets[np.searchsorted(self.offsets, origins, side="right") - 1]
        if not (origins - self.context < starts).any():
            return None
        first = backend.from_host(starts)
        return back >= first[None, :], first

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
        if backend.device not in self.resident:
            observed = None if self.observed is None else backend.from_host(self.observed)
            self.resident[backend.device] = (backend.from_host(self.values), observed)
        return self.resident[backend.device]


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
    dtype: Any = np.float32,
    origins: np.ndarray | None = None,
    least: int = 0,
) -> WindowSet:
    """Fill, scale and window a set of series; what else a `WindowSet` has comes with `dataclasses.replace`.

    Args:
        series: raw values, NaN where missing.
        scale: `Scaler.transform` of a scaler fitted on training rows only.
        context, horizon, origins, least: as `WindowSet`.
        cuts: gaps are filled without looking across these.
        dtype: of the windows.

    Raises:
        DataError: a window would reach over the ends of its series.
    """
    if origins is not None:
        _check_origins(series, origins, least or context, horizon)
    values = series.filled() if cuts is None else series.filled((cuts.train, cuts.validation))
    observed = series.observed
    return WindowSet(
        scale(values, series.offsets, dtype),
        series.offsets,
        context=context,
        horizon=horizon,
        targets=series.targets,
        past=series.past,
        future=series.future,
        moved=tuple(at for at in range(series.targets, series.targets + series.past) if at not in series.kept),
        observed=observed,
        mask=series.missing == "mask",
        last=last_observed(series) if series.missing == "interpolate" and observed is not None else None,
        least=least,
        names=series.names,
        origins=origins,  # type: ignore[arg-type] # None: all of them
    )


def last_observed(series: SeriesSet) -> np.ndarray:
    """The last observed row up to each row, of targets and past covariates `(rows, columns)`; the first one before."""
    width = series.targets + series.past
    rows = np.where(np.isnan(series.values[:, :width]), -1, np.arange(series.rows)[:, None])
    starts = np.repeat(series.offsets[:-1], series.lengths)[:, None]
    return np.maximum(np.maximum.accumulate(rows, axis=0), starts)


def _check_origins(series: SeriesSet, origins: np.ndarray, context: int, horizon: int) -> None:
    """Refuse origins whose windows would reach over the ends of their series."""
    offsets = series.offsets
    index = np.clip(np.searchsorted(offsets, origins, side="right") - 1, 0, len(series) - 1)
    bad = (origins - context < offsets[index]) | (origins + horizon > offsets[index + 1])
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        start, stop = offsets[index[first]], offsets[index[first] + 1]
        raise DataError(
            f"a forecast from row {origins[first] - start} of series {series.names[index[first]]!r} "
            f"({stop - start} rows) needs {context} rows before it and {horizon} from it on"
        )
