"""Initial values: chrono initialization, its range, what it leaves alone, and who cannot have it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from stacks import CELLS

import gpulstm as gl
from gpulstm.arrays.backend import Backend
from gpulstm.arrays.devices import to_host
from gpulstm.engines.spec import StackSpec
from gpulstm.errors import ConfigError
from gpulstm.forecast.forecaster import Forecaster
from gpulstm.model.initializers import chrono_bias
from gpulstm.model.network import Network, NetworkConfig


def biases(chrono: int, cell: Any = "lstm", **options: Any) -> dict[str, np.ndarray]:
    """The bias of each gate of a wide layer."""
    spec = StackSpec(cell, 2, 4000, **options)
    bias = chrono_bias(spec, chrono, np.random.default_rng(0))
    return dict(zip(spec.gate_names, np.split(bias, spec.gates), strict=True))


def test_lstm_units_forget_over_2_to_t_max_steps() -> None:
    gates = biases(750)
    steps = 1 + np.exp(gates["f"])  # 1 / (1 - sigmoid(b))
    np.testing.assert_allclose(1 / (1 - 1 / (1 + np.exp(-gates["f"]))), steps)
    assert 2 <= steps.min() < 10 and 740 < steps.max() <= 750
    assert abs(steps.mean() - 376) < 10  # uniform
    np.testing.assert_array_equal(gates["i"], -gates["f"])
    assert not gates["g"].any() and not gates["o"].any()
    coupled = biases(750, coupled=True)
    np.testing.assert_array_equal(coupled["i"], gates["i"])


@pytest.mark.parametrize("reset_after", [True, False])
def test_the_gru_keeps_by_z(reset_after: bool) -> None:
    gates = biases(750, "gru", reset_after=reset_after)
    assert gates["z"].min() >= 0 and 6 < gates["z"].max() <= np.log(749)
    assert not gates["r"].any() and not gates["n"].any()


@pytest.mark.parametrize("cell", [gl.LSTM, gl.GRU])
def test_all_but_the_gates_biases_start_as_without(cell: Any) -> None:
    plain, chrono, again = (cell(3, 5, 2, bidirectional=True, device="cpu", chrono=t) for t in (None, 100, 100))
    for name, value in plain.params.items():
        same = np.array_equal(value, chrono.params[name])
        assert same == (not name.startswith("b_l")), name
    np.testing.assert_array_equal(chrono.params.flat, again.params.flat)
    firsts = {chrono.params[name].tobytes() for name in chrono.params if name.startswith("b_l")}
    assert len(firsts) == 4  # each layer and direction draws its own


def test_a_gru_unit_keeps_what_it_holds() -> None:
    """With T_max the state of a unit falls over T steps as the bias says, where nothing comes in."""
    gru = gl.GRU(1, 200, device="cpu", dtype="float64", chrono=500)
    gru.params["W_h_l0"] = np.zeros((200, 600))
    _, state = gru(np.zeros((50, 1, 1)), np.ones((1, 1, 200)))
    kept = 1 / (1 + np.exp(-gru.params["b_l0"][200:400]))
    np.testing.assert_allclose(state[0, 0], kept**50, rtol=1e-10)


def test_mistakes() -> None:
    with pytest.raises(ConfigError, match="chrono is 1, expected a whole number of at least 2"):
        gl.LSTM(2, 3, device="cpu", chrono=1)
    with pytest.raises(ConfigError, match=r"chrono is 9\.5, expected a whole number"):
        gl.GRU(2, 3, device="cpu", chrono=9.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="chrono is 9, but bias=False leaves no bias"):
        gl.LSTM(2, 3, device="cpu", chrono=9, bias=False)
    with pytest.raises(ConfigError, match="chrono is 9, but the RNN has no gate"):
        NetworkConfig(StackSpec("rnn", 2, 3), chrono=9)
    with pytest.raises(ConfigError, match="chrono is 9, but the RNN has no gate"):
        Forecaster(cell="rnn", chrono=9)


def test_a_network_and_a_forecaster_start_so() -> None:
    config = NetworkConfig(StackSpec("lstm", 2, 50), chrono=300)
    assert NetworkConfig.from_dict(config.to_dict()) == config
    bias = Network(config, device="cpu").params["rnn.b_l0"]
    assert bias[50:100].max() > 5 and np.array_equal(bias[:50], -bias[50:100])
    options: dict[str, Any] = {"hidden_size": 16, "num_layers": 1, "device": "cpu", "learning_rate": 1e-12}
    forecaster = Forecaster(2, 4, epochs=1, validation=0, chrono=300, **options).fit(np.arange(20.0), progress=False)
    assert forecaster.fitted.network.params["rnn.b_l0"][16:32].max() > 4


@pytest.mark.parametrize("cell", CELLS)
def test_weights_start_the_same_on_every_device(cell: str, backend: Backend) -> None:
    options = {"num_layers": 2, "bidirectional": True, "seed": 8}
    host, same = (CELLS[cell](2, 4, device=device, **options) for device in ("cpu", backend))
    np.testing.assert_array_equal(to_host(same.params.flat), host.params.flat)


def test_what_weights_start_from() -> None:
    stack = gl.LSTM(3, 16, 2, dtype="float64", device="cpu", proj_size=5, layer_norm=True, forget_bias=2.5)
    for suffix, inputs in (("_l0", 3), ("_l1", 5)):
        params = {name[: -len(suffix)]: value for name, value in stack.params.items() if name.endswith(suffix)}
        np.testing.assert_array_equal(params["b"], np.repeat([0, 2.5, 0, 0], 16))
        for name in ("gain_x", "gain_h", "gain_c"):
            assert (params[name] == 1).all()
        assert not params["b_c"].any()
        limit = np.sqrt(6 / (inputs + 16))
        assert 0.8 * limit < np.abs(params["W_x"]).max() <= limit
        for gate in range(4):
            w = params["W_h"][:, gate * 16 : (gate + 1) * 16]
            np.testing.assert_allclose(w @ w.T, np.eye(5), atol=1e-12)
