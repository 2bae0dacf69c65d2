"""Activation functions of the cells: a value, and its slope from that value.

Only the array API standard is used.  The names are those of the list in ONNX's LSTM, GRU and RNN operators; `alpha` and
`beta` are numbers that some of them take.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gpulstm.arrays.backend import Array
from gpulstm.errors import ConfigError

Named = tuple[str, float, float]  # name, alpha, beta


class Sigmoid:
    """1 / (1 + exp(-z)), computed as tanh(z/2)/2 + 1/2, which cannot overflow."""

    alpha, beta = 0.0, 0.0  # what a spec says where the model does not; unused unless `takes` names them
    takes: tuple[str, ...] = ()

    def __call__(self, xp: Any, z: Array) -> Array:
        return 0.5 * xp.tanh(0.5 * z) + 0.5

    def slope(self, xp: Any, y: Array) -> Array:
        """The derivative, from the value y."""
        return y * (1.0 - y)

    def bounds(self, xp: Any, limit: float, like: Array) -> tuple[Array, Array]:
        """The values at -limit and limit, the smaller first."""
        ends = [self(xp, xp.full((), end, dtype=like.dtype)) for end in (-limit, limit)]
        return (ends[0], ends[1]) if float(ends[0]) <= float(ends[1]) else (ends[1], ends[0])


class Tanh(Sigmoid):
    """tanh(z)."""

    def __call__(self, xp: Any, z: Array) -> Array:
        return xp.tanh(z)

    def slope(self, xp: Any, y: Array) -> Array:
        return 1.0 - y * y


class Relu(Sigmoid):
    """max(z, 0); NaN stays NaN."""

    def __call__(self, xp: Any, z: Array) -> Array:
        return xp.where(z <= 0, xp.zeros_like(z), z)

    def slope(self, xp: Any, y: Array) -> Array:
        return xp.where(y <= 0, xp.zeros_like(y), xp.ones_like(y))


class Softsign(Sigmoid):
    """z / (1 + |z|)."""

    def __call__(self, xp: Any, z: Array) -> Array:
        return z / (1.0 + xp.abs(z))

    def slope(self, xp: Any, y: Array) -> Array:
        return (1.0 - xp.abs(y)) ** 2


class Softplus(Sigmoid):
    """log(1 + exp(z)), computed as max(z, 0) + log(1 + exp(-|z|)), which cannot overflow."""

    def __call__(self, xp: Any, z: Array) -> Array:
        return xp.where(z <= 0, xp.zeros_like(z), z) + xp.log1p(xp.exp(-xp.abs(z)))

    def slope(self, xp: Any, y: Array) -> Array:
        return -xp.expm1(-y)


class Scaled(Sigmoid):
    """Base of the activations with numbers of their own, alpha and beta."""

    def __init__(self, alpha: float, beta: float) -> None:
        self.alpha, self.beta = alpha, beta

    def rising(self) -> None:
        """Raise unless alpha is at least 0; where it is not, one value stands for two slopes."""
        if self.alpha < 0:
            raise ConfigError(f"{type(self).__name__} has alpha {self.alpha:g}: the gradient needs alpha of at least 0")


class Affine(Scaled):
    """alpha z + beta."""

    alpha, beta, takes = 1.0, 0.0, ("alpha", "beta")

    def __call__(self, xp: Any, z: Array) -> Array:
        return self.alpha * z + self.beta

    def slope(self, xp: Any, y: Array) -> Array:
        return xp.full_like(y, self.alpha)


class LeakyRelu(Scaled):
    """z where z >= 0, else alpha z."""

    alpha, takes = 0.01, ("alpha",)

    def __call__(self, xp: Any, z: Array) -> Array:
        return xp.where(z >= 0, z, self.alpha * z)

    def slope(self, xp: Any, y: Array) -> Array:
        self.rising()
        return xp.where(y > 0, xp.ones_like(y), xp.full_like(y, self.alpha))


class ThresholdedRelu(Scaled):
    """z where z > alpha, else 0."""

    alpha, takes = 1.0, ("alpha",)

    def __call__(self, xp: Any, z: Array) -> Array:
        return xp.where(z <= self.alpha, xp.zeros_like(z), z)

    def slope(self, xp: Any, y: Array) -> Array:
        self.rising()
        return xp.where(y > 0, xp.ones_like(y), xp.zeros_like(y))


class ScaledTanh(Scaled):
    """alpha tanh(beta z)."""

    alpha, beta, takes = 1.0, 1.0, ("alpha", "beta")

    def __call__(self, xp: Any, z: Array) -> Array:
        return self.alpha * xp.tanh(self.beta * z)

    def slope(self, xp: Any, y: Array) -> Array:
        if not self.alpha:
            return xp.zeros_like(y)
        return self.alpha * self.beta * (1.0 - (y / self.alpha) ** 2)


class HardSigmoid(Scaled):
    """alpha z + beta, bounded to [0, 1]."""

    alpha, beta, takes = 0.2, 0.5, ("alpha", "beta")

    def __call__(self, xp: Any, z: Array) -> Array:
        return xp.clip(self.alpha * z + self.beta, 0.0, 1.0)

    def slope(self, xp: Any, y: Array) -> Array:
        return xp.where((y > 0) & (y < 1), xp.full_like(y, self.alpha), xp.zeros_like(y))


class Elu(Scaled):
    """z where z >= 0, else alpha (exp(z) - 1)."""

    alpha, takes = 1.0, ("alpha",)

    def __call__(self, xp: Any, z: Array) -> Array:
        return xp.where(z >= 0, z, self.alpha * xp.expm1(xp.where(z >= 0, xp.zeros_like(z), z)))

    def slope(self, xp: Any, y: Array) -> Array:
        self.rising()
        return xp.where(y > 0, xp.ones_like(y), y + self.alpha)


class Clipped:
    """An activation whose input is bounded to [-limit, limit] first (the `clip` of ONNX's recurrent operators)."""

    def __init__(self, inner: Sigmoid, limit: float) -> None:
        self.inner, self.limit = inner, limit

    def __call__(self, xp: Any, z: Array) -> Array:
        return self.inner(xp, xp.clip(z, -self.limit, self.limit))

    def slope(self, xp: Any, y: Array) -> Array:
        """Zero where the bound holds: there the value is the one at the bound."""
        low, high = self.inner.bounds(xp, self.limit, y)
        return xp.where((y > low) & (y < high), self.inner.slope(xp, y), xp.zeros_like(y))


_PLAIN: dict[str, type[Sigmoid]] = {kind.__name__: kind for kind in (Sigmoid, Tanh, Relu, Softsign, Softplus)}
_SCALED: dict[str, type[Scaled]] = {
    kind.__name__: kind for kind in (Affine, LeakyRelu, ThresholdedRelu, ScaledTanh, HardSigmoid, Elu)
}
ACTIVATIONS: dict[str, type[Sigmoid]] = {**_PLAIN, **_SCALED}
COUNT = {"lstm": 3, "gru": 2, "rnn": 1}  # activations of a cell: of the gates, of the candidate, of the memory read
DEFAULTS = {"lstm": ("Sigmoid", "Tanh", "Tanh"), "gru": ("Sigmoid", "Tanh"), "rnn": ("Tanh",)}


def named(name: str, alpha: float | None = None, beta: float | None = None) -> Named:
    """An activation as a spec holds it; alpha and beta of None are the operator's own, unused ones are 0."""
    if name not in ACTIVATIONS:
        raise ConfigError(f"activation is {name!r}, expected one of {', '.join(ACTIVATIONS)}")
    kind = ACTIVATIONS[name]
    numbers = []
    for key, value in (("alpha", alpha), ("beta", beta)):
        value = getattr(kind, key) if value is None or key not in kind.takes else value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ConfigError(f"{key} of activation {name} is {value!r}, expected a finite number")
        numbers.append(float(value))
    return name, numbers[0], numbers[1]


def check(cell: str, activations: Sequence[Any]) -> tuple[Named, ...]:
    """A cell's activations as tuples `(name, alpha, beta)`; none for its own, also where they are named one by one.

    Raises:
        ConfigError: a wrong number of them, or one that there is not.
    """
    entries = tuple(named(*entry) if isinstance(entry, (tuple, list)) else named(entry) for entry in activations)
    if entries and len(entries) != COUNT[cell]:
        raise ConfigError(
            f"activations has {len(entries)} entries, expected {COUNT[cell]} for the {cell.upper()}, or none"
        )
    return () if tuple(entry[0] for entry in entries) == DEFAULTS[cell] else entries


def make(entry: Named) -> Sigmoid:
    """The activation that a spec names."""
    name, alpha, beta = entry
    return _SCALED[name](alpha, beta) if name in _SCALED else _PLAIN[name]()
