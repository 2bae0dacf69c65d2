"""The state of a stack is checked, taken apart by layers and joined again in one place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpulstm.arrays.backend import NUMPY
from gpulstm.engines.spec import StackSpec
from gpulstm.errors import DTypeError, ShapeError
from gpulstm.model.state import STACKED, check, join, map_state, of_parts, parts, split

LSTM = StackSpec("lstm", 3, 5, num_layers=2, dtype="float64")
GRU = StackSpec("gru", 3, 5, num_layers=2, dtype="float64")


def test_a_state_is_a_pair_one_array_or_none() -> None:
    h, c = np.zeros(1), np.ones(1)
    assert parts((h, c)) == [h, c] and parts(h) == [h] and parts(None) == []
    assert of_parts(h, c) == (h, c) and of_parts(h, None) is h
    assert map_state(lambda part: part + 1, None) is None
    assert map_state(lambda part: part + 1, h) == np.ones(1)
    doubled = map_state(lambda part: part * 2, (h, c))
    assert isinstance(doubled, tuple) and doubled == (np.zeros(1), np.full(1, 2))


@pytest.mark.parametrize("layers", [1, STACKED, STACKED + 3])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_split_and_joined_it_is_the_same(cell: Any, layers: int, rng: np.random.Generator) -> None:
    spec = StackSpec(cell, 3, 5, num_layers=layers, dtype="float64")
    h = rng.normal(size=(layers, 4, 5))
    c = rng.normal(size=(layers, 4, 5)) if cell == "lstm" else None
    pieces = split(h, c, spec, NUMPY, 4)
    assert len(pieces) == layers
    again_h, again_c = join(pieces, NUMPY)
    np.testing.assert_array_equal(again_h, h)
    assert not np.shares_memory(again_h, h)
    if c is None:
        assert again_c is None
    else:
        np.testing.assert_array_equal(again_c, c)


def test_none_is_zeros() -> None:
    assert check("state", None, LSTM, NUMPY, 4) == (None, None)
    for piece in split(None, None, LSTM, NUMPY, 4):
        assert piece.h.shape == piece.c.shape == (4, 5) and not piece.h.any() and not piece.c.any()
    assert all(piece.c is None for piece in split(None, None, GRU, NUMPY, 4))


@pytest.mark.parametrize(
    ("spec", "state", "error", "message"),
    [
        (LSTM, np.zeros((2, 4, 5)), ShapeError, r"dy is a ndarray, expected the pair \(h, c\)"),
        (GRU, (np.zeros((2, 4, 5)),) * 2, ShapeError, "dy is a tuple, expected h alone: the GRU has no c"),
        (LSTM, (np.zeros((2, 4, 5)), np.zeros((2, 3, 5))), ShapeError, r"c of dy has shape \(2, 3, 5\), expected"),
        (GRU, np.zeros((2, 4, 5), complex), DTypeError, "h of dy"),
    ],
)  # fmt: skip
def test_mistakes(spec: StackSpec, state: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check("dy", state, spec, NUMPY, 4)
