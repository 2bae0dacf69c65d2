"""The gradient of one batch: forward pass, loss, backward pass and the norm of the gradients, as one unit.

On a GPU this unit is what a CUDA graph is made of: from the second batch of a shape on, one call replays it, where
the planner finds that launches would otherwise cost more than the arithmetic.  Whether a batch is replayed or launched
piece by piece, the same kernels run in the same order, so the bits are the same.
"""

from __future__ import annotations

import contextlib
import functools
import math
from typing import Any, NamedTuple, cast

from gpulstm.arrays.backend import Array
from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.gemm import own_kernels
from gpulstm.arrays.params import ParamDict
from gpulstm.engines.cuda import planner
from gpulstm.engines.cuda.graph import Recording, Recordings, signature
from gpulstm.engines.cuda.replay import summary
from gpulstm.engines.dispatch import choose
from gpulstm.engines.spec import Call
from gpulstm.errors import ConfigError
from gpulstm.losses import LOSSES, Loss
from gpulstm.model.memory import Memory
from gpulstm.model.network import Network
from gpulstm.optimizers import clip_scale
from gpulstm.training.mixed_precision import LossScale


class Result(NamedTuple):
    """What a pass gives beside the gradients: 0-d arrays on the device, written anew by the next pass.

    Attributes:
        value: the loss.
        norm: of all gradients.
        scale: what to multiply them by so that the norm is at most the limit.
        amount: the weights' sum, None without weights.
        state: of the stack, which the next pass begins with, the caller's own; None unless it is carried on.
    """

    value: Array
    norm: Array
    scale: Array
    amount: Array | None
    state: Any = None

    @classmethod
    def of(cls, value: Array, grads: ParamDict, clip_norm: float | None, weight: Array | None) -> Result:
        """The result for a loss and gradients that are there."""
        norm, scale = clip_scale(grads, math.inf if clip_norm is None else clip_norm)
        return cls(value, norm, scale, None if weight is None else weight.sum())


class GradientPass:
    """Computes the gradients of batches for one network and one loss.

    Args:
        network: its parameters are read, its count of passes goes up by those of a batch.
        loss: its outputs are the P of the network.
        grads: where the gradients go, `network.params.like()`; float32 for a network in float16.
        clip_norm: largest global norm, or None.
        memory: bound on what a pass takes besides the parameters, as `Recurrent.forward`.
        scale: of the loss, for a network in float16.  Where it was too large for a batch, the result's `norm` is 0 and
            its `scale` NaN; `LossScale.move` is to be called with that after the pass.
    """

    def __init__(
        self,
        network: Network,
        loss: Loss,
        grads: ParamDict,
        clip_norm: float | None = None,
        memory: Memory = None,
        scale: LossScale | None = None,
    ) -> None:
        self.network, self.loss, self.grads = network, loss, grads
        self.clip_norm, self.memory, self.scale = clip_norm, memory, scale
        self._halves = None if scale is None else network.params.like()
        self._kept = Recordings()
        self._refusals: dict[Any, str | None] = {}

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
        carry: int | None = None,
    ) -> Result:
        """One pass; `grads` holds the gradients afterwards.

        Args:
            x: `(T, B, I)`.
            target: `(B, horizon, targets)`.
            future: `(B, horizon, K)` or None.
            weight: `(B, horizon, targets)` or None.
            state: that the pass begins with; zeros if None.
            read, carry: as `Network.forward`; with `carry` the result has the state after so many steps.
        """
        with self.network.backend.activate():
            return self._run(x, target, future, weight, state, (self.memory, read, carry))

    def _run(
        self,
        x: Array,
        target: Array,
        future: Array | None,
        weight: Array | None,
        state: Any,
        way: tuple[Memory, int | None, int | None],
    ) -> Result:
        network, carry = self.network, way[2]
        if carry is not None and state is None:  # so that the first batch of an epoch is of the same kind as the others
            state = network.rnn.zero_state(x.shape[1])
        h, c = state if isinstance(state, tuple) else (state, None)
        inputs = {"x": x, "target": target, "future": future, "weight": weight, "h": h, "c": c}
        compute = functools.partial(self._compute, way)
        if self.refusal(x.shape[0], x.shape[1]) is not None:
            return compute(**inputs)
        calls = network.calls
        recorded = {**inputs, "call": self._call(calls)}
        found = self._kept.find((way, signature(recorded)), functools.partial(self._record, compute, recorded))
        if found is None:
            network.calls = calls
            with own_kernels():
                return compute(**inputs)
        result = found(recorded, self._own_state)
        network.calls = calls + self._passes(x.shape[0], carry)
        return result

    def explain(self, steps: int, batch: int) -> str:
        """Whether passes of T `steps` and B `batch` rows are replayed as a graph, and what the recordings hold."""
        refusal = self.refusal(steps, batch)
        if refusal is not None:
            return f"none: {refusal}"
        return f"replayed from the second pass of a shape on; {summary(self._kept)}"

    def refusal(self, steps: int, batch: int) -> str | None:
        """Why passes of T `steps` and B `batch` rows are not replayed as a graph, or None where they are."""
        network = self.network
        if not network.backend.is_cuda:
            return "the model is on the CPU"
        if type(self.loss) not in LOSSES and not self.loss.on_device:
            return (
                f"the loss {self.loss.name!r} is not of this package and does not say on_device = True; a graph would "
                "not repeat what it does on the host"
            )
        key = (steps, batch, planner.settings())
        if key not in self._refusals:
            if len(self._refusals) >= 64:
                self._refusals.clear()
            call = Call(network.config.stack, network.backend.device, steps, batch, training=True)
            self._refusals[key] = planner.graph_refusal(call, choose(call, network.rnn.engine).engine.name)
        return self._refusals[key]

    def _record(self, compute: Any, inputs: dict[str, Array | None]) -> Recording:
        backend = cast(CupyBackend, self.network.backend)
        try:
            return Recording(backend, functools.partial(self._recorded, compute), inputs)
        except (RuntimeError, NotImplementedError) as error:
            if type(self.loss) in LOSSES:
                raise
            raise ConfigError(
                f"the loss {self.loss.name!r} says on_device = True, but its work cannot be recorded as a CUDA graph "
                f"({error}); leave on_device False"
            ) from error

    def _call(self, calls: int) -> Array | None:
        """The count of passes as the device reads it, where masks depend on it."""
        spec, backend = self.network.config.stack, self.network.backend
        if not (spec.dropout or spec.recurrent_dropout or any(spec.zoneout)):
            return None
        with backend.activate():
            return backend.xp.full((1,), calls & 0xFFFFFFFF, dtype="uint32")

    def _recorded(self, compute: Any, call: Array | None, **inputs: Array | None) -> Result:
        with self.network.rnn.masks_of_pass(call) if call is not None else contextlib.nullcontext():
            return compute(**inputs)

    @staticmethod
    def _own_state(result: Result) -> Result:
        """The result with a copy of the state: the step after the next may still ask for it."""
        state = result.state
        if state is None:
            return result
        return result._replace(state=tuple(p.copy() for p in state) if isinstance(state, tuple) else state.copy())

    @staticmethod
    def _passes(steps: int, carry: int | None) -> int:
        """Forward passes through the stack: two where the state is taken out in the middle."""
        return 1 if carry is None or carry >= steps else 2

    def _compute(
        self,
        way: tuple[Memory, int | None, int | None],
        x: Array,
        target: Array,
        future: Array | None,
        weight: Array | None,
        h: Array | None,
        c: Array | None,
    ) -> Result:
        memory, read, carry = way
        state = h if c is None else (h, c)
        raw, after, tape = self.network.forward(x, future, state, training=True, memory=memory, read=read, carry=carry)
        assert tape is not None
        if self.scale is None or self._halves is None:
            value, draw = self.loss(raw, target, weight)
            self.grads.flat[...] = 0
            self.network.backward(tape, draw, self.grads)
            result = Result.of(value, self.grads, self.clip_norm, weight)
        else:
            value, draw = self.loss(raw.astype("float32"), target, weight)
            self._halves.flat[...] = 0
            self.network.backward(tape, self.scale.scaled(draw), self._halves)
            self.scale.unscale(self._halves.flat, self.grads.flat)
            result = Result.of(value, self.grads, self.clip_norm, weight)
            norm, factor = self.scale.guarded(result.norm, result.scale)
            result = result._replace(norm=norm, scale=factor)
        return result if carry is None else result._replace(state=after)
