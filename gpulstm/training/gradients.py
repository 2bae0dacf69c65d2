"""The gradient of one batch: forward pass, loss, backward pass and the norm of the gradients, as one unit.

On a GPU this unit is what a CUDA graph is made of: from the second batch of a shape on, one call replays it, where
the planner finds that launches would otherwise cost more than the arithmetic.  Whether a batch is replayed or launched
piece by piece, the same kernels run in the same order, so the bits are the same.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

from gpulstm.arrays.backend import Array
from gpulstm.arrays.dtypes import is_half
from gpulstm.arrays.params import ParamDict
from gpulstm.engines.cuda.graph import CaptureRefused, Recording, Recordings
from gpulstm.engines.cuda.replay import replay, summary
from gpulstm.engines.spec import Plan
from gpulstm.errors import ConfigError
from gpulstm.losses import LOSSES, Loss
from gpulstm.model.memory import Memory
from gpulstm.model.network import Network, Reading
from gpulstm.model.state import map_state, of_parts, parts
from gpulstm.optimizers import clip_scale
from gpulstm.training.mixed_precision import LossScale
from gpulstm.training.parallel import Ranks


class Result(NamedTuple):
    """What a pass gives in addition to the gradients: 0-d arrays on the device, written again by the next pass.

    Attributes:
        value: the loss.
        norm: of all gradients.
        scale: what to multiply them by so that the norm is at most the limit.
        amount: the weights' sum, None without weights.
        state: of the stack, which the next pass begins with, the caller's own; None without `state_at`.
    """

    value: Array
    norm: Array
    scale: Array
    amount: Array | None
    state: Any = None


class Sums:
    """Gradients that several ranks add up: one flat buffer, next to what the loss and its weights add up to.

    Each rank puts in its mean times the weights of its rows.  Sums of sums over the sum of weights are the mean over
    the whole batch, whatever rows and gaps each rank had.

    Args:
        params: whose gradients these are.
        ranks: who adds them up.

    Attributes:
        grads: named as `params`.
    """

    def __init__(self, params: ParamDict, ranks: Ranks) -> None:
        self._ranks, size = ranks, params.flat.size
        self._buffer = params.backend.zeros((size + 2,), params.flat.dtype)
        self.grads = params.over(self._buffer[:size])

    def put(self, value: Array, amount: Any) -> None:
        """Turn this rank's mean gradients into sums, and keep its loss `value` and the weights' sum next to them."""
        self._buffer[:-2] *= amount
        self._buffer[-2] = value * amount
        self._buffer[-1] = amount

    def clear(self) -> None:
        """This rank has no row of the batch."""
        self._buffer[...] = 0

    def reduce(self) -> tuple[Array, Array]:
        """Add up all ranks' sums and make means of them in `grads`; the loss, and the weights of the whole batch."""
        self._ranks.all_reduce(self._buffer)
        xp, amount = self.grads.backend.xp, self._buffer[-1]
        self._buffer[:-1] /= xp.where(amount > 0, amount, xp.ones_like(amount))
        return self._buffer[-2], amount


class GradientPass:
    """Computes the gradients of batches for one network and one loss.

    Args:
        network: its parameters are read, its count of passes goes up by those of a batch.
        loss: its outputs are the P of the network.
        grads: where the gradients go, `network.params.like()`; float32 for a network of 16 bits.
        clip_norm: largest global norm, or None.
        memory: bound on what a pass takes in addition to the parameters, as `Recurrent.forward`.
        scale: of the loss, for a network in float16.  Where it was too large for a batch, the result's `norm` is 0 and
            its `scale` NaN; `LossScale.move` is to be called with that after the pass.
        sums: that `grads` lies in, where several ranks share a batch: the loss, its gradients and their norm are those
            of the whole batch then.
    """

    def __init__(
        self,
        network: Network,
        loss: Loss,
        grads: ParamDict,
        clip_norm: float | None = None,
        memory: Memory = None,
        scale: LossScale | None = None,
        sums: Sums | None = None,
    ) -> None:
        self.network, self.loss, self.grads = network, loss, grads
        self.clip_norm, self.memory, self.scale, self.sums = clip_norm, memory, scale, sums
        self._halves = network.params.like() if is_half(network.config.stack.dtype) else None
        self._recordings = Recordings()

    def is_of(self, network: Network, loss: Loss, grads: ParamDict, clip_norm: float | None, memory: Memory) -> bool:
        """Whether this is the pass of these arguments."""
        same = self.network is network and self.loss is loss and self.grads is grads
        return same and (self.clip_norm, self.memory) == (clip_norm, memory)

    def __call__(
        self,
        x: Array,
        target: Array,
        future: Array | None = None,
        weight: Array | None = None,
        state: Any = None,
        *,
        read: int | None = None,
        state_at: int | None = None,
    ) -> Result:
        """One pass; `grads` holds the gradients afterward.

        Args:
            x: `(T, B, I)`.
            target: `(B, horizon, targets)`.
            future: `(B, horizon, K)` or None.
            weight: `(B, horizon, targets)` or None.
            state: that the pass begins with; zeros if None.
            read, state_at: as `Network.forward`; with `state_at` the result has the state after so many steps.

        Raises:
            ConfigError: the loss says on_device = True, but its work cannot be recorded.
        """
        network, reading, (steps, batch, _) = self.network, Reading(self.memory, read, state_at), x.shape
        with network.backend.activate():
            if state_at is not None and state is None:  # the first batch of an epoch is as the others
                state = network.rnn.zero_state(batch)
            h, c = (*parts(state), None, None)[:2]
            inputs = {"x": x, "target": target, "future": future, "weight": weight, "h": h, "c": c}
            plan = self.plan(steps, batch)
            if plan is None or plan.no_graph is not None:
                return self._whole(self._compute(reading, **inputs))
            number = network.calls
            if network.config.stack.draws_masks:
                number = network.backend.xp.full((1,), number & 0xFFFFFFFF, dtype="uint32")
                inputs["number"] = number
            compute = functools.partial(self._compute, reading, **({} if "number" in inputs else {"number": number}))
            result = self._replay(plan, compute, inputs, (reading, network.rnn.first_row))
            network.calls += reading.passes(steps)
            return self._whole(result)

    def without_rows(self) -> Result:
        """The part of a rank that has no row of a batch."""
        assert self.sums is not None
        with self.network.backend.activate():
            self.sums.clear()
            zero = self.network.backend.zeros((), self.grads.flat.dtype)
            return self._whole(Result(zero, zero, zero, zero))

    def explain(self, steps: int, batch: int) -> str:
        """Whether passes of T `steps` and B `batch` rows are replayed as a graph, and what the recordings hold."""
        refusal = self.refusal(steps, batch)
        if refusal is not None:
            return f"none: {refusal}"
        return f"replayed from the second pass of a shape on; {summary(self._recordings)}"

    def refusal(self, steps: int, batch: int) -> str | None:
        """Why passes of T `steps` and B `batch` rows are not replayed as a graph, or None where they are."""
        plan = self.plan(steps, batch)
        if plan is None:
            return (
                f"the loss {self.loss.name!r} is not of this package and does not say on_device = True; a graph would "
                "not repeat what it does on the host"
            )
        return plan.no_graph

    def plan(self, steps: int, batch: int) -> Plan | None:
        """The plan of passes of T `steps` and B `batch` rows; None on a GPU for a loss that cannot be in a graph."""
        network = self.network
        if network.backend.is_cuda and type(self.loss) not in LOSSES and not self.loss.on_device:
            return None
        return network.rnn.plan(steps, batch, training=True, role="unit")

    def _replay(self, plan: Plan, compute: Any, inputs: dict[str, Array | None], key: Any) -> Result:
        try:
            return replay(plan, compute, inputs, self._recordings, self._take, key=key)
        except CaptureRefused as error:
            if type(self.loss) in LOSSES:
                raise
            raise ConfigError(
                f"the loss {self.loss.name!r} says on_device = True, but its work cannot be recorded as a CUDA graph "
                f"({error}); leave on_device False"
            ) from error

    @staticmethod
    def _take(result: Result, recording: Recording | None) -> Result:
        """The result with a copy of a recording's state: the step after the next may still ask for it."""
        if recording is None:
            return result
        return result._replace(state=map_state(lambda part: part.copy(), result.state))

    def _compute(
        self,
        reading: Reading,
        x: Array,
        target: Array,
        future: Array | None,
        weight: Array | None,
        h: Array | None,
        c: Array | None,
        number: int | Array | None = None,
    ) -> Result:
        state = None if h is None else of_parts(h, c)
        raw, after, tape = self.network.run(x, future, state, None, True, reading, number)
        assert tape is not None
        if self._halves is None:
            value, draw = self.loss(raw, target, weight)
            self.grads.flat[...] = 0
            self.network.backward(tape, draw, self.grads)
        else:
            value, draw = self.loss(raw.astype("float32"), target, weight)
            self._halves.flat[...] = 0
            draw = draw.astype(raw.dtype) if self.scale is None else self.scale.scaled(draw)
            self.network.backward(tape, draw, self._halves)
            if self.scale is None:
                self.grads.flat[...] = self._halves.flat
            else:
                self.scale.unscale(self._halves.flat, self.grads.flat)
        amount = None if weight is None else weight.sum()
        if self.sums is None:
            result = self._judged(value, amount)
        else:
            self.sums.put(value, target.size if amount is None else amount)
            result = Result(value, value, value, amount)  # of its rows alone: `_whole` has still to come
        return result if reading.state_at is None else result._replace(state=after)

    def _whole(self, result: Result) -> Result:
        """The result for the whole batch from that for this rank's rows."""
        if self.sums is None:
            return result
        return self._judged(*self.sums.reduce())._replace(state=result.state)

    def _judged(self, value: Array, amount: Array | None) -> Result:
        """The result for the loss `value` of a batch and the gradients that are there."""
        norm, scale = clip_scale(self.grads, math.inf if self.clip_norm is None else self.clip_norm)
        if self.scale is not None:
            norm, scale = self.scale.guarded(norm, scale)
        return Result(value, norm, scale, amount)
