"""The activation functions of the cells: their values, what a spec makes of their names, who serves them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.engines import activations
from gpulstm.engines.dispatch import by_name
from gpulstm.engines.spec import Call, StackSpec
from gpulstm.errors import ConfigError, EngineError
from gpulstm.model.network import NetworkConfig

VALUES = {
    ("Sigmoid", None, None): lambda z: 1 / (1 + math.exp(-z)),
    ("Tanh", None, None): math.tanh,
    ("Relu", None, None): lambda z: max(z, 0),
    ("Softsign", None, None): lambda z: z / (1 + abs(z)),
    ("Softplus", None, None): lambda z: math.log(1 + math.exp(z)),
    ("Affine", 0.5, 2.0): lambda z: 0.5 * z + 2,
    ("LeakyRelu", None, None): lambda z: z if z >= 0 else 0.01 * z,
    ("ThresholdedRelu", 0.5, None): lambda z: z if z > 0.5 else 0,
    ("ScaledTanh", 1.7, 0.6): lambda z: 1.7 * math.tanh(0.6 * z),
    ("HardSigmoid", None, None): lambda z: min(max(0.2 * z + 0.5, 0), 1),
    ("Elu", 0.7, None): lambda z: z if z >= 0 else 0.7 * (math.exp(z) - 1),
}


@pytest.mark.parametrize("entry", VALUES, ids=lambda entry: entry[0])
def test_values_and_slopes(entry: tuple) -> None:
    function = activations.make(activations.named(*entry))
    z = np.array([-30.0, -3.0, -0.7, 0.3, 0.8, 2.0, 30.0])
    y = function(np, z)
    np.testing.assert_allclose(y, [VALUES[entry](value) for value in z], rtol=1e-12, atol=1e-12)
    middle = z[1:-1]
    slope = (function(np, middle + 1e-6) - function(np, middle - 1e-6)) / 2e-6
    np.testing.assert_allclose(function.slope(np, y[1:-1]), slope, atol=1e-7)


def test_softplus_and_sigmoid_do_not_overflow() -> None:
    z = np.array([-1e4, 1e4])
    np.testing.assert_array_equal(activations.Softplus()(np, z), [0.0, 1e4])
    np.testing.assert_array_equal(activations.Sigmoid()(np, z), [0.0, 1.0])


def test_every_activation_is_tested_here() -> None:
    assert {entry[0] for entry in VALUES} == set(activations.ACTIVATIONS)


def test_naming_the_cells_own_is_naming_none() -> None:
    assert StackSpec("lstm", 2, 3, activations=("Sigmoid", "Tanh", "Tanh")) == StackSpec("lstm", 2, 3)


def test_a_network_config_survives_json() -> None:
    spec = StackSpec("gru", 2, 3, activations=("HardSigmoid", ("Elu", 0.5, 0.0)))
    assert spec.activations == (("HardSigmoid", 0.2, 0.5), ("Elu", 0.5, 0.0))
    values = dataclasses.asdict(NetworkConfig(spec))
    values["stack"]["activations"] = [list(entry) for entry in values["stack"]["activations"]]  # as JSON gives them
    assert NetworkConfig.from_dict(values).stack == spec


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (("Tanh",), "activations has 1 entries, expected 3 for the LSTM, or none"),
        (("Sigmoid", "Tanh", "Gelu"), "activation is 'Gelu', expected one of Sigmoid"),
        (("Sigmoid", "Tanh", ("Elu", math.inf)), "alpha of activation Elu is inf, expected a finite number"),
    ],
)
def test_mistakes(named: tuple, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        gl.LSTM(2, 3, activations=named, device="cpu")


def test_nonlinearity_and_activations_are_one_choice() -> None:
    with pytest.raises(ConfigError, match="both name the RNN's activation"):
        gl.RNN(2, 3, nonlinearity="relu", activations=("Elu",), device="cpu")


def test_no_gradient_below_alpha_zero() -> None:
    with pytest.raises(ConfigError, match="gradient needs alpha of at least 0"):
        activations.make(activations.named("LeakyRelu", -0.1)).slope(np, np.ones(1))


def test_the_cuda_engine_refuses_what_it_does_not_compute() -> None:
    for device in ("cpu", "cuda:0"):
        call = Call(StackSpec("rnn", 2, 3, activations=("Elu",)), device, 4, 2)
        assert by_name("cuda").supports(call) is not None


def test_the_plan_says_why_no_faster_engine(device: str) -> None:
    layer = gl.GRU(2, 3, activations=("HardSigmoid", "Tanh"), device=device)
    plan = str(layer.explain(4, 2))
    assert f"engine: {'cpu' if device == 'cpu' else 'reference'}" in plan
    if device == "cuda":
        assert "not cuda: no kernel for activations" in plan
        with pytest.raises(EngineError, match="no kernel for activations"):
            gl.GRU(2, 3, activations=("HardSigmoid", "Tanh"), device=device, engine="cuda")(
                gl.to_device(np.zeros((4, 2, 2)), device)
            )
