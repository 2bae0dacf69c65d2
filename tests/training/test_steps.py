"""Steps of a run: what each leaves in the state, and the way back from steps that the latch kept from the weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from runs import make, windows

from gpulstm.arrays.backend import Backend
from gpulstm.arrays.devices import to_host
from gpulstm.data.tbptt import Lanes
from gpulstm.data.windows import Batch, WindowSet
from gpulstm.errors import TrainingError
from gpulstm.losses import MSE
from gpulstm.training.parallel import SINGLE
from gpulstm.training.state import RunState
from gpulstm.training.steps import Steps, first_not_finite


def started(data: WindowSet | Lanes, **options: Any) -> tuple[Steps, RunState]:
    """The steps of a run whose epoch has begun."""
    state = make(**options).state
    state.open_log(len(data.batches(state.batch_size)))
    return Steps(state, None, SINGLE), state


def lanes(rows: int = 60) -> Lanes:
    """Two lanes of one wave, a step 4 rows on."""
    return Lanes(windows(rows), np.array([rows]), lanes=2, chunk=4, reach=4)


def test_a_step_moves_weights_and_counters() -> None:
    data = windows()
    steps, state = started(data)
    before = to_host(state.weights.flat).copy()
    steps.take(data, np.arange(8))
    assert (state.batch, state.step, state.network.calls, state.whole) == (1, 1, 1, True)
    assert not np.array_equal(to_host(state.weights.flat), before)
    losses = state.losses()
    assert losses is not None and losses.shape == (3, 1)
    assert losses[0, 0] > 0 and losses[2, 0] == 16  # eight windows of two steps


def test_steps_that_are_undone_can_be_taken_again() -> None:
    data = lanes()
    runs = data.batches(2)
    steps, state = started(data, batch_size=2)
    steps.take(data, runs[0])
    after_one = [part.copy() for part in state.network_state]
    counters = (state.batch, state.step, state.network.calls)
    for run in runs[1:4]:
        steps.take(data, run)
    steps.undo(3)
    assert (state.batch, state.step, state.network.calls) == counters
    np.testing.assert_array_equal(np.stack(state.network_state), np.stack(after_one))


def test_lanes_that_begin_start_from_zeros_and_others_go_on() -> None:
    data = lanes()
    batch = data.gather(data.batches(2)[1], make().network.backend)
    steps, state = started(data, batch_size=2)
    steps.take(data, data.batches(2)[0])
    assert batch.fresh is not None and not batch.fresh.any()
    assert steps._start(batch) is state.network_state
    batch.fresh = np.array([False, True])
    h, c = steps._start(batch)
    for part, whole in zip((h, c), state.network_state, strict=True):
        np.testing.assert_array_equal(part[:, 0], whole[:, 0])
        assert not part[:, 1].any() and whole[:, 1].any()
    batch.fresh = np.array([True, True])
    assert steps._start(batch) is None


def test_full_memory_leaves_the_state_of_before() -> None:
    class Hungry(MSE):
        def __call__(self, *args: Any) -> tuple[Any, Any]:
            raise MemoryError

    data = windows()
    steps, state = started(data)
    state.loss = Hungry()
    with pytest.raises(TrainingError, match="memory is full at step 1 with batch_size 8"):
        steps.take(data, np.arange(8))
    assert (state.batch, state.step, state.network.calls, state.whole) == (0, 0, 0, True)


class Ready:
    """Windows of which one batch is there already."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def gather(self, indices: np.ndarray, backend: Backend) -> Batch:
        return self.batch


def test_the_cause_is_looked_for_in_data_weights_and_gradients() -> None:
    data, rows = windows(missing=True), np.arange(8)
    steps, state = started(data)
    backend = state.network.backend

    def cause(batch: Batch) -> str:
        return steps.cause(Ready(batch), rows)  # type: ignore[arg-type]

    batch = data.gather(rows, backend)
    assert cause(batch).startswith("the weights before it are finite, all gradients are finite")
    assert state.network.calls == 0  # looking is no step
    batch.target[0, 0] = np.nan
    assert cause(batch) == "its windows hold a value in target that is not finite"
    batch = data.gather(rows, backend)
    batch.x[0, 0] = np.nan
    assert cause(batch) == "its windows hold a value in x that is not finite"
    state.weights["head.b"][0] = np.inf
    assert cause(data.gather(rows, backend)) == "parameter 'head.b' was not finite before it"


def test_the_first_name_that_is_not_finite() -> None:
    arrays = {"a": np.ones(2), "empty": np.zeros(0), "b": np.array([1, -np.inf]), "c": np.array([np.nan])}
    assert first_not_finite(arrays) == "b"
    assert first_not_finite({"a": arrays["a"], "empty": arrays["empty"]}) is None
