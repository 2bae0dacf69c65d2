"""The reference engine: one loop over time for every cell, option, direction and device.

This is the specification.  It supports everything, reads like the equations and uses only the array API standard, so
the same lines run on NumPy, CuPy and array-api-strict.  The other engines are tested against it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpulstm.arrays.backend import Array
from gpulstm.arrays.devices import namespace
from gpulstm.arrays.params import ParamDict
from gpulstm.arrays.threads import one_blas_thread
from gpulstm.engines.cells import Saved, make_cell
from gpulstm.engines.quantized import kind_of, rounded
from gpulstm.engines.spec import Call, Footprint, Grads, Plan, StackSpec, State, Task

name = "reference"


BLOCK_ROWS = 1024  # of a product over time and batch: enough for BLAS, few enough to stay in the cache


@dataclass
class _Block:
    x: Array  # (steps, B, I)
    input: Saved
    v: list[Array]  # h_{t-1} as the recurrent product saw it, in the order of the steps
    steps: list[Saved]


def supports(call: Call) -> str | None:
    """None: every call is served."""
    return None


def complete(plan: Plan) -> Plan:
    """The plan as it is: there is one form; see `Engine.complete`."""
    return replace(plan, no_graph="the reference engine's work cannot be recorded") if plan.call.on_cuda else plan


def describe(plan: Plan) -> str:
    """How a layer is computed, in a few words."""
    return "array code, one step at a time" + (f", weights in {plan.call.quantize}" if plan.call.quantize else "")


def block_steps(batch: int) -> int:
    """Time steps whose products are taken at once."""
    return max(1, BLOCK_ROWS // batch)


def footprint(spec: StackSpec, layer: int, batch: int) -> Footprint:
    """What a layer takes in training; what it keeps is counted on a probe of one row, so no option is forgotten."""
    size, gates, inputs = np.dtype(spec.dtype).itemsize, spec.gates * spec.hidden_size, spec.layer_input_size(layer)
    params = {name: np.zeros(shape, spec.dtype) for name, shape in spec.layer_shapes(layer).items()}
    task = Task(spec, layer, False, params, training=True, save=True)
    units = np.zeros((1, spec.state_size), spec.dtype)
    task.recurrent_mask = units if spec.recurrent_dropout else None
    memory = np.zeros((1, spec.hidden_size), spec.dtype) if spec.has_memory else None
    kept = []
    for steps in (2, 4):
        task.keep_h = np.ones((steps, *units.shape), bool) if spec.zoneout[0] else None
        task.keep_c = np.ones((steps, 1, spec.hidden_size), bool) if spec.zoneout[1] else None
        x = np.zeros((steps, 1, inputs), spec.dtype)
        kept.append(_bytes(forward(task, x, State(units, memory))[2], {id(x)}))
    masks = spec.state_size * bool(spec.zoneout[0]) + spec.hidden_size * bool(spec.zoneout[1])
    block = block_steps(batch) * batch
    return Footprint(
        saved=batch * ((kept[1] - kept[0]) // 2 + masks),
        outputs=batch * size * spec.state_size,
        work=0,
        fixed=block * size * ((5 if spec.layer_norm else 2) * gates + spec.state_size + inputs)
        + size * (inputs + spec.state_size) * gates,
    )


def _bytes(value: Any, seen: set[int]) -> int:
    """Bytes of all arrays within a tape, each buffer once."""
    if isinstance(value, np.ndarray):
        buffer = value
        while isinstance(buffer.base, np.ndarray):
            buffer = buffer.base
        fresh = id(buffer) not in seen
        seen.add(id(buffer))
        return buffer.nbytes if fresh else 0
    if isinstance(value, _Block):
        value = (value.x, value.input, value.v, value.steps)
    return sum(_bytes(each, seen) for each in value) if isinstance(value, (list, tuple)) else 0


def forward(task: Task, x: Array, state: State) -> tuple[Array, State, list[_Block] | None]:
    """All time steps of one layer and direction; see `Engine.forward`."""
    xp, (count, batch, _) = namespace(x), x.shape
    cell, params = make_cell(xp, task.spec), rounded(task.params, kind_of(task))
    y = xp.zeros((count, batch, task.spec.state_size), dtype=x.dtype)
    tape: list[_Block] = []
    for start, stop in task.blocks(count, block_steps(batch)):
        a, saved_input = cell.input(params, x[start:stop, ...])
        block = _Block(x[start:stop, ...], saved_input, [], [])
        with _small_products(xp, task, batch):
            for t in task.steps(start, stop):
                v = state.h if task.recurrent_mask is None else state.h * task.recurrent_mask
                new, saved = cell.step(params, a[t - start, ...], v, state)
                state = _advance(xp, task, t, new, state)
                y[t, ...] = _within(xp, task, t, state.h)
                if task.save:
                    block.v.append(v)
                    block.steps.append(saved)
        if task.save:
            tape.append(block)
    return y, state, tape if task.save else None


def backward(task: Task, tape: list[_Block], dy: Array, dstate: State, grads: Grads) -> tuple[Array, State]:
    """The gradient of `forward`; see `Engine.backward`."""
    xp, spec, (count, batch, _) = namespace(dy), task.spec, dy.shape
    cell = make_cell(xp, spec)
    dx = xp.zeros((count, batch, spec.layer_input_size(task.layer)), dtype=dy.dtype)
    blocks = task.blocks(count, block_steps(batch))
    for (start, stop), block in zip(reversed(blocks), reversed(tape), strict=True):
        rows = (stop - start, batch)
        da, dproduct = (xp.zeros((*rows, spec.gates * spec.hidden_size), dtype=dy.dtype) for _ in range(2))
        with _small_products(xp, task, batch):
            for t, saved in zip(reversed(task.steps(start, stop)), reversed(block.steps), strict=True):
                dh = dstate.h + _within(xp, task, t, dy[t, ...])
                dnew, dkept = _advance_backward(xp, task, t, State(dh, dstate.c))
                at = t - start
                da[at, ...], dproduct[at, ...], dv, dold = cell.step_backward(task.params, saved, dnew.h, dnew.c, grads)
                dh = dold.h + (dv if task.recurrent_mask is None else dv * task.recurrent_mask)
                dstate = _add(State(dh, dold.c), dkept)
        in_time = slice(None, None, -1) if task.reverse else slice(None)
        cell.recurrent_gradients(xp.stack(block.v[in_time]), dproduct, block.steps[in_time], grads)
        dx[start:stop, ...] = cell.input_backward(task.params, block.input, block.x, da, grads)
    return dx, dstate


def infer(plan: Plan, params: ParamDict) -> None:
    """None: layers are computed one by one."""


def stream(plan: Plan, params: ParamDict) -> None:
    """None: a step is a call of the stack."""


def side_by_side(plan: Plan) -> None:
    """None: layers are computed one after the other."""


def _small_products(xp: Any, task: Task, batch: int) -> contextlib.AbstractContextManager[Any]:
    """The products of a step by one thread of NumPy's BLAS, where they are small."""
    if xp is not np:
        return contextlib.nullcontext()
    return one_blas_thread(batch * task.spec.state_size * task.spec.gates * task.spec.hidden_size)


def _within(xp: Any, task: Task, t: int, value: Array) -> Array:
    """`value` `(B, P)`, but zero for rows that are past their end."""
    return value if task.valid is None else xp.where(task.valid[t, ...], value, xp.zeros_like(value))


def _advance(xp: Any, task: Task, t: int, new: State, old: State) -> State:
    """The state after step t: zoneout keeps parts of the old one, a row past its end keeps all of it."""
    h = _blend(xp, new.h, old.h, _keep(task, task.keep_h, t), _hold(task, 0))
    c = None if new.c is None else _blend(xp, new.c, old.c, _keep(task, task.keep_c, t), _hold(task, 1))
    if task.valid is None:
        return State(h, c)
    valid = task.valid[t, ...]
    return State(xp.where(valid, h, old.h), None if c is None else xp.where(valid, c, old.c))


def _advance_backward(xp: Any, task: Task, t: int, dstate: State) -> tuple[State, State | None]:
    """The gradients of the new state and, where `_advance` kept parts of it, of the old one."""
    if task.valid is None and task.keep_h is None and task.keep_c is None:
        return dstate, None

    def part(d: Array | None, keep: Array | None) -> tuple[Array | None, Array | None]:
        if d is None:
            return None, None
        used = True if task.valid is None else task.valid[t, ...]
        used = used if keep is None else keep[t, ...] & used
        none = xp.zeros_like(d)
        return (d, none) if used is True else (xp.where(used, d, none), xp.where(used, none, d))

    dh_new, dh_old = part(dstate.h, task.keep_h)
    dc_new, dc_old = part(dstate.c, task.keep_c)
    return State(dh_new, dc_new), State(dh_old, dc_old)


def _add(first: State, second: State | None) -> State:
    if second is None:
        return first
    return State(first.h + second.h, None if first.c is None else first.c + second.c)


def _blend(xp: Any, new: Array, old: Array, keep: Array | None, hold: float) -> Array:
    if keep is not None:
        return xp.where(keep, new, old)
    return (1.0 - hold) * new + hold * old if hold else new


def _keep(task: Task, mask: Array | None, t: int) -> Array | None:
    return None if mask is None else mask[t, ...]


def _hold(task: Task, part: int) -> float:
    """Outside training zoneout is replaced by its expectation (Krueger et al. 2017, section 3)."""
    return 0.0 if task.training else task.spec.zoneout[part]
