"""Keras layers, models and files in and out: recorded results, stacks, what is refused.  Keras itself is not needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_models import GOLDEN, LSTM, STACKS, keras, listed, lstm, recorded, sequential, turned

import gpulstm as gl
from gpulstm.errors import ConfigError, DTypeError, InteropError
from gpulstm.interop import from_keras, to_keras
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.model.stack import Recurrent


@pytest.mark.parametrize("case", STACKS)
def test_recorded_layers_as_stacks(case: str) -> None:
    stack = from_keras(recorded(case), device="cpu")
    assert isinstance(stack, Recurrent)
    y, end = stack(turned(GOLDEN[f"{case}/x"]))
    if GOLDEN[f"{case}/y"].ndim == 3:
        np.testing.assert_allclose(turned(y), GOLDEN[f"{case}/y"], rtol=1e-10, atol=1e-12)
    parts = end if stack.spec.has_memory else (end,)
    results = [part[side] for side in range(stack.spec.directions) for part in parts]
    for mine, expected in zip(results, listed(case, "state"), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-10, atol=1e-12)


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


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (3, InteropError, "source is a int, expected a Keras layer or model"),
        ([], InteropError, "the list of weights is empty"),
        ([np.zeros(3)], InteropError, r"is not one of recurrent and dense layers: \(3,\)"),
        ([*LSTM.weights[:2], LSTM.weights[2].astype("f4")], DTypeError, "float32, float64, expected one of"),
        (lstm(weights=[]), InteropError, "the LSTM layer 'lstm' has no weights; build the model first"),
        (sequential(), InteropError, "the model has no layers"),
        (keras("Sequential", {"layers": [3]}), InteropError, "the model's config does not describe its layers"),
    ],
)  # fmt: skip
def test_mistakes(source: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        from_keras(source, device="cpu")
