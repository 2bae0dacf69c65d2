"""A stack as a step function that keeps its state: `Recurrent.stream`."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpulstm import validate
from gpulstm.arrays.backend import Array, foreign_device
from gpulstm.engines.spec import Steps
from gpulstm.errors import ConfigError, DeviceError, ShapeError
from gpulstm.model.state import StackState


class Stream:
    """A stack that keeps its state between calls, one time step a call.

    Where the native CPU engine or the CUDA engine serves it, the weights are packed when the stream is made and again
    by `reset`, so a change of them counts from the next `reset` on; a step is then one native call, or one launch of a
    CUDA graph between a copy of x and a copy of y.
    """

    def __init__(self, stack: Any, batch_size: int) -> None:
        if stack.spec.bidirectional:
            raise ConfigError("stream needs bidirectional=False: the second direction starts at the sequence's end")
        self.stack, self.batch_size = stack, validate.count("batch_size", batch_size)
        self._backend, self._dtype = stack.backend, np.dtype(stack.spec.dtype)
        self._shapes = (self.batch_size, stack.spec.input_size), (self.batch_size, stack.spec.output_size)
        plan = stack.plan(1, self.batch_size)
        packed: Steps | None = plan.engine.stream(plan, stack.params)
        self._steps: Steps = _Calls(stack, self.batch_size) if packed is None else packed

    def reset(self) -> None:
        """Back to the state of zeros, with the weights as they are now."""
        self._steps.reset()

    def explain(self) -> str:
        """How a step is computed, in a few words."""
        return str(self._steps)

    @property
    def state(self) -> StackState:
        """The state after the last step, a copy; assign another one to go on from it."""
        return self._steps.state

    @state.setter
    def state(self, state: StackState) -> None:
        self._steps.state = self.stack.as_state(state, self.batch_size)

    def __call__(self, x: Any, out: Array | None = None) -> Array:
        """One step: x `(B, I)` -> y `(B, H)` (`(B, P)` with projection).

        Args:
            x: real numbers on this device.
            out: where to write y: an array of the model's dtype that is C-contiguous and does not overlap x.  With it,
                and with x of the model's dtype, a native step allocates nothing; without it y is a new array.

        Raises:
            ShapeError, DTypeError, DeviceError: one sentence each, before anything is computed.
        """
        backend, dtype, (expected, size) = self._backend, self._dtype, self._shapes
        x = backend.asarray(x, dtype, name="x")
        if x.shape != expected:
            raise ShapeError(f"x has shape {x.shape}, expected {expected}")
        if out is not None and not (backend.owns(out) and out.shape == size and out.dtype == dtype):
            if not backend.owns(out) and foreign_device(out) is not None:
                raise DeviceError(f"out lives on {foreign_device(out)} but the model is on {backend.device}")
            raise ShapeError(f"out is {_shape_of(out)}, expected {dtype} {size} on {backend.device}")
        return self._steps(x, out)


class _Calls:
    """Steps as calls of the stack."""

    def __init__(self, stack: Any, batch: int) -> None:
        self.stack, self.batch = stack, batch
        self.reset()

    def reset(self) -> None:
        """The state of zeros; the weights are always those of now."""
        self.state = self.stack.zero_state(self.batch)

    def __call__(self, x: Array, out: Array | None) -> Array:
        """One step."""
        y, self.state = self.stack(x[None], self.state)
        if out is None:
            return y[0]
        out[...] = y[0]
        return out

    def __str__(self) -> str:
        return "a call of the stack for one step"


def _shape_of(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if hasattr(value, "shape") else f"a {type(value).__name__}"
