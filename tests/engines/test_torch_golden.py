"""LSTM, GRU and RNN against numbers recorded from PyTorch 2.13 (tests/golden/record_torch.py), in float64.

Outputs, final states, all gradients, and the losses of ten Adam steps; on every device, so also the CUDA engine.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from paths import GOLDEN_FOLDER
from safetensors import safe_open
from tolerance import FORWARD

import gpulstm as gl
from gpulstm.arrays.backend import Backend
from gpulstm.arrays.devices import to_device, to_host
from gpulstm.losses import MSE
from gpulstm.model.stack import Recurrent
from gpulstm.optimizers import Adam

LOSS_TOLERANCE = 1e-10  # ten steps of Adam, which divides small gradients by small roots, enlarge the last bits
KINDS = {"lstm": gl.LSTM, "gru": gl.GRU, "rnn": gl.RNN}


def load(kind: str) -> tuple[dict[str, np.ndarray], dict[str, dict[str, Any]], float]:
    """All arrays of one file, the options of its cases, and Adam's rate."""
    with safe_open(GOLDEN_FOLDER / f"torch_{kind}.safetensors", "np") as file:
        text = file.metadata()
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(text["cases"]), float(text["rate"])  # noqa: SIM118


FILES = {kind: load(kind) for kind in KINDS}
CASES = [(kind, case) for kind, (_, cases, _) in FILES.items() for case in cases]


class Golden:
    """One recorded case, its parameters under the names and in the layout of this package."""

    def __init__(self, kind: str, case: str, backend: Backend) -> None:
        arrays, cases, self.rate = FILES[kind]
        self.arrays = {name.partition("/")[2]: value for name, value in arrays.items() if name.startswith(f"{case}/")}
        self.parts = ["h", "c"] if kind == "lstm" else ["h"]
        self.lengths = self.arrays.get("lengths")
        hidden = self.arrays["weight_ih_l0"].shape[0] // {"lstm": 4, "gru": 3, "rnn": 1}[kind]
        self.stack: Recurrent = KINDS[kind](
            self.arrays["x"].shape[2], hidden, dtype="float64", device=backend, **cases[case]
        )
        self.stack.params.load(self.packed(""))

    def packed(self, prefix: str) -> dict[str, np.ndarray]:
        """PyTorch's parameters ("") or gradients ("grad.") as this package keeps them.

        Weights are transposed.  The biases are added up, and both of them have the gradient of the sum; the part of the
        GRU's second one that belongs to the candidate stays a bias of its own.
        """
        results, size = {}, self.stack.spec.hidden_size
        for suffix in self.stack.spec.suffixes:
            results[f"W_x{suffix}"] = self.arrays[f"{prefix}weight_ih{suffix}"].T
            results[f"W_h{suffix}"] = self.arrays[f"{prefix}weight_hh{suffix}"].T
            first, second = (self.arrays[f"{prefix}{name}{suffix}"] for name in ("bias_ih", "bias_hh"))
            added = second.copy()
            if self.stack.spec.cell == "gru":
                results[f"b_hn{suffix}"] = second[2 * size :]
                added[2 * size :] = 0
            results[f"b{suffix}"] = first if prefix else first + added
            if self.stack.spec.proj_size:
                results[f"W_p{suffix}"] = self.arrays[f"{prefix}weight_hr{suffix}"].T
        return results

    def device(self, name: str) -> Any:
        return to_device(self.arrays[name], self.stack.backend)

    def state(self, pattern: str) -> Any:
        """The arrays of a state, for example `"{}_0"`, as the stack takes them."""
        results = tuple(self.device(pattern.format(part)) for part in self.parts)
        return results if len(results) == 2 else results[0]


@pytest.fixture
def golden(kind: str, case: str, backend: Backend) -> Golden:
    return Golden(kind, case, backend)


def assert_close(result: Any, expected: np.ndarray, name: str) -> None:
    assert result.shape == expected.shape, name
    assert np.linalg.norm(to_host(result) - expected) <= FORWARD["float64"] * np.linalg.norm(expected), name


@pytest.mark.parametrize(("kind", "case"), CASES)
def test_outputs_states_and_gradients(golden: Golden) -> None:
    stack, arrays = golden.stack, golden.arrays
    y, end, tape = stack.forward(golden.device("x"), golden.state("{}_0"), golden.lengths)
    dx, dstart, grads = stack.backward(tape, golden.device("dy"), golden.state("d{}"))
    assert_close(y, arrays["y"], "y")
    assert_close(dx, arrays["grad.x"], "dx")
    ends, starts = (end, dstart) if stack.spec.has_memory else ((end,), (dstart,))
    for part, last, first in zip(golden.parts, ends, starts, strict=True):
        assert_close(last, arrays[f"{part}_n"], f"{part}_n")
        assert_close(first, arrays[f"grad.{part}_0"], f"d{part}_0")
    expected = golden.packed("grad.")
    assert expected.keys() == grads.keys()
    for name, value in expected.items():
        assert_close(grads[name], value, name)


@pytest.mark.parametrize(("kind", "case"), CASES)
def test_losses_of_ten_adam_steps(golden: Golden) -> None:
    stack, loss, optimizer, losses = golden.stack, MSE(), Adam(), []
    target = golden.device("target")
    optimizer.init(stack.params)
    for _ in range(10):
        y, _, tape = stack.forward(golden.device("x"), lengths=golden.lengths)
        value, dy = loss(y[..., None], target)
        losses.append(float(value))
        optimizer.step(stack.params, stack.backward(tape, dy[..., 0])[2], rate=golden.rate)
    np.testing.assert_allclose(losses, golden.arrays["losses"], rtol=LOSS_TOLERANCE)
    assert losses[-1] < losses[0]


def test_every_kind_depth_and_direction_is_there() -> None:
    assert len(CASES) == 4 * 3 * 2 + 3 + 2
    assert {case for _, case in CASES} >= {"lstm-3-both", "gru-3", "rnn-tanh-2", "rnn-relu-1", "lstm-projection"}
