"""ONNX's operators around the recurrent ones: arithmetic, activations, products, reductions.

Each is a function of a context, the node and its inputs.  Where all inputs are NumPy arrays it computes with NumPy,
which is so for shapes and indices also on a GPU; otherwise inputs are brought to the device first (`prepare`).  What an
operator does is in ONNX's operator schemas (onnx.ai/onnx/operators); names and defaults are theirs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpulstm.arrays.backend import Array, Backend
from gpulstm.engines import activations
from gpulstm.errors import InteropError
from gpulstm.interop.onnx.graph import DTYPES, Node, Operator

OPERATORS: dict[str, Operator] = {}


@dataclass
class Budget:
    """What computing from weights alone may take: a file of 300 bytes can ask for gigabytes and for hours.

    Attributes:
        bytes: of all results together.
        operations: of all nodes together: multiplications of a product, four for each element of other inputs.
    """

    bytes: int
    operations: int

    def spend(self, node: Node, count: int = 0, operations: int = 0) -> None:
        """Take from what is left.

        Raises:
            InteropError: there is not so much.
        """
        if count > self.bytes or operations > self.operations:
            raise InteropError(
                f"the {node} takes what the model computes from its weights alone beyond the bound on that; if the "
                "file is to be trusted, raise folding="
            )
        self.bytes, self.operations = self.bytes - count, self.operations - operations


@dataclass
class Context:
    """What an operator is told besides its inputs.

    Attributes:
        backend: where floating-point values live.
        xp: the namespace of the inputs at hand: NumPy, or the backend's.
        opset: the model's operator set.
        limit: most bytes that one value may take.
        budget: of what is computed from weights alone; None where inputs take part.
    """

    backend: Backend
    opset: int
    limit: int
    xp: Any = np
    budget: Budget | None = None

    def room(self, node: Node, shape: Iterable[int], itemsize: int = 4) -> None:
        """Raise `InteropError` if a value of this shape would be larger than the limit."""
        size = math.prod(int(extent) for extent in shape) * itemsize
        if size > self.limit:
            raise InteropError(f"the {node} would make a value of {size} bytes, more than the limit of {self.limit}")
        if self.budget is not None and size > self.budget.bytes:
            self.budget.spend(node, size)  # says why not; what is made is counted when it is there

    def product(self, node: Node, a: Array, b: Array) -> None:
        """Count the multiplications of a matrix product; integers, which no BLAS multiplies, count eight times."""
        if self.budget is not None and a.ndim and b.ndim:
            count = a.size * b.size // max(1, a.shape[-1])
            self.budget.spend(node, operations=count * (1 if a.dtype.kind == "f" else 8))

    def prepare(self, values: list[Any], host: frozenset[int]) -> list[Any]:
        """Inputs brought together: those in `host` to the host, the others to where the first float lives."""
        on_host = [
            index in host or value is None or isinstance(value, np.ndarray) for index, value in enumerate(values)
        ]
        self.xp = np if all(on_host) else self.backend.xp
        prepared: list[Any] = []
        for index, value in enumerate(values):
            if value is None:
                prepared.append(None)
            elif index in host:
                prepared.append(value if isinstance(value, np.ndarray) else self.backend.to_host(value))
            else:
                prepared.append(value if self.xp is np or self.backend.owns(value) else self.backend.from_host(value))
        return prepared


def operator(
    name: str,
    attributes: str = "",
    inputs: tuple[int, int] = (1, 1),
    outputs: int = 1,
    host: tuple[int, ...] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function under an operator's name; `attributes` are those it reads, apart by spaces."""

    def register(run: Callable[..., Any]) -> Callable[..., Any]:
        OPERATORS[name] = Operator(run, frozenset(attributes.split()), inputs, outputs, frozenset(host))
        return run

    return register


def axis_of(node: Node, axis: Any, rank: int) -> int:
    """An axis as a number from 0; negative ones count from the end."""
    number = int(axis)
    if not -rank <= number < rank:
        raise InteropError(f"the {node} names axis {number} of a value of rank {rank}")
    return number % rank


# -- one value in, one of its shape out ------------------------------------------------------------------------------
def _unary(name: str, function: Callable[[Any, Array], Array]) -> None:
    operator(name)(lambda context, node, x: function(context.xp, x))


for _name in ("Sqrt", "Exp", "Log", "Abs", "Neg", "Floor", "Ceil", "Sign", "Sin", "Cos"):
    _function = {"Neg": "negative"}.get(_name, _name.lower())
    _unary(_name, functools.partial(lambda function, xp, x: getattr(xp, function)(x), _function))
for _name, _kind in activations.ACTIVATIONS.items():
    if not _kind.takes:
        _unary(_name, activations.make(activations.named(_name)))
_unary("Reciprocal", lambda xp, x: 1 / x)
_unary("Not", lambda xp, x: ~x)
_unary("Identity", lambda xp, x: x)


def _scaled(name: str) -> None:
    """An activation with numbers of its own.  Their defaults are the recurrent operators' as well."""

    def run(context: Context, node: Node, x: Array) -> Array:
        function = activations.make(activations.named(name, node.get("alpha"), node.get("beta")))
        return function(context.xp, x).astype(x.dtype, copy=False)

    operator(name, " ".join(activations.ACTIVATIONS[name].takes))(run)


for _name in ("LeakyRelu", "HardSigmoid", "Elu", "ThresholdedRelu"):
    _scaled(_name)


@operator("Clip", "min max", inputs=(1, 3))
def _clip(context: Context, node: Node, x: Array, low: Any = None, high: Any = None) -> Array:
    low = node.get("min") if low is None else low  # attributes before opset 11
    high = node.get("max") if high is None else high
    x = x if low is None else context.xp.maximum(x, context.xp.asarray(low, dtype=x.dtype))
    return x if high is None else context.xp.minimum(x, context.xp.asarray(high, dtype=x.dtype))


@operator("Cast", "to saturate round_mode")
def _cast(context: Context, node: Node, x: Array) -> Array:
    target = DTYPES.get(node.get("to", 0))
    if target is None:
        raise InteropError(f"the {node} casts to element type {node.get('to')} of ONNX, which is not supported")
    return x.astype(target)


@operator("Dropout", "ratio seed is_test", inputs=(1, 3), outputs=2, host=(2,))
def _dropout(context: Context, node: Node, x: Array, ratio: Any = None, training: Any = None) -> tuple[Array, Array]:
    if training is not None and training.any():
        raise InteropError(f"the {node} is in training mode; export the model for inference")
    return x, context.xp.ones(x.shape, dtype=bool)


@operator("Softmax", "axis")
def _softmax(context: Context, node: Node, x: Array) -> Array:
    return _over_axes(context, node, x, lambda xp, e, axes: e / xp.sum(e, axis=axes, keepdims=True), exp=True)


@operator("LogSoftmax", "axis")
def _log_softmax(context: Context, node: Node, x: Array) -> Array:
    def shifted(xp: Any, d: Array, axes: tuple[int, ...]) -> Array:
        return d - xp.log(xp.sum(xp.exp(d), axis=axes, keepdims=True))

    return _over_axes(context, node, x, shifted, exp=False)


def _over_axes(context: Context, node: Node, x: Array, function: Callable[..., Array], *, exp: bool) -> Array:
    """Softmax's axes: one from opset 13 on, all from `axis` on before."""
    xp = context.xp
    axis = axis_of(node, node.get("axis", -1 if context.opset >= 13 else 1), max(x.ndim, 1))
    axes = (axis,) if context.opset >= 13 else tuple(range(axis, x.ndim))
    shifted = x - xp.max(x, axis=axes, keepdims=True)
    return function(xp, xp.exp(shifted) if exp else shifted, axes)


# -- broadcasting ----------------------------------------------------------------------------------------------------
def _broadcast(context: Context, node: Node, *values: Array) -> None:
    context.room(node, np.broadcast_shapes(*(value.shape for value in values)), values[0].dtype.itemsize)


def _binary(name: str, function: Callable[[Any, Array, Array], Array]) -> None:
    def run(context: Context, node: Node, a: Array, b: Array) -> Array:
        _broadcast(context, node, a, b)
        return function(context.xp, a, b)

    operator(name, inputs=(2, 2))(run)


def _divide(xp: Any, a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return a / b
    quotient = xp.abs(a) // xp.abs(b)  # integers round toward zero
    return xp.where((a < 0) != (b < 0), -quotient, quotient).astype(a.dtype)


_binary("Add", lambda xp, a, b: a + b)
_binary("Sub", lambda xp, a, b: a - b)
_binary("Mul", lambda xp, a, b: a * b)
_binary("Div", _divide)
_binary("Pow", lambda xp, a, b: xp.power(a, b).astype(a.dtype, copy=False))
_binary("Equal", lambda xp, a, b: a == b)
_binary("Less", lambda xp, a, b: a < b)
_binary("LessOrEqual", lambda xp, a, b: a <= b)
_binary("Greater", lambda xp, a, b: a > b)
_binary("GreaterOrEqual", lambda xp, a, b: a >= b)
_binary("And", lambda xp, a, b: a & b)
_binary("Or", lambda xp, a, b: a | b)


def _many(name: str, function: Callable[[Any, Array, Array], Array], mean: bool = False) -> None:
    def run(context: Context, node: Node, *values: Array) -> Array:
        _broadcast(context, node, *values)
        total = functools.reduce(functools.partial(function, context.xp), values)
        return total / len(values) if mean else total

    operator(name, inputs=(1, 1024))(run)


_many("Max", lambda xp, a, b: xp.maximum(a, b))
_many("Min", lambda xp, a, b: xp.minimum(a, b))
_many("Sum", lambda xp, a, b: a + b)
_many("Mean", lambda xp, a, b: a + b, mean=True)


@operator("Where", inputs=(3, 3))
def _where(context: Context, node: Node, condition: Array, x: Array, y: Array) -> Array:
    _broadcast(context, node, x, condition, y)
    return context.xp.where(condition, x, y)


# -- products --------------------------------------------------------------------------------------------------------
@operator("MatMul", inputs=(2, 2))
def _matmul(context: Context, node: Node, a: Array, b: Array) -> Array:
    if a.ndim and b.ndim:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        context.room(node, (*batch, *a.shape[-2:-1], *(b.shape[-1:] if b.ndim > 1 else ())), a.dtype.itemsize)
    context.product(node, a, b)
    return context.xp.matmul(a, b)


@operator("Gemm", "alpha beta transA transB", inputs=(2, 3))
def _gemm(context: Context, node: Node, a: Array, b: Array, c: Array | None = None) -> Array:
    if a.ndim != 2 or b.ndim != 2:
        raise InteropError(f"the {node} has operands of shape {a.shape} and {b.shape}, expected matrices")
    a, b = a.T if node.get("transA", 0) else a, b.T if node.get("transB", 0) else b
    context.room(node, (a.shape[0], b.shape[1]), a.dtype.itemsize)
    context.product(node, a, b)
    y = context.xp.matmul(a, b)
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    y = y if alpha == 1 else (alpha * y).astype(a.dtype, copy=False)
    if c is None:
        return y
    return y + (c if beta == 1 else (beta * c).astype(a.dtype, copy=False))


# -- reductions ------------------------------------------------------------------------------------------------------
def _reduction(name: str, function: Callable[..., Array], lowest: bool | None = None) -> None:
    """`lowest`: whether no numbers give the lowest value (True), the highest (False), or what NumPy says (None)."""

    def more(x: Array) -> dict[str, Any]:
        if lowest is None or x.size:
            return {}
        if x.dtype.kind == "f":
            return {"initial": -math.inf if lowest else math.inf}
        if x.dtype.kind == "b":
            return {"initial": not lowest}
        return {"initial": getattr(np.iinfo(x.dtype), "min" if lowest else "max")}

    def run(context: Context, node: Node, x: Array, axes: Any = None) -> Array:
        chosen = node.get("axes") if axes is None else axes.tolist()
        if not chosen and node.get("noop_with_empty_axes", 0):
            return x
        numbers = tuple(axis_of(node, axis, x.ndim) for axis in chosen) if chosen else tuple(range(x.ndim))
        result = function(context.xp, x, axis=numbers, keepdims=bool(node.get("keepdims", 1)), **more(x))
        return result.astype(x.dtype, copy=False)

    operator(name, "axes keepdims noop_with_empty_axes", inputs=(1, 2), host=(1,))(run)


def _number_of(x: Array, axis: tuple[int, ...], **over: Any) -> Any:
    """How many numbers a mean is of; a NumPy number, for none of them gives NaN as ONNX has it and no error."""
    return np.float64(math.prod(x.shape[one] for one in axis)).astype(x.dtype if x.dtype.kind == "f" else "f8")


_reduction("ReduceSum", lambda xp, x, **over: xp.sum(x, **over))
_reduction("ReduceMean", lambda xp, x, **over: xp.sum(x, **over) / _number_of(x, **over))
_reduction("ReduceMax", lambda xp, x, **over: xp.max(x, **over), lowest=True)
_reduction("ReduceMin", lambda xp, x, **over: xp.min(x, **over), lowest=False)
_reduction("ReduceProd", lambda xp, x, **over: xp.prod(x, **over))


@operator("ArgMax", "axis keepdims select_last_index")
def _argmax(context: Context, node: Node, x: Array) -> Array:
    xp, axis = context.xp, axis_of(node, node.get("axis", 0), x.ndim)
    if node.get("select_last_index", 0):
        index = x.shape[axis] - 1 - xp.argmax(xp.flip(x, axis=axis), axis=axis)
    else:
        index = xp.argmax(x, axis=axis)
    return (xp.expand_dims(index, axis) if node.get("keepdims", 1) else index).astype("int64")
