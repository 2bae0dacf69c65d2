"""The gradient of one batch: forward pass, loss, backward pass and the norm of the gradients, as one unit.

On a GPU this unit is what a CUDA graph is made of: from the second batch of a shape on, one call replays it, where
the planner finds that launches would otherwise cost more than the arithmetic.  Whether a batch is replayed or launched
piece by piece, the same kernels run in the same order, so the bits are the same.
"""

from __future__ import annotations

import contextlib
import math
from collections import OrderedDict
from typing import Any, NamedTuple, cast

from gpulstm.backend import Array, CupyBackend
from gpulstm.engines.cuda import planner
from gpulstm.engines.cuda.graph import Recording, signature
from gpulstm.engines.spec import Call
from gpulstm.losses import LOSSES, Loss
from gpulstm.model import Network
from gpulstm.optimizers import clip_scale
from gpulstm.params import ParamDict
from gpulstm.products import own_kernels

KEPT = 4  # recordings of a pass that are kept, each with its buffers


class Result(NamedTuple):
    """What a pass gives beside the gradients: 0-d arrays on the device, written anew by the next pass.

    Attributes:
        value: the loss.
        norm: of all gradients.
        scale: what to multiply them by so that the norm is at most the limit.
        amount: the weights' sum, None without weights.
    """

    value: Array
    norm: Array
    scale: Array
    amount: Array | None

    @classmethod
    def of(cls, value: Array, grads: ParamDict, clip_norm: float | None, weight: Array | None) -> Result:
        """The result for a loss and gradients that are there."""
        norm, scale = clip_scale(grads, math.inf if clip_norm is None else clip_norm)
        return cls(value, norm, scale, None if weight is None else weight.sum())


class GradientPass:
    """Computes the gradients of batches for one network and one loss.

    Args:
        network: its parameters are read, its count of passes goes up by one a pass.
        loss: its outputs are the P of the network.
        grads: where the gradients go, `network.params.like()`.
        clip_norm: largest global norm, or None.
    """

    def __init__(self, network: Network, loss: Loss, grads: ParamDict, clip_norm: float | None = None) -> None:
        self.network, self.loss, self.grads = network, loss, grads
        self.clip_norm = clip_norm
        self._seen: OrderedDict[tuple[Any, ...], Recording | None] = OrderedDict()

    def __call__(self, x: Array, target: Array, future: Array | None = None, weight: Array | None = None) -> Result:
        """One pass; `grads` holds the gradients afterwards.

        Args:
            x: `(T, B, I)`.
            target: `(B, horizon, targets)`.
            future: `(B, horizon, K)` or None.
            weight: `(B, horizon, targets)` or None.
        """
        network = self.network
        if self.refusal(x.shape[0], x.shape[1]) is not None:
            return self._compute(x, target, future, weight)
        calls = network.calls
        inputs = {"x": x, "target": target, "future": future, "weight": weight, "call": self._call(calls)}
        key = signature(inputs)
        if key not in self._seen:  # once piece by piece: many shapes come only once
            self._seen[key] = None
            with own_kernels():
                return self._compute(x, target, future, weight)
        self._seen.move_to_end(key)
        recording = self._seen[key]
        if recording is None:
            recording = self._seen[key] = Recording(cast(CupyBackend, network.backend), self._recorded, inputs)
            if len(self._seen) > KEPT:
                self._seen.popitem(last=False)
        result = recording(inputs)
        network.calls = calls + 1
        return result

    def refusal(self, steps: int, batch: int) -> str | None:
        """Why passes of T `steps` and B `batch` rows are not replayed as a graph, or None where they are."""
        network = self.network
        if not network.backend.is_cuda:
            return "the model is on the CPU"
        if type(self.loss) not in LOSSES:
            return (
                f"the loss {self.loss.name!r} is not of this package; a graph would not repeat what it does on the host"
            )
        call = Call(network.config.stack, network.backend.device, steps, batch, training=True)
        choice = network.explain(steps, batch, training=True).choice
        return planner.graph_refusal(call, choice.engine.name)

    def _call(self, calls: int) -> Array | None:
        """The count of passes as the device reads it, where masks depend on it."""
        spec, backend = self.network.config.stack, self.network.backend
        if not (spec.dropout or spec.recurrent_dropout or any(spec.zoneout)):
            return None
        with backend.activate():
            return backend.xp.full((1,), calls & 0xFFFFFFFF, dtype="uint32")

    def _recorded(self, call: Array | None, **inputs: Array | None) -> Result:
        with self.network.rnn.masks_of_pass(call) if call is not None else contextlib.nullcontext():
            return self._compute(**cast(Any, inputs))

    def _compute(self, x: Array, target: Array, future: Array | None, weight: Array | None) -> Result:
        raw, _, tape = self.network.forward(x, future, training=True)
        assert tape is not None
        value, draw = self.loss(raw, target, weight)
        self.grads.flat[...] = 0
        self.network.backward(tape, draw, self.grads)
        return Result.of(value, self.grads, self.clip_norm, weight)
