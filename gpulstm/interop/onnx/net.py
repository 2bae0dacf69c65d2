"""ONNX models run here: recurrent operators on this library's engines, and the operators around them.

    net = from_onnx("model.onnx")
    y, h = net.run([x])

The `onnx` package reads the file's messages, `onnx_graph` checks them.  Which operators there are is in `onnx_ops`,
`onnx_shapes` and `onnx_recurrent`; a model that needs another one is refused by its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gpulstm.arrays.backend import Array, Backend
from gpulstm.arrays.devices import resolve
from gpulstm.arrays.files import damaged
from gpulstm.errors import ConfigError, DTypeError, InteropError, ShapeError
from gpulstm.interop.onnx import shape_operators  # noqa: F401  registers its operators
from gpulstm.interop.onnx.graph import Graph, Node, Value, read
from gpulstm.interop.onnx.operators import OPERATORS, Budget, Context
from gpulstm.interop.onnx.recurrent import RECURRENT, Inputs, Layer

LIMIT = 2**31  # bytes of one value
FOLDING = 2**26  # bytes that may be computed from weights alone, beyond those of the weights themselves
_OPERATIONS = 2**4  # a byte of that bound
_FAILURES = (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError)


def from_onnx(
    source: Any,
    *,
    device: str | Backend = "auto",
    engine: str | None = None,
    limit: int = LIMIT,
    folding: int = FOLDING,
) -> OnnxNet:
    """A model in ONNX's format, ready to run.

    Args:
        source: the path of an .onnx file, its bytes, or an `onnx.ModelProto`.
        device: "auto", "cpu", "cuda" or "cuda:N".
        engine: force an engine for the recurrent operators; None chooses.
        limit: most bytes that one value of a run may take; what would be larger is refused, not made.
        folding: bytes that may be computed from the weights alone when the model is read, beyond the size of the
            weights, with 16 operations for each of them; a model that needs more is refused.

    Raises:
        InteropError: the file is damaged or not safe, or has operators that are not supported; it names them.
        ConfigError: there is no such file.
        MissingExtraError: the onnx package is not installed.
    """
    backend = resolve(device)
    with damaged("the ONNX model is damaged", InteropError, own=False):
        return OnnxNet(read(source, OPERATORS), backend, engine, limit, folding)


class OnnxNet:
    """A checked ONNX graph on a device; made by `from_onnx`.

    Attributes:
        inputs, outputs: what goes in and comes out: name, dtype and shape each.
        backend: where it runs.
    """

    def __init__(self, graph: Graph, backend: Backend, engine: str | None, limit: int, folding: int = FOLDING) -> None:
        self.graph, self.backend, self.limit = graph, backend, limit
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self._weights = {name: self._place(value) for name, value in graph.weights.items()}
        self.nodes = self._fold(folding)
        self.layers = {index: Layer(node, engine) for index, node in enumerate(self.nodes) if node.op in RECURRENT}
        self._last_use = self._last_uses()

    def __repr__(self) -> str:
        names = [", ".join(value.name for value in values) for values in (self.inputs, self.outputs)]
        return f"OnnxNet({names[0]} -> {names[1]}, {len(self.nodes)} nodes, device={self.backend.device!r})"

    @property
    def constants(self) -> dict[str, Any]:
        """All weights by name, and what was computed from them alone, where they live."""
        return dict(self._weights)

    def run(self, inputs: Sequence[Any] | Mapping[str, Any], outputs: Sequence[str] | None = None) -> list[Array]:
        """Run the model.

        Args:
            inputs: arrays in the order of `self.inputs`, or by name; those that have a default may be left out (at the
                end of a list).  Floats are on the model's device, and are converted to the dtype that the model states.
            outputs: names of the outputs wanted; None for all.

        Returns:
            The outputs, on the model's device.

        Raises:
            ShapeError, DTypeError, DeviceError: an input does not fit what the model states.
            InteropError: a node cannot do what the model asks of it; it is named.
        """
        names = [value.name for value in self.outputs] if outputs is None else list(outputs)
        unknown = set(names) - {value.name for value in self.outputs}
        if unknown:
            raise ConfigError(f"there is no output {min(unknown)!r}; there are: {_names(self.outputs)}")
        with self.backend.activate(), np.errstate(all="ignore"):  # ONNX's arithmetic makes infinities without a word
            values: dict[str, Any] = {**self._weights, **self._inputs(inputs)}
            context = Context(self.backend, self.graph.opset, self.limit)
            for index, node in enumerate(self.nodes):
                arguments = [values[name] if name else None for name in node.inputs]
                values |= zip(node.outputs, self._step(context, node, arguments, self.layers.get(index)), strict=False)
                for name in self._last_use[index]:
                    del values[name]
            results = [values[name] for name in names]
            return [value if self.backend.owns(value) else self.backend.from_host(value) for value in results]

    def _step(self, context: Context, node: Node, arguments: list[Any], layer: Layer | None = None) -> tuple[Any, ...]:
        operator = OPERATORS[node.op]
        try:
            arguments = context.prepare(arguments, operator.host)
            if layer is not None:
                host = operator.host
                inputs = (self._on_device(v) if i not in host else v for i, v in enumerate(arguments))
                return layer.run(context, Inputs(*inputs))
            result = operator.run(context, node, *arguments)
        except InteropError:
            raise
        except _FAILURES as error:
            raise InteropError(f"the {node} fails: {error}") from error
        return result if isinstance(result, tuple) else (result,)

    def _fold(self, folding: int) -> list[Node]:
        """Run what depends on weights alone, once; the nodes that are left."""
        room = folding + sum(value.nbytes for value in self._weights.values())
        budget = Budget(room, room * _OPERATIONS)
        context, left = Context(self.backend, self.graph.opset, self.limit, budget=budget), []
        changeable = {value.name for value in self.inputs}
        with self.backend.activate(), np.errstate(all="ignore"):
            for node in self.graph.nodes:
                names = set(filter(None, node.inputs))
                if node.op in RECURRENT or not names <= self._weights.keys() - changeable:
                    left.append(node)
                    continue
                arguments = [self._weights[name] if name else None for name in node.inputs]
                read = [value for value in arguments if value is not None]
                budget.spend(node, operations=4 * sum(value.size for value in read))
                if sum(value.nbytes for value in read) > budget.bytes:  # most results are about as large
                    budget.spend(node, budget.bytes + 1)
                results = self._step(context, node, arguments)
                shared = {id(value) for value in read}
                budget.spend(node, sum(value.nbytes for value in results if id(value) not in shared))
                self._weights |= {name: self._place(value) for name, value in zip(node.outputs, results, strict=False)}
        return left

    def _on_device(self, value: Any) -> Any:
        return value if value is None or self.backend.owns(value) else self.backend.from_host(value)

    def _place(self, value: Any) -> Any:
        """Floats live on the device; integers and flags, which shapes and indices are made of, where they are."""
        return self._on_device(value) if value.dtype.kind == "f" else value

    def _last_uses(self) -> list[list[str]]:
        """For each node the values that no later node and no output needs."""
        kept, last_uses = {value.name for value in self.outputs} | {""}, []
        for node in reversed(self.nodes):
            ending = {*node.inputs, *node.outputs} - kept
            kept |= ending
            last_uses.append(sorted(ending & ({*node.inputs, *node.outputs})))
        return last_uses[::-1]

    # -- arguments ---------------------------------------------------------------------------------------------------
    def _inputs(self, inputs: Sequence[Any] | Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(inputs, Mapping):
            if isinstance(inputs, (np.ndarray, str)) or not isinstance(inputs, Iterable):
                raise ShapeError(f"inputs is a {type(inputs).__name__}, expected a list or a dict of arrays")
            inputs = list(inputs)
            if len(inputs) > len(self.inputs):
                raise ShapeError(
                    f"inputs has {len(inputs)} arrays, expected at most {len(self.inputs)}: {_names(self.inputs)}"
                )
            inputs = {value.name: array for value, array in zip(self.inputs, inputs, strict=False)}
        unknown = sorted(inputs.keys() - {value.name for value in self.inputs})
        if unknown:
            raise ShapeError(f"there is no input {unknown[0]!r}; there are: {_names(self.inputs)}")
        checked = {}
        for value in self.inputs:
            if value.name in inputs:
                checked[value.name] = self._input(value, inputs[value.name])
            elif value.name not in self._weights:
                raise ShapeError(f"input {value.name!r} is missing; there are: {_names(self.inputs)}")
        return checked

    def _input(self, value: Value, array: Any) -> Any:
        integers = value.dtype is not None and np.dtype(value.dtype).kind != "f"
        if integers and not self.backend.owns(array):
            array = np.asarray(array)
            if array.dtype.kind not in "iub":
                raise DTypeError(f"input {value.name!r} has dtype {array.dtype}, expected {value.dtype}")
        else:
            array = self.backend.asarray(array, name=f"input {value.name!r}")
        if value.dtype is not None and array.dtype != value.dtype:
            array = array.astype(value.dtype)
        if value.shape is not None:
            fits = len(value.shape) == array.ndim and all(
                not isinstance(stated, int) or stated == extent
                for stated, extent in zip(value.shape, array.shape, strict=True)
            )
            if not fits:
                raise ShapeError(f"input {value.name!r} has shape {tuple(array.shape)}, expected {value.shape}")
        return array


def _names(values: Iterable[Value]) -> str:
    return ", ".join(value.name for value in values) or "none"
