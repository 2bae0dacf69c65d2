"""Every gradient of every cell and option against central differences, in float64.

The loss is a random weighting of all results, sum(y * dy) + sum(h_T * dh) + sum(c_T * dc).  Each number of each
parameter, of x, h_0 and c_0 is moved by +-1e-6, and the slope of the loss is compared with what `backward` says: the
difference of the two, over one array, is at most 1e-7 of the array's norm.  The masks of dropout and zoneout are the
same in all of these passes, because each pass begins with the same count of calls.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from stacks import CELLS
from tolerance import DIFFERENCES

from gpulstm.engines import reference
from gpulstm.model.stack import Recurrent

STEP = 1e-6
INPUTS, HIDDEN, STEPS, ROWS = 2, 3, 4, 3

# Kinks (relu at 0, clip at its bound) have no slope, and differences across one are wrong.  The seeds of those cases
# are such that no pre-activation lies within reach of STEP; `test_kinks_are_far_away` holds that.
OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("lstm", {}),
    "lstm-no-bias": ("lstm", {"bias": False}),
    "lstm-peepholes": ("lstm", {"peepholes": True}),
    "lstm-coupled": ("lstm", {"coupled": True}),
    "lstm-coupled-peepholes": ("lstm", {"coupled": True, "peepholes": True}),
    "lstm-coupled-no-bias": ("lstm", {"coupled": True, "bias": False}),
    "lstm-layer-norm": ("lstm", {"layer_norm": True}),
    "lstm-projection": ("lstm", {"proj_size": 2}),
    "lstm-projection-peepholes-no-bias": ("lstm", {"proj_size": 2, "peepholes": True, "bias": False}),
    "lstm-projection-coupled": ("lstm", {"proj_size": 1, "coupled": True}),
    "lstm-projection-layer-norm": ("lstm", {"proj_size": 2, "layer_norm": True}),
    "lstm-clip": ("lstm", {"clip": 0.4}),
    "lstm-clip-peepholes": ("lstm", {"clip": 0.4, "peepholes": True}),
    "lstm-clip-layer-norm": ("lstm", {"clip": 0.9, "layer_norm": True}),
    "lstm-activations": ("lstm", {"activations": ("HardSigmoid", ("ScaledTanh", 1.5, 0.7), "Softsign")}),
    "lstm-activations-peepholes": ("lstm", {"activations": ("Softsign", "Elu", "Softplus"), "peepholes": True}),
    "lstm-activations-coupled": ("lstm", {"activations": ("Sigmoid", "LeakyRelu", "Elu"), "coupled": True}),
    "lstm-activations-clip": ("lstm", {"activations": ("Sigmoid", ("Affine", -0.5, 0.1), "Tanh"), "clip": 0.4}),
    "gru-activations": ("gru", {"activations": ("HardSigmoid", "Elu")}),
    "gru-activations-reset-before": ("gru", {"activations": ("Softsign", ("Affine", 0.5, 0.1)), "reset_after": False}),
    "rnn-activations": ("rnn", {"activations": (("ThresholdedRelu", 0.3, 0.0),)}),
    "gru": ("gru", {}),
    "gru-no-bias": ("gru", {"bias": False}),
    "gru-reset-before": ("gru", {"reset_after": False}),
    "gru-reset-before-no-bias": ("gru", {"reset_after": False, "bias": False}),
    "gru-layer-norm": ("gru", {"layer_norm": True}),
    "gru-clip": ("gru", {"clip": 0.4}),
    "gru-reset-before-clip": ("gru", {"reset_after": False, "clip": 0.4}),
    "rnn": ("rnn", {}),
    "rnn-no-bias": ("rnn", {"bias": False}),
    "rnn-layer-norm": ("rnn", {"layer_norm": True}),
    "rnn-clip": ("rnn", {"clip": 0.4}),
    "rnn-relu": ("rnn", {"nonlinearity": "relu"}),
    "rnn-relu-no-bias": ("rnn", {"nonlinearity": "relu", "bias": False}),
    "rnn-relu-clip": ("rnn", {"nonlinearity": "relu", "clip": 0.9}),
    "rnn-relu-layer-norm": ("rnn", {"nonlinearity": "relu", "layer_norm": True}),
}
AROUND: dict[str, Any] = {"lengths": True, "bidirectional": True, "recurrent_dropout": 0.3, "zoneout": 0.3}
LENGTHS = (2, 0, STEPS)  # a short row, one that is never read, a full one


class Case:
    """A stack with random parameters, a batch, and the weights that make its results a scalar."""

    def __init__(self, name: str, *, lengths: bool = False, outputs: str = "all", seed: int = 5, **more: Any) -> None:
        cell, options = OPTIONS[name]
        self.stack: Recurrent = CELLS[cell](INPUTS, HIDDEN, dtype="float64", device="cpu", seed=3, **options, **more)
        rng, spec = np.random.default_rng(seed), self.stack.spec
        for value in self.stack.params.values():  # no zeros and no ones, so that nothing falls out of the equations
            value[...] = rng.normal(size=value.shape) * 0.6
        count = spec.num_layers * spec.directions
        parts = [(count, ROWS, spec.state_size), *([(count, ROWS, HIDDEN)] if spec.has_memory else [])]
        self.x = rng.normal(size=(STEPS, ROWS, INPUTS))
        self.start = [rng.normal(size=part) for part in parts]
        self.dend = [rng.normal(size=part) for part in parts]
        self.lengths = np.array(LENGTHS) if lengths else None
        self.outputs = outputs
        self.memory: str | None = None
        self.dy = rng.normal(size=(STEPS, ROWS, spec.output_size)[0 if outputs == "all" else 1 :])

    def state(self, parts: list[np.ndarray]) -> Any:
        return tuple(parts) if self.stack.spec.has_memory else parts[0]

    def forward(self) -> tuple[Any, Any, Any]:
        self.stack.calls = 7  # the same masks in every pass
        state = self.state(self.start)
        return self.stack.forward(self.x, state, self.lengths, memory=self.memory, outputs=self.outputs)

    def loss(self) -> float:
        y, state, _ = self.forward()
        ends = state if self.stack.spec.has_memory else (state,)
        return float((y * self.dy).sum() + sum((end * d).sum() for end, d in zip(ends, self.dend, strict=True)))

    def gradients(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """All arrays that the loss depends on, and what `backward` gives for them, by name."""
        _, _, tape = self.forward()
        dx, dstart, grads = self.stack.backward(tape, self.dy, self.state(self.dend))
        dstarts = dstart if self.stack.spec.has_memory else (dstart,)
        values = {**self.stack.params, "x": self.x, "h_0": self.start[0]}
        results = {**grads, "x": dx, "h_0": dstarts[0]}
        if self.stack.spec.has_memory:
            values["c_0"], results["c_0"] = self.start[1], dstarts[1]
        return values, results


def differences(loss: Callable[[], float], value: np.ndarray) -> np.ndarray:
    """The slope of `loss` along each number of `value`, which is left as it was."""
    slope, flat = np.empty(value.size), value.reshape(-1)
    assert np.shares_memory(flat, value)
    for index in range(flat.size):
        middle = flat[index]
        flat[index] = middle + STEP
        above = loss()
        flat[index] = middle - STEP
        slope[index] = (above - loss()) / (2 * STEP)
        flat[index] = middle
    return slope.reshape(value.shape)


def check(case: Case) -> None:
    values, results = case.gradients()
    for name, value in values.items():
        expected = differences(case.loss, value)
        norm = np.linalg.norm(expected)
        assert norm > 1e-3, f"the loss does not depend on {name}: nothing is tested"
        assert np.linalg.norm(results[name] - expected) <= DIFFERENCES * norm, name


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name: str) -> None:
    check(Case(name))


@pytest.mark.parametrize("name", OPTIONS)
def test_options_with_lengths_masks_and_both_directions(name: str) -> None:
    """All that a layer does around its cell, at once: rows that end early or never begin, dropout and zoneout."""
    check(Case(name, **AROUND))


@pytest.mark.parametrize("outputs", ["all", "last"])
@pytest.mark.parametrize("lengths", [False, True], ids=["full", "lengths"])
@pytest.mark.parametrize("name", ["lstm", "lstm-projection", "gru", "rnn"])
def test_two_layers_both_directions_and_dropout_between(name: str, lengths: bool, outputs: str) -> None:
    check(Case(name, lengths=lengths, outputs=outputs, num_layers=2, bidirectional=True, dropout=0.4))


@pytest.mark.parametrize("memory", [None, "sqrt"])
@pytest.mark.parametrize("name", ["lstm", "lstm-projection-layer-norm", "gru-reset-before", "rnn-layer-norm"])
def test_several_blocks_and_segments(name: str, memory: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole-sequence products taken in blocks of one step; with "sqrt", segments of two that are computed again."""
    monkeypatch.setattr(reference, "BLOCK_ROWS", ROWS)
    case = Case(name, num_layers=2, **AROUND)
    case.memory = memory
    check(case)


@pytest.mark.parametrize("alone", [{"recurrent_dropout": 0.4}, {"zoneout": (0.4, 0.0)}, {"zoneout": (0.0, 0.4)}])
def test_one_mask_alone(alone: dict[str, Any]) -> None:
    check(Case("lstm", num_layers=2, **alone))


def test_the_masks_of_the_cases_drop_and_keep() -> None:
    """The cases above would say nothing of masks that are all ones."""
    case = Case("lstm", num_layers=2, dropout=0.4, recurrent_dropout=0.3, zoneout=(0.3, 0.2))
    _, _, tape = case.forward()
    saved = tape.scans[0][0].saved
    task = saved.tasks[1]
    for mask in (saved.masks[1], task.recurrent_mask, task.keep_h, task.keep_c):
        assert 0 < np.count_nonzero(mask) < mask.size


@pytest.mark.parametrize("around", [{}, AROUND], ids=["plain", "masks"])
@pytest.mark.parametrize("name", [name for name in OPTIONS if "relu" in name or "clip" in name])
def test_kinks_are_far_away(name: str, around: dict[str, Any]) -> None:
    """One-sided slopes agree where no kink lies within the step: the second difference over the step is at rounding."""
    case = Case(name, **around)
    values, _ = case.gradients()
    middle = case.loss()
    for key, value in values.items():
        flat = value.reshape(-1)
        for index in range(flat.size):
            old = flat[index]
            flat[index] = old + 4 * STEP
            above = case.loss()
            flat[index] = old - 4 * STEP
            below = case.loss()
            flat[index] = old
            assert abs(above - 2 * middle + below) < 1e-8, f"{key}[{index}] moves the loss over a kink"


@pytest.mark.parametrize("name", [name for name in OPTIONS if "clip" in name])
def test_cases_with_clip_reach_the_bound(name: str) -> None:
    case = Case(name)
    y = case.forward()[0]
    unbound = dataclasses.replace(case.stack.spec, clip=None)
    case.stack = Recurrent(unbound, device="cpu", params=case.stack.params, initial=False)
    assert not np.allclose(y, case.forward()[0])


def test_cases_with_relu_are_at_zero_and_above() -> None:
    y = Case("rnn-relu").forward()[0]
    assert (y == 0).any() and (y > 0).any()


def test_gradients_are_added_to_those_given() -> None:
    case = Case("lstm", num_layers=2)
    _, _, tape = case.forward()
    once = case.stack.backward(tape, case.dy)[2]
    twice = case.stack.backward(tape, case.dy, grads=case.stack.backward(tape, case.dy)[2])[2]
    np.testing.assert_allclose(twice.flat, 2 * once.flat, rtol=1e-13)


def test_without_dstate_the_final_state_counts_for_nothing() -> None:
    case = Case("gru")
    _, _, tape = case.forward()
    gradients = case.stack.backward(tape, case.dy, np.zeros_like(case.start[0]))
    left_out = case.stack.backward(tape, case.dy)
    np.testing.assert_array_equal(gradients[0], left_out[0])
    np.testing.assert_array_equal(gradients[2].flat, left_out[2].flat)


def test_what_lies_past_a_row_is_not_read() -> None:
    """NaN in the padding of x and of dy changes nothing, and gets no gradient."""
    case = Case("lstm", lengths=True, num_layers=2, bidirectional=True)
    _, _, tape = case.forward()
    dx, dstart, grads = case.stack.backward(tape, case.dy, case.state(case.dend))
    past = np.arange(STEPS)[:, None] >= np.array(LENGTHS)
    case.x[past] = np.nan
    case.dy[past] = np.nan
    y, _, tape = case.forward()
    assert not y[past].any()
    dx_padded, dstart_padded, grads_padded = case.stack.backward(tape, case.dy, case.state(case.dend))
    assert not dx_padded[past].any()
    np.testing.assert_array_equal(dx_padded, dx)
    np.testing.assert_array_equal(dstart_padded[0], dstart[0])
    np.testing.assert_array_equal(grads_padded.flat, grads.flat)
