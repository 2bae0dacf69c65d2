"""The CUDA engine against the reference: every supported option, forward and backward, in every dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from engine_cases import Around, EngineCase, Shape, assert_close, assert_same
from tolerance import GRADIENT

import gpulstm
from gpulstm.arrays.devices import resolve, to_host
from gpulstm.engines import reference
from gpulstm.engines.cuda import engine as cuda

pytestmark = pytest.mark.cuda

CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("lstm", {}),
    "gru": ("gru", {}),
    "rnn": ("rnn", {}),
    "rnn-relu": ("rnn", {"nonlinearity": "relu"}),
}
AROUND = {
    "plain": Around(),
    "lengths": Around(lengths=True),
    "zoneout": Around(zoneout=True),
    "recurrent-mask": Around(recurrent_mask=True),
    "all": Around(True, True, True),
}
SHAPES = {
    "small": Shape(5, 3, 2, 4),
    "odd": Shape(7, 5, 3, 17),
    "ones": Shape(3, 2, 1, 1),
    "one-step": Shape(1, 3, 2, 4),
    "one-row": Shape(4, 1, 3, 5),
    "no-step": Shape(0, 3, 2, 4),
}
DIRECTIONS = (False, True)


def on_cuda(case: EngineCase, engine: Any = cuda, **options: int) -> dict[str, Any]:
    backend = resolve("cuda")
    return case.results(engine, backend.from_host, backend.to_host, **options)


def check(name: str, shape: Shape, around: Around, *, dtype: str = "float64", **options: Any) -> None:
    cell, cell_options = CELLS[name]
    for reverse in DIRECTIONS:
        case = EngineCase.make(cell, shape, dtype=dtype, around=around, reverse=reverse, **cell_options, **options)
        assert_close(on_cuda(case), case.astype("float64").results(reference), dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("name", CELLS)
def test_training_in_float64(name: str, around: str, shape: str) -> None:
    check(name, SHAPES[shape], AROUND[around])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("around", ["plain", "lengths", "zoneout", "all"])
@pytest.mark.parametrize("name", CELLS)
def test_inference_in_float64(name: str, around: str, shape: str) -> None:
    """Outside training zoneout is the weight of the old state, and there is no tape."""
    check(name, SHAPES[shape], AROUND[around], training=False)


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_without_bias(name: str) -> None:
    check(name, SHAPES["odd"], AROUND["plain"], bias=False)


@pytest.mark.parametrize("around", ["plain", "all"])
@pytest.mark.parametrize("name", CELLS)
def test_several_blocks(name: str, around: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole-sequence products taken over two steps at a time, the last block shorter."""
    monkeypatch.setattr(cuda, "BLOCK_ROWS", 2 * SHAPES["odd"].rows)
    check(name, SHAPES["odd"], AROUND[around])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("around", ["plain", "all"])
@pytest.mark.parametrize("name", CELLS)
def test_lower_precision(name: str, around: str, dtype: str) -> None:
    # rounding to 16 bits takes a relu of the odd shape to the other side of its kink, where the slope is another one
    kink = name == "rnn-relu" and dtype != "float32"
    for shape in ("small" if kink else "odd", "ones", "one-row", "no-step"):
        check(name, SHAPES[shape], AROUND[around], dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", CELLS)
def test_lower_precision_inference(name: str, dtype: str) -> None:
    check(name, SHAPES["odd"], AROUND["all"], dtype=dtype, training=False)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_lower_precision_over_many_steps(name: str, dtype: str) -> None:
    """Errors of a hundred steps do not pile up beyond the same bounds."""
    check(name, Shape(100, 2, 3, 8), AROUND["plain"], dtype=dtype)


@pytest.mark.parametrize("outputs", ["all", "last"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rows_of_different_lengths_stay_in_their_dtype(dtype: str, outputs: str) -> None:
    """Of a whole layer, whose padding is replaced before an engine sees it."""
    x, lengths = np.random.default_rng(3).normal(size=(5, 4, 3)).astype("f"), [5, 0, 3, 1]
    x[3:, 2:] = np.nan
    results = []
    for device, kind in (("cuda", dtype), ("cpu", "float32")):
        layer = gpulstm.LSTM(3, 8, 2, device=device, dtype=kind, seed=2)
        y, state, tape = layer.forward(layer.backend.from_host(x, kind), lengths=lengths, outputs=outputs)
        dx, _, grads = layer.backward(tape, layer.backend.xp.ones_like(y))
        assert {array.dtype.name for array in (y, *state, dx, grads.flat)} == {kind}
        results.append([to_host(array).astype("f") for array in (y, *state, dx, grads.flat)])
    for ours, wide in zip(*results, strict=True):
        np.testing.assert_allclose(ours, wide, atol=GRADIENT[dtype] * np.abs(wide).max())


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", CELLS)
def test_runs_repeat_bit_for_bit(name: str, dtype: str) -> None:
    cell, options = CELLS[name]
    case = EngineCase.make(cell, SHAPES["odd"], dtype=dtype, around=AROUND["all"], **options)
    assert_same(on_cuda(case), on_cuda(case))


@pytest.mark.parametrize("name", CELLS)
def test_a_tape_serves_twice(name: str) -> None:
    cell, options = CELLS[name]
    case = EngineCase.make(cell, SHAPES["odd"], around=AROUND["all"], **options)
    assert_same(on_cuda(case, backwards=2), on_cuda(case))


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_training_computes_what_inference_does(name: str) -> None:
    cell, options = CELLS[name]
    results = [
        on_cuda(EngineCase.make(cell, SHAPES["odd"], around=AROUND["lengths"], training=training, **options))
        for training in (True, False)
    ]
    for key in results[1]:
        assert results[0][key].tobytes() == results[1][key].tobytes(), key
