"""Losses: what training minimizes, and how the head's numbers become a forecast.

Each loss is an object.  Called, it gives its value and the gradient with respect to `raw`, what the head put out; both
stay on the device.  `predict` reads `raw` as a forecast, in the scale of `raw`.

Each runs by the formulas in `kernels/equations/losses.h`: on the CPU as one native pass, with sums in float64, on a GPU
as one kernel and a sum.  `_each` serves where an installation has no native code, and for losses defined elsewhere.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from gpulstm import validate
from gpulstm.arrays import native
from gpulstm.arrays.backend import Array
from gpulstm.arrays.devices import backend_of, one_device
from gpulstm.arrays.dtypes import is_half
from gpulstm.errors import ConfigError, DTypeError, ShapeError

if TYPE_CHECKING:
    from gpulstm.arrays.cupy_backend import CupyBackend


class Loss(ABC):
    """Base of all losses: checks, weights and the mean; a subclass says what one target costs.

    Attributes:
        name: as in a checkpoint and on the command line.
        on_device: for a class of your own, set to True: calling it only enqueues the same work on the device each time,
            waits for nothing and uses no cuBLAS, so a training pass with it may be replayed as a CUDA graph.
    """

    name: ClassVar[str]
    on_device: ClassVar[bool] = False

    @property
    def outputs(self) -> int:
        """P, the numbers that the head gives per target and step of the horizon."""
        return 1

    @property
    def levels(self) -> tuple[float, ...]:
        """The quantile levels that `predict` gives; empty for a loss that knows none."""
        return ()

    def __call__(self, raw: Array, target: Array, weight: Array | None = None) -> tuple[Array, Array]:
        """The loss and its gradient.

        Args:
            raw: `(B, horizon, targets, P)`, floating.
            target: `(B, horizon, targets)`; class indices for `SoftmaxCrossEntropy`.
            weight: None for all ones, or an array that broadcasts to `target`, of numbers not below zero: zero where a
                target is missing, and what `target` holds there (a NaN, say) is not looked at.

        Returns:
            The mean over all targets, weighted, as a 0-d array on the device (zero where all weights are), and its
            gradient with respect to `raw`, in the shape and dtype of `raw`.  16 bits are computed in float32.

        Raises:
            ShapeError: the shapes do not fit each other or `outputs`, or there is no target at all.
            DTypeError: `raw` is not floating.
            DeviceError: the arrays live on different devices.
        """
        with one_device(raw, target, *(() if weight is None else (weight,))) as backend:
            xp = backend.xp
            self._check_raw(raw)
            if tuple(target.shape) != tuple(raw.shape[:-1]):
                raise ShapeError(f"target has shape {tuple(target.shape)}, expected {tuple(raw.shape[:-1])} to fit raw")
            if target.size == 0:
                raise ShapeError(f"target has shape {tuple(target.shape)}, expected at least one target")
            dtype = xp.float32 if is_half(raw.dtype) else raw.dtype
            z, y = raw.astype(dtype, copy=False), target.astype(dtype, copy=False)
            w = None if weight is None else self._broadcast(xp, weight, target.shape, dtype)
            fused = self._one_kernel(cast("CupyBackend", backend), z, y, w) if backend.is_cuda else self._fused(z, y, w)
            if fused is not None:
                value, slope = fused
            elif w is None:
                each, slope = self._each(xp, z, y)
                value = each.mean()
                slope *= 1.0 / target.size
            else:
                each, slope = self._each(xp, z, xp.where(w > 0, y, xp.zeros((), dtype)))
                total = w.sum()
                share = w / xp.where(total > 0, total, xp.ones((), dtype))
                value = (each * share).sum()
                slope *= share[..., None]
            return xp.asarray(value), slope.astype(raw.dtype, copy=False)

    def _fused(self, z: Array, y: Array, w: Array | None) -> tuple[Array, Array] | None:
        """Value and gradient by one native pass, or None where there is none for this loss, dtype or installation."""
        module, options_of = native.load(), _FUSED.get(type(self))
        if module is None or options_of is None or z.dtype not in (np.float32, np.float64):
            return None
        run = module.loss_double if z.dtype == np.float64 else module.loss_float
        slope = np.empty(z.shape, z.dtype)
        arrays = (np.ascontiguousarray(z), np.ascontiguousarray(y), None if w is None else np.ascontiguousarray(w))
        return np.asarray(run(self.name, *arrays, slope, options_of(self)), z.dtype), slope

    def _one_kernel(self, backend: CupyBackend, z: Array, y: Array, w: Array | None) -> tuple[Array, Array] | None:
        """Value and gradient by one kernel and sums, or None for a loss that is not of this package."""
        if type(self) not in _FORMULAS:
            return None
        cost, slope = backend.empty(y.shape, z.dtype), backend.empty(z.shape, z.dtype)
        total = z.dtype.type(y.size) if w is None else w.sum()
        weight = z.dtype.type(1) if w is None else w
        _kernel(backend, self)(backend.xp.ascontiguousarray(z), y, weight, total, cost, slope)
        return cost.sum(), slope

    @abstractmethod
    def _each(self, xp: Any, z: Array, y: Array) -> tuple[Array, Array]:
        """What each target costs, in the shape of `y`, and the slope of that along `z`, a new array like `z`."""

    def predict(self, raw: Array) -> dict[str, Array]:
        """`raw` `(B, horizon, targets, P)` as a forecast: `{"mean": (B, horizon, targets)}` unless said otherwise."""
        self._check_raw(raw)
        return {"mean": raw[..., 0]}

    def config(self) -> dict[str, Any]:
        """Name and options, as a checkpoint keeps them; `from_config` takes them back."""
        return validate.to_config(self)

    def _check_raw(self, raw: Array) -> None:
        if raw.dtype.kind != "f" and not is_half(raw.dtype):
            raise DTypeError(f"raw has dtype {raw.dtype}, expected a floating one")
        if raw.ndim < 1 or raw.shape[-1] != self.outputs:
            expected = f"(B, horizon, targets, {self.outputs})"
            raise ShapeError(f"raw has shape {tuple(raw.shape)}, expected {expected} for the loss {self.name!r}")

    @staticmethod
    def _broadcast(xp: Any, weight: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        fits = len(weight.shape) <= len(shape) and all(
            size in (1, extent) for size, extent in zip(weight.shape[::-1], shape[::-1], strict=False)
        )
        if not fits:
            raise ShapeError(f"weight has shape {tuple(weight.shape)}, expected one that broadcasts to {tuple(shape)}")
        return xp.broadcast_to(weight.astype(dtype, copy=False), shape)


@dataclass(frozen=True)
class MSE(Loss):
    """Squared error `(raw - target)^2`; its best constant forecast is the mean."""

    name: ClassVar[str] = "mse"

    def _each(self, xp: Any, z: Array, y: Array) -> tuple[Array, Array]:
        error = z[..., 0] - y
        return error * error, 2 * error[..., None]


@dataclass(frozen=True)
class MAE(Loss):
    """Absolute error `|raw - target|`; its best constant forecast is the median, which `predict` calls `"mean"` too.

    The slope at zero error is taken as zero.
    """

    name: ClassVar[str] = "mae"

    def _each(self, xp: Any, z: Array, y: Array) -> tuple[Array, Array]:
        error = z[..., 0] - y
        return xp.abs(error), xp.sign(error)[..., None]


@dataclass(frozen=True)
class Huber(Loss):
    """Squared error near zero and absolute error further out (Huber 1964, "Robust estimation of a location parameter").

    `e^2 / 2` for `|e| <= delta`, else `delta (|e| - delta / 2)`.

    Args:
        delta: where the one goes over into the other, above 0, in the scale of the target.
    """

    name: ClassVar[str] = "huber"
    delta: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "delta", validate.real("delta", self.delta, above=0))

    def _each(self, xp: Any, z: Array, y: Array) -> tuple[Array, Array]:
        error = z[..., 0] - y
        clipped = xp.clip(error, -self.delta, self.delta)
        # clipped * (e - clipped / 2) is e^2 / 2 inside and delta (|e| - delta / 2) outside
        return clipped * (error - 0.5 * clipped), clipped[..., None]


@dataclass(frozen=True)
class Pinball(Loss):
    """Quantile loss (Koenker & Bassett 1978, "Regression quantiles"), the mean over all levels.

    For the level q and the error `e = target - raw`: `q e` for `e > 0`, else `(q - 1) e`.  The slope at zero error is
    taken as zero.  `predict` gives `{"quantiles": (B, horizon, targets, P)}` sorted along the last axis: quantiles of
    one target that came out crossed change places, so that they never cross (the rearrangement of Chernozhukov,
    Fernandez-Val & Galichon 2010, "Quantile and probability curves without crossing", which never moves them further
    from the true ones).

    Args:
        quantiles: P levels, strictly rising, between 0 and 1.
    """

    name: ClassVar[str] = "pinball"
    quantiles: tuple[float, ...] = (0.1, 0.5, 0.9)

    def __post_init__(self) -> None:
        quantiles = validate.levels("quantiles", self.quantiles)
        if not quantiles:
            raise ConfigError("quantiles is empty, expected at least one level between 0 and 1")
        object.__setattr__(self, "quantiles", quantiles)

    @property
    def outputs(self) -> int:
        return len(self.quantiles)

    @property
    def levels(self) -> tuple[float, ...]:
        return self.quantiles

    def _each(self, xp: Any, z: Array, y: Array) -> tuple[Array, Array]:
        level = backend_of(z).constant(self.quantiles, z.dtype.name)
        error = y[..., None] - z
        over, under = (error > 0).astype(z.dtype), (error < 0).astype(z.dtype)
        slope = (under * (1 - level) - over * level) / self.outputs  # d/d raw
        return -(slope * error).sum(axis=-1), slope

    def predict(self, raw: Array) -> dict[str, Array]:
        self._check_raw(raw)
        backend = backend_of(raw)
        with backend.activate():
            return {"quantiles": backend.xp.sort(raw, axis=-1)}


@dataclass(frozen=True)
class GaussianNLL(Loss):
    """Negative logarithm of a normal density whose mean and scale the head gives.

    Of `raw[..., 0:2] = (m, r)` the mean is `m` and the scale is `s = softplus(r) + floor`; the loss is
    `log(2 pi) / 2 + log s + ((target - m) / s)^2 / 2`.  `predict` gives `{"mean", "scale"}`, each
    `(B, horizon, targets)`, and, with levels, `"quantiles": (B, horizon, targets, Q)`, where the quantile of level q is
    `m + s z_q` with the standard normal's `z_q`.

    Args:
        quantiles: Q levels that `predict` gives, strictly rising, between 0 and 1; none by default.
        floor: the smallest scale, above 0, in the scale of the target: it keeps the loss bounded below.
    """

    name: ClassVar[str] = "gaussian"
    quantiles: tuple[float, ...] = ()
    floor: float = 1e-4

    def __post_init__(self) -> None:
        object.__setattr__(self, "quantiles", validate.levels("quantiles", self.quantiles))
        object.__setattr__(self, "floor", validate.real("floor", self.floor, above=0))

    @property
    def outputs(self) -> int:
        return 2

    @property
    def levels(self) -> tuple[float, ...]:
        return self.quantiles

    def _each(self, xp: Any, z: Array, y: Array) -> tuple[Array, Array]:
        scale = self._scale(xp, z[..., 1])
        standard = (y - z[..., 0]) / scale
        each = xp.log(scale) + 0.5 * standard * standard + 0.5 * math.log(2 * math.pi)
        slope = xp.empty_like(z)
        slope[..., 0] = -standard / scale
        sigmoid = 0.5 + 0.5 * xp.tanh(0.5 * z[..., 1])  # the slope of softplus
        slope[..., 1] = (1 - standard * standard) / scale * sigmoid
        return each, slope

    def _scale(self, xp: Any, r: Array) -> Array:
        return xp.logaddexp(r, xp.zeros((), r.dtype)) + self.floor

    def predict(self, raw: Array, quantiles: Sequence[float] | None = None) -> dict[str, Array]:
        """The forecast; `quantiles` asks for other levels than those of the loss."""
        self._check_raw(raw)
        levels = self.quantiles if quantiles is None else validate.levels("quantiles", quantiles)
        backend = backend_of(raw)
        xp = backend.xp
        with backend.activate():
            results = {"mean": raw[..., 0], "scale": self._scale(xp, raw[..., 1])}
            if levels:
                import statistics  # here, because it takes a while to import

                normal = statistics.NormalDist()
                z = xp.asarray([normal.inv_cdf(level) for level in levels], dtype=raw.dtype)
                results["quantiles"] = results["mean"][..., None] + results["scale"][..., None] * z
            return results


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """Negative logarithm of the probability that softmax gives to the true class.

    `target` holds class indices 0 to `classes - 1`.  An index outside of that makes the loss NaN, on every device: to
    refuse it here would mean to wait for the device.  `predict` gives `{"probabilities": (B, horizon, targets, P)}`.

    Args:
        classes: P, at least 2.
    """

    name: ClassVar[str] = "softmax"
    classes: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", validate.count("classes", self.classes, at_least=2))

    @property
    def outputs(self) -> int:
        return self.classes

    def _each(self, xp: Any, z: Array, y: Array) -> tuple[Array, Array]:
        log_probability = self._log_softmax(xp, z)
        hit = xp.arange(self.classes, dtype=z.dtype) == y[..., None]
        each = -xp.where(hit, log_probability, xp.zeros((), z.dtype)).sum(axis=-1)
        each = xp.where(hit.any(axis=-1), each, xp.asarray(math.nan, z.dtype))
        return each, xp.exp(log_probability) - hit

    @staticmethod
    def _log_softmax(xp: Any, z: Array) -> Array:
        shifted = z - z.max(axis=-1, keepdims=True)  # the largest is 0, so exp cannot overflow
        return shifted - xp.log(xp.exp(shifted).sum(axis=-1, keepdims=True))

    def predict(self, raw: Array) -> dict[str, Array]:
        self._check_raw(raw)
        backend = backend_of(raw)
        with backend.activate():
            return {"probabilities": backend.xp.exp(self._log_softmax(backend.xp, raw))}


# Losses that have a native pass, each with the numbers it takes; by exact type, since a subclass may cost otherwise.
_FUSED: dict[type[Loss], Callable[[Any], tuple[float, ...]]] = {
    MSE: lambda loss: (),
    MAE: lambda loss: (),
    Huber: lambda loss: (loss.delta,),
    Pinball: lambda loss: (*[(1 - q) / loss.outputs for q in loss.levels], *[q / loss.outputs for q in loss.levels]),
    GaussianNLL: lambda loss: (loss.floor,),
    SoftmaxCrossEntropy: lambda loss: (),
}

# Of the same losses what a GPU computes for one target, from the numbers `at` to their slopes `to`.
_FORMULAS: dict[type[Loss], Callable[[Any], str]] = {
    MSE: lambda loss: "gl_mse(at[0], goal, to[0])",
    MAE: lambda loss: "gl_mae(at[0], goal, to[0])",
    Huber: lambda loss: f"gl_huber(at[0], goal, T({loss.delta!r}), to[0])",
    Pinball: lambda loss: " + ".join(
        f"gl_pinball(at[{p}], goal, T({(1 - q) / loss.outputs!r}), T({q / loss.outputs!r}), to[{p}])"
        for p, q in enumerate(loss.levels)
    ),
    GaussianNLL: lambda loss: f"gl_gaussian(at[0], at[1], goal, T({loss.floor!r}), to[0], to[1])",
    SoftmaxCrossEntropy: lambda loss: f"gl_softmax(at, goal, {loss.classes}L, to)",
}


@functools.cache
def _kernel(backend: CupyBackend, loss: Loss) -> Any:
    """The kernel of a loss: an element is a target, its cost and slopes come out with their share of the mean."""
    size = loss.outputs
    body = f"""
        const T share = weight / (total > T(0) ? total : T(1)), goal = weight > T(0) ? target : T(0);
        const T* at = &numbers[i * {size}];
        T* to = &slope[i * {size}];
        cost = share * ({_FORMULAS[type(loss)](loss)});
        for (int p = 0; p < {size}; ++p) to[p] *= share;
    """
    inputs, outputs = "raw T numbers, T target, T weight, T total", "T cost, raw T slope"
    return backend.elementwise(f"gpulstm_{loss.name}", inputs, outputs, body, headers=("equations/losses.h",))


LOSSES: tuple[type[Loss], ...] = (MSE, MAE, Huber, Pinball, GaussianNLL, SoftmaxCrossEntropy)


def from_config(config: Mapping[str, Any]) -> Loss:
    """The loss that `Loss.config` described."""
    return validate.from_config("loss", LOSSES, config)
