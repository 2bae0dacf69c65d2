"""Optimizers over flat buffers: one step is one fused kernel on a GPU and one fused native pass on the CPU.

The arithmetic of one element stands in `kernels/equations/optimizers.h` for both and, operation for operation in the
same order, in the `_sweep` methods here for NumPy, which serve where an installation has no native code.  On the CPU
the two give the same bits.  All follow PyTorch's formulas, so that a run can be compared with one there.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from gpulstm import validate
from gpulstm.arrays import native
from gpulstm.arrays.backend import Array
from gpulstm.arrays.devices import backend_of, to_device
from gpulstm.arrays.params import ParamDict
from gpulstm.arrays.threads import get_num_threads
from gpulstm.errors import CheckpointError, ConfigError, DTypeError, ShapeError

BLOCK = 32768  # elements a NumPy sweep works on at a time: weights, moments and scratch of a block stay in the L2 cache
_DOT = 8192  # elements of one product in a norm on the CPU: few enough that BLAS does not split them over threads
_PARTIALS = 16384  # partial sums of a norm on the GPU


@dataclass(kw_only=True)
class Optimizer(ABC):
    """Base of all optimizers.

    Attributes:
        name: as in a checkpoint and on the command line.
        steps: how many steps were taken.
    """

    name: ClassVar[str]
    steps: int = field(default=0, init=False)
    _moments: dict[str, Array] = field(default_factory=dict, init=False, repr=False, compare=False)
    _scratch: tuple[Array, ...] = field(default=(), init=False, repr=False, compare=False)
    _one: Array = field(default=None, init=False, repr=False, compare=False)

    def init(self, params: ParamDict) -> None:
        """Allocate the moments for `params`, as zeros, and count steps from zero.

        Raises:
            DTypeError: the parameters are float16, whose steps would round away the small updates.
        """
        flat, backend = params.flat, params.backend
        if flat.dtype not in (np.float32, np.float64):
            raise DTypeError(f"parameters have dtype {flat.dtype}, expected float32 or float64 to train them")
        self.steps = 0
        self._moments = {name: backend.zeros(flat.shape, flat.dtype) for name in self._moment_names()}
        if backend.is_cuda:
            self._one = backend.from_host(np.ones(1), flat.dtype)
        else:
            self._scratch = tuple(np.empty(min(BLOCK, flat.size), flat.dtype) for _ in range(2))

    def step(self, params: ParamDict, grads: ParamDict, *, rate: float, scale: Array | None = None) -> None:
        """Change `params` in place by one step.

        Args:
            params: those that `init` saw.
            grads: their gradients, left as they are.
            rate: learning rate of this step, at least 0.
            scale: 0-d array on the device by which the gradients are multiplied, as `clip_scale` gives it; a NaN leaves
                weights and moments untouched.

        Raises:
            ConfigError: `init` was not called, or `rate` is negative or not finite.
            ShapeError: `grads` has another layout than `params`.
        """
        if set(self._moments) != set(self._moment_names()) or (self._one is None and not self._scratch):
            raise ConfigError(f"the optimizer {self.name!r} does not know its parameters yet; call init(params) first")
        if not (rate >= 0 and math.isfinite(rate)):
            raise ConfigError(f"rate is {rate!r}, expected a finite number of at least 0")
        if grads.flat.shape != params.flat.shape or grads.flat.dtype != params.flat.dtype:
            raise ShapeError(
                f"grads is {grads.flat.dtype} {grads.flat.shape}, expected {params.flat.dtype} {params.flat.shape}"
            )
        self.steps += 1
        coefficients = self._coefficients(float(rate))
        if params.backend.is_cuda:
            self._launch(params.backend, params.flat, grads.flat, scale, coefficients)
        else:
            self._sweep_all(params.flat, grads.flat, 1.0 if scale is None else float(scale), coefficients)

    def arrays(self) -> dict[str, Array]:
        """The moments by name, flat arrays on the device in the layout of the parameters."""
        return dict(self._moments)

    def scalars(self) -> dict[str, Any]:
        """What else a run needs to go on as if it had not stopped."""
        return {"steps": self.steps}

    def restore(self, arrays: Mapping[str, Array], scalars: Mapping[str, Any]) -> None:
        """Take back what `arrays` (on any device) and `scalars` gave; `init` comes first.

        Raises:
            CheckpointError: the moments are those of another optimizer or another model; nothing is changed then.
        """
        if arrays.keys() != self._moments.keys():
            raise CheckpointError(
                f"the optimizer {self.name!r} keeps {sorted(self._moments) or 'no moments'}, the checkpoint has "
                f"{sorted(arrays) or 'none'}"
            )
        for name, moment in self._moments.items():
            if arrays[name].shape != moment.shape or arrays[name].dtype != moment.dtype:
                raise CheckpointError(
                    f"moment {name!r} of the checkpoint is {arrays[name].dtype} {arrays[name].shape}, expected "
                    f"{moment.dtype} {moment.shape}: it belongs to another model"
                )
        steps = scalars.get("steps")
        if not isinstance(steps, int) or steps < 0:
            raise CheckpointError(f"the checkpoint's count of optimizer steps is {steps!r}, expected a whole number")
        for name, moment in self._moments.items():
            moment[...] = to_device(arrays[name], backend_of(moment))
        self.steps = steps

    def config(self) -> dict[str, Any]:
        """Name and options, as a checkpoint keeps them; `from_config` takes them back."""
        return validate.to_config(self)

    @abstractmethod
    def _moment_names(self) -> tuple[str, ...]:
        """Names of the moments that these options need."""

    @abstractmethod
    def _coefficients(self, rate: float) -> tuple[float, ...]:
        """The numbers that hold for all elements of this step, in the order of the kernel's arguments."""

    @abstractmethod
    def _call(self) -> tuple[str, tuple[str, ...]]:
        """The function of `kernels/equations/optimizers.h` with its template arguments, and its moments, in order."""

    @abstractmethod
    def _sweep(self, w: Array, g: Array, moments: dict[str, Array], s: tuple[Array, ...], *numbers: float) -> None:
        """One block on the CPU, in place; `g` may be `s[0]` or a view of the gradients, which stay as they are."""

    def _launch(self, backend: Any, w: Array, g: Array, scale: Array | None, numbers: tuple[float, ...]) -> None:
        function, moments = self._call()
        names = self._moment_names()
        absent = "".join(f"T {name} = 0; " for name in moments if name not in names)  # kept in a register, then dropped
        arguments = ", ".join(["w", *moments, "g * scale[0]", *(f"a{index}" for index in range(len(numbers)))])
        kernel = backend.elementwise(
            f"gpulstm_{self.name}",
            "T g, raw T scale, " + ", ".join(f"T a{index}" for index in range(len(numbers))),
            ", ".join(["T w", *(f"T {name}" for name in names)]),
            f"if (scale[0] == scale[0]) {{ {absent}{function}({arguments}); }}",
            headers=("equations/optimizers.h",),
        )
        with backend.activate():
            factor = self._one if scale is None else scale.reshape(1)
            kernel(g, factor, *numbers, w, *self._moments.values())

    def _sweep_all(self, w: Array, g: Array, factor: float, numbers: tuple[float, ...]) -> None:
        if math.isnan(factor):
            return
        module = native.load()
        if module is not None:
            function, names = self._call()
            run = module.step_double if w.dtype == np.float64 else module.step_float
            run(function, w, g, [self._moments.get(name) for name in names], factor, numbers, get_num_threads())
            return
        for start in range(0, w.size, BLOCK):
            stop = min(start + BLOCK, w.size)
            s = tuple(scratch[: stop - start] for scratch in self._scratch)
            gradient = g[start:stop] if factor == 1.0 else np.multiply(g[start:stop], factor, out=s[0])
            self._sweep(w[start:stop], gradient, {n: m[start:stop] for n, m in self._moments.items()}, s, *numbers)


def _decayed(w: Array, g: Array, decay: float, s: tuple[Array, ...]) -> Array:
    """`g + decay * w` in `s[0]`, or `g` itself where there is no decay."""
    if decay == 0.0:
        return g
    np.multiply(w, decay, out=s[1])
    return np.add(g, s[1], out=s[0])


@dataclass(kw_only=True)
class SGD(Optimizer):
    """Gradient descent, with momentum in the form of Sutskever et al. 2013 as PyTorch writes it.

    `g += weight_decay w; v = momentum v + g; w -= rate v` (with Nesterov's momentum `w -= rate (g + momentum v)`).

    Args:
        momentum: share of the last direction that stays, 0 to below 1.
        nesterov: look ahead along the momentum; needs one above 0.
        weight_decay: L2 penalty, at least 0.
    """

    name: ClassVar[str] = "sgd"
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        self.momentum = validate.real("momentum", self.momentum, at_least=0, below=1)
        self.nesterov = validate.flag("nesterov", self.nesterov)
        self.weight_decay = validate.real("weight_decay", self.weight_decay, at_least=0)
        if self.nesterov and self.momentum == 0:
            raise ConfigError("nesterov is True but momentum is 0, expected a momentum above 0 with it")

    def _moment_names(self) -> tuple[str, ...]:
        return ("velocity",) if self.momentum else ()

    def _coefficients(self, rate: float) -> tuple[float, ...]:
        return rate, self.weight_decay, self.momentum

    def _call(self) -> tuple[str, tuple[str, ...]]:
        return f"gl_sgd<T, {_bool(self.momentum > 0)}, {_bool(self.nesterov)}>", ("velocity",)

    def _sweep(self, w: Array, g: Array, moments: dict[str, Array], s: tuple[Array, ...], *numbers: float) -> None:
        rate, decay, momentum = numbers
        g = _decayed(w, g, decay, s)
        if momentum:
            velocity = moments["velocity"]
            velocity *= momentum
            velocity += g
            if self.nesterov:
                np.multiply(velocity, momentum, out=s[1])
                g = np.add(g, s[1], out=s[0])
            else:
                g = velocity
        np.multiply(g, rate, out=s[1])
        w -= s[1]


@dataclass(kw_only=True)
class RMSprop(Optimizer):
    """Gradients divided by the root of their running mean square (Tieleman & Hinton 2012, lecture 6.5), PyTorch's form.

    `v = alpha v + (1 - alpha) g^2; w -= rate g / (sqrt(v) + epsilon)`; centered, the running mean of `g` is squared and
    taken off `v` (Graves 2013, arXiv 1308.0850, equations 38 to 45), and a difference that rounds below 0 counts as 0.

    Args:
        alpha: share of the mean square that stays, 0 to below 1.
        epsilon: above 0; keeps the division finite.
        momentum: 0 to below 1, over the divided gradients.
        centered: divide by the deviation from the mean.
        weight_decay: L2 penalty, at least 0.
    """

    name: ClassVar[str] = "rmsprop"
    alpha: float = 0.99
    epsilon: float = 1e-8
    momentum: float = 0.0
    centered: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        self.alpha = validate.real("alpha", self.alpha, at_least=0, below=1)
        self.epsilon = validate.real("epsilon", self.epsilon, above=0)
        self.momentum = validate.real("momentum", self.momentum, at_least=0, below=1)
        self.centered = validate.flag("centered", self.centered)
        self.weight_decay = validate.real("weight_decay", self.weight_decay, at_least=0)

    def _moment_names(self) -> tuple[str, ...]:
        return ("square", *(("average",) if self.centered else ()), *(("velocity",) if self.momentum else ()))

    def _coefficients(self, rate: float) -> tuple[float, ...]:
        return rate, self.weight_decay, self.alpha, 1 - self.alpha, self.epsilon, self.momentum

    def _call(self) -> tuple[str, tuple[str, ...]]:
        template = f"gl_rmsprop<T, {_bool(self.momentum > 0)}, {_bool(self.centered)}>"
        return template, ("square", "average", "velocity")

    def _sweep(self, w: Array, g: Array, moments: dict[str, Array], s: tuple[Array, ...], *numbers: float) -> None:
        rate, decay, keep, take, epsilon, momentum = numbers
        g, t = _decayed(w, g, decay, s), s[1]
        square = moments["square"]
        square *= keep
        np.multiply(g, g, out=t)
        t *= take
        square += t
        if self.centered:
            average = moments["average"]
            np.subtract(g, average, out=t)
            t *= take
            average += t
            np.multiply(average, average, out=t)
            np.subtract(square, t, out=t)
            np.maximum(t, 0, out=t)
            np.sqrt(t, out=t)
        else:
            np.sqrt(square, out=t)
        t += epsilon
        np.divide(g, t, out=t)
        if momentum:
            velocity = moments["velocity"]
            velocity *= momentum
            velocity += t
            np.multiply(velocity, rate, out=t)
        else:
            t *= rate
        w -= t


@dataclass(kw_only=True)
class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1), with epsilon added to the corrected root as there.

    `m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; w -= rate m^ / (sqrt(v^) + epsilon)` with
    `m^ = m / (1 - beta1^t)` and `v^ = v / (1 - beta2^t)`.

    Args:
        beta1, beta2: shares of the running means that stay, 0 to below 1.
        epsilon: above 0; keeps the division finite.
        weight_decay: L2 penalty on the gradient, at least 0; `AdamW` decays the weights themselves.
    """

    name: ClassVar[str] = "adam"
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        self.beta1 = validate.real("beta1", self.beta1, at_least=0, below=1)
        self.beta2 = validate.real("beta2", self.beta2, at_least=0, below=1)
        self.epsilon = validate.real("epsilon", self.epsilon, above=0)
        self.weight_decay = validate.real("weight_decay", self.weight_decay, at_least=0)

    def _moment_names(self) -> tuple[str, ...]:
        return "mean", "square"

    def _coefficients(self, rate: float) -> tuple[float, ...]:
        step = rate / (1 - self.beta1**self.steps)
        root = math.sqrt(1 - self.beta2**self.steps)
        shrink, decay = self._decay(rate)
        return shrink, decay, 1 - self.beta1, self.beta2, 1 - self.beta2, step, root, self.epsilon

    def _decay(self, rate: float) -> tuple[float, float]:
        """What the weights are multiplied by, and the L2 penalty."""
        return 1.0, self.weight_decay

    def _call(self) -> tuple[str, tuple[str, ...]]:
        return "gl_adam<T>", ("mean", "square")

    def _sweep(self, w: Array, g: Array, moments: dict[str, Array], s: tuple[Array, ...], *numbers: float) -> None:
        shrink, decay, take1, keep2, take2, rate, root, epsilon = numbers
        if shrink != 1.0:
            w *= shrink
        g, t = _decayed(w, g, decay, s), s[1]
        mean, square = moments["mean"], moments["square"]
        np.subtract(g, mean, out=t)
        t *= take1
        mean += t
        square *= keep2
        np.multiply(g, g, out=t)
        t *= take2
        square += t
        np.sqrt(square, out=t)
        t /= root
        t += epsilon
        np.divide(mean, t, out=t)
        t *= rate
        w -= t


@dataclass(kw_only=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2): `w *= 1 - rate weight_decay` first.

    Args:
        beta1, beta2, epsilon: as for `Adam`.
        weight_decay: at least 0.
    """

    name: ClassVar[str] = "adamw"
    weight_decay: float = 0.01

    def _decay(self, rate: float) -> tuple[float, float]:
        return 1.0 - rate * self.weight_decay, 0.0


def clip_scale(grads: ParamDict, max_norm: float = math.inf) -> tuple[Array, Array]:
    """The global norm of all gradients, and what to multiply them by so that it is at most `max_norm`.

    The sums are taken in a fixed order, without atomic additions: the same gradients give the same bits on every run.
    On the CPU they are taken in float64, whatever the number of threads; without native code, in blocks of the
    gradients' own dtype.  Nothing waits for the device.

    Args:
        grads: gradients of all parameters.
        max_norm: above 0; infinite for no clipping.

    Returns:
        `(norm, scale)`, 0-d arrays on the device in the dtype of the gradients; `scale` is 1 where `norm` is at most
        `max_norm`, and where the norm is not finite.
    """
    if not max_norm > 0:
        raise ConfigError(f"max_norm is {max_norm!r}, expected a number above 0")
    flat, backend = grads.flat, grads.backend
    if backend.is_cuda:
        return _clip_on_device(backend, flat, float(max_norm))
    norm = math.sqrt(_squares(flat))
    scale = max_norm / norm if norm > max_norm and math.isfinite(norm) else 1.0
    return np.asarray(norm, flat.dtype), np.asarray(scale, flat.dtype)


def _squares(flat: Array) -> float:
    """The sum of squares of an array on the host."""
    module = native.load()
    if module is not None and flat.dtype in (np.float32, np.float64):
        run = module.squares_double if flat.dtype == np.float64 else module.squares_float
        return run(flat, get_num_threads())
    total = 0.0
    for start in range(0, flat.size, _DOT):
        block = flat[start : start + _DOT]
        total += float(np.dot(block, block))
    return total


def _clip_on_device(backend: Any, flat: Array, max_norm: float) -> tuple[Array, Array]:
    with backend.activate():
        squares = backend.elementwise(
            "gpulstm_squares",
            "raw T g, int64 size, int64 stride",
            "T partial",
            "T sum = 0; for (long long k = i; k < size; k += stride) sum += g[k] * g[k]; partial = sum;",
        )
        partials = backend.xp.empty(max(1, min(_PARTIALS, flat.size)), flat.dtype)
        squares(flat, flat.size, partials.size, partials)
        finish = backend.elementwise(
            "gpulstm_clip",
            "T total, T limit",
            "T norm, T scale",
            "norm = sqrt(total); scale = norm > limit && isfinite(norm) ? limit / norm : T(1);",
        )
        norm, scale = finish(partials.sum(), min(max_norm, float(np.finfo(flat.dtype).max)))
        return norm, scale


def _bool(value: bool) -> str:
    return "true" if value else "false"


OPTIMIZERS: tuple[type[Optimizer], ...] = (SGD, RMSprop, Adam, AdamW)


def from_config(config: Mapping[str, Any]) -> Optimizer:
    """The optimizer that `Optimizer.config` described, without its moments."""
    return validate.from_config("optimizer", OPTIMIZERS, config)
