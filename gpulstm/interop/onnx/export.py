"""Stacks and networks written as ONNX models that ONNX Runtime and others run.

The batch and time axes stay open.  The state before the first step is an input that may be left out (it has a default
of zeros, which is expanded to the batch), and the state after the last step is an output: a program that feeds one into
the other reads a sequence piece by piece.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.arrays import files
from gpulstm.engines.spec import StackSpec
from gpulstm.errors import ConfigError, InteropError
from gpulstm.interop.arrays import refuse_options, reorder, two_biases
from gpulstm.interop.onnx import proto as proto
from gpulstm.interop.onnx.graph import DTYPES
from gpulstm.interop.onnx.net import from_onnx
from gpulstm.interop.onnx.recurrent import GATES, PEEPHOLES
from gpulstm.model.network import Network
from gpulstm.model.stack import Recurrent

OPSET, IR_VERSION = 17, 8  # of 2022: read by everything that is still in use
_NOT_THERE = ("layer_norm", "proj_size", "zoneout")
_TYPES = {name: number for number, name in DTYPES.items()}
_LARGEST = 2**31 - 1  # bytes of a protobuf message


def to_onnx(
    model: Recurrent | Network,
    path: str | os.PathLike[str] | None = None,
    *,
    lengths: bool = False,
    dtype: str | None = None,
) -> bytes:
    """A stack or network as an ONNX model, for inference.

    Args:
        model: inputs will be named `x (T, B, I)`, of a network with covariates of the horizon `future (B, horizon, K)`,
            and `h_0`, `c_0` `(L*D, B, H)`, which may be left out; outputs `y (T, B, D*H)`, or of a network
            `raw (B, horizon, targets, P)`, and `h_n`, `c_n`.
        path: where to write it, in one step; None for not at all.
        lengths: add an input `lengths (B,)`, int64, which must then be given.
        dtype: "float32" or "float64" of weights and values, None for the model's own.  ONNX Runtime's recurrent
            operators compute in float32 only.

    Returns:
        The bytes of the file, the same for the same model; read back and checked, by `onnx.checker` too.

    Raises:
        InteropError: an option that ONNX's operators do not have (layer_norm, proj_size, zoneout), or a model of over
            2 GB.
        MissingExtraError: the onnx package is not installed.
    """
    stack = model.rnn if isinstance(model, Network) else model
    refuse_options(stack.spec, _NOT_THERE, "ONNX")
    if dtype not in (None, "float32", "float64"):
        raise ConfigError(f"dtype is {dtype!r}, expected 'float32', 'float64' or None")
    builder = _Builder(dtype or stack.spec.dtype)
    _write_stack(builder, stack, lengths, model if isinstance(model, Network) else None)
    if isinstance(model, Network):
        _write_head(builder, model, lengths)
    data = builder.encode()
    _check(data)
    if path is not None:
        _write(Path(path), data)
    return data


class _Builder:
    """A graph that grows node by node; names of values in between are made up."""

    def __init__(self, dtype: str) -> None:
        self.dtype, self.onnx, self.size = dtype, proto.package(), 0
        self.graph = self.onnx.GraphProto(name="gpulstm")

    def node(self, op: str, *inputs: str, outputs: Sequence[str] = (), **attributes: Any) -> str:
        """Add a node; the name of its first output."""
        names = list(outputs) or [f"{op.lower()}_{len(self.graph.node)}"]
        self.graph.node.append(self.onnx.helper.make_node(op, inputs, names, names[0], **attributes))
        return names[0]

    def weight(self, name: str, value: Any) -> str:
        """Add an array; floats in the model's dtype."""
        value = np.asarray(value)
        value = value.astype(self.dtype) if value.dtype.kind == "f" else value
        self.size += value.nbytes
        if self.size > _LARGEST:
            raise InteropError(f"the model's weights take over {_LARGEST} bytes, which an ONNX file cannot hold")
        self.graph.initializer.append(self.onnx.numpy_helper.from_array(value, name))
        return name

    def integers(self, *values: int) -> str:
        """A list of integers; the same list has the same name."""
        name = "_".join(["list", *(str(value).replace("-", "m") for value in values)])
        if all(tensor.name != name for tensor in self.graph.initializer):
            self.weight(name, np.array(values, np.int64))
        return name

    def value(self, values: Any, name: str, *shape: int | str, dtype: str | None = None) -> str:
        """Declare an input or output."""
        kind = _TYPES[dtype or self.dtype]
        values.append(self.onnx.helper.make_tensor_value_info(name, kind, shape))
        return name

    def encode(self) -> bytes:
        """The model's bytes."""
        opset = self.onnx.OperatorSetIdProto(domain="", version=OPSET)
        return proto.encode(
            self.onnx.ModelProto(ir_version=IR_VERSION, producer_name="gpulstm", graph=self.graph, opset_import=[opset])
        )


# -- the stack -------------------------------------------------------------------------------------------------------
def _write_stack(builder: _Builder, stack: Recurrent, lengths: bool, network: Network | None) -> None:
    spec, params, graph = stack.spec, stack.params.host(), builder.graph
    width = spec.input_size if network is None else network.config.input_size
    x = builder.value(graph.input, "x", "time", "batch", width)
    rows = ""
    if lengths:
        builder.value(graph.input, "lengths", "batch", dtype="int64")
        rows = builder.node("Cast", "lengths", to=_TYPES["int32"])
    batch = builder.node("Shape", x, start=1, end=2)
    if network is not None and network.config.categories:
        x = _vectors(builder, x, network, width, ahead=False)
    names = ("h", "c") if spec.has_memory else ("h",)
    count, directions = spec.num_layers * spec.directions, spec.directions
    starts = {}
    for name in names:
        start = f"{name}_0"
        builder.value(graph.input, start, count, f"batch_of_{start}", spec.hidden_size)
        builder.weight(start, np.zeros((count, 1, spec.hidden_size)))
        full = builder.node("Concat", builder.integers(count), batch, builder.integers(spec.hidden_size), axis=0)
        starts[name] = builder.node("Expand", start, full)
    ends: dict[str, list[str]] = {name: [] for name in names}
    for layer in range(spec.num_layers):
        suffixes = spec.suffixes[layer * directions : (layer + 1) * directions]
        weights = [_layer_weights(spec, params, suffix) for suffix in suffixes]
        here = {}
        for name in names:
            bounds = [builder.integers(layer * directions), builder.integers((layer + 1) * directions)]
            cut = (
                builder.node("Slice", starts[name], *bounds, builder.integers(0))
                if spec.num_layers > 1
                else starts[name]
            )
            here[name] = cut
        stored = {key: builder.weight(f"{key}_l{layer}", np.stack([w[key] for w in weights])) for key in weights[0]}
        inputs = [x, stored["W"], stored["R"], stored.get("B", ""), rows, here["h"]]
        inputs += [here["c"], stored.get("P", "")] if spec.has_memory else []
        while not inputs[-1]:
            inputs.pop()
        results = [f"y_l{layer}", *(f"{name}_n_l{layer}" for name in names)]
        builder.node(spec.cell.upper(), *inputs, outputs=results, **_attributes(spec))
        for name, result in zip(names, results[1:], strict=True):
            ends[name].append(result)
        last = ["y"] if layer == spec.num_layers - 1 else [f"x_l{layer + 1}"]
        if directions == 1:
            x = builder.node("Squeeze", results[0], builder.integers(1), outputs=last)
        else:
            side = builder.node("Transpose", results[0], perm=[0, 2, 1, 3])
            x = builder.node("Reshape", side, builder.integers(0, 0, spec.output_size), outputs=last)
    builder.value(graph.output, "y", "time", "batch", spec.output_size)
    for name in names:
        builder.node("Concat", *ends[name], outputs=[f"{name}_n"], axis=0)
        builder.value(graph.output, f"{name}_n", count, "batch", spec.hidden_size)


def _attributes(spec: StackSpec) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "hidden_size": spec.hidden_size,
        "direction": "bidirectional" if spec.bidirectional else "forward",
    }
    if spec.cell == "gru":
        attributes["linear_before_reset"] = int(spec.reset_after)
    if spec.coupled:
        attributes["input_forget"] = 1
    if spec.clip is not None:
        attributes["clip"] = float(spec.clip)
    named = spec.activations or ((("Relu", 0.0, 0.0),) if spec.nonlinearity == "relu" else ())
    if named:
        from gpulstm.engines.activations import ACTIVATIONS

        attributes["activations"] = [name for name, _, _ in named] * spec.directions
        for index, key in ((1, "alpha"), (2, "beta")):
            numbers = [float(entry[index]) for entry in named if key in ACTIVATIONS[entry[0]].takes] * spec.directions
            attributes |= {f"activation_{key}": numbers} if numbers else {}
    return attributes


def _layer_weights(spec: StackSpec, params: dict[str, np.ndarray], suffix: str) -> dict[str, np.ndarray]:
    """W (G*H, I), R (G*H, H), and where there are such B (2*G*H,) and P (3*H,), of one direction, in ONNX's order."""
    names, order = spec.gate_names, GATES[spec.cell]  # of coupled gates the forget gate's part is not read
    weights = {
        "W": reorder(params[f"W_x{suffix}"].T, names, order),
        "R": reorder(params[f"W_h{suffix}"].T, names, order),
    }
    if spec.bias:
        weights["B"] = np.concatenate([reorder(bias, names, order) for bias in two_biases(spec, params, suffix)])
    if spec.peepholes:
        weights["P"] = reorder(params[f"p{suffix}"], "io" if spec.coupled else "ifo", PEEPHOLES)
    return weights


# -- the head --------------------------------------------------------------------------------------------------------
def _write_head(builder: _Builder, model: Network, lengths: bool) -> None:
    config, graph = model.config, builder.graph
    params = model.head.params.host()
    y = graph.output.pop(0).name  # the network's output is another
    order = builder.node("ReverseSequence", y, "lengths", batch_axis=1, time_axis=0) if lengths else y
    index = builder.weight("last", np.array(0 if lengths else -1, np.int64))
    read = builder.node("Gather", order, index, axis=0)
    if config.future_size:
        builder.value(graph.input, "future", "batch", config.horizon, config.future_size)
        graph.input.insert(1, graph.input.pop())
        future = "future"
        if any(one.future is not None for one in config.categories):
            future = _vectors(builder, future, model, config.future_size, ahead=True)
        flat = builder.node("Flatten", future, axis=1)
        read = builder.node("Concat", read, flat, axis=1)
    builder.weight("head.W", params["W"])
    builder.weight("head.b", params["b"])
    flat = builder.node("Gemm", read, "head.W", "head.b")
    shape = (config.horizon, config.targets, config.outputs)
    builder.node("Reshape", flat, builder.integers(0, *shape), outputs=["raw"])
    builder.value(graph.output, "raw", "batch", *shape)
    graph.output.insert(0, graph.output.pop())


def _vectors(builder: _Builder, name: str, model: Network, width: int, *, ahead: bool) -> str:
    """An input whose columns of codes are replaced by learned vectors at its end; the code -1 has one of zeros."""
    places = {number: one.future if ahead else one.column for number, one in enumerate(model.config.categories)}
    others = [column for column in range(width) if column not in places.values()]
    parts = [builder.node("Gather", name, builder.integers(*others), axis=2)] if others else []
    for number, column in places.items():
        if column is None:
            continue
        table, index = f"categories.{number}.W", f"column_{column}"
        if all(tensor.name != table for tensor in builder.graph.initializer):
            values = model.categories.tables[number].params.host()["W"]
            builder.weight(table, np.concatenate([values, np.zeros_like(values[:1])]))
        if all(tensor.name != index for tensor in builder.graph.initializer):
            builder.weight(index, np.array(column, np.int64))
        codes = builder.node("Cast", builder.node("Gather", name, index, axis=2), to=_TYPES["int64"])
        parts.append(builder.node("Gather", table, codes, axis=0))
    return builder.node("Concat", *parts, axis=2)


# -- the file --------------------------------------------------------------------------------------------------------
def _check(data: bytes) -> None:
    """Read the bytes back, and let the onnx package check them."""
    from_onnx(data, device="cpu")
    proto.package().checker.check_model(data, full_check=True)


def _write(path: Path, data: bytes) -> None:
    if not path.parent.is_dir():
        raise ConfigError(f"there is no folder {path.parent} to write {path.name} into")
    files.write(path, data, InteropError)
