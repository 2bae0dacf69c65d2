"""The CUDA engine: several forms of the same layer, and a planner that says which one serves a call."""

from __future__ import annotations

from gpulstm.backend import Array
from gpulstm.engines.cells import Grads
from gpulstm.engines.cuda import first_form, fused, persistent, planner
from gpulstm.engines.cuda.common import Tape
from gpulstm.engines.spec import Call, State, Task

name = "cuda"


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
        "reset_after=False": not spec.reset_after,
    }
    used = [option for option, on in options.items() if on]
    return f"no kernel for {', '.join(used)}" if used else planner.refusal(call)


def describe(call: Call) -> str:
    """How a layer is computed, in a few words."""
    return str(planner.plan(call))


def forward(task: Task, x: Array, state: State) -> tuple[Array, State, Tape | None]:
    """All time steps of one layer and direction; arguments and results as `reference.forward`."""
    plan = planner.plan(planner.call_of(task, x))
    if plan.form == "first" or not x.shape[0]:
        return first_form.forward(task, x, state)
    if plan.layout is not None:
        return persistent.forward(task, x, state, plan.layout)
    return fused.forward(task, x, state, plan.forward_tile)


def backward(task: Task, tape: Tape, dy: Array, dstate: State, grads: Grads) -> tuple[Array, State]:
    """The gradient of `forward`; arguments and results as `reference.backward`."""
    plan = planner.plan(planner.call_of(task, tape.x))
    if plan.form == "first" or not dy.shape[0]:
        return first_form.backward(task, tape, dy, dstate, grads)
    if plan.layout is not None:
        return persistent.backward(task, tape, dy, dstate, grads, plan.layout)
    return fused.backward(task, tape, dy, dstate, grads, plan.backward_tile)
