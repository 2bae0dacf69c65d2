"""ONNX models in and out: recorded cases, exports read back, streaming, mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paths import GOLDEN_FOLDER
from safetensors.numpy import load_file

import gpulstm as gl
from gpulstm.errors import ConfigError, DeviceError, DTypeError, InteropError, ShapeError
from gpulstm.interop import from_onnx, to_onnx
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.model.stack import Recurrent

GOLDEN = {
    **load_file(GOLDEN_FOLDER / "interop_onnx.safetensors"),
    **load_file(GOLDEN_FOLDER / "interop_tf2onnx.safetensors"),
}
CASES = sorted(name.removesuffix("/model") for name in GOLDEN if name.endswith("/model"))


def values(case: str, kind: str) -> list[np.ndarray]:
    found = {name: value for name, value in GOLDEN.items() if name.startswith(f"{case}/{kind}/")}
    return [found[f"{case}/{kind}/{place}"] for place in range(len(found))]


@pytest.mark.parametrize("engine", [None, "reference"])
@pytest.mark.parametrize("case", CASES)
def test_recorded_models(case: str, engine: str | None, device: str) -> None:
    net = from_onnx(GOLDEN[f"{case}/model"].tobytes(), device=device, engine=engine)
    given = [gl.to_device(value, device) if value.dtype.kind == "f" else value for value in values(case, "input")]
    for found, expected in zip(net.run(given), values(case, "output"), strict=True):
        np.testing.assert_allclose(gl.to_host(found), expected, rtol=1e-5, atol=1e-6)


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


@pytest.fixture(autouse=True, scope="module")
def _biases_and_peepholes() -> None:
    """Initial biases are zeros and ones, which would hide an order that is wrong."""
    rng = np.random.default_rng(11)
    for layer in LAYERS.values():
        for value in layer.params.values():
            value += rng.normal(size=value.shape) * 0.3


def state_of(layer: Recurrent, rng: np.random.Generator, batch: int) -> dict[str, np.ndarray]:
    shape = (layer.spec.num_layers * layer.spec.directions, batch, layer.spec.hidden_size)
    return {f"{name}_0": rng.normal(size=shape).astype("f4") for name in ("hc" if layer.spec.has_memory else "h")}


def results(layer: Recurrent, x: np.ndarray, state: dict[str, np.ndarray] | None, lengths: Any = None) -> list[Any]:
    given = None if state is None else tuple(state.values()) if layer.spec.has_memory else state["h_0"]
    y, end = layer(x, given, lengths)
    return [y, *(end if layer.spec.has_memory else (end,))]


def as_onnx(values: list[Any]) -> list[Any]:
    """Results whose first row has length 0: its state is zeros in ONNX Runtime, and what it was in a layer."""
    y, *states = values
    for state in states:
        state[:, 0] = 0
    return [y, *states]


@pytest.mark.parametrize("name", LAYERS)
def test_exports_read_back(name: str, rng: np.random.Generator) -> None:
    """One file, two batch sizes and two lengths, with and without state, with and without `lengths`."""
    layer = LAYERS[name]
    net, with_lengths = (from_onnx(to_onnx(layer, lengths=lengths), device="cpu") for lengths in (False, True))
    for steps, batch in ((5, 2), (8, 3)):
        x, state = rng.normal(size=(steps, batch, 3)).astype("f4"), state_of(layer, rng, batch)
        lengths = np.arange(batch) * 2
        for found, expected in (
            (net.run([x]), results(layer, x, None)),
            (net.run({"x": x, **state}), results(layer, x, state)),
            (with_lengths.run({"x": x, "lengths": lengths, **state}), as_onnx(results(layer, x, state, lengths))),
        ):
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)


def test_an_exported_model_reads_a_sequence_piece_by_piece(rng: np.random.Generator) -> None:
    layer = LAYERS["lstm-peepholes"]
    net = from_onnx(to_onnx(layer), device="cpu")
    x = rng.normal(size=(9, 2, 3)).astype("f4")
    state: dict[str, Any] = {}
    pieces = []
    for start, stop in ((0, 1), (1, 5), (5, 9)):
        y, h, c = net.run({"x": x[start:stop], **state})
        state = {"h_0": h, "c_0": c}
        pieces.append(y)
    np.testing.assert_allclose(np.concatenate(pieces), layer(x)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_networks(lengths: bool, bidirectional: bool, rng: np.random.Generator, tmp_path: Path) -> None:
    spec = gl.GRU(3, 4, 2, bidirectional=bidirectional, device="cpu").spec
    model = Network(NetworkConfig(spec, 5, 2, 3, future_size=2), device="cpu", seed=3)
    model.params["head.b"] = rng.normal(size=30)
    to_onnx(model, tmp_path / "model.onnx", lengths=lengths)
    net = from_onnx(tmp_path / "model.onnx", device="cpu")
    for steps, batch in ((4, 3), (7, 2)):
        x, future = (rng.normal(size=shape).astype("f4") for shape in ((steps, batch, 3), (batch, 5, 2)))
        rows = {"lengths": np.array([steps, 2, 1][:batch])} if lengths else {}
        raw, state, _ = model.forward(x, future, lengths=rows.get("lengths"))
        found = net.run({"x": x, "future": future, **rows})
        np.testing.assert_allclose(found[0], raw, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found[1], state, rtol=1e-5, atol=1e-6)


def test_another_dtype(rng: np.random.Generator) -> None:
    layer = gl.LSTM(3, 4, dtype="float64", device="cpu", seed=2)
    x = rng.normal(size=(4, 2, 3))
    same, single = (from_onnx(to_onnx(layer, dtype=dtype), device="cpu").run([x])[0] for dtype in (None, "float32"))
    assert (same.dtype, single.dtype) == (np.float64, np.float32)
    np.testing.assert_allclose(same, layer(x)[0], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(single, same, atol=1e-6)


def test_what_onnx_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    for layer in (
        gl.LSTM(2, 3, layer_norm=True, device="cpu"),
        gl.LSTM(2, 3, proj_size=2, device="cpu"),
        gl.GRU(2, 3, zoneout=0.1, device="cpu"),
    ):
        with pytest.raises(InteropError, match="ONNX has no layer that computes the same as this"):
            to_onnx(layer)
    monkeypatch.setattr("gpulstm.interop.onnx.export._LARGEST", 1000)
    with pytest.raises(InteropError, match="the model's weights take over 1000 bytes, which an ONNX file cannot hold"):
        to_onnx(LAYERS["lstm"])
    with pytest.raises(ConfigError, match="dtype is 'int8', expected 'float32', 'float64' or None"):
        to_onnx(LAYERS["rnn"], dtype="int8")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    data = to_onnx(LAYERS["rnn"], path)
    assert path.read_bytes() == data
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("no room")))
    with pytest.raises(InteropError, match=r"model\.onnx cannot be written: no room"):
        to_onnx(LAYERS["gru"], path)
    assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ConfigError, match=r"there is no folder .*nowhere"):
        to_onnx(LAYERS["gru"], tmp_path / "nowhere" / "model.onnx")


class Proto:
    """What an `onnx.ModelProto` offers."""

    def SerializeToString(self) -> bytes:
        return to_onnx(LAYERS["rnn"])


def test_sources(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    data = to_onnx(LAYERS["rnn"], path)
    x = np.ones((2, 1, 3), np.float32)
    expected = from_onnx(data, device="cpu").run([x])[0]
    for source in (path, str(path), bytearray(data), memoryview(data), Proto()):
        np.testing.assert_array_equal(from_onnx(source, device="cpu").run([x])[0], expected)
    assert repr(from_onnx(data, device="cpu")).startswith("OnnxNet(x, h_0 -> y, h_n, ")


X = np.zeros((2, 1, 3), np.float32)
H = np.zeros((3, 1, 4), np.float32)


@pytest.mark.parametrize(
    ("given", "outputs", "error", "message"),
    [
        ([], None, ShapeError, "input 'x' is missing; there are: x, h_0"),
        (X, None, ShapeError, "inputs is a ndarray, expected a list or a dict of arrays"),
        (3, None, ShapeError, "inputs is a int, expected a list or a dict"),
        ([X, H, H], None, ShapeError, "inputs has 3 arrays, expected at most 2: x, h_0"),
        ({"x": X, "h": H}, None, ShapeError, "there is no input 'h'; there are: x, h_0"),
        ([X[0]], None, ShapeError, r"input 'x' has shape \(1, 3\), expected \('time', 'batch', 3\)"),
        ([X[..., :2]], None, ShapeError, r"input 'x' has shape \(2, 1, 2\), expected"),
        ([X.astype("U1")], None, DTypeError, "input 'x' has dtype <U1, expected real numbers"),
        ([X], ["z"], ConfigError, "there is no output 'z'; there are: y, h_n"),
        ([X, np.zeros((3, 5, 4))], None, InteropError, r"initial_h of shape|Expand node"),
    ],
)  # fmt: skip
def test_wrong_inputs(given: Any, outputs: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        from_onnx(to_onnx(LAYERS["rnn"]), device="cpu").run(given, outputs)


def test_chosen_outputs() -> None:
    net = from_onnx(to_onnx(LAYERS["rnn"]), device="cpu")
    both, last = net.run([X]), net.run([X], ["h_n"])
    assert len(last) == 1
    np.testing.assert_array_equal(last[0], both[1])


@pytest.mark.cuda
def test_host_arrays_are_not_moved_to_a_gpu_in_silence() -> None:
    with pytest.raises(DeviceError, match="input 'x' is a ndarray on the host but the model is on cuda:0"):
        from_onnx(to_onnx(LAYERS["rnn"]), device="cuda").run([X])


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.cuda
def test_exports_on_cuda(name: str, rng: np.random.Generator) -> None:
    data, x = to_onnx(LAYERS[name]), rng.normal(size=(3, 2, 3)).astype("f4")
    here, there = from_onnx(data, device="cpu"), from_onnx(data, device="cuda")
    for ours, theirs in zip(here.run([x]), there.run([gl.to_device(x, "cuda")]), strict=True):
        np.testing.assert_allclose(ours, gl.to_host(theirs), rtol=1e-5, atol=1e-6)


def test_half_precision_weights_on_the_cpu() -> None:
    """The CPU has no half arithmetic: recurrent nodes compute in float32 and give float16."""
    from gpulstm.interop.onnx import proto as proto

    model = proto.decode(to_onnx(LAYERS["rnn-relu"]))
    for tensor in model.graph.initializer:
        if tensor.data_type == 1:
            tensor.raw_data, tensor.data_type = np.frombuffer(tensor.raw_data, "<f4").astype("<f2").tobytes(), 10
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.elem_type = 10
    x = np.random.default_rng(0).normal(size=(5, 2, 3)).astype("f2")
    half = from_onnx(proto.encode(model), device="cpu").run([x])[0]
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, LAYERS["rnn-relu"](x)[0], atol=5e-3)
