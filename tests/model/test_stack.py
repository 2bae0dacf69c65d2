"""Stacks as their user sees them: rows, lengths, directions, state, seeds, copies, the values weights start from."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mistakes import HIDDEN, INPUTS, ROWS, STEPS, Mistake, check, gru, lstm, texts, x
from stacks import CELLS

import gpulstm as gl
from gpulstm.arrays.backend import Backend
from gpulstm.arrays.devices import resolve, to_device, to_host
from gpulstm.engines.spec import StackSpec
from gpulstm.errors import ConfigError, DeviceError, DTypeError, EngineError, ShapeError
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.model.stack import Recurrent

EXACT = {"rtol": 1e-13, "atol": 1e-14}  # sums of another order: a product over more rows is another BLAS call


def make(cell: str, device: str | Backend = "cpu", **options: Any) -> Recurrent:
    return CELLS[cell](INPUTS, HIDDEN, dtype="float64", device=device, **options)


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def parts(state: Any) -> list[np.ndarray]:
    return [to_host(part) for part in (state if isinstance(state, tuple) else (state,))]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    cell=st.sampled_from(sorted(CELLS)),
    both=st.booleans(),
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=5),
    data=st.data(),
)
def test_each_row_is_computed_as_if_it_were_alone(
    cell: str, both: bool, lengths: list[int], data: st.DataObject
) -> None:
    """Whatever the lengths and the order of the rows: outputs, last outputs and final states of each row's own run."""
    stack = make(cell, num_layers=2, bidirectional=both)
    x = draw(6, len(lengths), INPUTS)
    order = data.draw(st.permutations(range(len(lengths))))
    y, state = stack(x[:, order], lengths=[lengths[row] for row in order])
    last = stack.forward(x[:, order], lengths=[lengths[row] for row in order], outputs="last")[0]
    for index, row in enumerate(order):
        length = lengths[row]
        alone, end = stack(x[:length, [row]])
        np.testing.assert_allclose(y[:length, index], alone[:, 0], **EXACT)
        assert not y[length:, index].any()
        expected = alone[-1, 0] if length else np.zeros(stack.spec.output_size)
        np.testing.assert_allclose(last[index], expected, **EXACT)
        for whole, single in zip(parts(state), parts(end), strict=True):
            np.testing.assert_allclose(whole[:, index], single[:, 0], **EXACT)


@pytest.mark.parametrize("cell", CELLS)
def test_the_second_direction_is_the_first_one_on_the_reversed_sequence(cell: str, backend: Backend) -> None:
    both, one = make(cell, backend, bidirectional=True), make(cell, backend)
    x = to_device(draw(5, 3, INPUTS), backend)
    y, state = both(x)
    for direction, suffix in enumerate(("", "_reverse")):
        for name in one.params:
            one.params[name] = both.params[name + suffix]
        seen = x if direction == 0 else x[::-1]
        alone, end = one(seen)
        part = y[:, :, direction * HIDDEN : (direction + 1) * HIDDEN]
        np.testing.assert_allclose(to_host(part if direction == 0 else part[::-1]), to_host(alone), **EXACT)
        for whole, single in zip(parts(state), parts(end), strict=True):
            np.testing.assert_allclose(whole[direction], single[0], **EXACT)


def test_the_second_layer_reads_the_first_one(backend: Backend) -> None:
    deep = make("lstm", backend, num_layers=2)
    first, second = make("lstm", backend), gl.LSTM(HIDDEN, HIDDEN, dtype="float64", device=backend)
    for layer, stack in enumerate((first, second)):
        for name in stack.params:
            stack.params[name] = deep.params[name.replace("_l0", f"_l{layer}")]
    x = to_device(draw(5, 3, INPUTS), backend)
    np.testing.assert_allclose(to_host(deep(x)[0]), to_host(second(first(x)[0])[0]), **EXACT)


@pytest.mark.parametrize("cell", CELLS)
def test_no_step_gives_back_the_state(cell: str, backend: Backend) -> None:
    stack = make(cell, backend, num_layers=2)
    state = [to_device(draw(2, 3, HIDDEN, seed=seed), backend) for seed in range(1 + (cell == "lstm"))]
    given_state = tuple(state) if cell == "lstm" else state[0]
    y, end, tape = stack.forward(backend.zeros((0, 3, INPUTS), "float64"), given_state)
    assert y.shape == (0, 3, HIDDEN)
    dx, dstart, grads = stack.backward(tape, y, end)
    assert dx.shape == (0, 3, INPUTS)
    for one, other, third in zip(parts(given_state), parts(end), parts(dstart), strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one, third)
    assert not to_host(grads.flat).any()
    last = stack.forward(backend.zeros((0, 3, INPUTS), "float64"), outputs="last")[0]
    assert last.shape == (3, HIDDEN) and not to_host(last).any()


@pytest.mark.parametrize("memory", [None, "sqrt"])
@pytest.mark.parametrize("options", [{}, {"recurrent_dropout": 0.3, "zoneout": 0.2}], ids=["plain", "masks"])
@pytest.mark.parametrize("cell", CELLS)
def test_what_is_handed_in_is_left_as_it_was(cell: str, options: Any, memory: Any, backend: Backend) -> None:
    stack = make(cell, backend, num_layers=2, **options)
    x, dy = (to_device(draw(6, 3, size), backend) for size in (INPUTS, HIDDEN))
    states = [[to_device(draw(2, 3, HIDDEN, seed=seed), backend) for seed in pair] for pair in ((1, 2), (3, 4))]
    start, dend = (tuple(pair) if cell == "lstm" else pair[0] for pair in states)
    lengths = to_device(np.array([6, 0, 4]), backend)
    handed = [x, dy, lengths, stack.params.flat, *states[0], *states[1]]
    before = [to_host(array).copy() for array in handed]
    _, _, tape = stack.forward(x, start, lengths, memory=memory)
    first = stack.backward(tape, dy, dend)
    second = stack.backward(tape, dy, dend)
    for array, expected in zip(handed, before, strict=True):
        np.testing.assert_array_equal(to_host(array), expected)
    np.testing.assert_array_equal(to_host(first[2].flat), to_host(second[2].flat))


def test_options_without_effect_outside_training() -> None:
    """Dropout does nothing there; zoneout is replaced by its expectation."""
    x = draw(5, 3, INPUTS)
    plain = make("lstm", num_layers=2)(x)[0]
    np.testing.assert_array_equal(make("lstm", num_layers=2, dropout=0.5, recurrent_dropout=0.5)(x)[0], plain)
    assert not np.allclose(make("lstm", num_layers=2, zoneout=0.5)(x)[0], plain)


def test_zoneout_in_training_averages_to_its_expectation() -> None:
    """One step from a state: over many masks the mean of h_1 is (1 - rate) * new + rate * old."""
    stack = make("rnn", zoneout=0.3)
    x, h = np.repeat(draw(1, 1, INPUTS), 20_000, axis=1), np.repeat(draw(1, 1, HIDDEN), 20_000, axis=1)
    trained = stack.forward(x, h)[0]
    np.testing.assert_allclose(trained[0].mean(axis=0), stack(x, h)[0][0, 0], atol=0.02)
    assert len(np.unique(trained[0, :, 0])) == 2


def test_a_seed_fixes_weights_and_training_and_another_changes_both() -> None:
    x = draw(5, 3, INPUTS)
    options = {"num_layers": 2, "dropout": 0.5}
    first, same, other = (make("lstm", seed=seed, **options) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first.params.flat, same.params.flat)
    np.testing.assert_array_equal(first.forward(x)[0], same.forward(x)[0])
    assert not np.array_equal(first.params.flat, other.params.flat)
    other.params.load(first.params)
    assert not np.array_equal(first.forward(x)[0], other.forward(x)[0])


@pytest.mark.parametrize(
    "other", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))], ids=["deepcopy", "pickle"]
)
def test_copies_are_whole_and_apart(other: Any, backend: Backend) -> None:
    """A copied stack or network computes the same, shares nothing, and its views still lie in its own flat buffer."""
    x = to_device(draw(4, 3, INPUTS), backend)
    stack = make("lstm", backend, num_layers=2, dropout=0.5)
    twin = other(stack)
    assert twin.backend is stack.backend
    np.testing.assert_array_equal(to_host(twin.forward(x)[0]), to_host(stack.forward(x)[0]))
    twin.params.flat[...] = 0
    assert not to_host(twin(x)[0]).any() and to_host(stack(x)[0]).any()

    network = Network(NetworkConfig(StackSpec("gru", INPUTS, HIDDEN, dtype="float64")), device=backend)
    twin = other(network)
    np.testing.assert_array_equal(to_host(twin.forward(x)[0]), to_host(network.forward(x)[0]))
    twin.params.flat[...] = 0
    assert not to_host(twin.forward(x)[0]).any() and to_host(network.forward(x)[0]).any()
    assert not to_host(twin.rnn.params.flat).any()


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


@pytest.mark.cuda
def test_arrays_of_the_other_side() -> None:
    """Host arrays at a CUDA model and CUDA arrays at a CPU model, at every argument that takes one."""
    cuda = resolve("cuda")
    on_gpu, on_cpu = gl.LSTM(INPUTS, HIDDEN, device="cuda"), lstm()
    moved, zeros = cuda.from_host(x()), cuda.zeros((1, ROWS, HIDDEN), "float32")
    hint = r"is a ndarray on the host but the model is on cuda:0; move it with gpulstm.to_device\("
    check(on_gpu, (DeviceError, f"^x {hint}x, 'cuda:0'"), x())
    check(on_gpu, (DeviceError, "^x is a list on the host"), x().tolist())
    check(on_gpu, (DeviceError, f"^h of state {hint}"), moved, (h, c))
    check(on_gpu, (DeviceError, f"^c of state {hint}"), moved, (zeros, c))
    tape = on_gpu.forward(moved)[2]
    check(on_gpu.backward, (DeviceError, f"^dy {hint}"), tape, dy)
    check(on_gpu.backward, (DeviceError, f"^h of dstate {hint}"), tape, cuda.from_host(dy), (h, c))
    check(
        lambda: on_gpu.backward(tape, cuda.from_host(dy), grads=on_cpu.params.like()),
        (DeviceError, "grads lives on cpu"),
    )
    back = r"lives on cuda:0 but the model is on cpu; move it with gpulstm.to_host\("
    check(on_cpu, (DeviceError, rf"^x {back}x\)"), moved)
    check(on_cpu, (DeviceError, f"^h of state {back}"), x(), (zeros, zeros))
    check(on_cpu, (DeviceError, f"^lengths {back}"), x(), None, cuda.from_host(np.array([1, 2, 3])))
    check(on_cpu.params.load, (DeviceError, f"^parameter '.*' {back}"), dict(on_gpu.params))
    check(resolve, (DeviceError, "device 'cuda:97' is not there: this machine has cuda:0 to cuda:"), "cuda:97")


def test_state_carries_a_sequence_over_calls(backend: Backend) -> None:
    stack = gl.LSTM(INPUTS, HIDDEN, 2, device=backend, dtype="float64")
    x = to_device(np.random.default_rng(3).normal(size=(STEPS, ROWS, INPUTS)), backend)
    whole, _ = stack(x)
    first, state = stack(x[:2])
    second, _ = stack(x[2:], state)
    np.testing.assert_allclose(to_host(first), to_host(whole[:2]), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(to_host(second), to_host(whole[2:]), rtol=1e-12, atol=1e-14)
