"""ONNX models in and out: recorded cases, exports read back, streaming, mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_models import LAYERS

import gpulstm as gl
from gpulstm.errors import ConfigError, InteropError
from gpulstm.interop import from_onnx, to_onnx
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.model.stack import Recurrent


def state_of(layer: Recurrent, rng: np.random.Generator, batch: int) -> dict[str, np.ndarray]:
    shape = (layer.spec.num_layers * layer.spec.directions, batch, layer.spec.hidden_size)
    return {f"{name}_0": rng.normal(size=shape).astype("f4") for name in ("hc" if layer.spec.has_memory else "h")}


def results(layer: Recurrent, x: np.ndarray, state: dict[str, np.ndarray] | None, lengths: Any = None) -> list[Any]:
    start = None if state is None else tuple(state.values()) if layer.spec.has_memory else state["h_0"]
    y, end = layer(x, start, lengths)
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
        for result, expected in (
            (net.run([x]), results(layer, x, None)),
            (net.run({"x": x, **state}), results(layer, x, state)),
            (with_lengths.run({"x": x, "lengths": lengths, **state}), as_onnx(results(layer, x, state, lengths))),
        ):
            for ours, theirs in zip(result, expected, strict=True):
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
        results = net.run({"x": x, "future": future, **rows})
        np.testing.assert_allclose(results[0], raw, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(results[1], state, rtol=1e-5, atol=1e-6)


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


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.cuda
def test_exports_on_cuda(name: str, rng: np.random.Generator) -> None:
    data, x = to_onnx(LAYERS[name]), rng.normal(size=(3, 2, 3)).astype("f4")
    on_cpu, on_gpu = from_onnx(data, device="cpu"), from_onnx(data, device="cuda")
    for ours, theirs in zip(on_cpu.run([x]), on_gpu.run([gl.to_device(x, "cuda")]), strict=True):
        np.testing.assert_allclose(ours, gl.to_host(theirs), rtol=1e-5, atol=1e-6)
