"""The dense layer alone and after a stack, against products by hand and central differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.arrays.backend import Backend
from gpulstm.errors import ConfigError, DTypeError, ShapeError


def test_it_is_a_product_over_the_last_axis(backend: Backend, rng: np.random.Generator) -> None:
    dense = gl.Dense(4, 3, dtype="float64", device=backend.device, seed=5)
    x = rng.normal(size=(2, 6, 4))
    y = backend.to_host(dense(backend.from_host(x)))
    weights, bias = (backend.to_host(dense.params[name]) for name in ("W", "b"))
    np.testing.assert_allclose(y, x @ weights + bias, rtol=1e-12)
    np.testing.assert_array_equal(weights, gl.Dense(4, 3, dtype="float64", device="cpu", seed=5).params["W"])


def test_gradients_are_those_of_central_differences(rng: np.random.Generator) -> None:
    dense = gl.Dense(3, 2, dtype="float64", device="cpu")
    x, dy = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
    dx, grads = dense.backward(x, dy)

    def difference(array: np.ndarray, at: tuple[int, ...]) -> float:
        value, sums = array[at], []
        for step in (1e-6, -1e-6):
            array[at] = value + step
            sums.append(float((dense(x) * dy).sum()))
        array[at] = value
        return (sums[0] - sums[1]) / 2e-6

    assert dx[2, 1] == pytest.approx(difference(x, (2, 1)), rel=1e-7)
    assert grads["W"][1, 0] == pytest.approx(difference(dense.params["W"], (1, 0)), rel=1e-7)
    assert grads["b"][1] == pytest.approx(difference(dense.params["b"], (1,)), rel=1e-7)
    _, twice = dense.backward(x, dy, grads)
    assert twice is grads
    np.testing.assert_allclose(grads["b"], 2 * dy.sum(0), rtol=1e-12)


def test_it_trains_behind_a_stack(rng: np.random.Generator) -> None:
    """Sequences whose class is the sign of their sum, told by an LSTM and a dense layer with plain gradient steps."""
    lstm, dense = gl.LSTM(1, 8, device="cpu", seed=1), gl.Dense(8, 1, device="cpu", seed=2)
    x = rng.normal(size=(6, 64, 1)).astype("float32")
    sign = np.sign(x.sum(0))
    losses = []
    for _ in range(60):
        y, _, tape = lstm.forward(x, outputs="last")
        error = dense(y) - sign
        losses.append(float((error**2).mean()))
        dy, head = dense.backward(y, 2 * error / error.size)
        _, _, grads = lstm.backward(tape, dy)
        lstm.params.flat -= 0.2 * grads.flat
        dense.params.flat -= 0.2 * head.flat
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"input_size": 0, "output_size": 2}, ConfigError, "input_size is 0"),
        ({"input_size": 2, "output_size": 2, "dtype": "int8"}, DTypeError, "dtype is 'int8'"),
        (
            {"input_size": 2, "output_size": 2, "dtype": "float16"},
            DTypeError,
            "on the cpu expected 'float32' or 'float64'",
        ),
    ],
)
def test_a_mistake_is_one_sentence(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        gl.Dense(**arguments, device="cpu")


def test_shapes_are_checked() -> None:
    dense = gl.Dense(3, 2, device="cpu")
    with pytest.raises(ShapeError, match=r"x has shape \(5, 4\), expected \(\.\.\., 3\)"):
        dense(np.zeros((5, 4)))
    with pytest.raises(ShapeError, match=r"dy has shape \(4, 2\), expected \(5, 2\)"):
        dense.backward(np.zeros((5, 3)), np.zeros((4, 2)))
    assert repr(dense) == "Dense(3, 2, dtype='float32', device='cpu')"
