"""Mistakes with layers: each raises its class with one sentence that names the argument, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.arrays.devices import resolve
from gpulstm.arrays.params import ParamDict
from gpulstm.engines.spec import StackSpec
from gpulstm.errors import ConfigError, DeviceError, DTypeError, EngineError, GpulstmError, ShapeError

STEPS, ROWS, INPUTS, HIDDEN = 4, 3, 2, 5
Mistake = tuple[type[GpulstmError], str]


def lstm(**options: Any) -> gl.LSTM:
    return gl.LSTM(INPUTS, HIDDEN, device="cpu", **options)


def gru(**options: Any) -> gl.GRU:
    return gl.GRU(INPUTS, HIDDEN, device="cpu", **options)


def x(*shape: int) -> np.ndarray:
    return np.ones(shape or (STEPS, ROWS, INPUTS), "float32")


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
    lambda: lstm(dtype="int32"): (DTypeError, "dtype is 'int32', expected one of float16, float32, float64"),
    lambda: lstm(dtype="float8"): (DTypeError, "dtype is 'float8', expected 'float32', 'float64' or 'float16'"),
    lambda: lstm(dtype=None): (DTypeError, "dtype is None, expected 'float32'"),
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
    lambda: StackSpec("ltsm", 1, 1): (ConfigError, "cell is 'ltsm', expected 'lstm', 'gru' or 'rnn'"),
    lambda: StackSpec("gru", 1, 4, peepholes=True): (
        ConfigError,
        "peepholes is an option of the LSTM; the GRU has none",
    ),
    lambda: StackSpec("rnn", 1, 4, proj_size=2): (ConfigError, "proj_size is an option of the LSTM; the RNN has none"),
    lambda: StackSpec("gru", 1, 4, zoneout=(0.0, 0.1)): (ConfigError, "zoneout has a rate for c .*the GRU has no c"),
    lambda: StackSpec("lstm", 1, 4, reset_after=False): (ConfigError, "reset_after is an option of the GRU"),
    lambda: StackSpec("gru", 1, 4, nonlinearity="relu"): (ConfigError, "nonlinearity is an option of the RNN"),
}

h, c = np.zeros((1, ROWS, HIDDEN)), np.zeros((1, ROWS, HIDDEN))
FORWARD: dict[Callable[[gl.LSTM], Any], Mistake] = {
    lambda m: m.forward(x(ROWS, INPUTS)): (ShapeError, r"x has shape \(3, 2\), expected \(T, B, 2\)"),
    lambda m: m.forward(x(STEPS, ROWS, 7)): (ShapeError, r"x has shape \(4, 3, 7\), expected \(T, B, 2\)"),
    lambda m: m.forward(x(STEPS, 0, INPUTS)): (ShapeError, r"x has shape \(4, 0, 2\), .*B of at least 1"),
    lambda m: m.forward(None): (DTypeError, "x has dtype object, expected real numbers"),
    lambda m: m.forward(x() * 1j): (DTypeError, "x has dtype complex64, expected real numbers"),
    lambda m: m.forward([["a"]]): (DTypeError, "x has dtype <U1, expected real numbers"),
    lambda m: m.forward([[[1, 2]], [[3]]]): (ShapeError, "x is a list whose parts differ in length, expected an array"),
    lambda m: m.forward(x(), outputs="first"): (ConfigError, "outputs is 'first', expected 'all' or 'last'"),
    lambda m: m.forward(x(), memory="much"): (ConfigError, "memory is 'much', expected a number of bytes"),
    lambda m: m.forward(x(), memory=-1): (ConfigError, "memory is -1, expected a number of bytes"),
    lambda m: m.forward(x(), memory="1B"): (
        ConfigError,
        "memory is '1B', but a training step of T=4 B=3 needs at least",
    ),
    lambda m: m.forward(x(), lengths=[1, 2]): (
        ShapeError,
        r"lengths has shape \(2,\), expected \(3,\), one for each row",
    ),
    lambda m: m.forward(x(), lengths=4): (ShapeError, r"lengths has shape \(\), expected \(3,\)"),
    lambda m: m.forward(x(), lengths=[1, 2, 5]): (ShapeError, r"lengths\[2\] is 5, expected 0 to T = 4"),
    lambda m: m.forward(x(), lengths=[1, -2, 3]): (ShapeError, r"lengths\[1\] is -2, expected 0 to T = 4"),
    lambda m: m.forward(x(), lengths=[1.0, 2.0, 3.0]): (DTypeError, "lengths has dtype float64, expected integers"),
    lambda m: m.forward(x(), lengths=[True, True, False]): (DTypeError, "lengths has dtype bool, expected integers"),
    lambda m: m.forward(x(), h): (ShapeError, r"state is a ndarray, expected the pair \(h, c\)"),
    lambda m: m.forward(x(), (h, c, c)): (ShapeError, r"state is a tuple, expected the pair \(h, c\)"),
    lambda m: m.forward(x(), (h[:, :2], c)): (ShapeError, r"h of state has shape \(1, 2, 5\), expected \(1, 3, 5\)"),
    lambda m: m.forward(x(), (h, c[0])): (ShapeError, r"c of state has shape \(3, 5\), expected \(1, 3, 5\)"),
    lambda m: m.forward(x(), (h, None)): (DTypeError, "c of state has dtype object, expected real numbers"),
    lambda m: gru().forward(x(), (h, c)): (ShapeError, "state is a tuple, expected h alone: the GRU has no c"),
    lambda m: lstm(engine="cuda").forward(x()): (EngineError, "engine 'cuda' was asked for but cannot serve this call"),
    lambda m: m.explain(-1, 2): (ConfigError, "steps is -1, expected a whole number of at least 0"),
    lambda m: m.explain(10, 0): (ConfigError, "batch is 0, expected a whole number of at least 1"),
    lambda m: m.zero_state(-1): (ConfigError, "batch is -1, expected a whole number of at least 1"),
}

dy = np.ones((STEPS, ROWS, HIDDEN), "float32")
BACKWARD: dict[Callable[[gl.LSTM, Any], Any], Mistake] = {
    lambda m, tape: m.backward(m.forward(x(), training=False)[2], dy): (
        ConfigError,
        "tape is None, expected what forw",
    ),
    lambda m, tape: m.backward(lstm().forward(x())[2], dy): (
        ConfigError,
        "tape is another model's, expected what forward",
    ),
    lambda m, tape: m.backward(tape, dy[-1]): (
        ShapeError,
        r"dy has shape \(3, 5\), expected \(4, 3, 5\), the shape of y",
    ),
    lambda m, tape: m.backward(tape, dy[:, :, :2]): (ShapeError, r"dy has shape \(4, 3, 2\), expected \(4, 3, 5\)"),
    lambda m, tape: m.backward(tape, None): (DTypeError, "dy has dtype object, expected real numbers"),
    lambda m, tape: m.backward(tape, dy, h): (ShapeError, r"dstate is a ndarray, expected the pair \(h, c\)"),
    lambda m, tape: m.backward(tape, dy, (h, c[:, :1])): (ShapeError, r"c of dstate has shape \(1, 1, 5\), expected"),
    lambda m, tape: m.backward(tape, dy, grads={}): (DTypeError, "grads is a dict, expected a ParamDict"),
    lambda m, tape: m.backward(tape, dy, grads=gru().params.like()): (ShapeError, "grads has the shapes .*of params"),
    lambda m, tape: m.backward(tape, dy, grads=m.params.like("float64")): (DTypeError, "grads has dtype float64"),
}

STREAM: dict[Callable[[gl.LSTM], Any], Mistake] = {
    lambda m: lstm(bidirectional=True).stream(): (ConfigError, "stream needs bidirectional=False"),
    lambda m: m.stream(0): (ConfigError, "batch_size is 0, expected a whole number of at least 1"),
    lambda m: m.stream(1.5): (ConfigError, "batch_size is 1.5, expected a whole number of at least 1"),
    lambda m: m.stream(2)(x(INPUTS)): (ShapeError, r"x has shape \(2,\), expected \(2, 2\)"),
    lambda m: m.stream(2)(x(1, INPUTS)): (ShapeError, r"x has shape \(1, 2\), expected \(2, 2\)"),
    lambda m: m.stream()([["a", "b"]]): (DTypeError, "x has dtype <U1, expected real numbers"),
}

PARAMS: dict[Callable[[ParamDict], Any], Mistake] = {
    lambda p: p.__setitem__("b_l0", np.zeros(3)): (ShapeError, r"parameter 'b_l0' has shape \(3,\), expected \(20,\)"),
    lambda p: p.__setitem__("b_l1", np.zeros(20)): (
        ShapeError,
        "parameter 'b_l1' is unknown; there are: W_x_l0, W_h_l0",
    ),
    lambda p: p.__setitem__("b_l0", 0.0): (ShapeError, r"parameter 'b_l0' has shape \(\), expected \(20,\)"),
    lambda p: p.__setitem__("b_l0", np.zeros(20) * 1j): (DTypeError, "parameter 'b_l0' has dtype complex128"),
    lambda p: p.__setitem__("b_l0", np.full(20, "0")): (DTypeError, "parameter 'b_l0' has dtype <U1, expected real"),
    lambda p: p.load({"b_l0": np.zeros(20)}): (ShapeError, r"missing \['W_h_l0', 'W_x_l0'\], unknown none"),
    lambda p: p.load({**p, "W": 1}): (ShapeError, r"parameters do not fit: missing none, unknown \['W'\]"),
    lambda p: p.load({**p, "b_l0": np.zeros(20) * 1j}): (DTypeError, "parameter 'b_l0' has dtype complex128"),
    lambda p: p.load({**p, "W_h_l0": np.ones((20, 5))}): (
        ShapeError,
        r"'W_h_l0' has shape \(20, 5\), expected \(5, 20\)",
    ),
}


def check(call: Callable[..., Any], mistake: Mistake, *arguments: Any) -> None:
    """The call raises the class, which is its own and no other, with one sentence that begins as told."""
    kind, message = mistake
    with pytest.raises(GpulstmError, match=message) as caught:
        call(*arguments)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value) and ". " not in str(caught.value)


def texts(table: dict[Any, Mistake]) -> Any:
    return [pytest.param(call, mistake, id=mistake[1][:50]) for call, mistake in table.items()]


@pytest.mark.parametrize(("call", "mistake"), texts(CONSTRUCTOR))
def test_constructor(call: Callable[[], Any], mistake: Mistake) -> None:
    check(call, mistake)


@pytest.mark.parametrize(("call", "mistake"), texts(FORWARD))
def test_forward(call: Callable[[gl.LSTM], Any], mistake: Mistake) -> None:
    model = lstm()
    check(call, mistake, model)
    assert model.calls == 0  # the next dropout mask is that of a run without the mistake


@pytest.mark.parametrize(("call", "mistake"), texts(BACKWARD))
def test_backward(call: Callable[[gl.LSTM, Any], Any], mistake: Mistake) -> None:
    model = lstm()
    check(call, mistake, model, model.forward(x())[2])


def test_backward_of_the_last_output() -> None:
    model = lstm()
    tape = model.forward(x(), outputs="last")[2]
    check(model.backward, (ShapeError, r"dy has shape \(4, 3, 5\), expected \(3, 5\), the shape of y"), tape, dy)


@pytest.mark.parametrize(("call", "mistake"), texts(STREAM))
def test_stream(call: Callable[[gl.LSTM], Any], mistake: Mistake) -> None:
    check(call, mistake, lstm())


def test_stream_from_a_state_that_does_not_fit() -> None:
    step = lstm().stream(ROWS)

    def set_and_step(x_t: np.ndarray) -> None:
        step.state = (h, c[:, :1])
        step(x_t)

    check(set_and_step, (ShapeError, "c of state has shape"), x(ROWS, INPUTS))


@pytest.mark.parametrize(("call", "mistake"), texts(PARAMS))
def test_params(call: Callable[[ParamDict], Any], mistake: Mistake) -> None:
    params = lstm().params
    before = params.flat.copy()
    check(call, mistake, params)
    np.testing.assert_array_equal(params.flat, before)


def test_names_of_params_are_fixed() -> None:
    params = lstm().params
    for change in (lambda: params.pop("b_l0"), lambda: params.update(b_l0=1), params.clear, params.popitem):
        with pytest.raises(TypeError, match="the names of a ParamDict are fixed"):
            change()
    with pytest.raises(TypeError, match="the names of a ParamDict are fixed"):
        del params["b_l0"]


@pytest.mark.cuda
def test_arrays_of_the_other_side() -> None:
    """Host arrays at a CUDA model and CUDA arrays at a CPU model, at every argument that takes one."""
    cuda = resolve("cuda")
    here, there = gl.LSTM(INPUTS, HIDDEN, device="cuda"), lstm()
    moved, zeros = cuda.from_host(x()), cuda.zeros((1, ROWS, HIDDEN), "float32")
    hint = r"is a ndarray on the host but the model is on cuda:0; move it with gpulstm.to_device\("
    check(here, (DeviceError, f"^x {hint}x, 'cuda:0'"), x())
    check(here, (DeviceError, "^x is a list on the host"), x().tolist())
    check(here, (DeviceError, f"^h of state {hint}"), moved, (h, c))
    check(here, (DeviceError, f"^c of state {hint}"), moved, (zeros, c))
    tape = here.forward(moved)[2]
    check(here.backward, (DeviceError, f"^dy {hint}"), tape, dy)
    check(here.backward, (DeviceError, f"^h of dstate {hint}"), tape, cuda.from_host(dy), (h, c))
    check(
        lambda: here.backward(tape, cuda.from_host(dy), grads=there.params.like()), (DeviceError, "grads lives on cpu")
    )
    back = r"lives on cuda:0 but the model is on cpu; move it with gpulstm.to_host\("
    check(there, (DeviceError, rf"^x {back}x\)"), moved)
    check(there, (DeviceError, f"^h of state {back}"), x(), (zeros, zeros))
    check(there, (DeviceError, f"^lengths {back}"), x(), None, cuda.from_host(np.array([1, 2, 3])))
    check(there.params.load, (DeviceError, f"^parameter '.*' {back}"), dict(here.params))
    check(resolve, (DeviceError, "device 'cuda:97' is not there: this machine has cuda:0 to cuda:"), "cuda:97")
