"""ONNX Runtime, live: recurrent nodes with random attributes here and there."""

from __future__ import annotations

import os
import secrets
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from gpulstm.interop import from_onnx

SEED = int(os.environ.get("GPULSTM_PEER_SEED", secrets.randbelow(2**31)))
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
# Of ONNX's list those that ONNX Runtime computes as the operators of the same name do.
ACTIVATIONS = ["Relu", "Tanh", "Sigmoid", "Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu",
               "Softsign", "Softplus"]  # fmt: skip


def random_node(rng: np.random.Generator) -> tuple[onnx.ModelProto, dict[str, np.ndarray], str]:
    """A model of one recurrent node, inputs for it, and a description."""
    op = str(rng.choice(list(GATES)))
    direction = str(rng.choice(["forward", "reverse", "bidirectional"]))
    count, hidden, width = 1 + (direction == "bidirectional"), int(rng.integers(1, 7)), GATES[op]
    steps, batch, size = (int(rng.integers(1, 7)) for _ in range(3))
    attributes: dict[str, Any] = {"hidden_size": hidden, "direction": direction}
    if rng.integers(2):
        attributes["activations"], alpha, beta = [], [], []
        for _ in range(count * {"LSTM": 3, "GRU": 2, "RNN": 1}[op]):
            attributes["activations"].append(str(rng.choice(ACTIVATIONS)))
            if attributes["activations"][-1] in (
                "Affine",
                "LeakyRelu",
                "ThresholdedRelu",
                "ScaledTanh",
                "HardSigmoid",
                "Elu",
            ):
                alpha.append(float(rng.uniform(0.2, 0.9)))
            if attributes["activations"][-1] in ("Affine", "ScaledTanh", "HardSigmoid"):
                beta.append(float(rng.uniform(0.2, 0.9)))
        attributes |= {"activation_alpha": alpha} if alpha else {}
        attributes |= {"activation_beta": beta} if beta else {}
    if rng.integers(3) == 0:
        attributes["clip"] = float(rng.uniform(0.1, 1.0))
    if op == "GRU":
        attributes["linear_before_reset"] = int(rng.integers(2))
    if op == "LSTM" and rng.integers(3) == 0:
        attributes["input_forget"] = 1
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32) * 0.6  # noqa: E731
    given = {"X": draw(steps, batch, size)}
    weights = {"W": draw(count, width * hidden, size), "R": draw(count, width * hidden, hidden)}
    if rng.integers(2):
        weights["B"] = draw(count, 2 * width * hidden)
    if rng.integers(2):
        given["sequence_lens"] = rng.integers(1, steps + 1, size=batch).astype(np.int32)
    if rng.integers(2):
        given["initial_h"] = draw(count, batch, hidden)
    if op == "LSTM" and rng.integers(2):
        given["initial_c"] = draw(count, batch, hidden)
    if op == "LSTM" and rng.integers(2):
        weights["P"] = draw(count, 3 * hidden)
    names = ["X", "W", "R", "B", "sequence_lens", "initial_h", *(["initial_c", "P"] if op == "LSTM" else [])]
    inputs = [name if name in given or name in weights else "" for name in names]
    outputs = ["Y", "Y_h", *(["Y_c"] if op == "LSTM" else [])]
    node = helper.make_node(op, inputs, outputs, **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(name, numpy_helper.from_array(value).data_type, value.shape)
         for name, value in given.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    return model, given, f"{op} {attributes}, inputs {inputs}, T={steps} B={batch} I={size}"


def test_random_recurrent_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    rng, worst = np.random.default_rng(SEED), 0.0
    for case in range(300):
        model, given, text = random_node(rng)
        expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, given)
        found = from_onnx(model, device="cpu").run(given)
        for name, ours, theirs in zip(("Y", "Y_h", "Y_c"), found, expected, strict=False):
            assert ours.shape == theirs.shape
            error = np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max())
            assert error < 1e-5, f"GPULSTM_PEER_SEED={SEED}, case {case}, {name} differs by {error:.1e}: {text}"
            worst = max(worst, float(error))
    with capsys.disabled():
        print(f"\nONNX Runtime {onnxruntime.__version__}: seed {SEED}, 300 nodes: largest error {worst:.1e}")
