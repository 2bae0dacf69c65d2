"""The reference engine: one loop over time for every cell, option, direction and device.

This is the specification.  It supports everything, reads like the equations and uses only the array API standard, so
the same lines run on NumPy, CuPy and array-api-strict.  The other engines are tested against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpulstm.backend import Array, namespace
from gpulstm.engines.cells import Grads, Saved, make_cell
from gpulstm.engines.spec import Call, State, Task

name = "reference"


@dataclass
class _Tape:
    x: Array
    v: list[Array]  # h_{t-1} as the recurrent product saw it, in the order of the steps
    steps: list[Saved]
    input: Saved


def supports(call: Call) -> str | None:
    """None: every call is served."""
    return None


def describe(call: Call) -> str:
    """How a layer is computed, in a few words."""
    return "array code, one step at a time"


def forward(task: Task, x: Array, state: State) -> tuple[Array, State, _Tape | None]:
    """All time steps of one layer and direction.

    Args:
        task: the layer, its parameters and masks.
        x: `(T, B, I)`; zero outside rows' lengths.
        state: h `(B, P)` and c `(B, H)` (None without memory) before the first step.

    Returns:
        y `(T, B, P)`, zero outside rows' lengths; the state after each row's last step; the tape when training.
    """
    xp = namespace(x)
    cell = make_cell(xp, task.spec)
    a, saved_input = cell.input(task.params, x)
    y = xp.zeros((x.shape[0], x.shape[1], task.spec.state_size), dtype=x.dtype)
    tape = _Tape(x, [], [], saved_input) if task.training else None
    for t in task.steps(x.shape[0]):
        v = state.h if task.recurrent_mask is None else state.h * task.recurrent_mask
        new, saved = cell.step(task.params, a[t, ...], v, state)
        state = _advance(xp, task, t, new, state)
        y[t, ...] = state.h if task.valid is None else xp.where(task.valid[t, ...], state.h, xp.zeros_like(state.h))
        if tape is not None:
            tape.v.append(v)
            tape.steps.append(saved)
    return y, state, tape


def backward(task: Task, tape: _Tape, dy: Array, dstate: State, grads: Grads) -> tuple[Array, State]:
    """The gradient of `forward`: backpropagation through time (Werbos 1990).

    Args:
        task: as given to `forward`.
        tape: what it returned.
        dy: `(T, B, P)`, gradient of the outputs.
        dstate: gradient of the final state.
        grads: the gradients of the parameters are added to these, by name.

    Returns:
        dx `(T, B, I)` and the gradient of the initial state.
    """
    xp = namespace(dy)
    cell = make_cell(xp, task.spec)
    steps, batch, _ = tape.x.shape
    width = task.spec.gates * task.spec.hidden_size
    da, dproduct, v_all = (xp.zeros((steps, batch, n), dtype=dy.dtype) for n in (width, width, task.spec.state_size))
    saved: list[Saved] = [()] * steps
    order = list(task.steps(steps))
    for t, v, step in zip(reversed(order), reversed(tape.v), reversed(tape.steps), strict=True):
        dy_t = dy[t, ...] if task.valid is None else xp.where(task.valid[t, ...], dy[t, ...], xp.zeros_like(dstate.h))
        dnew, dkept = _advance_backward(xp, task, t, State(dstate.h + dy_t, dstate.c))
        da[t, ...], dproduct[t, ...], dv, dold = cell.step_backward(task.params, step, dnew.h, dnew.c, grads)
        dh = dold.h + (dv if task.recurrent_mask is None else dv * task.recurrent_mask)
        dstate = _add(State(dh, dold.c), dkept)
        v_all[t, ...], saved[t] = v, step
    if steps:
        cell.recurrent_gradients(v_all, dproduct, saved, grads)
    return cell.input_backward(task.params, tape.input, tape.x, da, grads), dstate


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
