"""The recurrent nodes of an ONNX model as one stack, and models that are none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx_models import LAYERS, integers, model, node, tensor

from gpulstm.errors import InteropError
from gpulstm.interop import stack_from_onnx, to_onnx
from gpulstm.interop.onnx.proto import decode, encode
from gpulstm.interop.onnx.stack_import import difference


@pytest.mark.parametrize("name", LAYERS)
def test_a_stack_comes_back_from_its_file(name: str, rng: np.random.Generator) -> None:
    layer, data = LAYERS[name], to_onnx(LAYERS[name])
    stack = stack_from_onnx(data, device="cpu")
    plain = {"clip": None, "activations": ()}  # numbers of attributes, which ONNX keeps in float32
    assert replace(stack.spec, **plain) == replace(layer.spec, **plain)
    x = rng.normal(size=(5, 2, 3)).astype("f4")
    np.testing.assert_allclose(stack(x)[0], layer(x)[0], rtol=1e-6, atol=1e-7)
    assert difference(data, stack, rng) < 1e-5


def test_a_stack_of_other_weights_differs(rng: np.random.Generator) -> None:
    data = to_onnx(LAYERS["gru"])
    stack = stack_from_onnx(data, device="cpu")
    stack.params["W_x_l0"] *= 1.5
    assert difference(data, stack, rng) > 1e-2


def changed(name: str, **attributes: object) -> bytes:
    """The model of a layer whose last recurrent node has other attributes."""
    model = decode(to_onnx(LAYERS[name]))
    last = [each for each in model.graph.node if each.op_type in ("LSTM", "GRU", "RNN")][-1]
    for key, value in attributes.items():
        kept = [each for each in last.attribute if each.name != key]
        del last.attribute[:]
        last.attribute.extend([*kept, onnx.helper.make_attribute(key, value)])
    return encode(model)


W, R = tensor("w", 1, 4, 1, data=b"1234" * 4), tensor("r", 1, 4, 1, data=b"1234" * 4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (model(node("Relu", "x", "y")), "the model has no LSTM, GRU or RNN node"),
        (changed("rnn", activations=["Relu"]), "differs from the first recurrent node in cell, size or options"),
        (
            model(node("LSTM", "x w r", "y", hidden_size=1, direction="reverse"), weights=(W, R)),
            "'my LSTM' reads backwards alone, which no stack does",
        ),
        (
            model(node("Reshape", "v n", "w"), node("LSTM", "x w r", "y"), weights=(R, integers("n", 1, 4, 1)),
                  inputs="x v"),
            "'my LSTM' has weights that are computed from the model's inputs",
        ),
    ],
)  # fmt: skip
def test_models_that_are_no_stack(data: bytes, message: str) -> None:
    with pytest.raises(InteropError, match=message):
        stack_from_onnx(data, device="cpu")
