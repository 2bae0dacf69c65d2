"""The network: head on stack, gradients, config."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from variables import SetVariable

from gpulstm.arrays.devices import to_host
from gpulstm.engines import reference
from gpulstm.engines.cuda import engine as cuda
from gpulstm.engines.spec import StackSpec
from gpulstm.errors import ConfigError, ShapeError
from gpulstm.model.network import Network, NetworkConfig

CONFIG = NetworkConfig(
    StackSpec("lstm", 3, 5, 2, dtype="float64", dropout=0.3, zoneout=(0.1, 0.2)),
    horizon=4,
    targets=2,
    outputs=3,
    future_size=2,
)


def inputs(network: Network, rng: np.random.Generator) -> tuple[Any, Any, Any]:
    shapes = ((6, 3, 3), (3, 4, 2), (3, 4, 2, 3))
    x, future, draw = (network.backend.from_host(rng.normal(size=shape)) for shape in shapes)
    return x, future, draw


def test_gradients_equal_central_differences(rng: np.random.Generator) -> None:
    network = Network(CONFIG, device="cpu")
    x, future, draw = inputs(network, rng)
    _, _, tape = network.forward(x, future, lengths=[6, 0, 3], training=True)
    grads = network.backward(tape, draw)

    def loss() -> float:
        network.calls = 0  # the same dropout masks
        return float((network.forward(x, future, lengths=[6, 0, 3], training=True)[0] * draw).sum())

    for name, values in network.params.items():
        numeric = np.zeros_like(values)
        for index in np.ndindex(values.shape):
            kept = values[index]
            values[index] = kept + 1e-6
            above = loss()
            values[index] = kept - 1e-6
            numeric[index] = (above - loss()) / 2e-6
            values[index] = kept
        error = np.abs(numeric - grads[name]).max() / max(np.linalg.norm(grads[name]), 1e-3)
        assert error < 1e-7, (name, error)


def test_devices_agree(device: str, rng: np.random.Generator) -> None:
    on_cpu, on_device = Network(CONFIG, device="cpu"), Network(CONFIG, device=device)
    np.testing.assert_array_equal(on_cpu.params.flat, to_host(on_device.params.flat))
    results = []
    for network in (on_cpu, on_device):
        x, future, draw = inputs(network, np.random.default_rng(1))
        raw, (h, c), tape = network.forward(x, future, training=True)
        grads = network.backward(tape, draw)
        results.append([to_host(value) for value in (raw, h, c, grads.flat)])
    for expected, value in zip(*results, strict=True):
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-12)


def test_rows_do_not_mix_and_padding_is_not_read(rng: np.random.Generator) -> None:
    network = Network(CONFIG, device="cpu")
    x, future, _ = inputs(network, rng)
    both, _, _ = network.forward(x, future, lengths=[6, 2, 3])
    x[2:, 1] = np.nan
    alone, _, _ = network.forward(x[:2, 1:2], future[1:2])
    again, _, _ = network.forward(x, future, lengths=[6, 2, 3])
    np.testing.assert_allclose(both[1], alone[0], rtol=0, atol=1e-14)
    np.testing.assert_array_equal(both, again)


def test_config_survives_json() -> None:
    assert NetworkConfig.from_dict(json.loads(json.dumps(CONFIG.to_dict()))) == CONFIG


def test_initial_false_leaves_zeros() -> None:
    assert not np.any(Network(CONFIG, device="cpu", initial=False).params.flat)


def test_parameters_are_one_buffer() -> None:
    network = Network(CONFIG, device="cpu")
    network.params.flat[...] = 0
    assert not np.any(network.rnn.params["W_h_l1"])
    assert not np.any(network.head.params["W"])
    assert list(network.params)[-2:] == ["head.W", "head.b"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"future": None}, ShapeError, r"future is missing, expected an array of shape \(3, 4, 2\)"),
        ({"future": np.zeros((3, 4, 1))}, ShapeError, r"future has shape \(3, 4, 1\), expected \(3, 4, 2\)"),
        ({"x": np.zeros((6, 3, 2))}, ShapeError, r"x has shape \(6, 3, 2\), expected \(T, B, 3\)"),
    ],
)
def test_mistakes_in_forward(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"x": np.zeros((6, 3, 3)), "future": np.zeros((3, 4, 2)), **change}
    with pytest.raises(error, match=message):
        Network(CONFIG, device="cpu").forward(**arguments)


def test_wrong_gradient_shape_is_refused() -> None:
    network = Network(CONFIG, device="cpu")
    _, _, tape = network.forward(np.zeros((6, 3, 3)), np.zeros((3, 4, 2)), training=True)
    with pytest.raises(ShapeError, match=r"draw has shape \(3, 4, 2\), expected \(3, 4, 2, 3\)"):
        network.backward(tape, np.zeros((3, 4, 2)))


@pytest.mark.parametrize("name", ["horizon", "targets", "outputs"])
def test_sizes_are_checked(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is 0, expected a whole number of at least 1"):
        NetworkConfig(CONFIG.stack, **{name: 0})


def test_unknown_config_entry_is_refused() -> None:
    values = CONFIG.to_dict()
    values["stack"]["attention"] = True
    with pytest.raises(ConfigError, match="stack config has unknown entries: attention"):
        NetworkConfig.from_dict(values)


def test_a_bound_on_memory_changes_no_bit(
    monkeypatch: pytest.MonkeyPatch, set_variable: SetVariable, device: str
) -> None:
    for engine in (reference, cuda):
        monkeypatch.setattr(engine, "BLOCK_ROWS", 6)
    if device == "cpu":
        set_variable("GPULSTM_ENGINE", "reference")  # native blocks are not short ones
    results = []
    for memory in (None, "sqrt"):
        network = Network(CONFIG, device=device)
        generator = np.random.default_rng(1)
        x, future, draw = inputs(network, generator)
        raw, state, tape = network.forward(x, future, lengths=[6, 0, 3], training=True, memory=memory)
        assert tape is not None
        segments = len(tape.stack.scans[0][0].segments)
        assert (segments == 1) == (memory is None)
        results.append([to_host(part) for part in (raw, *state, network.backward(tape, draw).flat)])
    for whole, cut in zip(*results, strict=True):
        np.testing.assert_array_equal(cut, whole)
