"""Keras models that run here: recorded results, state, masks, chains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from keras_models import CONFIGS, GOLDEN, LSTM, STACKS, dense, keras, listed, lstm, recorded, sequential, turned

import gpulstm as gl
from gpulstm.errors import InteropError, ShapeError
from gpulstm.interop import KerasNet, from_keras


@pytest.mark.parametrize("case", CONFIGS)
def test_recorded_layers(case: str, device: str) -> None:
    layer = recorded(case)
    net = from_keras(sequential(layer), device=device)
    assert isinstance(net, KerasNet)
    mask = GOLDEN[f"{case}/mask"].T if f"{case}/mask" in GOLDEN else None
    y, [end] = net(gl.to_device(turned(GOLDEN[f"{case}/x"]), device), mask=mask)
    np.testing.assert_allclose(turned(gl.to_host(y)), GOLDEN[f"{case}/y"], rtol=1e-10, atol=1e-12)
    for results, expected in zip(end, listed(case, "state"), strict=True):
        np.testing.assert_allclose(gl.to_host(results), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", [case for case in CONFIGS if "masked" not in case and case not in STACKS])
def test_layers_that_no_stack_is_equal_to(case: str) -> None:
    net = from_keras(recorded(case), device="cpu")
    assert isinstance(net, KerasNet)
    with pytest.raises(InteropError, match="no equal that can be trained here"):
        net.trainable()


def test_a_state_handed_on(rng: np.random.Generator) -> None:
    net = from_keras(sequential(recorded("lstm"), dense(4, 1)), device="cpu")
    x = rng.normal(size=(7, 2, 2))
    whole, _ = net(x)
    first, state = net(x[:3])
    second, _ = net(x[3:], state)
    np.testing.assert_allclose(np.concatenate([first, second]), whole, rtol=1e-12)


def test_a_masking_layer_a_repeated_vector_and_activations(rng: np.random.Generator) -> None:
    lstm = recorded("lstm")
    last = keras("LSTM", {**lstm.config, "name": "last", "return_sequences": False}, lstm.weights)
    chain = [
        keras("Masking", {"name": "m", "mask_value": 9.0}),
        last,
        keras("RepeatVector", {"name": "r", "n": 3}),
        keras("Activation", {"name": "a", "activation": "softsign"}),
        dense(4, 2, "softmax"),
    ]
    x = rng.normal(size=(5, 2, 2))
    x[3:, 0] = 9.0
    y, _ = from_keras(sequential(*chain), device="cpu")(x)
    _, (h, _) = from_keras(lstm, device="cpu")(x, lengths=np.array([3, 5]))  # type: ignore[misc]
    z = h[0] / (1 + np.abs(h[0])) @ chain[-1].weights[0] + chain[-1].weights[1]
    expected = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(y, np.stack([expected] * 3), rtol=1e-10)


def functional(*links: tuple[str, list[str]]) -> Any:
    def tensor(name: str) -> Any:
        return {"class_name": "__keras_tensor__", "config": {"keras_history": [name, 0, 0]}}

    layers, entries = [], []
    for name, sources in links:
        layer = keras("InputLayer", {"name": name}) if not sources else lstm(name=name)
        layers.append(layer)
        nodes = [{"args": [[tensor(source) for source in sources]], "kwargs": {"training": False}}] if sources else []
        entries.append({"class_name": type(layer).__name__, "config": layer.config, "inbound_nodes": nodes})
    return keras("Functional", {"layers": entries}, layers=layers)


def test_functional_models_are_chains() -> None:
    net = from_keras(functional(("in", []), ("a", ["in"])), device="cpu")
    assert repr(net) == "KerasNet(LSTM layer 'a', device='cpu')"
    for links, message in (
        ([("in", []), ("a", ["in"]), ("b", ["in"])], "LSTM layer 'b' reads in: expected a chain"),
        ([("in", []), ("a", ["in"]), ("b", ["a", "in"])], "LSTM layer 'b' reads a, in: expected a chain"),
    ):
        with pytest.raises(InteropError, match=message):
            from_keras(functional(*links))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.zeros((3, 2)),), ShapeError, r"x has shape \(3, 2\), expected \(T, B, I\)"),
        ((np.zeros((3, 1, 5)),), ShapeError, r"LSTM layer 'lstm' is given shape \(3, 1, 5\), expected \(T, B, 2\)"),
        ((np.zeros((3, 1, 2)), None, np.ones((1, 3))), ShapeError, r"mask has shape \(1, 3\), expected \(3, 1\)"),
        ((np.zeros((3, 1, 2)), []), ShapeError, "state has 0 entries, expected 1, one for each recurrent layer"),
        ((np.zeros((3, 1, 2)), [(np.zeros((1, 4)),)]), ShapeError, r"has \[\(1, 4\)\], expected 2 of \(1, 4\)"),
    ],
)
def test_wrong_inputs(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        from_keras(sequential(LSTM), device="cpu")(*arguments)
