"""A stack that takes one step a call and keeps its state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mistakes import HIDDEN, INPUTS, ROWS, STEPS, Mistake, check, lstm, texts, x
from stacks import CELLS

import gpulstm as gl
from gpulstm.arrays.backend import Backend
from gpulstm.arrays.devices import to_device, to_host
from gpulstm.errors import ConfigError, DTypeError, ShapeError

STREAM: dict[Callable[[gl.LSTM], Any], Mistake] = {
    lambda m: lstm(bidirectional=True).stream(): (ConfigError, "stream needs bidirectional=False"),
    lambda m: m.stream(0): (ConfigError, "batch_size is 0, expected a whole number of at least 1"),
    lambda m: m.stream(1.5): (ConfigError, "batch_size is 1.5, expected a whole number of at least 1"),
    lambda m: m.stream(2)(x(INPUTS)): (ShapeError, r"x has shape \(2,\), expected \(2, 2\)"),
    lambda m: m.stream(2)(x(1, INPUTS)): (ShapeError, r"x has shape \(1, 2\), expected \(2, 2\)"),
    lambda m: m.stream()([["a", "b"]]): (DTypeError, "x has dtype <U1, expected real numbers"),
}


@pytest.mark.parametrize(("call", "mistake"), texts(STREAM))
def test_stream(call: Callable[[gl.LSTM], Any], mistake: Mistake) -> None:
    check(call, mistake, lstm())


def test_stream_from_a_state_that_does_not_fit() -> None:
    step, h, c = lstm().stream(ROWS), np.zeros((1, ROWS, HIDDEN)), np.zeros((1, ROWS, 1))

    def set_and_step(x_t: np.ndarray) -> None:
        step.state = (h, c)
        step(x_t)

    check(set_and_step, (ShapeError, "c of state has shape"), x(ROWS, INPUTS))


def test_streaming_gives_what_a_whole_sequence_gives(backend: Backend) -> None:
    for cell in CELLS.values():
        stack = cell(INPUTS, HIDDEN, 2, device=backend, dtype="float64")
        x = to_device(np.random.default_rng(3).normal(size=(STEPS, ROWS, INPUTS)), backend)
        y, state = stack(x)
        step = stack.stream(ROWS)
        for t in range(STEPS):
            np.testing.assert_allclose(to_host(step(x[t])), to_host(y[t]), rtol=1e-12, atol=1e-14)
        ends = state if isinstance(state, tuple) else (state,)
        kept = step.state if isinstance(step.state, tuple) else (step.state,)
        for one, other in zip(kept, ends, strict=True):
            np.testing.assert_allclose(to_host(one), to_host(other), rtol=1e-12, atol=1e-14)
        step.reset()
        np.testing.assert_allclose(to_host(step(x[0])), to_host(y[0]), rtol=1e-12, atol=1e-14)
