"""Small ONNX models, some of them as no exporter would write them."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import gpulstm as gl
from gpulstm.errors import InteropError
from gpulstm.interop import from_onnx
from gpulstm.interop.onnx.proto import encode


def tensor(name: str, *dims: int, data: bytes = b"", kind: int = 1, **more: Any) -> onnx.TensorProto:
    return onnx.TensorProto(dims=dims, data_type=kind, name=name, raw_data=data, **more)


def integers(name: str, *numbers: int) -> onnx.TensorProto:
    return tensor(name, len(numbers), data=struct.pack(f"<{len(numbers)}q", *numbers), kind=7)


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), f"my {op}", **attributes)


def softmax(*attributes: onnx.AttributeProto) -> bytes:
    return model(onnx.NodeProto(input=["x"], output=["y"], op_type="Softmax", attribute=attributes))


def model(
    *nodes: onnx.NodeProto,
    weights: tuple[onnx.TensorProto, ...] = (),
    inputs: str = "x",
    outputs: str = "y",
    opset: int = 17,
    domain: str = "",
) -> bytes:
    ends = [[helper.make_tensor_value_info(name, 1, None) for name in names.split()] for names in (inputs, outputs)]
    graph = onnx.GraphProto(node=nodes, name="g", initializer=weights, input=ends[0], output=ends[1])
    imports = [onnx.OperatorSetIdProto(domain=domain, version=opset)]
    return encode(onnx.ModelProto(ir_version=8, graph=graph, opset_import=imports))


def entries(**texts: str) -> list[onnx.StringStringEntryProto]:
    return [onnx.StringStringEntryProto(key=key, value=value) for key, value in texts.items()]


LAYERS = {
    "lstm": gl.LSTM(3, 4, 2, bidirectional=True, device="cpu", seed=1),
    "lstm-no-bias": gl.LSTM(3, 4, bias=False, device="cpu", seed=2),
    "lstm-peepholes": gl.LSTM(3, 4, 2, peepholes=True, clip=0.7, device="cpu", seed=3),
    "lstm-coupled": gl.LSTM(3, 4, bidirectional=True, coupled=True, peepholes=True, device="cpu", seed=4),
    "lstm-activations": gl.LSTM(3, 4, activations=("HardSigmoid", ("ScaledTanh", 1.5, 0.7), "Relu"), device="cpu"),
    "gru": gl.GRU(3, 4, 2, bidirectional=True, device="cpu", seed=5),
    "gru-reset-before": gl.GRU(3, 4, 2, reset_after=False, device="cpu", seed=6),
    "gru-activations": gl.GRU(3, 4, bidirectional=True, activations=("HardSigmoid", ("Elu", 0.5, 0)), device="cpu"),
    "rnn": gl.RNN(3, 4, 3, device="cpu", seed=7),
    "rnn-relu": gl.RNN(3, 4, bidirectional=True, nonlinearity="relu", device="cpu", seed=8),
}
for _layer in LAYERS.values():  # initial biases are zeros and ones, which would hide an order that is wrong
    for _number, _value in enumerate(_layer.params.values()):
        _value += np.random.default_rng(_number).normal(size=_value.shape) * 0.3


X = np.zeros((2, 1, 3), np.float32)
H = np.zeros((3, 1, 4), np.float32)


def refused_at_run(data: bytes, message: str) -> None:
    """The model is read, and its first run is refused before memory is taken."""
    tracemalloc.start()
    with pytest.raises(InteropError, match=message):
        from_onnx(data, device="cpu").run([np.ones((1, 1), np.float32)])
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


HUGE = 2**36
