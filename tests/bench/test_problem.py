"""The problem that all contenders solve: inputs, weights, and what comes out."""

from __future__ import annotations

import numpy as np

from gpulstm.bench import problem


def test_a_problem_holds_inputs_and_what_comes_out() -> None:
    case = {"steps": 3, "batch": 2, "inputs": 4, "hidden": 5, "layers": 2, "kind": "training"}
    arrays = problem.arrays(case)
    shapes = {name: value.shape for name, value in arrays.items() if not name.startswith("expected.")}
    assert shapes["x"] == (3, 2, 4)
    assert shapes["dy"] == (3, 2, 5)
    results = {name.removeprefix("expected."): value.shape for name, value in arrays.items() if name not in shapes}
    weights = {name: shape for name, shape in shapes.items() if name not in ("x", "dy")}
    assert results == {"y": (3, 2, 5), "dx": (3, 2, 4), **{f"d{name}": shape for name, shape in weights.items()}}
    assert all(np.abs(arrays[name]).min() >= 0 and arrays[name].std() > 0 for name in arrays)  # biases too
    assert problem.arrays({**case, "kind": "step", "steps": 1})["expected.y"].shape == (4, 2, 5)
    assert not [name for name in problem.arrays(case, expected=False) if name.startswith("expected.")]
