"""The CUDA engine: several forms of the same layer, and a planner that says which one serves a call.

The forms and the planner are imported by the first call for a GPU: a process that stays on the CPU does without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpulstm.arrays.backend import Array
from gpulstm.engines.cells import Grads
from gpulstm.engines.spec import Call, Footprint, StackSpec, State, Task

if TYPE_CHECKING:
    from gpulstm.arrays.params import ParamDict
    from gpulstm.engines.cuda.tape import Tape

name = "cuda"

BLOCK_ROWS = 16384  # of a product over time and batch; see `Task.blocks`


def supports(call: Call) -> str | None:
    """Why this engine cannot serve a call, or None when it can."""
    spec = call.spec
    if not call.on_cuda:
        return "the model is on the CPU"
    options = {
        "peepholes": spec.peepholes,
        "coupled gates": spec.coupled,
        "layer_norm": spec.layer_norm,
        "proj_size": bool(spec.proj_size),
        "clip": spec.clip is not None,
        "activations": bool(spec.activations),
        "reset_after=False": not spec.reset_after,
    }
    used = [option for option, on in options.items() if on]
    if used:
        return f"no kernel for {', '.join(used)}"
    from gpulstm.engines.cuda import planner

    return planner.refusal(call)


def describe(call: Call) -> str:
    """How a layer is computed, in a few words."""
    from gpulstm.engines.cuda import planner

    return str(planner.plan(call))


def block_steps(batch: int) -> int:
    """Time steps whose products are taken at once."""
    return max(1, BLOCK_ROWS // batch)


def footprint(spec: StackSpec, layer: int, batch: int) -> Footprint:
    """What a layer takes in training, in the form that takes most."""
    from gpulstm.engines.cuda.tape import COMPUTE

    size, gates, units = np.dtype(spec.dtype).itemsize, spec.gates * spec.hidden_size, spec.hidden_size
    compute = np.dtype(COMPUTE[spec.dtype][1]).itemsize
    saved = gates * size + units * size * (1 + bool(spec.recurrent_dropout) + (spec.cell == "gru"))
    saved += units * compute * spec.has_memory + units * ((spec.zoneout[0] > 0) + (spec.zoneout[1] > 0))
    fixed = units * (2 * size + 2 * compute)
    packed = units * units * (1 if spec.cell == "rnn" else 4) * size
    return Footprint(batch * saved, 0, batch * gates * size * (1 + (spec.cell == "gru")), batch * fixed + packed)


def forward(task: Task, x: Array, state: State) -> tuple[Array, State, Tape | None]:
    """All time steps of one layer and direction; arguments and results as `reference.forward`."""
    from gpulstm.engines.cuda import fused, persistent, planner, stepwise

    plan, block = planner.plan(planner.call_of(task, x)), block_steps(x.shape[1])
    if plan.form == "first" or not x.shape[0]:
        return stepwise.forward(task, x, state, block)
    if plan.layout is not None:
        return persistent.forward(task, x, state, plan.layout, block)
    return fused.forward(task, x, state, plan.forward_tile, block)


def backward(task: Task, tape: Tape, dy: Array, dstate: State, grads: Grads) -> tuple[Array, State]:
    """The gradient of `forward`; arguments and results as `reference.backward`."""
    from gpulstm.engines.cuda import fused, persistent, planner, stepwise

    plan, block = planner.plan(planner.call_of(task, tape.x)), block_steps(dy.shape[1])
    if plan.form == "first" or not dy.shape[0]:
        return stepwise.backward(task, tape, dy, dstate, grads, block)
    if plan.layout is not None:
        return persistent.backward(task, tape, dy, dstate, grads, plan.layout, block)
    return fused.backward(task, tape, dy, dstate, grads, plan.backward_tile, block)


def forward_layers(
    tasks: Sequence[Task], masks: Sequence[Array | None], x: Array, states: Sequence[State], chunk: int
) -> tuple[Array, list[State], list[Tape | None]]:
    """Several layers of one direction as a wavefront in chunks of steps; see `wavefront.forward`."""
    from gpulstm.engines.cuda import planner, wavefront

    plan, block = planner.plan(planner.call_of(tasks[0], x)), block_steps(x.shape[1])
    return wavefront.forward(tasks, masks, x, states, plan.forward_tile, block, chunk)


def backward_layers(
    tasks: Sequence[Task],
    masks: Sequence[Array | None],
    tapes: Sequence[Tape],
    dy: Array,
    dstates: Sequence[State],
    grads: Sequence[Grads],
    chunk: int,
) -> tuple[Array, list[State]]:
    """The gradient of `forward_layers`; see `wavefront.backward`."""
    from gpulstm.engines.cuda import planner, wavefront

    plan, block = planner.plan(planner.call_of(tasks[0], tapes[0].x)), block_steps(dy.shape[1])
    return wavefront.backward(tasks, masks, tapes, dy, dstates, grads, plan.backward_tile, block, chunk)


def stream(spec: StackSpec, params: ParamDict, batch: int) -> Any:
    """A stack of one direction that keeps its state on the device, or None; see `stepping.stream`."""
    from gpulstm.engines.cuda.stream import stream as made

    return made(spec, params, batch)
