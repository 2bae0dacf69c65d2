"""Inference with weights of fewer bits: what is rounded, and to what, as NumPy computes it.

"int8": a column of a weight matrix is `q * s` with whole numbers q from -127 to 127 and s = max |column| / 127; a row
of x or h is rounded in the same way as it enters a product, by its own largest number at that step.  A product is the
exact sum of products of whole numbers, times both scales.  Scales and factors 127 / max are float32.  A row or column
whose largest number is at most 1e-30 counts as zero; one with a number that is not finite gives NaN.

"bfloat16": weights, and x and h as they enter a product, are rounded to nearest even with 8 bits of mantissa; sums are
float32.

All else stays float32: x, states, gates, biases and outputs.  kernels/cpu/reduced.h is the same in native code.

Sources: Jacob et al. 2018, Quantization and training of neural networks for efficient integer-arithmetic-only
inference, arXiv:1712.05877, for weights and activations of 8 bits with a scale a channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpulstm.arrays.backend import Array
from gpulstm.engines.spec import StackSpec, Task, unsupported
from gpulstm.errors import ConfigError, DeviceError, DTypeError

PRECISIONS = {"bfloat16": 1, "int8": 2}  # as in kernels/cpu/layer.h; 0 is float32 as it is
NOTHING = np.float32(1e-30)


def check(kind: object, spec: StackSpec, device: str) -> None:
    """Raise unless a stack's weights can be rounded so.

    Raises:
        ConfigError: no such kind, or the stack has options that only float32 weights serve.
        DTypeError: the stack is not in float32.
        DeviceError: it is on a GPU.
    """
    if kind is None:
        return
    if kind not in PRECISIONS:
        raise ConfigError(f"quantize is {kind!r}, expected 'int8', 'bfloat16' or None")
    if device != "cpu":
        raise DeviceError(f"quantize is {kind!r}, which runs on the cpu, but the model is on {device}")
    if spec.dtype != "float32":
        raise DTypeError(f"quantize is {kind!r}, which rounds float32 weights, but the model's dtype is {spec.dtype!r}")
    options = [*unsupported(spec), *(["zoneout"] if any(spec.zoneout) else [])]
    if options:
        raise ConfigError(f"quantize is {kind!r}, which serves layers without options, but this one has {options[0]}")


def kind_of(task: Task) -> str | None:
    """What a task's weights are rounded to, or None."""
    return None if task.plan is None else task.plan.call.quantize


class Rounded:
    """A weight matrix `(K, N)` of a kind, to be multiplied from the left.

    Attributes:
        values: the rounded numbers `(K, N)`: whole in float64 for int8, float32 for bfloat16.
        scales: of the columns, `(N,)` float32; None for bfloat16.
    """

    def __init__(self, weights: Array, kind: str) -> None:
        self.scales = None
        if kind == "int8":
            self.values, scales = whole_numbers(weights, axis=0)
            self.scales = scales[0]
        else:
            self.values = bfloat16(weights)

    def multiply(self, a: Array) -> Array:
        """a `(..., K)` float32 -> `(..., N)` float32, a rounded as the weights are."""
        if self.scales is None:
            return np.matmul(bfloat16(a), self.values)
        rows, scales = whole_numbers(a, axis=-1)
        return np.matmul(rows, self.values).astype(np.float32) * (scales * self.scales)


def product(xp: Any, a: Array, w: Any) -> Array:
    """a times a matrix, rounded or not."""
    return w.multiply(a) if isinstance(w, Rounded) else xp.matmul(a, w)


def rounded(params: Mapping[str, Array], kind: str | None) -> Mapping[str, Any]:
    """The parameters of a layer with their matrices rounded; as they are for None."""
    if kind is None:
        return params
    return {name: Rounded(params[name], kind) if name in ("W_x", "W_h") else params[name] for name in params}


def whole_numbers(values: Array, axis: int) -> tuple[Array, Array]:
    """Whole numbers from -127 to 127, in float64, and the float32 scale of each run along `axis` (kept, length 1)."""
    largest = np.max(np.abs(values), axis=axis, keepdims=True, initial=np.float32(0))
    usable = np.isfinite(largest) & (largest > NOTHING)
    factors = np.where(usable, np.float32(127) / np.where(usable, largest, np.float32(1)), np.float32(0))
    scales = np.where(
        usable, largest / np.float32(127), np.where(np.isfinite(largest), np.float32(0), np.float32("nan"))
    )
    finite = np.where(np.isfinite(values), values, np.float32(0))
    return np.rint(finite.astype(np.float64) * factors), scales.astype(np.float32)


def bfloat16(values: Array) -> Array:
    """float32 numbers rounded to the nearest bfloat16, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    near = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(values), values, near.view(np.float32))
