"""What every contender of a case is given, and what it must give back: arrays in one file, from the reference.

`x` and the weights are float32; `y` and the gradients (`dx`, `dW_x_l0`, ...) that are expected come from the reference
engine in float64.  Started with two arguments, a case as JSON and the file to write; a process of its own, so that the
one that waits between timings has no threads to spin.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpulstm.model.layers import LSTM

STREAM = 4  # steps of a stream that are compared
EXPECTED = "expected."  # before the names of results; all others are given
TRAINING = ("training", "update")


def arrays(case: Mapping[str, Any], *, expected: bool = True) -> dict[str, np.ndarray]:
    """`x (T, B, I)`, weights by name, `dy (T, B, H)` for training, and what comes out under `expected.*`.

    Args:
        case: steps, batch, inputs, hidden, layers, kind; a step gets four steps in turn.
        expected: compute the results too.
    """
    rng = np.random.default_rng(0)
    steps = STREAM if case["kind"] == "step" else case["steps"]
    sizes = case["inputs"], case["hidden"], case["layers"]
    reference = LSTM(*sizes, dtype="float64", device="cpu", engine="reference")
    weights = {name: value.astype(np.float32) for name, value in reference.params.host().items()}
    for name, value in weights.items():
        if name.startswith("b_"):
            value += rng.standard_normal(value.shape, dtype=np.float32) / 10
    values = {**weights, "x": rng.standard_normal((steps, case["batch"], case["inputs"]), dtype=np.float32)}
    training = case["kind"] in TRAINING
    if training:
        values["dy"] = rng.standard_normal((steps, case["batch"], case["hidden"]), dtype=np.float32)
    if not expected:
        return values
    reference.params.load(weights)
    y, _, tape = reference.forward(values["x"], training=training)
    values[EXPECTED + "y"] = y
    if tape is not None:
        dx, _, grads = reference.backward(tape, values["dy"])
        values[EXPECTED + "dx"] = dx
        values |= {f"{EXPECTED}d{name}": value for name, value in grads.host().items()}
    return values


def main() -> int:
    """Write the file."""
    task = json.loads(sys.argv[1])
    with open(sys.argv[2], "wb") as file:
        np.savez(file, allow_pickle=False, **arrays(task["case"], expected=task["expected"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
