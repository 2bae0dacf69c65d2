"""One layer in one direction, run for its values: what ONNX's operators and Keras's layers are made of.

A `Recurrent` stack reads forwards, or both ways; other libraries also have layers that read backwards only, or two ways
with different options.  Those are single directions here, served by the same engines, for inference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpulstm.arrays.backend import Array, Backend
from gpulstm.arrays.params import ParamDict
from gpulstm.engines.dispatch import choose
from gpulstm.engines.spec import Call, Plan, StackSpec, State, Task


class Direction:
    """One recurrent layer that reads a sequence forwards or backwards.

    Args:
        spec: of one layer, not bidirectional.
        values: its parameters on the host or the device, by name without suffix.
        backend: where it lives.
        reverse: read from the last step (of each row) to the first; outputs stay in the order of time.
        engine: force an engine; None chooses.
    """

    def __init__(
        self,
        spec: StackSpec,
        values: Mapping[str, Any],
        backend: Backend,
        *,
        reverse: bool = False,
        engine: str | None = None,
    ) -> None:
        self.spec, self.backend, self.reverse, self.engine = spec, backend, reverse, engine
        self.params = ParamDict.allocate(backend, spec.layer_shapes(0), spec.dtype)
        self.params.load(values)

    def plan(self, steps: int, batch: int, *, lengths: bool = False) -> Plan:
        """How a call of this size is computed."""
        return choose(Call(self.spec, self.backend.device, steps, batch, False, lengths), self.engine)

    def run(self, x: Array, state: State | None = None, lengths: Array | None = None) -> tuple[Array, State]:
        """All steps.

        Args:
            x: `(T, B, I)` on the device, in the spec's dtype.
            state: h `(B, P)` and c `(B, H)` before the first step that is read; zeros if None.
            lengths: `(B,)` int64 on the device, in 0..T; None means T for all.

        Returns:
            y `(T, B, P)`, zero past a row's length, and the state after the last step that is read.
        """
        xp, (steps, batch, _) = self.backend.xp, x.shape
        with self.backend.activate():
            if state is None:
                zeros = [xp.zeros((batch, size), x.dtype) for size in (self.spec.state_size, self.spec.hidden_size)]
                state = State(zeros[0], zeros[1] if self.spec.has_memory else None)
            plan = self.plan(steps, batch, lengths=lengths is not None)
            task = Task(self.spec, 0, self.reverse, self.params, lengths, plan=plan)
            if lengths is not None:
                task.valid = (xp.arange(steps)[:, None] < lengths[None, :])[:, :, None]
                x = xp.where(task.valid, x, xp.zeros_like(x))
            y, end, _ = plan.engine.forward(task, x, state)
            return y, end
