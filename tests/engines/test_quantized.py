"""Weights in int8 and bfloat16: native code against NumPy's arithmetic, the error against float32, what is refused."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.arrays import native
from gpulstm.engines import quantized
from gpulstm.errors import ConfigError, DTypeError, GpulstmError

KINDS = ("int8", "bfloat16")
CELLS: dict[str, Any] = {"lstm": gl.LSTM, "gru": gl.GRU, "rnn": gl.RNN}
ERRORS = {"int8": 2e-2, "bfloat16": 8e-3}  # of outputs against float32, relative norm; docs/cpu-engine.md states them


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = native.load().instruction_set()
    yield
    native.load().use(before)
    gl.set_num_threads(None)


def distance(result: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(result - expected) / np.linalg.norm(expected))


def pair(cell: str, sizes: tuple[int, ...], kind: str | None, **options: Any) -> tuple[Any, Any]:
    """A stack by native code and by the reference, of the same weights."""
    ours, reference = (CELLS[cell](*sizes, device="cpu", engine=name, **options) for name in ("cpu", "reference"))
    rng = np.random.default_rng(1)
    ours.params.flat[...] += rng.normal(0, 0.05, ours.params.flat.shape).astype(np.float32)
    reference.params.load(ours.params.host())
    for stack in (ours, reference):
        stack.quantize(kind)
    return ours, reference


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_step_is_what_numpy_computes(cell: str, kind: str) -> None:
    rng = np.random.default_rng(0)
    for isa in native.load().instruction_sets():
        native.load().use(isa)
        for batch, inputs, hidden in [(1, 1, 1), (3, 5, 7), (13, 17, 40), (7, 130, 70)]:
            ours, reference = pair(cell, (inputs, hidden), kind)
            x = rng.standard_normal((1, batch, inputs), dtype=np.float32)
            h = rng.standard_normal((1, batch, hidden), dtype=np.float32)
            state = (h, h * 2) if cell == "lstm" else h
            assert distance(ours(x, state)[0], reference(x, state)[0]) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", CELLS)
def test_many_steps_stay_near_float32(cell: str, kind: str) -> None:
    ours, reference = pair(cell, (24, 96, 2), kind)
    x = np.random.default_rng(2).standard_normal((40, 6, 24), dtype=np.float32)
    y = ours(x)[0]
    # where a number lies between two whole ones, the last bit of a sum decides, and the difference lives on
    assert distance(y, reference(x)[0]) < 2e-3
    ours.quantize(None)
    full = ours(x)[0]
    assert 1e-4 < distance(y, full) < ERRORS[kind]
    reference.quantize(None)
    assert distance(full, reference(x)[0]) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_bits_depend_neither_on_threads_nor_on_the_form_of_the_call(kind: str) -> None:
    rng = np.random.default_rng(3)
    for batch, hidden in [(1, 64), (4, 33), (20, 256)]:
        x = rng.standard_normal((50, batch, 11), dtype=np.float32)
        stack, _ = pair("lstm", (11, hidden, 2), kind)
        results = []
        for threads in (1, 2, 3):
            gl.set_num_threads(threads)
            whole = stack(x)[0]
            first, state = stack(x[:20])
            step = stack.stream(batch)
            streamed = np.stack([step(row) for row in x])
            # lengths of all steps take the way of one layer after another
            by_layer = stack.forward(x, training=False, memory="sqrt")[0]
            results += [whole, np.concatenate([first, stack(x[20:], state)[0]]), streamed, by_layer]
        for other in results[1:]:
            np.testing.assert_array_equal(other, results[0])


@pytest.mark.parametrize("kind", KINDS)
def test_both_directions_and_lengths(kind: str) -> None:
    ours, reference = pair("gru", (5, 20, 2), kind, bidirectional=True)
    x = np.random.default_rng(4).standard_normal((6, 4, 5), dtype=np.float32)
    lengths = np.array([6, 1, 0, 3])
    (y, h), (expected, h_expected) = ours(x, None, lengths), reference(x, None, lengths)
    assert distance(y, expected) < 1e-3
    assert distance(h, h_expected) < 1e-3
    assert not y[1:, 1].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", ["cpu", "reference"])
def test_a_number_that_is_not_finite_shows_in_its_row_alone(engine: str, kind: str) -> None:
    stack = gl.LSTM(4, 9, device="cpu", engine=engine)
    stack.quantize(kind)
    x = np.ones((2, 3, 4), np.float32)
    x[0, 1, 2] = np.nan
    y = stack(x)[0]
    assert np.isnan(y[:, 1]).all()
    assert np.isfinite(y[:, [0, 2]]).all()


def test_zeros_and_small_numbers() -> None:
    for kind in KINDS:
        ours, reference = pair("lstm", (3, 5), kind)
        ours.params["W_x_l0"][...] = reference.params["W_x_l0"][...] = 0
        x = np.full((2, 2, 3), 1e-35, np.float32)
        np.testing.assert_allclose(ours(x)[0], reference(x)[0], rtol=1e-5)


def test_whole_numbers_are_the_nearest() -> None:
    values = np.random.default_rng(5).standard_normal((50, 8), dtype=np.float32)
    whole, scales = quantized.whole_numbers(values, axis=0)
    assert np.abs(whole).max(axis=0).tolist() == [127] * 8
    assert (np.abs(whole * scales - values) <= 0.5001 * scales).all()
    rounded = quantized.bfloat16(np.array([1.0, 1.00390625, 1.01171875, np.inf, np.nan], np.float32))
    np.testing.assert_array_equal(rounded, np.array([1.0, 1.0, 1.015625, np.inf, np.nan], np.float32))


def test_what_is_refused() -> None:
    stack = gl.LSTM(2, 3, device="cpu")
    cases: list[tuple[Any, Any, type[GpulstmError], str]] = [
        (stack, "int4", ConfigError, "quantize is 'int4', expected 'int8', 'bfloat16' or None"),
        (gl.LSTM(2, 3, device="cpu", dtype="float64"), "int8", DTypeError, "rounds float32 weights"),
        (gl.LSTM(2, 3, device="cpu", peepholes=True), "int8", ConfigError, "this one has peepholes"),
        (gl.GRU(2, 3, device="cpu", zoneout=0.1), "bfloat16", ConfigError, "this one has zoneout"),
    ]
    for model, kind, error, message in cases:
        with pytest.raises(error, match=message):
            model.quantize(kind)
        assert model.quantized is None
    stack.quantize("int8")
    with pytest.raises(
        ConfigError, match=r"training needs float32 weights, but these are in int8; call quantize\(None\)"
    ):
        stack.forward(np.zeros((2, 1, 2), np.float32))


def test_explain_and_streams_name_it_and_copies_keep_it() -> None:
    stack = gl.LSTM(2, 3, device="cpu", engine="cpu")
    assert "int8" not in str(stack.explain(4, 2))
    stack.quantize("int8")
    form = native.load().reduced_form(2)
    assert f"weights in int8 ({form})" in str(stack.explain(4, 2))
    assert "in int8" in stack.stream().explain()
    x = np.ones((3, 1, 2), np.float32)
    other = copy.deepcopy(stack)
    np.testing.assert_array_equal(other(x)[0], stack(x)[0])
    assert other.quantized == "int8"
