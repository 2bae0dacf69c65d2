"""One direction of one layer: the values of a stack with the same weights, forwards, backwards, and with lengths."""

from __future__ import annotations

import numpy as np
import pytest
from stacks import CELLS

import gpulstm as gl
from gpulstm.arrays.backend import NUMPY
from gpulstm.interop.direction import Direction


@pytest.mark.parametrize("cell", CELLS)
def test_forwards_it_is_a_stack_of_one_layer(cell: str, rng: np.random.Generator) -> None:
    layer = CELLS[cell](3, 4, dtype="float64", device="cpu", seed=1)
    values = {name.removesuffix("_l0"): value for name, value in layer.params.items()}
    x = rng.normal(size=(6, 2, 3))
    y, end = Direction(layer.spec, values, NUMPY).run(x)
    expected, state = layer(x)
    np.testing.assert_allclose(y, expected, rtol=1e-12)
    h = state[0] if cell == "lstm" else state
    np.testing.assert_allclose(end.h, h[0], rtol=1e-12)
    assert (end.c is None) is (cell != "lstm")


def test_backwards_it_reads_the_last_step_first(rng: np.random.Generator) -> None:
    layer = gl.GRU(3, 4, dtype="float64", device="cpu", seed=1)
    values = {name.removesuffix("_l0"): value for name, value in layer.params.items()}
    x = rng.normal(size=(6, 2, 3))
    y, _ = Direction(layer.spec, values, NUMPY, reverse=True).run(x)
    np.testing.assert_allclose(y[::-1], layer(x[::-1])[0], rtol=1e-12)


def test_what_lies_past_a_row_counts_for_nothing(rng: np.random.Generator) -> None:
    layer = gl.LSTM(3, 4, dtype="float64", device="cpu", seed=1)
    values = {name.removesuffix("_l0"): value for name, value in layer.params.items()}
    x = rng.normal(size=(6, 2, 3))
    x[4:, 0] = np.nan
    y, end = Direction(layer.spec, values, NUMPY).run(x, lengths=np.array([4, 6]))
    alone, (h, _) = layer(x[:4, :1])
    np.testing.assert_allclose(y[:4, :1], alone, rtol=1e-12)
    assert not y[4:, 0].any()
    np.testing.assert_allclose(end.h[:1], h[0], rtol=1e-12)
