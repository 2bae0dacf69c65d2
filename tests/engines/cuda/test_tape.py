"""The products over a whole sequence that all forms share, against NumPy on the same numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tolerance import GRADIENT

from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.devices import resolve, to_host
from gpulstm.arrays.gemm import Products
from gpulstm.engines.cuda.tape import Tape, input_product, sequence_gradients
from gpulstm.engines.dispatch import choose
from gpulstm.engines.spec import Call, StackSpec, Task

pytestmark = pytest.mark.cuda
STEPS, ROWS, INPUTS, UNITS = 7, 3, 4, 5
SPEC = StackSpec("gru", INPUTS, UNITS, dtype="float64")


def near(result: Any, expected: np.ndarray) -> None:
    assert np.linalg.norm(to_host(result) - expected) <= GRADIENT["float64"] * np.linalg.norm(expected)


@pytest.fixture
def numbers() -> dict[str, np.ndarray]:
    """Of a GRU layer, its weights and all that a tape holds of them."""
    rng, wide = np.random.default_rng(0), SPEC.gates * UNITS
    shapes = {"x": (STEPS, ROWS, INPUTS), "hs": (STEPS + 1, ROWS, UNITS), "W_x": (INPUTS, wide), "b": (wide,)}
    shapes |= {"da": (STEPS, ROWS, wide), "du": (STEPS, ROWS, wide)}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def on_device(numbers: dict[str, np.ndarray], products: Products, reverse: bool) -> tuple[CupyBackend, Task, Any]:
    backend = resolve("cuda")
    assert isinstance(backend, CupyBackend)
    values = {name: backend.from_host(value) for name, value in numbers.items()}
    task = Task(SPEC, 0, reverse, {"W_x": values["W_x"], "b": values["b"]})
    task.plan = replace(choose(Call(SPEC, "cuda:0", STEPS, ROWS, training=True), "cuda"), products=products)
    return backend, task, values


@pytest.mark.parametrize("products", ["own", "cublas"])
@pytest.mark.parametrize("block", [1, 3, 100])
def test_the_input_product_covers_all_blocks(numbers: dict[str, np.ndarray], products: Products, block: int) -> None:
    backend, task, values = on_device(numbers, products, False)
    out = backend.xp.full((STEPS, ROWS, SPEC.gates * UNITS), np.nan)
    input_product(backend, task, values["x"], out, block)
    near(out, numbers["x"] @ numbers["W_x"] + numbers["b"])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("products", ["own", "cublas"])
@pytest.mark.parametrize("block", [1, 3, 100])
def test_gradients_are_added_up_over_all_steps(
    numbers: dict[str, np.ndarray], products: Products, block: int, reverse: bool
) -> None:
    """W_h meets the state that each step read; the reset bias only the candidate's part of the recurrent gradient."""
    backend, task, values = on_device(numbers, products, reverse)
    tape = Tape(values["x"], values["da"], values["hs"], values["hs"], None, None)
    shapes = {"W_x": (INPUTS, 15), "W_h": (UNITS, 15), "b": (15,), "b_hn": (UNITS,)}
    grads = {name: backend.xp.ones(shape) for name, shape in shapes.items()}
    dx = sequence_gradients(backend, task, tape, values["da"], values["du"], grads, block)
    x, da, du = (numbers[name].reshape(STEPS * ROWS, -1) for name in ("x", "da", "du"))
    read = (numbers["hs"][1:] if reverse else numbers["hs"][:-1]).reshape(STEPS * ROWS, -1)
    near(dx, numbers["da"] @ numbers["W_x"].T)
    near(grads["W_x"], 1 + x.T @ da)
    near(grads["W_h"], 1 + read.T @ du)
    near(grads["b"], 1 + da.sum(axis=0))
    near(grads["b_hn"], 1 + du[:, 2 * UNITS :].sum(axis=0))


def test_a_dx_that_was_computed_already_is_left_as_it_is(numbers: dict[str, np.ndarray]) -> None:
    backend, task, values = on_device(numbers, "own", False)
    tape = Tape(values["x"], values["da"], values["hs"], values["hs"], None, None)
    grads = {name: backend.xp.zeros(shape) for name, shape in (("W_x", (INPUTS, 15)), ("W_h", (UNITS, 15)))}
    dx = backend.xp.full((STEPS, ROWS, INPUTS), 3.0)
    assert sequence_gradients(backend, task, tape, values["da"], values["du"], grads, 3, dx) is dx
    assert (to_host(dx) == 3).all()
