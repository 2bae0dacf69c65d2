"""ONNX files that are damaged or mean harm: refused with one sentence, before memory is taken or a file opened."""

from __future__ import annotations

import contextlib
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx_models import HUGE, entries, integers, model, node, softmax, tensor

import gpulstm as gl
from gpulstm.errors import GpulstmError, InteropError
from gpulstm.interop import from_onnx, to_onnx
from gpulstm.interop.onnx.proto import encode

MODEL = to_onnx(gl.LSTM(2, 3, device="cpu", seed=1))


def nested(depth: int) -> bytes:
    """A model of a graph of a node with an attribute that is a graph, and so on, which protobuf would not write."""
    node, graph, attribute, data = 5, 1, 6, b""  # AttributeProto's number in a node, NodeProto's, GraphProto's
    for number in [node, graph, attribute] * depth + [node, graph, 7]:  # ModelProto.graph
        data = bytes([number << 3 | 2, len(data) & 127 | 128, len(data) >> 7]) + data
    return data


AXIS = onnx.AttributeProto(name="axis", type="INT", i=1)
IDENTITY = node("Identity", "x", "y")

REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it has no graph or no operator set"),
    "not protobuf": (b"PK\x03\x04 a zip archive", "not an ONNX file"),
    "no operator set": (encode(onnx.ModelProto(graph=onnx.GraphProto(node=[IDENTITY]))), "no operator set"),
    "no graph": (encode(onnx.ModelProto(opset_import=[onnx.OperatorSetIdProto(version=17)])), "it has no graph or"),
    "a name that is no text": (
        model(IDENTITY).replace(b"Identity", b"Ident\xff\xfey"),
        "NodeProto.name is no UTF-8 text",
    ),
    "an input that is no text": (
        model(node("Add", "wxyz y", "y")).replace(b"wxyz", b"wx\xff\xfe"),
        "NodeProto.input is no UTF-8 text",
    ),
    "an attribute that is no text": (
        model(node("LSTM", "x w r", "y", direction=b"\xff\xfe")),
        "an attribute of the LSTM node 'my LSTM' is no UTF-8 text",
    ),
    "an attribute of another type": (
        model(helper.make_node("Constant", [], ["y"], value=[1.0, 2.0])),
        "attribute 'value' of the Constant node that makes 'y' has type 6 of ONNX, expected 4",
    ),
    "subgraphs nested without end": (nested(200), "not an ONNX file, or one that is damaged"),
    "an old operator set": (model(IDENTITY, opset=6), "uses operator set 6, expected 7 to"),
    "a future operator set": (model(IDENTITY, opset=99), "uses operator set 99, expected 7 to"),
    "another domain alone": (model(IDENTITY, domain="my.own"), "uses operator set 0"),
    "unknown operators": (
        model(node("Conv", "x", "a"), node("If", "a", "b"), node("Identity", "b", "y")),
        "operators that are not supported: Conv, If$",
    ),
    "a foreign operator": (
        model(helper.make_node("Inverse", ["x"], ["y"], domain="com.microsoft")),
        r"not supported: com\.microsoft\.Inverse",
    ),
    "an unknown attribute": (
        model(node("Identity", "x", "y", power=3)),
        "Identity node 'my Identity' has an attribute 'power'",
    ),
    "an attribute twice": (
        softmax(AXIS, AXIS),
        "Softmax node that makes 'y' has attribute 'axis' twice",
    ),
    "an attribute of a function": (
        softmax(onnx.AttributeProto(name="axis", type="INT", ref_attr_name="a")),
        "refers to an attribute of a function",
    ),
    "a graph as attribute": (
        softmax(onnx.AttributeProto(name="axis", type="GRAPH", g=onnx.GraphProto(node=[IDENTITY]))),
        "attribute 'axis' of the Softmax node that makes 'y' has type 5",
    ),
    "too few inputs": (model(node("MatMul", "x", "y")), "MatMul node 'my MatMul' has 1 inputs, expected 2 to 2"),
    "too many outputs": (model(node("Relu", "x", "y z")), "has 2 outputs, expected at most 1"),
    "no outputs": (model(node("Relu", "x", ""), IDENTITY), "a Relu node 'my Relu' has no outputs"),
    "a cycle of one": (model(node("Add", "x y", "y")), "Add node 'my Add' needs 'y', which is made later, by the Add"),
    "a cycle of two": (
        model(node("Add", "x b", "a"), node("Relu", "a", "b"), node("Identity", "b", "y")),
        "needs 'b', which is made later, by the Relu node 'my Relu': a cycle, or not in order",
    ),
    "a name from nowhere": (model(node("Add", "x b", "y")), "needs 'b', which nothing makes"),
    "a name made twice": (model(IDENTITY, node("Relu", "x", "y")), "'y' is made twice, the second time by the Relu"),
    "an input made again": (model(node("Relu", "x", "x"), IDENTITY), "'x' is made twice"),
    "an output from nowhere": (model(IDENTITY, outputs="z"), "nothing makes the output 'z'"),
    "no output at all": (model(IDENTITY, outputs=""), "the model has no outputs"),
    "weights of one name": (model(IDENTITY, weights=(integers("w", 1), integers("w", 2))), "two weights are named 'w'"),
    "huge weights": (
        model(IDENTITY, weights=(tensor("w", HUGE, data=b"1234"),)),
        f"{4 * HUGE} bytes, but the file holds 4",
    ),
    "huge weights, none there": (model(IDENTITY, weights=(tensor("w", HUGE, HUGE),)), "but the file holds 0"),
    "an extent past all bounds": (model(IDENTITY, weights=(tensor("w", 2**62, 0),)), "which no array can have"),
    "a negative extent": (model(IDENTITY, weights=(tensor("w", -1, data=b"1234"),)), "which no array can have"),
    "rank without end": (model(IDENTITY, weights=(tensor("w", *[1] * 99, data=b"1234"),)), "which no array can have"),
    "listed numbers missing": (
        model(IDENTITY, weights=(tensor("w", HUGE, float_data=[1.0, 2.0]),)),
        f"{HUGE} numbers, but the file holds 2",
    ),
    "numbers out of range": (model(IDENTITY, weights=(tensor("w", 1, kind=3, int32_data=[1000]),)), "that are no int8"),
    "text for weights": (model(IDENTITY, weights=(tensor("w", 1, kind=8),)), "element type 8 of ONNX"),
    "segments": (
        model(IDENTITY, weights=(tensor("w", 1, segment=onnx.TensorProto.Segment(begin=1)),)),
        "split into segments",
    ),
    "bfloat16": (model(IDENTITY, weights=(tensor("w", 1, data=b"12", kind=16),)), "element type 16 of ONNX"),
    "external weights without a folder": (
        model(IDENTITY, weights=(tensor("w", 1, data_location=1, external_data=entries(location="w")),)),
        "give the model's path, not its bytes",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_anything_runs(name: str) -> None:
    data, message = REFUSED[name]
    tracemalloc.start()
    with pytest.raises(InteropError, match=message):
        from_onnx(data, device="cpu")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_every_cut_is_noticed() -> None:
    """A file cut anywhere is refused, or (cut between two last entries) is a whole model of the same meaning."""
    whole = from_onnx(MODEL, device="cpu").run([np.ones((2, 1, 2))])
    survived = 0
    for cut in range(len(MODEL)):
        try:
            net = from_onnx(MODEL[:cut], device="cpu")
        except InteropError:
            continue
        survived += 1
        np.testing.assert_array_equal(net.run([np.ones((2, 1, 2))])[0], whole[0])
    assert survived <= 1


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files_raise_our_errors_alone(data: st.DataObject) -> None:
    """Bytes changed at random: a model that runs, or an error of this package, on reading or on running."""
    changed = bytearray(MODEL)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(GpulstmError):
        net = from_onnx(changed, device="cpu", limit=2**20)
        net.run({value.name: np.ones((2, 1, 2)) for value in net.inputs[:1]})


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_raise_our_errors_alone(data: bytes) -> None:
    with pytest.raises(InteropError):
        from_onnx(data, device="cpu")


def external(location: str, **more: str) -> bytes:
    weight = tensor("w", 2, data_location=1, external_data=entries(location=location, **more))
    return model(node("Add", "x w", "y"), weights=(weight,))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_bytes(struct.pack("<2f", 4, 2))
    inside = tmp_path / "models"
    (inside / "data").mkdir(parents=True)
    (inside / "data" / "weights").write_bytes(struct.pack("<4f", 1, 2, 3, 4))
    (inside / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(inside / "pipe")
    return inside


@pytest.mark.parametrize(
    ("location", "more", "message"),
    [
        ("../secret", {}, "outside the model's folder and is not opened"),
        ("data/../../secret", {}, "outside the model's folder"),
        ("/etc/passwd", {}, "outside the model's folder"),
        ("link", {}, "outside the model's folder"),
        ("", {}, "outside the model's folder"),
        (".", {}, "outside the model's folder"),
        ("data/weights\0", {}, "outside the model's folder"),
        ("data", {}, "there is no such file next to the model"),
        ("pipe", {}, "there is no such file next to the model"),
        ("data/none", {}, "there is no such file next to the model"),
        ("data/weights", {"offset": "12"}, "names 8 from 12 on in 'data/weights', which has 16"),
        ("data/weights", {"offset": "-8"}, "names 8 from -8 on"),
        ("data/weights", {"length": "16"}, "names 16 from 0 on"),
        ("data/weights", {"length": "many"}, "an offset or length that is no number"),
    ],
)  # fmt: skip
def test_weights_outside_the_folder(folder: Path, location: str, more: dict[str, str], message: str) -> None:
    (folder / "model.onnx").write_bytes(external(location, **more))
    with pytest.raises(InteropError, match=message):
        from_onnx(folder / "model.onnx")


@pytest.mark.parametrize(("more", "expected"), [({}, [2, 3]), ({"offset": "8", "length": "8"}, [4, 5])])
def test_weights_inside_the_folder(folder: Path, more: dict[str, str], expected: list[float]) -> None:
    (folder / "model.onnx").write_bytes(external("data/weights", **more))
    net = from_onnx(folder / "model.onnx", device="cpu")
    np.testing.assert_array_equal(net.run([np.ones(2, np.float32)])[0], expected)
