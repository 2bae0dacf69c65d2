"""The CUDA engine: several forms of the same layer, and a planner that says which one serves a call.

The forms and the planner are imported by the first call for a GPU: a process that stays on the CPU does without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpulstm.arrays.backend import Array
from gpulstm.arrays.gemm import SIZE
from gpulstm.engines.spec import (
    Call,
    Footprint,
    Grads,
    Layers,
    Plan,
    StackSpec,
    State,
    Steps,
    Task,
    plan_of,
    unsupported,
)

if TYPE_CHECKING:
    from gpulstm.arrays.params import ParamDict
    from gpulstm.engines.cuda.tape import Tape

name = "cuda"

BLOCK_ROWS = 16384  # of a product over time and batch; see `Task.blocks`


def supports(call: Call) -> str | None:
    """Why this engine cannot serve a call, or None when it can."""
    if not call.on_cuda:
        return "the model is on the CPU"
    options = unsupported(call.spec)
    if options:
        return f"no kernel for {', '.join(options)}"
    from gpulstm.engines.cuda import planner

    return planner.refusal(call)


def complete(plan: Plan) -> Plan:
    """Form, graph and wavefront; see `Engine.complete`."""
    from gpulstm.engines.cuda import planner

    return planner.complete(plan)


def describe(plan: Plan) -> str:
    """How a layer is computed, in a few words."""
    from gpulstm.engines.cuda import planner

    return planner.describe(plan)


def block_steps(batch: int) -> int:
    """Time steps whose products are taken at once."""
    return max(1, BLOCK_ROWS // batch)


def footprint(spec: StackSpec, layer: int, batch: int) -> Footprint:
    """What a layer takes in training, in the form that takes most."""
    from gpulstm.engines.cuda.tape import COMPUTE

    size, gates, units = SIZE[spec.dtype], spec.gates * spec.hidden_size, spec.hidden_size
    compute = SIZE[COMPUTE[spec.dtype]]
    saved = gates * size + units * size * (1 + bool(spec.recurrent_dropout) + (spec.cell == "gru"))
    saved += units * compute * spec.has_memory + units * ((spec.zoneout[0] > 0) + (spec.zoneout[1] > 0))
    fixed = units * (2 * size + 2 * compute)
    packed = units * units * (1 if spec.cell == "rnn" else 4) * size
    return Footprint(batch * saved, 0, batch * gates * size * (1 + (spec.cell == "gru")), batch * fixed + packed)


def forward(task: Task, x: Array, state: State) -> tuple[Array, State, Tape | None]:
    """All time steps of one layer and direction, as the task's plan says; see `Engine.forward`."""
    from gpulstm.engines.cuda import fused, persistent, stepwise

    plan, block = plan_of(task), block_steps(x.shape[1])
    if plan.form == "first" or not x.shape[0]:
        return stepwise.forward(task, x, state, block)
    if plan.layout is not None:
        return persistent.forward(task, x, state, plan.layout, block)
    return fused.forward(task, x, state, plan.tiles[0], block)


def backward(task: Task, tape: Tape, dy: Array, dstate: State, grads: Grads) -> tuple[Array, State]:
    """The gradient of `forward`; see `Engine.backward`."""
    from gpulstm.engines.cuda import fused, persistent, stepwise

    plan, block = plan_of(task), block_steps(dy.shape[1])
    if plan.form == "first" or not dy.shape[0]:
        return stepwise.backward(task, tape, dy, dstate, grads, block)
    if plan.layout is not None:
        return persistent.backward(task, tape, dy, dstate, grads, plan.layout, block)
    return fused.backward(task, tape, dy, dstate, grads, plan.tiles[1], block)


def infer(plan: Plan, params: ParamDict) -> None:
    """None: a stack is recorded as a graph where that helps."""


def stream(plan: Plan, params: ParamDict) -> Steps | None:
    """A stack of one direction that keeps its state on the device, or None; see `cuda/stream.py`."""
    from gpulstm.engines.cuda.stream import stream as packed_stream

    return packed_stream(plan, params)


def side_by_side(plan: Plan) -> Layers | None:
    """The module `wavefront` where the plan has one, within a recording."""
    if not plan.wavefront:
        return None
    from gpulstm.engines.cuda import graph, wavefront

    return wavefront if graph.recording() else None
