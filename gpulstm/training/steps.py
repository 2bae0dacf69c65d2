"""Optimizer steps of a run, one after another, and the way back from a step that was not finite.

Losses stay on the device, so a step may be bad long before the host looks.  The step log's latch keeps the weights of
the first bad step (`step_log`); `undo` takes the counters and the network's state back to it, and `cause` finds out
what was not finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gpulstm.arrays.backend import Array
from gpulstm.data.streamed import AnyWindows
from gpulstm.data.tbptt import Lanes
from gpulstm.data.windows import Batch, WindowSet
from gpulstm.errors import TrainingError
from gpulstm.model.memory import Memory
from gpulstm.model.network import Reading
from gpulstm.model.state import map_state, parts
from gpulstm.training.gradients import GradientPass, Result, Sums
from gpulstm.training.parallel import Ranks, rows_of
from gpulstm.training.state import RunState


class Steps:
    """The steps of one run.

    Args:
        state: of the run, which every step moves on.
        memory: bound on what a step takes in addition to the parameters, as `Trainer`.
        ranks: who share each batch.
    """

    def __init__(self, state: RunState, memory: Memory, ranks: Ranks) -> None:
        self._state, self._memory, self._ranks = state, memory, ranks
        self._sums = Sums(state.weights, ranks) if ranks.size > 1 else None
        self._grads = state.weights.like() if self._sums is None else self._sums.grads
        self._rows = slice(None)
        self._pass = self._new_pass()
        self._network_states: list[Any] = []  # before each step since the host last looked at the losses
        self._passes = 1  # forward passes of a step

    def begin(self, train: AnyWindows) -> None:
        """A run over these windows begins: this rank computes its share of their batches."""
        if isinstance(train, Lanes):
            self._passes = Reading(state_at=train.chunk).passes(train.context)
        if self._sums is not None:
            batch = min(self._state.batch_size, len(train))
            self._rows = rows_of(self._ranks, batch)
            self._state.network.rnn.first_row = self._rows.start

    def take(self, train: AnyWindows, indices: Any) -> None:
        """One step on the windows or chunks of `indices`; nothing waits for the device.

        Raises:
            TrainingError: memory is full; the state is that before the step then.
        """
        state = self._state
        network, calls, done = state.network, state.network.calls, False
        assert state.log is not None
        try:
            batch = self._gather(train, indices)
            result = self._gradients(batch)
            amount = result.amount
            if amount is None:
                assert batch is not None
                amount = batch.target.size
            state.whole = False
            scale = state.log.record(state.batch, result.value, result.norm, result.scale, amount)
            state.optimizer.step(state.weights, self._grads, rate=state.schedule.rate(state.step), scale=scale)
            if state.loss_scale is not None:
                state.loss_scale.move(result.scale)
            state.publish()
            self._network_states.append(state.network_state)
            state.network_state = result.state
            if batch is None:
                network.calls += self._passes
            self._passes = network.calls - calls
            state.batch += 1
            state.whole = done = True
        except MemoryError as error:  # CuPy's is one too
            raise TrainingError(
                f"memory is full at step {state.step + 1} with batch_size {state.batch_size}; choose a smaller one, or "
                f"bound it with memory= ({error})"
            ) from error
        finally:
            if not done:
                network.calls = calls

    def seen(self) -> None:
        """The host has looked at the losses, and all are finite: no step so far will be undone."""
        self._network_states.clear()

    def undo(self, count: int) -> None:
        """Go back by `count` steps that the latch has kept from the weights."""
        state = self._state
        state.batch -= count
        state.optimizer.steps -= count
        state.network.calls -= count * self._passes
        state.network_state = self._network_states[-count]

    def cause(self, train: AnyWindows, indices: Any) -> str:
        """What is not finite in a step on the windows of `indices` with the present weights."""
        state, batch = self._state, self._gather(train, indices)
        names = self._ranks.gather(None if batch is None else _bad_data(batch))
        for rank, name in enumerate(names):
            if name is not None:
                whose = f"those of rank {rank}" if len(names) > 1 else "its windows"
                return f"{whose} hold a value in {name} that is not finite"
        name = first_not_finite(state.weights)
        if name is not None:
            return f"parameter {name!r} was not finite before it"
        calls = state.network.calls
        self._gradients(batch)
        state.network.calls = calls
        name = first_not_finite(self._grads)
        gradients = "all gradients are finite" if name is None else f"the gradient of {name!r} is the first not finite"
        return f"the weights before it are finite, {gradients}; a lower rate or clip_norm may help"

    def mean_loss(self, windows: WindowSet, stopped: Callable[[], bool]) -> float:
        """The mean loss over all windows, which ranks share; of no meaning once `stopped()`."""
        state, backend = self._state, self._state.network.backend
        sums = backend.zeros((2,), np.float64)  # of the losses times their weights, and of the weights
        rows = rows_of(self._ranks, state.batch_size)
        for run in windows.batches(state.batch_size):
            if stopped():
                break
            own = run[rows]
            if not own.size:
                continue
            batch = windows.gather(own, backend)
            raw, _, _ = state.network.forward(batch.x, batch.future, memory=self._memory)
            value, _ = state.loss(raw, batch.target, batch.weight)
            share = float(batch.target.size) if batch.weight is None else batch.weight.sum().astype(np.float64)
            sums[0] += value.astype(np.float64) * share
            sums[1] += share
        self._ranks.all_reduce(sums)
        total, targets = backend.to_host(sums)
        return float(total) / float(targets) if targets else 0.0

    def explain(self, steps: int, batch: int) -> str:
        """Whether a pass on T `steps` and B `batch` rows is replayed as a CUDA graph."""
        return self._pass.explain(steps, batch)

    def _gather(self, train: AnyWindows, indices: Any) -> Batch | None:
        """This rank's rows of a batch; None where it has none of them."""
        own = indices[self._rows]
        return train.gather(own, self._state.network.backend) if own.size else None

    def _gradients(self, batch: Batch | None) -> Result:
        """The loss of a batch and the norm of its gradients, which are in `_grads` afterward."""
        state = self._state
        if not self._pass.is_of(state.network, state.loss, self._grads, state.clip_norm, self._memory):
            self._pass = self._new_pass()
        if batch is None:
            return self._pass.without_rows()
        return self._pass(
            batch.x,
            batch.target,
            batch.future,
            batch.weight,
            self._start(batch),
            read=batch.read,
            state_at=batch.state_at,
        )

    def _new_pass(self) -> GradientPass:
        state = self._state
        scale, sums = state.loss_scale, self._sums
        return GradientPass(state.network, state.loss, self._grads, state.clip_norm, self._memory, scale, sums)

    def _start(self, batch: Batch) -> Any:
        """The state that a step begins with: that of the step before, or zeros for rows that begin."""
        old = self._state.network_state
        if old is None or batch.fresh is None or batch.fresh.all():
            return None
        backend, rows = self._state.network.backend, batch.fresh.size
        if not batch.fresh.any() and parts(old)[0].shape[1] == rows:
            return old
        xp, goes_on = backend.xp, backend.from_host(~batch.fresh)[None, :, None]
        return map_state(lambda part: xp.where(goes_on, part[:, :rows], xp.zeros((), part.dtype)), old)


def _bad_data(batch: Batch) -> str | None:
    """The part of a batch that holds a value that is not finite, where one does."""
    observed = batch.target if batch.weight is None else batch.target * (batch.weight > 0)
    data = {"x": batch.x, "future": batch.future, "target": observed}
    return first_not_finite({key: value for key, value in data.items() if value is not None})


def first_not_finite(arrays: Mapping[str, Array]) -> str | None:
    """The first name whose array holds a NaN or an infinity; both come through a maximum."""
    for name, value in arrays.items():
        if value.size and not math.isfinite(float(abs(value).max())):
            return name
    return None
