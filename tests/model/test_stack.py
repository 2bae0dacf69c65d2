"""Stacks as their user sees them: rows, lengths, directions, state, seeds, copies, the values weights start from."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpulstm as gl
from gpulstm.arrays.backend import Backend
from gpulstm.arrays.devices import to_device, to_host
from gpulstm.engines.spec import StackSpec
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.model.stack import Recurrent

CELLS = {"lstm": gl.LSTM, "gru": gl.GRU, "rnn": gl.RNN}
INPUTS, HIDDEN = 2, 4
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
    for place, row in enumerate(order):
        length = lengths[row]
        alone, end = stack(x[:length, [row]])
        np.testing.assert_allclose(y[:length, place], alone[:, 0], **EXACT)
        assert not y[length:, place].any()
        expected = alone[-1, 0] if length else np.zeros(stack.spec.output_size)
        np.testing.assert_allclose(last[place], expected, **EXACT)
        for whole, single in zip(parts(state), parts(end), strict=True):
            np.testing.assert_allclose(whole[:, place], single[:, 0], **EXACT)


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


@pytest.mark.parametrize("cell", CELLS)
def test_weights_start_the_same_on_every_device(cell: str, backend: Backend) -> None:
    host = make(cell, num_layers=2, bidirectional=True, seed=8)
    np.testing.assert_array_equal(
        to_host(make(cell, backend, num_layers=2, bidirectional=True, seed=8).params.flat), host.params.flat
    )


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


def test_how_a_stack_prints() -> None:
    assert repr(gl.GRU(3, 8, 2, device="cpu", dropout=0.1)) == "GRU(3, 8, num_layers=2, dropout=0.1, device='cpu')"
    assert repr(gl.LSTM(3, 8, device="cpu", dtype="float64")) == "LSTM(3, 8, dtype='float64', device='cpu')"


def test_dropout_without_a_place_is_said() -> None:
    with pytest.warns(UserWarning, match=r"dropout=0\.5 has no effect with num_layers=1: it acts between layers"):
        gl.LSTM(2, 3, dropout=0.5, device="cpu")
