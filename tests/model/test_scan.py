"""Layers over segments of time: the same bits as the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from stacks import CELLS

import gpulstm as gl
from gpulstm.engines import reference
from gpulstm.engines.cuda import engine as cuda
from gpulstm.model.scan import cut


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of three steps at three rows, so that short sequences have several."""
    for engine in (reference, cuda):
        monkeypatch.setattr(engine, "BLOCK_ROWS", 9)


def step(layer: Any, x: Any, **options: Any) -> list[np.ndarray]:
    """Outputs, states and all gradients of one training step."""
    y, state, tape = layer.forward(x, **options)
    dx, dstate, grads = layer.backward(tape, y * y, state)
    flat = [y, dx, grads.flat]
    for each in (state, dstate):
        flat += each if isinstance(each, tuple) else [each]
    return [gl.to_host(value) for value in flat]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("outputs", ["all", "last"])
@pytest.mark.parametrize("lengths", [None, [13, 0, 5]], ids=["whole", "lengths"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "two-way"])
@pytest.mark.parametrize("cell", CELLS)
def test_segments_give_the_same_bits(cell: str, bidirectional: bool, lengths: Any, outputs: str, device: str) -> None:
    x = gl.to_device(np.random.default_rng(0).normal(size=(13, 3, 3)), device)
    results = []
    for memory in (None, "30KiB", "sqrt"):
        layer = CELLS[cell](
            3,
            4,
            2,
            bidirectional=bidirectional,
            dropout=0.2,
            recurrent_dropout=0.1,
            zoneout=0.1,
            dtype="float64",
            device=device,
            engine="reference" if device == "cpu" else None,
        )
        results.append(step(layer, x, lengths=lengths, memory=memory, outputs=outputs))
    for other in results[1:]:
        for expected, value in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(value, expected)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    "options", [{"peepholes": True}, {"layer_norm": True}, {"proj_size": 2}, {"coupled": True}, {"clip": 0.5}], ids=str
)
def test_segments_give_the_same_bits_for_other_cells(options: dict[str, Any]) -> None:
    x = np.random.default_rng(0).normal(size=(13, 3, 3))
    whole, cut_up = (
        step(gl.LSTM(3, 4, 2, dtype="float64", device="cpu", engine="reference", **options), x, memory=memory)
        for memory in (None, "sqrt")
    )
    for expected, value in zip(whole, cut_up, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_a_tape_can_be_used_twice() -> None:
    layer = gl.LSTM(3, 4, 2, device="cpu")
    y, _, tape = layer.forward(np.ones((700, 3, 3)), memory="sqrt")
    first, again = (layer.backward(tape, y)[2].flat for _ in range(2))
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize(
    ("steps", "length", "expected"),
    [(7, 3, [(0, 3), (3, 6), (6, 7)]), (6, 3, [(0, 3), (3, 6)]), (2, 5, [(0, 2)]), (0, 5, [(0, 0)]), (0, 0, [(0, 0)])],
)
def test_cut_covers_all_steps(steps: int, length: int, expected: Any) -> None:
    assert cut(steps, length) == expected
