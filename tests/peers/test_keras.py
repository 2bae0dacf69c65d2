"""Keras 3 with PyTorch underneath, live: layers of random options forward and backward, masks, models, files."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import pytest
import torch
from keras import layers as kl
from keras.src.backend.common import dtypes

import gpulstm as gl
from gpulstm.interop import KerasNet, from_keras, to_keras
from gpulstm.losses import MSE
from gpulstm.model.network import Network
from gpulstm.model.stack import Recurrent
from gpulstm.optimizers import Adam

# Keras 3.15 on PyTorch says this of itself with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
SEED = int(os.environ.get("GPULSTM_PEER_SEED", secrets.randbelow(2**31)))
COUNT = 200
ACTIVATIONS = ["tanh", "sigmoid", "relu", "linear", "softplus", "softsign", "elu", "leaky_relu", "hard_sigmoid"]
KINDS: dict[str, Any] = {"LSTM": kl.LSTM, "GRU": kl.GRU, "SimpleRNN": kl.SimpleRNN}


@pytest.fixture(autouse=True)
def _double_precision(monkeypatch: pytest.MonkeyPatch) -> Any:
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    # Keras keeps float64 for TensorFlow alone, and would multiply matrices in float32 here.
    monkeypatch.setitem(dtypes.BIT64_TO_BIT32_DTYPE, "float64", "float64")
    torch.manual_seed(0)
    keras.utils.set_random_seed(1)
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


def random_layer(rng: np.random.Generator, *, simple: bool) -> tuple[Any, str]:
    """A layer with random options; `simple`: one that a `Recurrent` is equal to."""
    kind = str(rng.choice(list(KINDS)))
    options: dict[str, Any] = {
        "units": int(rng.integers(1, 6)),
        "use_bias": bool(rng.integers(4)),
        "return_sequences": simple or bool(rng.integers(2)),
        "return_state": True,
    }
    if rng.integers(2):
        options["activation"] = str(rng.choice(ACTIVATIONS))
        if kind != "SimpleRNN":
            options["recurrent_activation"] = str(rng.choice(ACTIVATIONS))
    if kind == "GRU":
        options["reset_after"] = bool(rng.integers(2))
    merge = str(rng.choice(["no", "concat"] if simple else ["no", "concat", "sum", "mul", "ave"]))
    if not simple and merge == "no":
        options["go_backwards"] = bool(rng.integers(2))
        options["zero_output_for_mask"] = bool(rng.integers(2))
    layer = KINDS[kind](**options)
    return (layer if merge == "no" else kl.Bidirectional(layer, merge_mode=merge)), f"{kind} {options} merge={merge}"


def built(layer: Any, size: int, rng: np.random.Generator) -> Any:
    layer.build((None, None, size))
    layer.set_weights([rng.normal(size=weight.shape) * 0.5 for weight in layer.get_weights()])
    return layer


def batch_first(value: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(value.swapaxes(0, 1))


def tolerance(text: str) -> float:
    """PyTorch's softplus is linear from 20 on, and the slope of its hard_sigmoid is 1/6 in float32."""
    return 1e-7 if "softplus" in text or "hard_sigmoid" in text else 1e-10


def numbers(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy()


def test_random_layers_with_gradients(capsys: pytest.CaptureFixture[str]) -> None:
    """What a stack is equal to: outputs, states and all gradients to 1e-10; with and without lengths."""
    rng, worst = np.random.default_rng([SEED, 0]), 0.0
    for case in range(COUNT):
        layer, text = random_layer(rng, simple=True)
        steps, batch, size = (int(rng.integers(1, 7)) for _ in range(3))
        built(layer, size, rng)
        ours = from_keras(layer, device="cpu")
        assert isinstance(ours, Recurrent), text
        x = rng.normal(size=(steps, batch, size))
        lengths = rng.integers(1, steps + 1, size=batch) if rng.integers(2) else None
        count, units = ours.spec.directions, ours.spec.hidden_size
        parts = 2 if ours.spec.has_memory else 1
        start = rng.normal(size=(parts, count, batch, units))
        tensors = [
            torch.tensor(start[part, side], requires_grad=True) for side in range(count) for part in range(parts)
        ]
        input_ = torch.tensor(batch_first(x), requires_grad=True)
        valid = None if lengths is None else np.arange(steps)[:, None] < lengths
        y, *ends = layer(
            input_, initial_state=tensors, mask=None if valid is None else torch.tensor(batch_first(valid))
        )
        dy = rng.normal(size=(steps, batch, count * units))
        dends = rng.normal(size=(parts, count, batch, units))
        if valid is not None:
            dy[~valid] = 0.0  # past the end Keras gives the last output again, this library zeros
        loss = (y * torch.tensor(batch_first(dy))).sum()
        for index, end in enumerate(ends):
            loss = loss + (end * torch.tensor(dends[index % parts, index // parts])).sum()
        layer.zero_grad()
        loss.backward()

        state = tuple(start) if ours.spec.has_memory else start[0]
        results, end, tape = ours.forward(x, state, lengths)
        dx, dstart, grads = ours.backward(tape, dy, tuple(dends) if ours.spec.has_memory else dends[0])
        expected = batch_first(numbers(y))
        expected = expected if valid is None else expected * valid[:, :, None]
        pairs = [(results, expected), (dx, batch_first(numbers(input_.grad)))]
        for index, (theirs, tensor) in enumerate(zip(ends, tensors, strict=True)):
            part, side = index % parts, index // parts
            pairs.append(((end[part] if parts == 2 else end)[side], numbers(theirs)))
            pairs.append(((dstart[part] if parts == 2 else dstart)[side], numbers(tensor.grad)))
        gradients = Recurrent(ours.spec, device="cpu", initial=False)
        gradients.params.load(grads)
        theirs_flat = [numbers(weight.value.grad) for weight in layer.trainable_weights]
        for index, (mine, reference) in enumerate(zip(to_keras(gradients), theirs_flat, strict=True)):
            if ours.spec.cell == "gru" and ours.spec.reset_after and ours.spec.bias and index % 3 == 2:
                cut = 2 * units  # both biases have the gradient of their sum, but for the candidate's recurrent one
                mine = np.stack([mine[0], np.concatenate([mine[0, :cut], mine[1, cut:]])])
            pairs.append((mine, reference))
        for index, (mine, reference) in enumerate(pairs):
            error = np.abs(mine - reference).max() / max(1.0, np.abs(reference).max())
            assert error < tolerance(text), (
                f"GPULSTM_PEER_SEED={SEED}, case {case}, result {index} differs by {error}: {text}"
            )
            worst = max(worst, float(error) if tolerance(text) < 1e-9 else 0.0)
    with capsys.disabled():
        print(f"\nKeras {keras.__version__}: seed {SEED}, {COUNT} layers with gradients: largest error {worst:.1e}")


def test_random_layers_with_masks_of_any_pattern(capsys: pytest.CaptureFixture[str]) -> None:
    """go_backwards, merging, zero_output_for_mask, last outputs; masks with gaps and before the first step."""
    rng, worst = np.random.default_rng([SEED, 1]), 0.0
    for case in range(COUNT):
        layer, text = random_layer(rng, simple=False)
        steps, batch, size = (int(rng.integers(1, 7)) for _ in range(3))
        built(layer, size, rng)
        net = from_keras(layer, device="cpu")
        x = rng.normal(size=(steps, batch, size))
        mask = rng.random(size=(steps, batch)) < 0.7 if rng.integers(3) else None
        theirs = layer(torch.tensor(batch_first(x)), mask=None if mask is None else torch.tensor(batch_first(mask)))
        expected = [numbers(value) for value in theirs]
        if not isinstance(net, KerasNet):
            net = from_keras(keras.Sequential([keras.Input((None, size)), sequence_only(layer)]), device="cpu")
        assert isinstance(net, KerasNet)
        results, [end] = net(x, mask=mask)
        pairs = [
            (batch_first(results) if results.ndim == 3 else results, expected[0]),
            *zip(end, expected[1:], strict=True),
        ]
        for index, (mine, value) in enumerate(pairs):
            assert mine.shape == value.shape, text
            error = np.abs(mine - value).max() / max(1.0, np.abs(value).max())
            assert error < tolerance(text), (
                f"GPULSTM_PEER_SEED={SEED}, case {case}, result {index} differs by {error}: {text}"
            )
            worst = max(worst, float(error) if tolerance(text) < 1e-9 else 0.0)
    with capsys.disabled():
        print(f"\nKeras {keras.__version__}: seed {SEED}, {COUNT} layers with masks: largest error {worst:.1e}")


def sequence_only(layer: Any) -> Any:
    """The same layer without `return_state`, as a Sequential takes it, with the same weights."""
    config = layer.get_config()
    if isinstance(layer, kl.Bidirectional):
        for part in ("layer", "backward_layer"):
            config[part]["config"]["return_state"] = False
    else:
        config["return_state"] = False
    copy = type(layer).from_config(config)
    copy.build((None, None, layer.get_weights()[0].shape[0]))
    copy.set_weights(layer.get_weights())
    return copy


MODELS: dict[str, Any] = {
    "lstm": lambda: [kl.LSTM(4, return_sequences=True), kl.Dropout(0.3), kl.LSTM(4), kl.Dense(2)],
    "gru-two-way": lambda: [
        kl.Bidirectional(kl.GRU(4, return_sequences=True)),
        kl.TimeDistributed(kl.Dense(2, "relu")),
    ],
    "rnn-masked": lambda: [kl.Masking(0.5), kl.SimpleRNN(4, return_sequences=True), kl.GRU(3), kl.Dense(2, "softmax")],
    "encoder-decoder": lambda: [kl.LSTM(4), kl.RepeatVector(5), kl.LSTM(3, return_sequences=True), kl.Dense(1)],
    "mixed": lambda: [
        kl.Bidirectional(kl.LSTM(4, return_sequences=True), merge_mode="ave"),
        kl.Activation("sigmoid"),
        kl.Bidirectional(kl.SimpleRNN(3, activation="relu"), merge_mode="mul"),
        kl.Dense(2, use_bias=False),
    ],
}


def model_of(name: str) -> Any:
    model = keras.Sequential([keras.Input((6, 3)), *MODELS[name]()])
    rng = np.random.default_rng(SEED)
    model.set_weights([rng.normal(size=weight.shape) * 0.5 for weight in model.get_weights()])
    return model


@pytest.mark.parametrize("functional", [False, True], ids=["sequential", "functional"])
@pytest.mark.parametrize("name", MODELS)
def test_models_and_archives(name: str, functional: bool, tmp_path: Path) -> None:
    model = model_of(name)
    if functional:
        start = keras.Input((6, 3))
        value = start
        for layer in model.layers:
            value = layer(value)
        model = keras.Model(start, value)
    x = np.random.default_rng(SEED).normal(size=(6, 5, 3))
    x[2:4, 1] = 0.5  # what the Masking layer masks
    expected = numbers(model(torch.tensor(batch_first(x)), training=False))
    model.save(tmp_path / "model.keras")
    for source in (model, tmp_path / "model.keras"):
        net = from_keras(source, device="cpu")
        assert isinstance(net, KerasNet)
        y, states = net(x)
        np.testing.assert_allclose(batch_first(y) if y.ndim == 3 else y, expected, rtol=1e-10, atol=1e-12)
        assert len(states) == len(net.recurrent)


def test_stateful_is_a_state_handed_on() -> None:
    model = keras.Sequential([keras.Input((4, 3), batch_size=2), kl.LSTM(5, stateful=True), kl.Dense(1)])
    net = from_keras(model, device="cpu")
    x = np.random.default_rng(SEED).normal(size=(12, 2, 3))
    state = None
    for start in (0, 4, 8):
        y, state = net(x[start : start + 4], state)
        np.testing.assert_allclose(y, numbers(model(torch.tensor(batch_first(x[start : start + 4])))), atol=1e-12)


def test_weights_files_both_ways(tmp_path: Path) -> None:
    theirs = keras.Sequential(
        [keras.Input((6, 3)), kl.GRU(4, return_sequences=True), kl.Dropout(0.1), kl.GRU(4), kl.Dense(2, name="mine")]
    )
    x = np.random.default_rng(SEED).normal(size=(6, 5, 3))
    expected = numbers(theirs(torch.tensor(batch_first(x)), training=False))
    theirs.save_weights(tmp_path / "model.weights.h5")
    net = from_keras(tmp_path / "model.weights.h5", device="cpu")
    assert isinstance(net, KerasNet)
    np.testing.assert_allclose(net(x)[0], expected, atol=1e-12)
    network = net.trainable()
    assert isinstance(network, Network)
    np.testing.assert_allclose(network.forward(x)[0][:, :, 0, 0], expected, atol=1e-12)

    network.params.flat[...] *= 1.5
    to_keras(network, tmp_path / "back.weights.h5")
    theirs.load_weights(tmp_path / "back.weights.h5")
    again = numbers(theirs(torch.tensor(batch_first(x)), training=False))
    np.testing.assert_allclose(network.forward(x)[0][:, :, 0, 0], again, atol=1e-12)
    for results, value in zip(to_keras(network), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(results, value)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("two_way", [False, True])
def test_our_stacks_in_keras(kind: str, two_way: bool, tmp_path: Path) -> None:
    ours = {"LSTM": gl.LSTM, "GRU": gl.GRU, "SimpleRNN": gl.RNN}[kind](
        3, 4, 2, bidirectional=two_way, dtype="float64", device="cpu", seed=5
    )
    stack = [KINDS[kind](4, return_sequences=True) for _ in range(2)]
    theirs = keras.Sequential(
        [keras.Input((6, 3)), *(kl.Bidirectional(layer) if two_way else layer for layer in stack)]
    )
    theirs.set_weights(to_keras(ours))
    x = np.random.default_rng(SEED).normal(size=(6, 5, 3))
    np.testing.assert_allclose(ours(x)[0], batch_first(numbers(theirs(torch.tensor(batch_first(x))))), atol=1e-12)
    to_keras(ours, tmp_path / "model.weights.h5")
    theirs.set_weights([weight * 0 for weight in theirs.get_weights()])
    theirs.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(ours(x)[0], batch_first(numbers(theirs(torch.tensor(batch_first(x))))), atol=1e-12)
    back = from_keras(to_keras(ours), bidirectional=two_way, device="cpu")
    assert isinstance(back, Recurrent)
    np.testing.assert_array_equal(back.params.flat, ours.params.flat)


def test_ten_training_steps_side_by_side() -> None:
    """An LSTM and a dense layer, the same data and Adam in both: the losses of ten steps to 1e-10."""
    model = keras.Sequential([keras.Input((8, 3)), kl.LSTM(6, return_sequences=True), kl.LSTM(6), kl.Dense(4)])
    net = from_keras(model, device="cpu")
    assert isinstance(net, KerasNet)
    ours = net.trainable()
    theirs = torch.optim.Adam([variable.value for variable in model.trainable_variables], lr=0.02)
    optimizer, loss, rng = Adam(), MSE(), np.random.default_rng(SEED)
    optimizer.init(ours.params)
    for step in range(10):
        x, target = rng.normal(size=(8, 5, 3)), rng.normal(size=(5, 4))
        theirs.zero_grad()
        their_loss = torch.nn.functional.mse_loss(model(torch.tensor(batch_first(x))), torch.tensor(target))
        their_loss.backward()
        theirs.step()
        raw, _, tape = ours.forward(x, training=True)
        value, draw = loss(raw, target[:, :, None])
        optimizer.step(ours.params, ours.backward(tape, draw), rate=0.02)
        assert float(value) == pytest.approx(their_loss.item(), rel=1e-10), f"step {step}, seed {SEED}"
    for mine, expected in zip(to_keras(ours), model.get_weights(), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-9, atol=1e-10)
