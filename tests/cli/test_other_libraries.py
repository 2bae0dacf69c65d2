"""What `convert` compares with: outputs of one shape, and None where a library is missing."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.cli import other_libraries
from gpulstm.errors import InteropError
from gpulstm.interop import from_keras, to_keras, to_onnx
from gpulstm.model.network import Network, NetworkConfig

X = np.random.default_rng(4).normal(size=(6, 2, 3)).astype("f4")


@pytest.fixture
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    find, others = importlib.util.find_spec, {"torch", "keras", "onnxruntime"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in others else find(name, *rest))


@pytest.mark.usefixtures("_alone")
def test_a_library_that_is_not_there_gives_nothing(tmp_path: Path) -> None:
    layer = gl.LSTM(3, 4, device="cpu")
    assert other_libraries.torch_outputs(layer, {}, X) is None
    assert other_libraries.keras_outputs(layer, X) is None
    assert other_libraries.keras_model(layer, tmp_path / "none") is None
    to_onnx(layer, tmp_path / "a.onnx")
    name, y = other_libraries.onnx_outputs(tmp_path / "a.onnx", X)
    assert name == "this library's reader"
    np.testing.assert_allclose(y, layer(X)[0], rtol=1e-5, atol=1e-6)


def test_own_outputs_are_every_step_of_a_stack_and_the_last_of_a_network() -> None:
    layer = gl.GRU(3, 4, device="cpu")
    network = Network(NetworkConfig(layer.spec, 5, 2), device="cpu")
    assert other_libraries.outputs(layer, X).shape == (6, 2, 4)
    assert other_libraries.outputs(network, X).shape == (2, 10)
    net = from_keras(to_keras(network), device="cpu")
    assert other_libraries.largest(other_libraries.outputs(net, X), other_libraries.outputs(network, X)) < 1e-5


def test_the_largest_difference_is_of_results_of_one_size() -> None:
    one = np.arange(6.0).reshape(2, 3)
    assert other_libraries.largest(one.reshape(2, 3, 1), one + 0.5) == 0.5
    assert other_libraries.largest(np.empty((0, 3)), np.empty((0, 3))) == 0
    with pytest.raises(InteropError, match=r"gives a result of shape \(2, 3\), expected \(2, 2\)"):
        other_libraries.largest(one, one[:, :2])


def test_keras_takes_the_library_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name == "jax" else None)
    other_libraries._choose_keras_backend()
    assert os.environ["KERAS_BACKEND"] == "jax"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    other_libraries._choose_keras_backend()
    assert os.environ["KERAS_BACKEND"] == "jax"  # what is chosen stays
