"""Operators next to NumPy, and what is refused when the shapes are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx_models import integers, model, node, refused_at_run, tensor
from tolerance import FORWARD

from gpulstm.interop import from_onnx

REFUSED: dict[str, tuple[bytes, str]] = {
    "outer sum": (
        model(
            node("Expand", "x n", "a"),
            node("Expand", "x m", "b"),
            node("Add", "a b", "y"),
            weights=(integers("n", 2**17, 1), integers("m", 1, 2**17)),
        ),
        "'my Add' would make a value of 68719476736 bytes",
    ),
    "outer product": (
        model(
            node("Expand", "x n", "a"),
            node("Expand", "x m", "b"),
            node("MatMul", "a b", "y"),
            weights=(integers("n", 2**17, 1), integers("m", 1, 2**17)),
        ),
        "'my MatMul' would make a value of 68719476736 bytes",
    ),
    "an axis outside": (model(node("Softmax", "x", "y", axis=9)), "names axis 9 of a value of rank 2"),
    "shapes that do not fit": (
        model(node("MatMul", "x w", "y"), weights=(tensor("w", 3, 1, data=b"1234" * 3),)),
        "the MatMul node 'my MatMul' fails",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_where_the_file_alone_does_not_tell(name: str) -> None:
    refused_at_run(*REFUSED[name])


A = np.array([[-2.0, 0.5, 3.0], [1.0, -0.25, 4.0]], np.float32)
B = np.array([[1.5], [-2.0]], np.float32)
E = np.exp(A - A.max(axis=1, keepdims=True))

RESULTS: dict[str, tuple[bytes, list[np.ndarray], Any]] = {
    "Neg": (model(node("Neg", "x", "y")), [A], -A),
    "Floor": (model(node("Floor", "x", "y")), [A], np.floor(A)),
    "Reciprocal": (model(node("Reciprocal", "x", "y")), [A], 1 / A),
    "LeakyRelu": (model(node("LeakyRelu", "x", "y", alpha=0.5)), [A], np.where(A < 0, A / 2, A)),
    "HardSigmoid": (model(node("HardSigmoid", "x", "y")), [A], np.clip(0.2 * A + 0.5, 0, 1)),
    "Clip": (model(node("Clip", "x", "y", min=-1.0, max=2.0), opset=7), [A], np.clip(A, -1, 2)),
    "Softmax": (model(node("Softmax", "x", "y")), [A], E / E.sum(axis=1, keepdims=True)),
    "Softmax of old": (
        model(node("Softmax", "x", "y", axis=0), opset=11),
        [A],
        np.exp(A - A.max()) / np.exp(A - A.max()).sum(),
    ),
    "LogSoftmax": (model(node("LogSoftmax", "x", "y")), [A], np.log(E / E.sum(axis=1, keepdims=True))),
    "Add": (model(node("Add", "x z", "y"), inputs="x z"), [A, B], A + B),
    "Div": (model(node("Div", "x z", "y"), inputs="x z"), [A, B], A / B),
    "Max": (model(node("Max", "x z x", "y"), inputs="x z"), [A, B], np.maximum(A, B)),
    "Mean": (model(node("Mean", "x z x", "y"), inputs="x z"), [A, B], (2 * A + B) / 3),
    "Where": (
        model(node("Less", "x z", "c"), node("Where", "c x z", "y"), inputs="x z"),
        [A, B],
        np.where(A < B, A, B),
    ),
    "MatMul": (model(node("MatMul", "x z", "y"), inputs="x z"), [A, A.T.copy()], A @ A.T),
    "Gemm": (
        model(node("Gemm", "x x z", "y", alpha=2.0, beta=0.5, transB=1), inputs="x z"),
        [A, B],
        2 * A @ A.T + B / 2,
    ),
    "ReduceMean": (model(node("ReduceMean", "x", "y", axes=[1], keepdims=0)), [A], A.mean(axis=1)),
    "ReduceMax": (model(node("ReduceMax", "x", "y")), [A], A.max(keepdims=True)),
    "ReduceProd": (model(node("ReduceProd", "x", "y", axes=[-1])), [A], A.prod(axis=1, keepdims=True)),
    "ArgMax": (model(node("ArgMax", "x", "y", axis=1)), [A], [[2], [2]]),
    "ArgMax, the last": (
        model(node("ArgMax", "x", "y", axis=1, select_last_index=1, keepdims=0)),
        [np.array([[1, 3, 3], [2, 2, 0]], np.float32)],
        [2, 1],
    ),
}


@pytest.mark.parametrize("name", RESULTS)
def test_results_are_those_of_numpy(name: str) -> None:
    data, inputs, expected = RESULTS[name]
    (y,) = from_onnx(data, device="cpu").run(inputs)
    assert y.shape == np.shape(expected)
    np.testing.assert_allclose(y, expected, rtol=FORWARD["float32"], atol=FORWARD["float32"])


def test_integers_are_divided_towards_zero() -> None:
    data = model(node("Cast", "x", "a", to=7), node("Cast", "z", "b", to=7), node("Div", "a b", "y"), inputs="x z")
    (y,) = from_onnx(data, device="cpu").run([np.array([7, -7, 7], np.float32), np.array([2, 2, -2], np.float32)])
    assert y.tolist() == [3, -3, -3]


def test_dropout_does_nothing_and_is_refused_in_training() -> None:
    (y,) = from_onnx(model(node("Dropout", "x", "y")), device="cpu").run([A])
    np.testing.assert_array_equal(y, A)
    training = onnx.TensorProto(dims=[], data_type=9, name="t", raw_data=b"\1")
    data = model(node("Dropout", "x r t", "y"), weights=(tensor("r", data=b"\0\0\0\0"), training))
    refused_at_run(data, "'my Dropout' is in training mode; export the model for inference")
