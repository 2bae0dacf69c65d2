"""Draws gradient_flow.png: how much of the gradient is left after 1 to 1000 steps back in time.

The gradient of the last output with respect to the input of `lag` steps before.  In a plain RNN it is multiplied at
each step by W_h^T and the slope of tanh, so it shrinks or grows geometrically (Hochreiter 1991; Bengio, Simard &
Frasconi 1994; Pascanu, Mikolov & Bengio 2013).  In the LSTM it also runs along c_t = f_t * c_{t-1} + i_t * g_t, where
the factor of a step is the forget gate f_t alone: with f_t = 1 - 1/1000, a thousand steps leave exp(-1) of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from style import BLACK, BLUE, FOLDER, GRAY, ORANGE, VERMILION, pyplot, save

import gpulstm as gl
from gpulstm.model.stack import Recurrent

INPUTS, HIDDEN = 2, 32
LAGS = tuple(int(lag) for lag in np.unique(np.geomspace(1, 1000, 60).round()))


def gradient_norms(stack: Recurrent, lags: Sequence[int], *, rows: int = 16, seed: int = 0) -> np.ndarray:
    """The norm of the gradient of the last output with respect to the input `lag` steps before, for each lag.

    The input is white noise; the output's gradient is a random direction of length 1, in `rows` sequences.

    Args:
        stack: one direction; float64, so that what vanishes does not end at the smallest float32.
        lags: steps back in time, from 0.
        rows: sequences to average over.
        seed: of noise and directions.

    Returns:
        `(len(lags),)` mean norms.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(max(lags) + 1, rows, stack.spec.input_size))
    y, _, tape = stack.forward(x, outputs="last")
    dy = rng.normal(size=y.shape)
    dx, _, _ = stack.backward(tape, dy / np.linalg.norm(dy, axis=1, keepdims=True))
    return np.linalg.norm(dx, axis=2).mean(axis=1)[::-1][list(lags)]


def rnn(gain: float) -> gl.RNN:
    """A plain RNN whose recurrent weights are `gain` times an orthogonal matrix."""
    stack = gl.RNN(INPUTS, HIDDEN, dtype="float64", device="cpu")
    stack.params["W_h_l0"] *= gain
    return stack


def lstm(span: float | None) -> gl.LSTM:
    """An LSTM whose gates start so that it remembers for about `span` steps; None is the usual forget bias of 1.

    The forget gate starts at 1 - 1/span and the input gate at 1/span, that is their biases at log(span - 1) and its
    negative (the chrono initialization of Tallec & Ollivier 2018, arXiv:1804.11188, with one span for all units).
    """
    stack = gl.LSTM(
        INPUTS, HIDDEN, dtype="float64", device="cpu", forget_bias=1.0 if span is None else math.log(span - 1)
    )
    if span is not None:
        stack.params["b_l0"][:HIDDEN] = -math.log(span - 1)
    return stack


def draw(folder: Path = FOLDER) -> Path:
    """Four stacks, each relative to its gradient at lag 1."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(7, 3.6))
    curves = [
        ("RNN, $W_h$ twice orthogonal: explodes", rnn(2.0), VERMILION, "--"),
        ("LSTM, gates set for 1000 steps", lstm(1000.0), BLUE, "-"),
        ("LSTM, forget bias 1 ($f_t$ about 0.73)", lstm(None), GRAY, "-."),
        ("RNN, $W_h$ 0.9 times orthogonal: vanishes", rnn(0.9), ORANGE, ":"),
    ]
    for label, stack, color, dash in curves:
        norms = gradient_norms(stack, LAGS)
        axes.loglog(LAGS, norms / norms[0], dash, color=color, label=label, lw=2)
    axes.axhline(1, color=BLACK, lw=0.6)
    axes.set(xlim=(1, 1000), ylim=(1e-20, 1e20), xlabel="lag: steps back in time")
    axes.set_ylabel("gradient, relative to lag 1")
    axes.set_title("The gradient of the last output with respect to an earlier input", loc="left")
    axes.legend(loc="center left", bbox_to_anchor=(0.02, 0.3), fontsize=8.5)
    return save(figure, "gradient_flow.png", folder)


if __name__ == "__main__":
    draw()
