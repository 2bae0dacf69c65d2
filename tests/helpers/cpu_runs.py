"""The CPU engine and the reference on the same model and input."""

from __future__ import annotations

from typing import Any

import numpy as np
from stacks import WITH_RELU
from tolerance import FORWARD, GRADIENT

from gpulstm.model.stack import Recurrent

DTYPES = ("float64", "float32")


def run(model: Recurrent, shape: tuple[int, ...], *, lengths: bool = False, seed: int = 3) -> dict[str, np.ndarray]:
    """All results of a pass forward and back, and of inference, from random input, states and gradients."""
    rng = np.random.default_rng(seed)
    steps, batch, inputs, hidden = shape
    dtype, memory = model.spec.dtype, model.spec.has_memory
    count = model.spec.num_layers * model.spec.directions
    x = rng.standard_normal((steps, batch, inputs)).astype(dtype)
    rows = None
    if lengths:
        rows = rng.integers(0, steps + 1, batch)
        rows[0], rows[-1] = steps, 0
    units = (model.spec.state_size, hidden)
    parts = [rng.standard_normal((count, batch, size)).astype(dtype) for _ in range(2) for size in units]
    state, dstate = ((parts[0], parts[1]), (parts[2], parts[3])) if memory else (parts[0], parts[2])
    results: dict[str, Any] = {}
    results["inference"], ends = model(x, state, rows)
    for name, part in zip("hc", ends if memory else [ends], strict=False):
        results[f"inference {name}"] = part
    results["y"], ends, tape = model.forward(x, state, rows)
    dy = rng.standard_normal(results["y"].shape).astype(dtype)
    results["dx"], starts, grads = model.backward(tape, dy, dstate)
    for kind, pair in (("end", ends), ("d start", starts)):
        for name, part in zip("hc", pair if memory else [pair], strict=False):
            results[f"{kind} {name}"] = part
    return results | {f"d {name}": value for name, value in grads.items()}


def compare(results: dict[str, np.ndarray], expected: dict[str, np.ndarray], dtype: str) -> None:
    """Forward values by their size, gradients by their norm."""
    assert results.keys() == expected.keys()
    for name, value in expected.items():
        assert results[name].shape == value.shape
        assert results[name].dtype == value.dtype
        if name.startswith("d"):
            error = np.linalg.norm(results[name] - value) / max(np.linalg.norm(value), 1e-30)
            assert error <= GRADIENT[dtype], (name, error)
        else:
            assert np.allclose(results[name], value, rtol=FORWARD[dtype], atol=FORWARD[dtype]), name


def both(cell: str, shape: tuple[int, ...], dtype: str, *, lengths: bool = False, **options: Any) -> None:
    """The two engines on the same model and input."""
    results = []
    for engine in ("cpu", "reference"):
        model = WITH_RELU[cell](shape[2], shape[3], dtype=dtype, device="cpu", seed=5, engine=engine, **options)
        results.append(run(model, shape, lengths=lengths))
    compare(results[0], results[1], dtype)
