"""The CUDA engine, first form: a product and one fused elementwise kernel per time step.

The input product x W_x + b is hoisted over all time steps.  Then each step is two launches: cuBLAS adds h_{t-1} W_h to
the step's pre-activations in place, and a `cupy.ElementwiseKernel` on `kernels/cuda/state.cuh` computes the gates, the
new state and everything that lengths, zoneout and recurrent dropout do to it.  Backward likewise: a kernel for the gate
gradients, a product that adds dz W_h^T to the gradient of h_{t-1}; the gradients of W_x, W_h, b and x are
whole-sequence products afterward.  All buffers are allocated once per call.  No atomics: results repeat bit for bit.

This form is correct at any size and is bound by launches until H*B is large.
"""

from __future__ import annotations

import functools
from typing import Any, cast

from gpulstm.arrays.backend import Array
from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.devices import backend_of
from gpulstm.arrays.dtypes import is_half
from gpulstm.arrays.gemm import TYPES, gemm
from gpulstm.arrays.kernel_source import SHORT
from gpulstm.engines.cuda.tape import COMPUTE, Tape, input_product, sequence_gradients
from gpulstm.engines.spec import Grads, State, Task, plan_of

_PLACE = "GlPlace p = gl_place(i, rows, units, t, reverse);"
_BODIES = {
    "lstm": "gl_lstm_step<T, {R}>(o, p, &gates[0], {u}, &hs[0], {vs}, {y},"
    " &cs[0] + (slots ? p.from - p.e : 0), &cs[0] + (slots ? p.to - p.e : 0));",
    "gru": "gl_gru_step<T, {R}>(o, p, &gates[0], &u[0], {b_hn}, {s}, &hs[0], {vs}, {y});",
    "rnn": "gl_rnn_step<T, {R}>(o, p, {relu}, &gates[0], {u}, &hs[0], {vs}, {y});",
    "lstm backward": "gl_lstm_step_backward<T, {R}>(o, p, &gates[0], &cs[0] + (p.from - p.e), &dh[0], {dv},"
    " &dy[0], &dc[0]);",
    "gru backward": "gl_gru_step_backward<T, {R}>(o, p, &gates[0], &s[0], &du[0], &hs[0], &dh[0], {dv}, &dy[0]);",
    "rnn backward": "gl_rnn_step_backward<T, {R}>(o, p, {relu}, &gates[0], &dh[0], {dv}, &dy[0]);",
}
_TYPES = {"lengths": "int64", "keep_h": "bool", "keep_c": "bool", "cs": "{C}", "dc": "{C}"}  # all others hold T


def forward(task: Task, x: Array, state: State, block: int) -> tuple[Array, State, Tape | None]:
    """All time steps of one layer and direction, products by `block` steps; see `Engine.forward`."""
    backend, spec, params = cast(CupyBackend, backend_of(x)), task.spec, task.params
    steps, rows, units, width = x.shape[0], x.shape[1], spec.hidden_size, spec.gates * spec.hidden_size
    xp, dtype = backend.xp, x.dtype
    first, last = (steps, 0) if task.reverse else (0, steps)

    gates = xp.empty((steps, rows, width), dtype)
    x = xp.ascontiguousarray(x)
    input_product(backend, task, x, gates, block)
    hs = xp.empty((steps + 1, rows, units), dtype)
    hs[first] = state.h
    vs = hs if task.recurrent_mask is None else xp.empty_like(hs)
    if task.recurrent_mask is not None:
        xp.multiply(state.h, task.recurrent_mask, out=vs[first])
    slots = task.save and spec.has_memory
    cs = None
    if spec.has_memory:
        cs = xp.empty((steps + 1 if slots else 1, rows, units), COMPUTE[dtype.name])
        cs[first if slots else 0] = state.c
    apart = spec.cell == "gru" or is_half(dtype)  # the recurrent product in a buffer of its own
    arrays: dict[str, Array | None] = {
        **_options(task),
        "gates": gates,
        "u": xp.empty((rows, width), dtype) if apart else None,
        "hs": hs,
        "vs": None if task.recurrent_mask is None else vs,
        "y": None if task.lengths is None else xp.empty((steps, rows, units), dtype),
        "cs": cs,
        "b_hn": params.get("b_hn"),
        "s": xp.empty((steps, rows, units), dtype) if task.save and spec.cell == "gru" else None,
    }
    kernel, operands = _kernel(backend, spec.cell, dtype.name, spec.nonlinearity == "relu", arrays)
    hold = (0.0, 0.0) if task.training else spec.zoneout
    u, w_h, products = arrays["u"], params["W_h"], plan_of(task).products
    for t in task.steps(0, steps):
        v = vs[t + 1 if task.reverse else t]
        if u is None:
            gemm(backend, v, w_h, gates[t], products=products, accumulate=True)
        else:
            gemm(backend, v, w_h, u, products=products)
        kernel(rows, units, t, task.reverse, slots, *hold, *operands, size=rows * units)
    outputs = hs[:steps] if task.reverse else hs[1:]
    final = State(hs[last].copy(), None if cs is None else cs[last if slots else 0].astype(dtype))
    tape = Tape(x, gates, hs, vs, cs, arrays["s"]) if task.save else None
    return outputs if arrays["y"] is None else arrays["y"], final, tape


def backward(task: Task, tape: Tape, dy: Array, dstate: State, grads: Grads, block: int) -> tuple[Array, State]:
    """The gradient of `forward`; see `Engine.backward`.

    The gates saved in the tape are copied, not overwritten, so that a tape can be used again.
    """
    backend, spec, params = cast(CupyBackend, backend_of(dy)), task.spec, task.params
    xp, dtype, (steps, rows, units) = backend.xp, dy.dtype, dy.shape
    dgates, dh = tape.gates.copy(), dstate.h.copy()
    apart = task.recurrent_mask is not None or is_half(dtype)  # the product's part of dh in a buffer of its own
    arrays: dict[str, Array | None] = {
        **_options(task),
        "gates": dgates,
        "cs": tape.cs,
        "s": tape.s,
        "du": xp.empty_like(dgates) if spec.cell == "gru" else None,
        "hs": tape.hs if spec.cell == "gru" else None,
        "dh": dh,
        "dv": xp.zeros((rows, units), dtype) if apart else None,
        "dy": xp.ascontiguousarray(dy),
        "dc": None if dstate.c is None else xp.array(dstate.c, COMPUTE[dtype.name]),
    }
    kernel, operands = _kernel(backend, f"{spec.cell} backward", dtype.name, spec.nonlinearity == "relu", arrays)
    du = dgates if arrays["du"] is None else arrays["du"]  # gradient of v W_h, per step
    dv, w_h, products = arrays["dv"], params["W_h"], plan_of(task).products
    for t in reversed(task.steps(0, steps)):
        kernel(rows, units, t, task.reverse, True, 0.0, 0.0, *operands, size=rows * units)
        dh_or_dv = dh if dv is None else dv
        gemm(backend, du[t], w_h, dh_or_dv, products=products, transb=True, accumulate=dv is None)
    if dv is not None:
        dh += dv if task.recurrent_mask is None else dv * task.recurrent_mask
    dx = sequence_gradients(backend, task, tape, dgates, du, grads, block)
    return dx, State(dh, None if arrays["dc"] is None else arrays["dc"].astype(dtype))


def _options(task: Task) -> dict[str, Array | None]:
    return {
        "lengths": task.lengths,
        "keep_h": task.keep_h,
        "keep_c": task.keep_c,
        "mask": task.recurrent_mask,
    }


def _kernel(
    backend: CupyBackend, step: str, dtype: str, relu: bool, arrays: dict[str, Array | None]
) -> tuple[Any, list[Array]]:
    """The elementwise kernel for the arrays that are there, and those arrays in its order."""
    names = tuple(array for array, value in arrays.items() if value is not None)
    return _compiled(backend, step, dtype, relu, names), [arrays[array] for array in names]


@functools.cache
def _compiled(backend: CupyBackend, step: str, dtype: str, relu: bool, names: tuple[str, ...]) -> Any:
    compute, compute_dtype = TYPES[dtype][1], COMPUTE[dtype]
    pointers = {array: f"&{array}[0]" if array in names else "nullptr" for array in _ALL}
    body = _BODIES[step].format(R=compute, relu=str(relu).lower(), **pointers)
    options = "GlOptions<T> o = {{{lengths}, {keep_h}, {keep_c}, hold_h, hold_c, {mask}}};".format(**pointers)
    parameters = [f"raw {_TYPES.get(array, 'T').format(C=compute_dtype)} {array}" for array in names]
    return backend.elementwise(
        f"gpulstm_{step.replace(' ', '_')}",
        "int64 rows, int64 units, int64 t, bool reverse, bool slots, float64 hold_h, float64 hold_c",
        ", ".join(parameters),
        f"{options} {_PLACE} {body}",
        headers=(SHORT, "cuda/state.cuh") if is_half(dtype) else ("cuda/state.cuh",),
    )


_ALL = (
    *("lengths", "keep_h", "keep_c", "mask", "gates", "u", "hs", "vs", "y"),
    *("cs", "b_hn", "s", "du", "dh", "dv", "dy", "dc"),
)
