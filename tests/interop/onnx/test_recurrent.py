"""LSTM, GRU and RNN nodes as other libraries wrote them, with the results that they recorded."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_models import LAYERS, model, node, refused_at_run, tensor
from paths import GOLDEN_FOLDER
from safetensors.numpy import load_file

import gpulstm as gl
from gpulstm.interop import from_onnx, to_onnx

GOLDEN = {
    **load_file(GOLDEN_FOLDER / "interop_onnx.safetensors"),
    **load_file(GOLDEN_FOLDER / "interop_tf2onnx.safetensors"),
}


CASES = sorted(name.removesuffix("/model") for name in GOLDEN if name.endswith("/model"))


def values(case: str, kind: str) -> list[np.ndarray]:
    results = {name: value for name, value in GOLDEN.items() if name.startswith(f"{case}/{kind}/")}
    return [results[f"{case}/{kind}/{index}"] for index in range(len(results))]


@pytest.mark.parametrize("engine", [None, "reference"])
@pytest.mark.parametrize("case", CASES)
def test_recorded_models(case: str, engine: str | None, device: str) -> None:
    net = from_onnx(GOLDEN[f"{case}/model"].tobytes(), device=device, engine=engine)
    inputs = [gl.to_device(value, device) if value.dtype.kind == "f" else value for value in values(case, "input")]
    for results, expected in zip(net.run(inputs), values(case, "output"), strict=True):
        np.testing.assert_allclose(gl.to_host(results), expected, rtol=1e-5, atol=1e-6)


def test_half_precision_weights_on_the_cpu() -> None:
    """The CPU has no half arithmetic: recurrent nodes compute in float32 and give float16."""
    from gpulstm.interop.onnx import proto as proto

    model = proto.decode(to_onnx(LAYERS["rnn-relu"]))
    for weight in model.graph.initializer:
        if weight.data_type == 1:
            weight.raw_data, weight.data_type = np.frombuffer(weight.raw_data, "<f4").astype("<f2").tobytes(), 10
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.elem_type = 10
    x = np.random.default_rng(0).normal(size=(5, 2, 3)).astype("f2")
    half = from_onnx(proto.encode(model), device="cpu").run([x])[0]
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, LAYERS["rnn-relu"](x)[0], atol=5e-3)


REFUSED: dict[str, tuple[bytes, str]] = {
    "an LSTM of another size": (
        model(
            node("LSTM", "x w r", "y", hidden_size=2**40),
            weights=(tensor("w", 1, 4, 1, data=b"1234" * 4), tensor("r", 1, 4, 1, data=b"1234" * 4)),
        ),
        "X of shape|W of shape",
    ),
    "an LSTM in no direction": (
        model(
            node("LSTM", "x w r", "y", direction=b"sideways"),
            weights=(tensor("w", 1, 4, 1, data=b"1234" * 4), tensor("r", 1, 4, 1, data=b"1234" * 4)),
        ),
        "has direction 'sideways', expected forward, reverse or bidirectional",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_where_the_file_alone_does_not_tell(name: str) -> None:
    refused_at_run(*REFUSED[name])
