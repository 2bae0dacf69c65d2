"""Keras layers, models and files in and out: recorded results, stacks, what is refused.  Keras itself is not needed."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from paths import GOLDEN_FOLDER
from safetensors import safe_open

import gpulstm as gl
from gpulstm.errors import ConfigError, DTypeError, InteropError, ShapeError
from gpulstm.interop import KerasNet, from_keras, to_keras
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.model.stack import Recurrent

with safe_open(GOLDEN_FOLDER / "interop_keras.safetensors", "numpy") as file:
    GOLDEN = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    CONFIGS = json.loads(file.metadata()["cases"])


class Keras:
    """What is used of a Keras layer or model: its class's name, `name`, `get_config()`, `get_weights()`, `layers`."""

    def __init__(self, config: dict[str, Any], weights: list[np.ndarray] = (), layers: list[Any] = ()) -> None:  # type: ignore[assignment]
        self.name, self.config, self.weights, self.layers = config.get("name"), config, list(weights), layers

    def get_config(self) -> dict[str, Any]:
        return json.loads(json.dumps(self.config))

    def get_weights(self) -> list[np.ndarray]:
        return self.weights


def keras(kind: str, config: dict[str, Any], weights: Any = (), layers: Any = ()) -> Any:
    return type(kind, (Keras,), {})(config, weights, layers)


def sequential(*layers: Any, **more: Any) -> Any:
    config = {"layers": [{"class_name": type(layer).__name__, "config": layer.config} for layer in layers], **more}
    return keras("Sequential", config, layers=list(layers))


def recorded(case: str) -> Any:
    said = CONFIGS[case]
    return keras(said["class_name"], said["config"], listed(case, "weight"))


def listed(case: str, kind: str) -> list[np.ndarray]:
    count = sum(name.startswith(f"{case}/{kind}/") for name in GOLDEN)
    return [GOLDEN[f"{case}/{kind}/{place}"] for place in range(count)]


def turned(value: np.ndarray) -> np.ndarray:
    return value.swapaxes(0, 1) if value.ndim == 3 else value


@pytest.mark.parametrize("case", CONFIGS)
def test_recorded_layers(case: str, device: str) -> None:
    layer = recorded(case)
    net = from_keras(sequential(layer), device=device)
    assert isinstance(net, KerasNet)
    mask = GOLDEN[f"{case}/mask"].T if f"{case}/mask" in GOLDEN else None
    y, [end] = net(gl.to_device(turned(GOLDEN[f"{case}/x"]), device), mask=mask)
    np.testing.assert_allclose(turned(gl.to_host(y)), GOLDEN[f"{case}/y"], rtol=1e-10, atol=1e-12)
    for found, expected in zip(end, listed(case, "state"), strict=True):
        np.testing.assert_allclose(gl.to_host(found), expected, rtol=1e-10, atol=1e-12)


STACKS = [case for case in CONFIGS if not any(word in case for word in ("masked", "sum", "mul", "ave", "backwards"))]


@pytest.mark.parametrize("case", STACKS)
def test_recorded_layers_as_stacks(case: str) -> None:
    stack = from_keras(recorded(case), device="cpu")
    assert isinstance(stack, Recurrent)
    y, end = stack(turned(GOLDEN[f"{case}/x"]))
    if GOLDEN[f"{case}/y"].ndim == 3:
        np.testing.assert_allclose(turned(y), GOLDEN[f"{case}/y"], rtol=1e-10, atol=1e-12)
    parts = end if stack.spec.has_memory else (end,)
    found = [part[side] for side in range(stack.spec.directions) for part in parts]
    for mine, expected in zip(found, listed(case, "state"), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", [case for case in CONFIGS if "masked" not in case and case not in STACKS])
def test_layers_that_no_stack_is_equal_to(case: str) -> None:
    net = from_keras(recorded(case), device="cpu")
    assert isinstance(net, KerasNet)
    with pytest.raises(InteropError, match="no equal that can be trained here"):
        net.trainable()


@pytest.mark.parametrize("name", ["interop_keras.keras", "interop_keras.weights.h5"])
def test_recorded_files(name: str, device: str) -> None:
    net = from_keras(GOLDEN_FOLDER / name, device=device)
    assert isinstance(net, KerasNet)
    x = gl.to_device(turned(GOLDEN["model/x"]), device)
    np.testing.assert_allclose(gl.to_host(net(x)[0]), GOLDEN["model/y"], rtol=1e-5, atol=1e-6)
    network = net.trainable((1, 3, 1))
    assert isinstance(network, Network)
    assert (network.config.targets, network.config.stack.num_layers, network.config.stack.cell) == (3, 2, "gru")
    assert network.config.stack.dropout == (pytest.approx(0.2) if name.endswith(".keras") else 0.0)
    np.testing.assert_allclose(gl.to_host(network.forward(x)[0])[:, 0, :, 0], GOLDEN["model/y"], rtol=1e-5, atol=1e-6)


def test_a_state_handed_on(rng: np.random.Generator) -> None:
    net = from_keras(sequential(recorded("lstm"), dense(4, 1)), device="cpu")
    x = rng.normal(size=(7, 2, 2))
    whole, _ = net(x)
    first, state = net(x[:3])
    second, _ = net(x[3:], state)
    np.testing.assert_allclose(np.concatenate([first, second]), whole, rtol=1e-12)


def dense(inputs: int, outputs: int, activation: Any = "linear", name: str = "out") -> Any:
    rng = np.random.default_rng(3)
    weights = [rng.normal(size=(inputs, outputs)), rng.normal(size=outputs)]
    return keras("Dense", {"name": name, "activation": activation}, weights)


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


STACK_KINDS = {"lstm": gl.LSTM, "gru": gl.GRU, "rnn": gl.RNN}


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("cell", STACK_KINDS)
def test_there_and_back_is_bit_for_bit(cell: str, bias: bool, bidirectional: bool) -> None:
    stack = STACK_KINDS[cell](3, 4, 2, bidirectional=bidirectional, bias=bias, device="cpu", seed=6)
    for value in stack.params.values():
        value += np.random.default_rng(1).normal(size=value.shape).astype("f4")
    back = from_keras(to_keras(stack), bidirectional=bidirectional, device="cpu")
    assert isinstance(back, Recurrent)
    assert back.spec == stack.spec
    np.testing.assert_array_equal(back.params.flat, stack.params.flat)


def test_a_gru_without_biases_does_not_say_where_it_resets() -> None:
    stack = gl.GRU(3, 4, bias=False, reset_after=False, device="cpu")
    back = from_keras(to_keras(stack), reset_after=False, device="cpu")
    assert back.spec == stack.spec  # type: ignore[union-attr]


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_weights_file_there_and_back(tmp_path: Path, bidirectional: bool) -> None:
    stack = gl.LSTM(3, 4, 12, bidirectional=bidirectional, device="cpu", seed=6)  # lstm_10 comes after lstm_9
    to_keras(stack, tmp_path / "model.weights.h5")
    net = from_keras(tmp_path / "model.weights.h5", device="cpu")
    np.testing.assert_array_equal(net.trainable().params.flat, stack.params.flat)  # type: ignore[union-attr]


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
    "stack",
    [
        gl.LSTM(2, 3, peepholes=True, device="cpu"),
        gl.LSTM(2, 3, proj_size=2, device="cpu"),
        gl.GRU(2, 3, clip=1.0, device="cpu"),
        gl.RNN(2, 3, zoneout=0.5, device="cpu"),
        gl.RNN(2, 3, activations=(("ScaledTanh", 2.0, 1.0),), device="cpu"),
    ],
    ids=repr,
)
def test_options_that_keras_does_not_have(stack: Recurrent) -> None:
    with pytest.raises(InteropError, match=r"Keras has no (layer|activation) that computes the same as"):
        to_keras(stack)


def test_networks_that_keras_does_not_have(tmp_path: Path) -> None:
    for options, message in (({"bidirectional": True}, "bidirectional layers' last outputs"), ({}, "covariates")):
        spec = gl.LSTM(2, 3, device="cpu", **options).spec  # type: ignore[arg-type]
        with pytest.raises(InteropError, match=f"no Sequential of Keras reads {message}"):
            to_keras(Network(NetworkConfig(spec, future_size=0 if options else 2), device="cpu"))
    with pytest.raises(ConfigError, match=r"expected a name that ends in \.weights\.h5"):
        to_keras(gl.RNN(2, 3, device="cpu"), tmp_path / "model.h5")


LSTM = recorded("lstm")


def lstm(**changes: Any) -> Any:
    weights = changes.pop("weights", LSTM.weights)
    return keras("LSTM", {**LSTM.config, **changes}, weights)


def two_way(**changes: Any) -> Any:
    layer = recorded("two-way")
    return keras("Bidirectional", {**layer.config, **changes}, layer.weights)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (3, InteropError, "source is a int, expected a Keras layer or model"),
        ([], InteropError, "the list of weights is empty"),
        ([np.zeros(3)], InteropError, r"is not one of recurrent and dense layers: \(3,\)"),
        ([*LSTM.weights[:2], LSTM.weights[2].astype("f4")], DTypeError, "float32, float64, expected one of"),
        (lstm(weights=[]), InteropError, "the LSTM layer 'lstm' has no weights; build the model first"),
        (lstm(weights=LSTM.weights[:2]), InteropError, "LSTM layer 'lstm' has 2 arrays for a direction, expected 3"),
        (lstm(units=5), ShapeError, r"weight 0 of the LSTM layer 'lstm' has shape \(2, 16\), expected \(2, 20\)"),
        (lstm(activation="gelu"), InteropError, "LSTM layer 'lstm' has activation 'gelu', expected one of tanh"),
        (lstm(activation={"class_name": "Mine"}), InteropError, "has activation 'Mine', expected one of"),
        (two_way(merge_mode=None), InteropError, "merge_mode None, expected one of concat"),
        (sequential(LSTM, keras("Conv1D", {"name": "c"})), InteropError, "has a Conv1D layer 'c', which is"),
        (sequential(LSTM, keras("Lambda", {"name": "l"})), InteropError, "has a Lambda layer 'l', which is"),
        (sequential(LSTM, dense(4, 1, "gelu")), InteropError, "Dense layer 'out' has activation 'gelu'"),
        (sequential(LSTM, keras("TimeDistributed", {"layer": {"class_name": "GRU"}})), InteropError, "wraps a GRU"),
        (sequential(), InteropError, "the model has no layers"),
        (keras("Sequential", {"layers": [3]}), InteropError, "the model's config does not describe its layers"),
    ],
)  # fmt: skip
def test_mistakes(source: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        from_keras(source, device="cpu")


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


# -- files that are damaged or mean harm -------------------------------------------------------------------------------
def archive(path: Path, **parts: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in parts.items():
            file.writestr({"config": "config.json", "weights": "model.weights.h5"}[name], data)
    return path


def test_damaged_files(tmp_path: Path) -> None:
    for name in ("interop_keras.keras", "interop_keras.weights.h5"):
        whole = (GOLDEN_FOLDER / name).read_bytes()
        for cut in (0, 10, len(whole) // 2, len(whole) - 30):
            path = tmp_path / name
            path.write_bytes(whole[:cut])
            with pytest.raises(InteropError):
                from_keras(path, device="cpu")
    with pytest.raises(ConfigError, match="there is no file"):
        from_keras(tmp_path / "none.keras")
    empty = io.BytesIO()
    with h5py.File(empty, "w"):
        pass
    for parts, message in (
        ({"config": b"{}"}, r"is no \.keras archive: it has no model\.weights\.h5"),
        ({"weights": b""}, r"is no \.keras archive: it has no config\.json"),
        ({"config": b"{", "weights": b""}, "is damaged"),
        ({"config": b"[]", "weights": b""}, "holds a list, expected a Sequential or Functional model"),
        ({"config": b'{"class_name": "Mine"}', "weights": b""}, "holds a Mine, expected a Sequential"),
    ):
        with pytest.raises(InteropError, match=message):
            from_keras(archive(tmp_path / "model.keras", **parts))
    (tmp_path / "empty.weights.h5").write_bytes(empty.getvalue())
    with pytest.raises(InteropError, match="it has no group 'layers'"):
        from_keras(tmp_path / "empty.weights.h5")


def test_data_outside_of_a_file_is_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["data"] = np.arange(4.0)
    (tmp_path / "raw").write_bytes(np.arange(4.0).tobytes())
    for kind in ("external link", "soft link", "external storage", "virtual"):
        path = tmp_path / "model.weights.h5"
        with h5py.File(path, "w") as file:
            group = file.create_group("layers/lstm/cell/vars")
            if kind == "external link":
                group["0"] = h5py.ExternalLink(str(secret), "/data")
            elif kind == "soft link":
                group["0"] = h5py.SoftLink("/layers/lstm")
            elif kind == "external storage":
                group.create_dataset("0", (4,), "f8", external=[(str(tmp_path / "raw"), 0, 32)])
            else:
                layout = h5py.VirtualLayout((4,), "f8")
                layout[:] = h5py.VirtualSource(str(secret), "data", (4,))
                group.create_virtual_dataset("0", layout)
        with pytest.raises(InteropError, match=r"has a link at layers/lstm/cell/vars/0, which is|data outside of it"):
            from_keras(path)


def test_weights_files_that_do_not_say_enough(tmp_path: Path) -> None:
    path = tmp_path / "model.weights.h5"
    for groups, message in (
        (("conv1d",), "has a layer 'conv1d', expected some of bidirectional, dense"),
        (("lstm/cell", "gru/cell"), r"holds gru and lstm layers and not their order; save the model as a \.keras"),
        (("bidirectional/forward_layer/cell",), "does not say which layer 'layers/bidirectional' wraps"),
    ):
        with h5py.File(path, "w") as file:
            for group in groups:
                file[f"layers/{group}/vars/0"] = np.zeros((2, 8))
        with pytest.raises(InteropError, match=message):
            from_keras(path)
