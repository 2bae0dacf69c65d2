"""What the fast forms launch: buffers, packed weights and the argument structs of `kernels/cuda/step.cuh`.

`ForwardPass` and `BackwardPass` hold one layer's pass, ready for its step kernels; who launches them, one at a time or
all steps in one kernel, is the matter of `fused.py` and `persistent.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpulstm.arrays.backend import Array
from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.gemm import TYPES
from gpulstm.engines.cuda.tape import COMPUTE, Tape, input_product, sequence_gradients
from gpulstm.engines.spec import Grads, State, Task

CELLS = {"lstm": 0, "gru": 1, "rnn": 2}
_THREADS = 256

FORWARD = (
    *("rows", "units", "reverse", "slots", "relu", "hold_h", "hold_c", "lengths", "keep_h", "keep_c", "mask"),
    *("packed", "pitch", "gates", "hs", "vs", "y", "cs", "b_hn", "s"),
)
_BACKWARD = (
    *("rows", "units", "reverse", "relu", "lengths", "keep_h", "keep_c", "mask", "packed", "pitch", "gates"),
    *("dgates", "du", "cs", "s", "hs", "dy", "dy_step", "dy_row", "around", "dc", "dh"),
)


def struct(fields: tuple[str, ...], values: dict[str, Any]) -> np.void:
    """The struct of eight-byte fields that a kernel takes: numbers, the addresses of arrays, 0 for None."""
    dtype = np.dtype([(field, "f8" if field.startswith("hold") else "i8") for field in fields])
    record = np.zeros(1, dtype)
    for field in fields:
        value = values[field]
        record[field] = 0 if value is None else value.data.ptr if hasattr(value, "data") else value
    return record[0]


def defines(task: Task, dtype: str) -> tuple[tuple[str, str], ...]:
    """The macros that every kernel of a pass is compiled with."""
    storage, compute = TYPES[dtype]
    return ("GL_T", storage), ("GL_R", compute), ("GL_CELL", str(CELLS[task.spec.cell]))


def columns(task: Task) -> int:
    """Columns of the forward product as its kernels see it: four a unit, with a GRU's fourth left empty."""
    return task.spec.hidden_size * (1 if task.spec.cell == "rnn" else 4)


def ceil_divide(value: int, step: int) -> int:
    """How many of `step` cover `value`."""
    return -(-value // step)


def round_up(value: int, step: int) -> int:
    """The next multiple of `step`."""
    return ceil_divide(value, step) * step


def packed_forward(backend: CupyBackend, task: Task, dtype: str) -> tuple[Array, int]:
    """Room for the packed recurrent weights of the forward steps, and how long its rows are."""
    pitch = round_up(columns(task), 4)
    return backend.xp.empty((task.spec.hidden_size, pitch), dtype), pitch


def pack_forward(backend: CupyBackend, task: Task, dtype: str, packed: Array) -> None:
    """Pack the recurrent weights."""
    units, pitch = packed.shape
    kernel = _packing(backend, task, dtype, "gpulstm_pack_forward")
    grid = (ceil_divide(packed.size, _THREADS),)
    kernel(grid, (_THREADS,), (task.params["W_h"], packed, units, pitch))


class ForwardPass:
    """One layer's forward pass up to its steps: input product done, weights packed, first state in place.

    Args:
        product: False leaves the input product of each step to the caller, who then has until that step to fill `x`.

    Attributes:
        arguments: the struct `GlForward`.
        order: the time indices in the order of the steps.
    """

    def __init__(
        self, backend: CupyBackend, task: Task, x: Array, state: State, block: int, *, product: bool = True
    ) -> None:
        spec, params, xp, dtype = task.spec, task.params, backend.xp, x.dtype
        self.backend, self.task, self.dtype = backend, task, dtype.name
        self.steps, self.rows, self.units = x.shape[0], x.shape[1], spec.hidden_size
        shape, slots = (self.rows, self.units), task.save and spec.has_memory
        self.first: int = self.steps if task.reverse else 0
        self.last: int = 0 if task.reverse else self.steps
        self.slots = slots
        self.x = xp.ascontiguousarray(x)
        self.gates = xp.empty((self.steps, self.rows, spec.gates * self.units), dtype)
        if product:
            input_product(backend, task, self.x, self.gates, block)
        self.hs = xp.empty((self.steps + 1, *shape), dtype)
        self.vs = None if task.recurrent_mask is None else xp.empty_like(self.hs)
        self.y = None if task.lengths is None else xp.empty((self.steps, *shape), dtype)
        self.cs = None
        if spec.has_memory:
            self.cs = xp.empty((self.steps + 1 if slots else 1, *shape), COMPUTE[self.dtype])
        self.s = xp.empty((self.steps, *shape), dtype) if task.save and spec.cell == "gru" else None
        self.order = list(task.steps(0, self.steps))
        self.packed, pitch = packed_forward(backend, task, self.dtype)
        pack_forward(backend, task, self.dtype, self.packed)
        self._begin(state)
        hold = (0.0, 0.0) if task.training else spec.zoneout
        self.arguments = struct(
            FORWARD,
            {
                "rows": self.rows,
                "units": self.units,
                "reverse": int(task.reverse),
                "slots": int(slots),
                "relu": int(spec.nonlinearity == "relu"),
                "hold_h": hold[0],
                "hold_c": hold[1],
                "lengths": task.lengths,
                "keep_h": task.keep_h,
                "keep_c": task.keep_c,
                "mask": task.recurrent_mask,
                "packed": self.packed,
                "pitch": pitch,
                "gates": self.gates,
                "hs": self.hs,
                "vs": self.vs,
                "y": self.y,
                "cs": self.cs,
                "b_hn": params.get("b_hn"),
                "s": self.s,
            },
        )

    def _begin(self, state: State) -> None:
        xp, size = self.backend.xp, self.rows * self.units
        h = xp.ascontiguousarray(state.h)
        c = None if state.c is None else xp.ascontiguousarray(state.c)
        vs = None if self.vs is None else self.vs[self.first]
        cs = None if self.cs is None else self.cs[self.first if self.slots else 0]
        kernel = _packing(self.backend, self.task, self.dtype, "gpulstm_begin")
        grid = (ceil_divide(size, _THREADS),)
        arrays = (h, c, self.task.recurrent_mask, self.hs[self.first], vs, cs)
        kernel(grid, (_THREADS,), (*(0 if array is None else array for array in arrays), size))

    @property
    def outputs(self) -> Array:
        """`(T, B, H)`, where each step writes its part."""
        if self.y is not None:
            return self.y
        return self.hs[: self.steps] if self.task.reverse else self.hs[1:]

    def results(self) -> tuple[Array, State, Tape | None]:
        """The outputs, the final state and the tape, once all steps are launched."""
        outputs = self.outputs
        cs, final_c = self.cs, None
        if cs is not None:
            final_c = cs[self.last if self.slots else 0].astype(self.dtype)
        final = State(self.hs[self.last].copy(), final_c)
        if not self.task.save:
            return outputs, final, None
        vs = self.hs if self.vs is None else self.vs
        return outputs, final, Tape(self.x, self.gates, self.hs, vs, cs, self.s)


class BackwardPass:
    """One layer's backward pass up to its steps: weights packed, gradient of the final state in place.

    Attributes:
        arguments: the struct `GlBackward`.
        order: the time indices in the order of the steps, the last one first.
    """

    def __init__(self, backend: CupyBackend, task: Task, tape: Tape, dy: Array, dstate: State, block: int) -> None:
        spec, xp, dtype = task.spec, backend.xp, dy.dtype
        self.backend, self.task, self.tape, self.dtype, self.block = backend, task, tape, dtype.name, block
        self.steps, self.rows, self.units = dy.shape
        if dy.size and dy.strides[2] != dtype.itemsize:
            dy = xp.ascontiguousarray(dy)
        self.dy = dy
        shape, compute = (self.rows, self.units), COMPUTE[self.dtype]
        self.dgates = xp.empty_like(tape.gates)
        self.du = xp.empty_like(tape.gates) if spec.cell == "gru" else self.dgates
        self.around = xp.empty(shape, compute)
        self.dc = None if dstate.c is None else xp.empty(shape, compute)
        self.dh = xp.empty(shape, dtype)
        self.order = list(task.steps(0, self.steps))[::-1]
        self.packed, pitch = self._pack()
        self._begin(dstate)
        self.arguments = struct(
            _BACKWARD,
            {
                "rows": self.rows,
                "units": self.units,
                "reverse": int(task.reverse),
                "relu": int(spec.nonlinearity == "relu"),
                "lengths": task.lengths,
                "keep_h": task.keep_h,
                "keep_c": task.keep_c,
                "mask": task.recurrent_mask,
                "packed": self.packed,
                "pitch": pitch,
                "gates": tape.gates,
                "dgates": self.dgates,
                "du": self.du,
                "cs": tape.cs,
                "s": tape.s,
                "hs": tape.hs,
                "dy": dy,
                "dy_step": dy.strides[0] // dtype.itemsize,
                "dy_row": dy.strides[1] // dtype.itemsize,
                "around": self.around,
                "dc": self.dc,
                "dh": self.dh,
            },
        )

    def _pack(self) -> tuple[Array, int]:
        width, pitch = self.task.spec.gates * self.units, round_up(self.units, 4)
        packed = self.backend.xp.empty((width, pitch), self.dtype)
        kernel = _packing(self.backend, self.task, self.dtype, "gpulstm_pack_backward")
        grid = (ceil_divide(pitch, 32), ceil_divide(width, 32))
        kernel(grid, (32, 8), (self.task.params["W_h"], packed, self.units, pitch))
        return packed, pitch

    def _begin(self, dstate: State) -> None:
        xp, size = self.backend.xp, self.rows * self.units
        h = xp.ascontiguousarray(dstate.h)
        c = 0 if dstate.c is None else xp.ascontiguousarray(dstate.c)
        kernel = _packing(self.backend, self.task, self.dtype, "gpulstm_begin_backward")
        grid = (ceil_divide(size, _THREADS),)
        kernel(grid, (_THREADS,), (h, c, self.around, 0 if self.dc is None else self.dc, size))

    def results(self, grads: Grads, dx: Array | None = None) -> tuple[Array, State]:
        """dx and the gradient of the initial state, once all steps are launched; the others go to `grads`."""
        dx = sequence_gradients(self.backend, self.task, self.tape, self.dgates, self.du, grads, self.block, dx)
        return dx, State(self.dh, None if self.dc is None else self.dc.astype(self.dtype))


def _packing(backend: CupyBackend, task: Task, dtype: str, name: str) -> Any:
    return backend.kernel("cuda/pack.cu", defines(task, dtype), name)
