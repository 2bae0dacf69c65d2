"""ONNX Runtime and onnx.reference, live: random recurrent nodes, exports, models of PyTorch's exporters."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_cases
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import gpulstm as gl
from gpulstm.interop import from_onnx, to_onnx
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.model.stack import Recurrent

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
    fed = {"X": draw(steps, batch, size)}
    weights = {"W": draw(count, width * hidden, size), "R": draw(count, width * hidden, hidden)}
    if rng.integers(2):
        weights["B"] = draw(count, 2 * width * hidden)
    if rng.integers(2):
        fed["sequence_lens"] = rng.integers(1, steps + 1, size=batch).astype(np.int32)
    if rng.integers(2):
        fed["initial_h"] = draw(count, batch, hidden)
    if op == "LSTM" and rng.integers(2):
        fed["initial_c"] = draw(count, batch, hidden)
    if op == "LSTM" and rng.integers(2):
        weights["P"] = draw(count, 3 * hidden)
    names = ["X", "W", "R", "B", "sequence_lens", "initial_h", *(["initial_c", "P"] if op == "LSTM" else [])]
    inputs = [name if name in fed or name in weights else "" for name in names]
    outputs = ["Y", "Y_h", *(["Y_c"] if op == "LSTM" else [])]
    node = helper.make_node(op, inputs, outputs, **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(name, numpy_helper.from_array(value).data_type, value.shape)
         for name, value in fed.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    return model, fed, f"{op} {attributes}, inputs {inputs}, T={steps} B={batch} I={size}"


def test_random_recurrent_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    rng, worst = np.random.default_rng(SEED), 0.0
    compared = 0
    for case in range(400):
        model, fed, text = random_node(rng)
        expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, fed)
        if not all(np.abs(value).max() < 10 for value in expected):
            continue  # without bounds on the activations values can grow, and errors with them
        compared += 1
        results = from_onnx(model, device="cpu").run(fed)
        for name, ours, theirs in zip(("Y", "Y_h", "Y_c"), results, expected, strict=False):
            assert ours.shape == theirs.shape
            error = np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max())
            assert error < 2e-5, f"GPULSTM_PEER_SEED={SEED}, case {case}, {name} differs by {error:.1e}: {text}"
            worst = max(worst, float(error))
    assert compared > 300
    with capsys.disabled():
        print(f"\nONNX Runtime {onnxruntime.__version__}: seed {SEED}, {compared} nodes: largest error {worst:.1e}")


LAYERS: dict[str, Callable[[int], Recurrent]] = {
    "lstm": lambda seed: gl.LSTM(3, 4, 2, bidirectional=True, device="cpu", seed=seed),
    "lstm-no-bias": lambda seed: gl.LSTM(3, 4, bias=False, device="cpu", seed=seed),
    "lstm-peepholes": lambda seed: gl.LSTM(3, 4, 2, peepholes=True, device="cpu", seed=seed),
    "lstm-coupled": lambda seed: gl.LSTM(3, 4, bidirectional=True, coupled=True, device="cpu", seed=seed),
    "lstm-clip": lambda seed: gl.LSTM(3, 4, clip=0.4, device="cpu", seed=seed),
    "lstm-activations": lambda seed: gl.LSTM(
        3, 4, activations=("HardSigmoid", ("ScaledTanh", 1.5, 0.7), "Relu"), device="cpu", seed=seed
    ),
    "gru": lambda seed: gl.GRU(3, 4, 2, bidirectional=True, device="cpu", seed=seed),
    "gru-reset-before": lambda seed: gl.GRU(3, 4, 2, reset_after=False, device="cpu", seed=seed),
    "gru-clip": lambda seed: gl.GRU(3, 4, clip=0.4, device="cpu", seed=seed),
    "rnn": lambda seed: gl.RNN(3, 4, 3, device="cpu", seed=seed),
    "rnn-relu": lambda seed: gl.RNN(3, 4, bidirectional=True, nonlinearity="relu", device="cpu", seed=seed),
}
# onnx.reference computes neither coupled gates, nor clip, nor other activations, and takes no lengths.
NOT_IN_REFERENCE = {"lstm-coupled", "lstm-clip", "lstm-activations", "gru-clip", "rnn-relu"}


def ours(layer: Recurrent, x: np.ndarray, state: dict[str, np.ndarray], lengths: np.ndarray | None) -> list[np.ndarray]:
    fed: Any = None
    if state:
        fed = (state["h_0"], state["c_0"]) if layer.spec.has_memory else state["h_0"]
    y, end = layer(x, fed, lengths)
    return [y, *(end if layer.spec.has_memory else (end,))]


@pytest.mark.parametrize("lengths", [False, True], ids=["all", "lengths"])
@pytest.mark.parametrize("name", LAYERS)
def test_exports(name: str, lengths: bool, tmp_path: Path) -> None:
    """One file, two batch sizes and two lengths, with and without state: ONNX Runtime and onnx.reference to 1e-6."""
    rng, layer = np.random.default_rng([SEED, lengths]), LAYERS[name](SEED % 1000)
    for value in layer.params.values():
        value += rng.normal(size=value.shape).astype("f4") * 0.2
    to_onnx(layer, tmp_path / "model.onnx", lengths=lengths)
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)
    runners = [onnxruntime.InferenceSession(tmp_path / "model.onnx")]
    if not lengths and name not in NOT_IN_REFERENCE:
        runners.append(ReferenceEvaluator(str(tmp_path / "model.onnx")))
    for steps, batch in ((5, 2), (8, 3)):
        x = rng.normal(size=(steps, batch, 3)).astype("f4")
        rows = rng.integers(1, steps + 1, size=batch) if lengths else None
        shape = (layer.spec.num_layers * layer.spec.directions, batch, 4)
        names = ["h_0", "c_0"] if layer.spec.has_memory else ["h_0"]
        for state in ({}, {part: rng.normal(size=shape).astype("f4") for part in names}):
            expected = ours(layer, x, state, rows)
            for runner in runners:
                results = runner.run(None, {"x": x, **state, **({} if rows is None else {"lengths": rows})})
                for result, reference in zip(results, expected, strict=True):
                    np.testing.assert_allclose(
                        result, reference, rtol=1e-6, atol=1e-6, err_msg=f"{runner}, seed {SEED}"
                    )


@pytest.mark.parametrize("lengths", [False, True], ids=["all", "lengths"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_exported_networks(bidirectional: bool, lengths: bool) -> None:
    spec = gl.LSTM(3, 4, 2, bidirectional=bidirectional, device="cpu").spec
    model = Network(NetworkConfig(spec, 5, 2, 3, future_size=2), device="cpu", seed=3)
    session = onnxruntime.InferenceSession(to_onnx(model, lengths=lengths))
    rng = np.random.default_rng(SEED)
    for steps, batch in ((5, 2), (8, 3)):
        x, future = (rng.normal(size=shape).astype("f4") for shape in ((steps, batch, 3), (batch, 5, 2)))
        rows = rng.integers(1, steps + 1, size=batch) if lengths else None
        raw, (h, c), _ = model.forward(x, future, lengths=rows)
        results = session.run(None, {"x": x, "future": future, **({} if rows is None else {"lengths": rows})})
        for result, expected in zip(results, (raw, h, c), strict=True):
            np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)


def test_onnx_runtime_streams_an_export() -> None:
    """A sequence in pieces, the state handed on: the numbers of the whole."""
    layer = gl.LSTM(3, 4, 2, device="cpu", seed=1)
    session = onnxruntime.InferenceSession(to_onnx(layer))
    x = np.random.default_rng(SEED).normal(size=(9, 2, 3)).astype("f4")
    state: dict[str, np.ndarray] = {}
    pieces = []
    for start, stop in ((0, 1), (1, 5), (5, 9)):
        y, h, c = session.run(None, {"x": x[start:stop], **state})
        state = {"h_0": h, "c_0": c}
        pieces.append(y)
    np.testing.assert_allclose(np.concatenate(pieces), layer(x)[0], rtol=1e-6, atol=1e-6)


def test_double_precision_in_onnx_reference() -> None:
    layer = gl.GRU(3, 4, 2, bidirectional=True, dtype="float64", device="cpu", seed=1)
    x = np.random.default_rng(SEED).normal(size=(6, 2, 3))
    results = ReferenceEvaluator(to_onnx(layer)).run(None, {"x": x})
    np.testing.assert_allclose(results[0], layer(x)[0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("case", onnx_cases.cases().items(), ids=lambda case: case[0])
def test_models_of_pytorchs_exporters(case: tuple[str, onnx_cases.Case]) -> None:
    """Both exporters, PyTorch's own results; the older one's file with another batch and length in ONNX Runtime."""
    name, (data, fed, expected) = case
    net = from_onnx(data, device="cpu")
    for result, reference in zip(net.run(fed), expected, strict=True):
        np.testing.assert_allclose(result, reference, rtol=1e-5, atol=1e-6)
    if name.endswith("script"):
        other = [np.concatenate([value, value], axis=1) for value in fed]
        session = onnxruntime.InferenceSession(data)
        names = [entry.name for entry in session.get_inputs()]
        for result, reference in zip(
            net.run(other), session.run(None, dict(zip(names, other, strict=True))), strict=True
        ):
            np.testing.assert_allclose(result, reference, rtol=1e-5, atol=1e-6)
