"""Chains of Keras layers as networks, and what of them there is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from keras_models import LSTM, dense, keras, lstm, sequential, two_way

import gpulstm as gl
from gpulstm.errors import InteropError, ShapeError
from gpulstm.interop import KerasNet, from_keras, to_keras
from gpulstm.interop.keras.chain import CELLS, GATES
from gpulstm.model.network import Network, NetworkConfig


@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_has_the_same_gates_there(kind: str) -> None:
    stack = {"LSTM": gl.LSTM, "GRU": gl.GRU, "SimpleRNN": gl.RNN}[kind](1, 1, device="cpu")
    assert sorted(stack.spec.gate_names) == sorted(GATES[CELLS[kind]])


def test_a_network_there_and_back(rng: np.random.Generator) -> None:
    network = Network(NetworkConfig(gl.LSTM(3, 4, 2, device="cpu").spec, 2, 3, 1), device="cpu", seed=3)
    net = from_keras(to_keras(network), device="cpu")
    assert isinstance(net, KerasNet)
    again = net.trainable((2, 3, 1))
    assert again.config == network.config
    np.testing.assert_array_equal(again.params.flat, network.params.flat)
    x = rng.normal(size=(5, 2, 3)).astype("f4")
    np.testing.assert_allclose(net(x)[0], network.forward(x)[0].reshape(2, 6), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (lstm(units=5), ShapeError, r"weight 0 of the LSTM layer 'lstm' has shape \(2, 16\), expected \(2, 20\)"),
        (lstm(activation="gelu"), InteropError, "LSTM layer 'lstm' has activation 'gelu', expected one of tanh"),
        (lstm(activation={"class_name": "Mine"}), InteropError, "has activation 'Mine', expected one of"),
        (two_way(merge_mode=None), InteropError, "merge_mode None, expected one of concat"),
        (sequential(LSTM, keras("Conv1D", {"name": "c"})), InteropError, "has a Conv1D layer 'c', which is"),
        (sequential(LSTM, keras("Lambda", {"name": "l"})), InteropError, "has a Lambda layer 'l', which is"),
        (sequential(LSTM, dense(4, 1, "gelu")), InteropError, "Dense layer 'out' has activation 'gelu'"),
        (sequential(LSTM, keras("TimeDistributed", {"layer": {"class_name": "GRU"}})), InteropError, "wraps a GRU"),
        (lstm(weights=LSTM.weights[:2]), InteropError, "LSTM layer 'lstm' has 2 arrays for a direction, expected 3"),
    ],
)  # fmt: skip
def test_layers_that_there_are_not(source: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        from_keras(source, device="cpu")
