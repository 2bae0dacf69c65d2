"""Mistakes with layers: each raises its class with one sentence that names the argument, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from mistakes import HIDDEN, INPUTS, Mistake, check, gru, lstm, texts

import gpulstm as gl
from gpulstm.errors import ConfigError, DTypeError

CONSTRUCTOR: dict[Callable[[], Any], Mistake] = {
    lambda: gl.LSTM(0, HIDDEN, device="cpu"): (ConfigError, "input_size is 0, expected a whole number of at least 1"),
    lambda: gl.LSTM("2", HIDDEN, device="cpu"): (ConfigError, "input_size is '2', expected a whole number"),
    lambda: gl.LSTM(INPUTS, 2.5, device="cpu"): (
        ConfigError,
        "hidden_size is 2.5, expected a whole number of at least 1",
    ),
    lambda: gl.GRU(INPUTS, -8, device="cpu"): (ConfigError, "hidden_size is -8, expected a whole number of at least 1"),
    lambda: gl.RNN(INPUTS, HIDDEN, 0, device="cpu"): (
        ConfigError,
        "num_layers is 0, expected a whole number of at least 1",
    ),
    lambda: gl.RNN(INPUTS, HIDDEN, True, device="cpu"): (ConfigError, "num_layers is True, expected a whole number"),
    lambda: lstm(bidirectional="yes"): (ConfigError, "bidirectional is 'yes', expected True or False"),
    lambda: lstm(bias=0): (ConfigError, "bias is 0, expected True or False"),
    lambda: lstm(peepholes=None): (ConfigError, "peepholes is None, expected True or False"),
    lambda: lstm(dropout=1.0): (ConfigError, r"dropout is 1.0, expected a probability in \[0, 1\)"),
    lambda: lstm(dropout=-0.1): (ConfigError, "dropout is -0.1, expected a probability"),
    lambda: lstm(dropout="half"): (ConfigError, "dropout is 'half', expected a probability"),
    lambda: lstm(dropout=float("nan")): (ConfigError, "dropout is nan, expected a probability"),
    lambda: gru(recurrent_dropout=1.5): (ConfigError, "recurrent_dropout is 1.5, expected a probability"),
    lambda: lstm(zoneout=1): (ConfigError, "zoneout is 1, expected a probability"),
    lambda: lstm(zoneout=None): (ConfigError, "zoneout is None, expected a probability"),
    lambda: lstm(zoneout="0.1"): (ConfigError, "zoneout is '0.1', expected a probability"),
    lambda: lstm(zoneout=(0.1,)): (ConfigError, r"zoneout is \(0.1,\), expected one rate or a pair of rates"),
    lambda: gru(zoneout=(0.1, 0.1)): (ConfigError, r"zoneout is \(0.1, 0.1\), expected a probability"),
    lambda: lstm(dtype="int32"): (DTypeError, "dtype is 'int32', expected one of float16, bfloat16, float32, float64"),
    lambda: lstm(dtype="float8"): (
        DTypeError,
        "dtype is 'float8', expected one of float16, bfloat16, float32, float64",
    ),
    lambda: lstm(dtype=None): (DTypeError, "dtype is None, expected one of float16"),
    lambda: lstm(dtype="float16"): (DTypeError, "dtype is 'float16', which is storage on CUDA; on the cpu expected"),
    lambda: lstm(clip=0): (ConfigError, "clip is 0, expected a finite number above 0"),
    lambda: lstm(clip="off"): (ConfigError, "clip is 'off', expected a finite number above 0"),
    lambda: lstm(proj_size=HIDDEN): (ConfigError, r"proj_size is 5, expected less than hidden_size \(5\)"),
    lambda: lstm(proj_size=-1): (ConfigError, "proj_size is -1, expected a whole number of at least 0"),
    lambda: lstm(layer_norm=True, peepholes=True): (ConfigError, "layer_norm cannot be combined with peepholes"),
    lambda: lstm(layer_norm=True, coupled=True): (ConfigError, "layer_norm cannot be combined with .*coupled"),
    lambda: lstm(layer_norm=True, bias=False): (ConfigError, "layer_norm needs bias=True"),
    lambda: gru(layer_norm=True, reset_after=False): (ConfigError, "layer_norm needs reset_after=True"),
    lambda: gl.RNN(INPUTS, HIDDEN, nonlinearity="sigmoid"): (ConfigError, "nonlinearity is 'sigmoid', expected 'tanh'"),
    lambda: lstm(seed=-1): (ConfigError, "seed is -1, expected a whole number of at least 0"),
    lambda: lstm(seed=None): (ConfigError, "seed is None, expected a whole number"),
    lambda: lstm(forget_bias=float("inf")): (ConfigError, "forget_bias is inf, expected a finite number"),
    lambda: lstm(engine="tpu"): (ConfigError, "engine is 'tpu', expected one of cuda, cpu, reference"),
    lambda: gl.LSTM(INPUTS, HIDDEN, device="gpu"): (ConfigError, "device is 'gpu', expected 'auto', 'cpu', 'cuda'"),
    lambda: gl.LSTM(INPUTS, HIDDEN, device=0): (ConfigError, "device is 0, expected 'auto', 'cpu', 'cuda'"),
}


@pytest.mark.parametrize(("call", "mistake"), texts(CONSTRUCTOR))
def test_constructor(call: Callable[[], Any], mistake: Mistake) -> None:
    check(call, mistake)


def test_how_a_stack_prints() -> None:
    assert repr(gl.GRU(3, 8, 2, device="cpu", dropout=0.1)) == "GRU(3, 8, num_layers=2, dropout=0.1, device='cpu')"
    assert repr(gl.LSTM(3, 8, device="cpu", dtype="float64")) == "LSTM(3, 8, dtype='float64', device='cpu')"


def test_dropout_without_a_place_is_said() -> None:
    with pytest.warns(UserWarning, match=r"dropout=0\.5 has no effect with num_layers=1: it acts between layers"):
        gl.LSTM(2, 3, dropout=0.5, device="cpu")
