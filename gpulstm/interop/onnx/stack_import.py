"""The recurrent layers of an ONNX model as one stack of this library, to train or to convert further."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from gpulstm.arrays.backend import Backend
from gpulstm.arrays.devices import to_host
from gpulstm.errors import InteropError
from gpulstm.interop.onnx.graph import Graph, Value
from gpulstm.interop.onnx.net import OnnxNet, from_onnx
from gpulstm.interop.onnx.operators import Context
from gpulstm.interop.onnx.recurrent import Layer
from gpulstm.model.stack import Recurrent

_COMPARED = 2**24  # numbers of an input that is made for a comparison


def stack_from_onnx(source: Any, *, device: str | Backend = "auto", seed: int = 0) -> Recurrent:
    """The LSTM, GRU or RNN nodes of an ONNX model as a stack; the operators around them are left behind.

    Args:
        source: as for `from_onnx`.
        device, seed: as for `LSTM`.

    Raises:
        InteropError: the nodes are not one stack: none, of different cells, sizes or options, weights that are computed
            from inputs, a node that reads backwards alone.
    """
    net = from_onnx(source, device="cpu")
    layers = _prepared(net)
    first = layers[0].directions[0].spec
    sides = len(layers[0].directions)
    values: dict[str, Any] = {}
    spec = dataclasses.replace(first, num_layers=len(layers), bidirectional=sides == 2)
    for index, layer in enumerate(layers):
        expected = dataclasses.replace(first, input_size=spec.layer_input_size(index))
        if [direction.spec for direction in layer.directions] != [expected] * sides:
            raise InteropError(f"the {layer.node} differs from the first recurrent node in cell, size or options")
        if layer.reversed[0]:
            raise InteropError(f"the {layer.node} reads backwards alone, which no stack does")
        for side, direction in enumerate(layer.directions):
            suffix = spec.suffixes[index * sides + side]
            values |= {f"{name}{suffix}": value for name, value in direction.params.items()}
    stack = Recurrent(spec, device=device, seed=seed, initial=False)
    stack.params.load(values)
    return stack


def difference(source: Any, stack: Recurrent, rng: np.random.Generator) -> float:
    """The largest difference between a model's last recurrent node and a stack made of it, on random inputs.

    Open axes of the model's inputs get extents of 4 and 2 by turns; integer inputs are 1.
    """
    net = from_onnx(source, device="cpu")
    layers = _prepared(net)
    start, end = layers[0].node, layers[-1].node
    names = [start.inputs[0], end.outputs[0] or "Y"]
    end.outputs[0] = names[1]
    outputs = [Value(name, None, None) for name in names]
    seen = OnnxNet(dataclasses.replace(net.graph, outputs=outputs), net.backend, None, net.limit)
    inputs = {}
    for value in net.inputs:
        if value.name not in net.graph.weights:
            shape = [
                extent if isinstance(extent, int) else (4, 2)[axis % 2]
                for axis, extent in enumerate(value.shape or (4, 2))
            ]
            if math.prod(shape) > _COMPARED:
                raise InteropError(f"input {value.name!r} has shape {tuple(shape)}, too large to compare results on")
            is_float = value.dtype is None or value.dtype.startswith("float")
            inputs[value.name] = rng.normal(size=shape) if is_float else np.ones(shape, value.dtype)
    x, y = seen.run(inputs)
    x = x if not layers[0].batch_first else x.swapaxes(0, 1)
    y = y.transpose(1, 2, 0, 3) if layers[-1].batch_first else y
    steps, _, batch, _ = y.shape
    expected = y.transpose(0, 2, 1, 3).reshape(steps, batch, -1)
    return float(np.abs(to_host(stack(stack.backend.from_host(x))[0]) - expected).max())


def _prepared(net: OnnxNet) -> list[Layer]:
    """The recurrent nodes in order, with their weights in this library's form."""
    graph: Graph = net.graph
    known = net.constants
    layers = []
    for layer in net.layers.values():
        inputs = [*layer.node.inputs, *[""] * 8]
        names = [inputs[index] for index in (1, 2, 3, 7)]
        if any(name and name not in known for name in names):
            raise InteropError(f"the {layer.node} has weights that are computed from the model's inputs")
        w, r, b, p = (known[name] if name else None for name in names)
        dtype = "float32" if w.dtype.name == "float16" else w.dtype.name  # type: ignore[union-attr]
        layer.prepare(Context(net.backend, graph.opset, net.limit), dtype, (w, r, b, p))
        layers.append(layer)
    if not layers:
        raise InteropError("the model has no LSTM, GRU or RNN node")
    return layers
