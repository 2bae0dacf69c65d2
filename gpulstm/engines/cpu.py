"""The CPU engine: a whole layer over all time steps in one native call, forward and backward.

The arithmetic is C++ under kernels/cpu, on the gate header that the CUDA kernels use too.  It is compiled for several
instruction sets, of which the best one that the processor has is taken; GPULSTM_CPU_ISA names another.  Weights are
packed once per call, the gates and the state update run on the sums of the recurrent product, and threads divide the
rows of the batch (they never meet) or, where those are few, the hidden units (they meet once a step).

Results do not depend on the number of threads, bit for bit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpulstm.arrays import native as native_code
from gpulstm.arrays.backend import Array
from gpulstm.arrays.params import ParamDict
from gpulstm.arrays.threads import get_num_threads
from gpulstm.engines.cpu_variant import (
    BLOCK_ROWS,
    CELLS,
    OPTIONS,
    is_plain,
    options_of_all,
    refuse_without_slope,
    variant_of_zeros,
    with_zoneout,
)
from gpulstm.engines.quantized import PRECISIONS, kind_of
from gpulstm.engines.spec import Call, Footprint, Grads, Plan, StackSpec, State, Task
from gpulstm.errors import ConfigError, ShapeError
from gpulstm.validate import format_bytes

name = "cpu"
SPLITS = {"automatic": 0, "rows": 1, "units": 2}  # for tests: the results are the same

_HELP = "a smaller batch, or in training a smaller batch_size or memory=, takes less"
SMALL = 64 << 10  # bytes; smaller arrays are allocated by NumPy
PROBE = 4096  # steps; beyond a few hundred, workspace is linear in T

split = "automatic"


def supports(call: Call) -> str | None:
    """Why this engine cannot serve a call, or None when it can."""
    if call.on_cuda:
        return "the model is on a GPU"
    return None if native_code.load() else native_code.missing()


def complete(plan: Plan) -> Plan:
    """The plan as it is; see `Engine.complete`."""
    return plan


def describe(plan: Plan) -> str:
    """How a layer is computed, in a few words."""
    native = native_code.load()
    isa = native.instruction_set() if native else "no"
    count, kind = get_num_threads(), plan.call.quantize
    how = f", weights in {kind} ({native.reduced_form(_precision(kind))})" if native and kind else ""
    return f"native, {isa} instructions, up to {count} thread{'s' if count > 1 else ''}{how}"


def block_steps(batch: int) -> int:
    """Time steps whose part of the weights' gradients is summed at once."""
    return max(1, BLOCK_ROWS // batch)


def footprint(spec: StackSpec, layer: int, batch: int) -> Footprint:
    """What a layer takes in training; its working space is asked of the native code, for many steps and for more."""
    size, double, native = np.dtype(spec.dtype).itemsize, spec.dtype == "float64", _module()
    few, more = (_room(spec, spec.layer_input_size(layer), steps, batch) for steps in (PROBE, 2 * PROBE))
    if is_plain(spec):
        width, padded = native.saved_sizes(_cell(spec), spec.hidden_size, double)
        saved = size * ((width if spec.cell != "rnn" else 0) + padded * spec.has_memory)
    else:
        masks = spec.state_size * bool(spec.zoneout[0]) + spec.hidden_size * bool(spec.zoneout[1])
        saved = size * variant_of_zeros(native, spec).saved_row() + masks
    work = (more - few) // PROBE
    return Footprint(batch * (saved + size * spec.state_size), 0, work, few - PROBE * work)


@dataclass
class _Tape:
    x: Array
    state: State  # the initial one
    y: Array
    saved: tuple[Array | None, ...]  # in the engine's own order, see kernels/cpu/pack.h and variant.h


def _room(spec: StackSpec, inputs: int, steps: int, rows: int) -> int:
    """Bytes of working space that a layer's pass takes."""
    if is_plain(spec):
        sizes = (_cell(spec), steps, rows, inputs, spec.hidden_size, spec.dtype == "float64")
        return int(_module().working_room(*sizes, get_num_threads()))
    return int(variant_of_zeros(_module(), spec).room(steps, rows, inputs, get_num_threads()))


def _empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """An uninitialized array; large arrays reuse the memory of freed ones."""
    dtype = np.dtype(dtype)
    if math.prod(shape) * dtype.itemsize < SMALL:
        return np.empty(shape, dtype)
    native = _module()
    try:
        return (native.empty_double if dtype == np.float64 else native.empty_float)(shape)
    except MemoryError:
        size = format_bytes(math.prod(shape) * dtype.itemsize)
        raise MemoryError(f"no memory for {size}, an array of shape {shape}; {_HELP}") from None


def _no_room(spec: StackSpec, inputs: int, steps: int, rows: int) -> MemoryError:
    """What native code had no memory for, and what would help."""
    return MemoryError(
        f"no memory for {format_bytes(_room(spec, inputs, steps, rows))}, the working space of a layer of "
        f"{spec.hidden_size} units over {steps} steps of {rows} rows; {_HELP}"
    )


def _like(state: State) -> State:
    return State(np.empty_like(state.h), None if state.c is None else np.empty_like(state.c))


def forward(task: Task, x: Array, state: State) -> tuple[Array, State, _Tape | None]:
    """All time steps of one layer and direction; see `Engine.forward`."""
    spec, (steps, rows, inputs), p, native = task.spec, x.shape, task.params, _module()
    double, cell, threads = x.dtype == np.float64, _cell(spec), get_num_threads()
    x, state = np.ascontiguousarray(x), State(*map(_contiguous, state))
    y, end = _empty((steps, rows, spec.state_size), x.dtype), _like(state)
    saved: tuple[Array | None, ...]
    if is_plain(spec):
        saved = None, None  # gates and cells
        if task.save and spec.cell != "rnn":
            width, padded = native.saved_sizes(cell, spec.hidden_size, double)
            cells = _empty((steps, rows, padded), x.dtype) if spec.has_memory else None
            saved = _empty((steps, rows, width), x.dtype), cells
        run = functools.partial(native.forward_double if double else native.forward_float, cell)
        how: tuple[int, ...] = (threads, SPLITS[split], _precision(kind_of(task)))
    else:
        options = with_zoneout(native, task, steps, rows)
        saved = (_empty((steps, rows, options.saved_row()), x.dtype) if task.save else None,)
        run, how = options.forward, (threads,)
    try:
        run(
            *(task.reverse, x, *_weights(task), _contiguous(p.get("b")), _contiguous(p.get("b_hn")), *state),
            *(_contiguous(task.recurrent_mask), _contiguous(task.lengths), y, *end, *saved, *how),
        )
    except MemoryError:
        raise _no_room(spec, inputs, steps, rows) from None
    return y, end, _Tape(x, state, y, saved) if task.save else None


def backward(task: Task, tape: _Tape, dy: Array, dstate: State, grads: Grads) -> tuple[Array, State]:
    """The gradient of `forward`; see `Engine.backward`."""
    spec, (steps, rows, inputs), native, threads = task.spec, tape.x.shape, _module(), get_num_threads()
    dx, dstart = _empty(tape.x.shape, tape.x.dtype), _like(dstate)
    how: list[Any]
    if is_plain(spec):
        run = native.backward_double if dy.dtype == np.float64 else native.backward_float
        run, how = functools.partial(run, _cell(spec)), [threads, SPLITS[split]]
    else:
        refuse_without_slope(spec)
        run = with_zoneout(native, task, steps, rows).backward
        how = [*(grads.get(name) for name in OPTIONS), threads]
    try:
        run(
            *(task.reverse, tape.x, *_weights(task), *tape.state),
            *(_contiguous(task.recurrent_mask), _contiguous(task.lengths), tape.y, *tape.saved),
            *(np.ascontiguousarray(dy), *map(_contiguous, dstate), dx, *dstart),
            *(grads["W_x"], grads["W_h"], grads.get("b"), grads.get("b_hn"), *how),
        )
    except MemoryError:
        raise _no_room(spec, inputs, steps, rows) from None
    return dx, dstart


class Whole:
    """All layers of a stack in one direction without a tape, in one native call; made once for a stack's parameters."""

    def __init__(self, spec: StackSpec, params: Mapping[str, Array], precision: int) -> None:
        native, double = _module(), spec.dtype == "float64"
        kind = native.StackDouble if double else native.StackFloat
        self.spec, self.params, self.precision = spec, params, precision
        self._stack = None
        if is_plain(spec):
            self._stack = kind(
                *(_cell(spec), spec.input_size, spec.hidden_size, *_weights_of_all(spec, params), precision)
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return Whole, (self.spec, self.params, self.precision)

    def __call__(
        self, x: Array, h: Array | None, c: Array | None, lengths: Array | None
    ) -> tuple[Array, Array, Array | None]:
        """x `(T, B, I)` and the state, each `(L, B, H)`, None for zeros -> y `(T, B, H)` and the state after it."""
        (steps, batch, _), spec = x.shape, self.spec
        if self._stack is None:
            return _layer_by_layer(spec, self.params, x, h, c, lengths)
        y = _empty((steps, batch, spec.hidden_size), x.dtype)
        h_end = np.empty((spec.num_layers, batch, spec.hidden_size), x.dtype)
        c_end = np.empty_like(h_end) if spec.has_memory else None
        x = x if x.flags.c_contiguous else np.ascontiguousarray(x)
        try:
            self._stack.forward(x, _contiguous(h), _contiguous(c), lengths, y, h_end, c_end, get_num_threads())
        except MemoryError:
            raise _no_room(spec, spec.input_size, steps, batch) from None
        return y, h_end, c_end


def _layer_by_layer(
    spec: StackSpec, params: Mapping[str, Array], x: Array, h: Array | None, c: Array | None, lengths: Array | None
) -> tuple[Array, Array, Array | None]:
    """What `Whole` gives, for layers with options: one native call a layer."""
    batch = x.shape[1]
    hs, cs = [], []
    for layer, suffix in enumerate(spec.suffixes):
        named = {name: params[name + suffix] for name in spec.layer_shapes(layer)}
        zero = np.zeros((batch, spec.state_size), x.dtype) if h is None else h[layer]
        memory = None
        if spec.has_memory:
            memory = np.zeros((batch, spec.hidden_size), x.dtype) if c is None else c[layer]
        x, end, _ = forward(Task(spec, layer, False, named, lengths=lengths), x, State(zero, memory))
        hs.append(end.h)
        if end.c is not None:
            cs.append(end.c)
    return x, np.stack(hs), np.stack(cs) if spec.has_memory else None


class PackedStream:
    """A stack whose weights are packed and whose state is kept, one time step a call; made by `stream`."""

    def __init__(self, spec: StackSpec, params: Mapping[str, Array], batch: int, quantize: str | None) -> None:
        self.spec, self.params, self.batch, self.quantize = spec, params, batch, quantize
        self._dtype, self._output = np.dtype(spec.dtype), (batch, spec.state_size)
        self._h_shape = (spec.num_layers, batch, spec.state_size)
        self._c_shape = (spec.num_layers, batch, spec.hidden_size) if spec.has_memory else None
        self.reset()

    def reset(self) -> None:
        """The weights as they are now, and the state of zeros."""
        native, spec, double, threads = _module(), self.spec, self._dtype == np.float64, get_num_threads()
        weights = _weights_of_all(spec, self.params)
        if is_plain(spec):
            make = native.StreamDouble if double else native.StreamFloat
            sizes = (self.batch, spec.input_size, spec.hidden_size)
            self._stream = make(_cell(spec), *sizes, *weights, threads, _precision(self.quantize))
        else:
            make = native.variant_stream_double if double else native.variant_stream_float
            options = options_of_all(native, spec, self.params, self.batch)
            self._stream = make(options, self.batch, spec.input_size, *weights, threads)
        c = None if self._c_shape is None else np.zeros(self._c_shape, self._dtype)
        self._stream.write(np.zeros(self._h_shape, self._dtype), c)

    def __call__(self, x: Array, out: Array | None) -> Array:
        """One step: x `(B, I)` -> y `(B, H)`, `(B, P)` with a projection."""
        if out is None:
            out = np.empty(self._output, self._dtype)
        elif np.may_share_memory(x, out):
            raise ShapeError("out overlaps x, expected an array of its own")
        elif not out.flags.c_contiguous or not out.flags.writeable:
            raise ShapeError("out is not C-contiguous and writeable, expected an array that is")
        if not x.flags.c_contiguous:
            x = np.ascontiguousarray(x)
        self._stream.step(x, out)
        return out

    def __str__(self) -> str:
        kind = f" in {self.quantize}" if self.quantize else ""
        return f"packed weights{kind}, one native call a step"

    @property
    def state(self) -> Any:
        """(h, c) for the LSTM, h for GRU and RNN, each `(L, B, H)`, h `(L, B, P)` with a projection; copies."""
        h = np.empty(self._h_shape, self._dtype)
        c = None if self._c_shape is None else np.empty(self._c_shape, self._dtype)
        self._stream.read(h, c)
        return h if c is None else (h, c)

    @state.setter
    def state(self, state: Any) -> None:
        h, c = (state, None) if self._c_shape is None else state
        self._stream.write(np.ascontiguousarray(h), _contiguous(c))


def infer(plan: Plan, params: ParamDict) -> Whole:
    """A stack of one direction as one native call; see `Engine.infer`."""
    return Whole(plan.call.spec, params, _precision(plan.call.quantize))


def stream(plan: Plan, params: ParamDict) -> PackedStream:
    """A stack of one direction, step by step; see `Engine.stream`."""
    call = plan.call
    return PackedStream(call.spec, params, call.batch, call.quantize)


def side_by_side(plan: Plan) -> None:
    """None: layers are computed one after the other."""


def _weights_of_all(spec: StackSpec, params: Mapping[str, Array]) -> list[list[Array]]:
    """W_x, W_h, b and b_hn of every layer; an empty list where there is none."""
    names = [[name + suffix for suffix in spec.suffixes] for name in ("W_x", "W_h", "b", "b_hn")]
    return [[params[full] for full in each if full in params] for each in names]


def _weights(task: Task) -> tuple[Array, Array]:
    return np.ascontiguousarray(task.params["W_x"]), np.ascontiguousarray(task.params["W_h"])


def _contiguous(value: Array | None) -> Any:
    return None if value is None else np.ascontiguousarray(value)


def _precision(quantize: str | None) -> int:
    """The number in kernels/cpu/layer.h of what weights are rounded to."""
    return PRECISIONS[quantize] if quantize else 0


def _cell(spec: StackSpec) -> int:
    """The cell's number in kernels/cpu/layer.h."""
    return CELLS[spec.cell] + (spec.nonlinearity == "relu")


def _module() -> Any:
    native = native_code.load()
    if native is None:  # `supports` has said so before
        raise ConfigError(native_code.missing())
    return native
