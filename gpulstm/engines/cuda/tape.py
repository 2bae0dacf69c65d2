"""What all forms of the CUDA engine share: the tape, and the products over the whole sequence after the last step."""

from __future__ import annotations

from dataclasses import dataclass

from gpulstm.arrays.backend import Array
from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.gemm import affine, gemm
from gpulstm.engines.spec import Grads, Task, plan_of

COMPUTE = {
    "float16": "float32",
    "bfloat16": "float32",
    "float32": "float32",
    "float64": "float64",
}  # dtype of c and of sums, by that of x


@dataclass
class Tape:
    """What a forward pass of any form keeps; any form's backward pass reads it and leaves it as it is."""

    x: Array
    gates: Array  # (T, B, G*H): activated
    hs: Array  # (T+1, B, H): all hidden states in time order
    vs: Array  # hs, or hs * mask under recurrent dropout
    cs: Array | None  # (T+1, B, H) in the type to compute in
    s: Array | None  # (T, B, H): GRU, u_n + b_hn


def input_product(backend: CupyBackend, task: Task, x: Array, out: Array, block: int) -> None:
    """out = x W_x + b `(T, B, G*H)`, in blocks of `block` steps."""
    for start, stop in task.blocks(x.shape[0], block):
        affine(
            backend, x[start:stop], task.params["W_x"], task.params.get("b"), out[start:stop], plan_of(task).products
        )


def sequence_gradients(
    backend: CupyBackend,
    task: Task,
    tape: Tape,
    da: Array,
    drecurrent: Array,
    grads: Grads,
    block: int,
    dx: Array | None = None,
) -> Array:
    """dx, and the gradients of W_x, W_h and the biases, a product or sum each per block of time steps.

    Args:
        backend: of the arrays.
        task: the layer; gradients are added to `grads`.
        tape: of its forward pass.
        da: `(T, B, G*H)`, gradient of the input product.
        drecurrent: `(T, B, G*H)`, gradient of the recurrent product.
        grads: added to.
        block: time steps of a product, see `Task.blocks`.
        dx: None computes it; given, it has been computed already.
    """
    steps, batch, _ = da.shape
    has_dx, products = dx is not None, plan_of(task).products
    dx = backend.xp.empty_like(tape.x) if dx is None else dx
    v = tape.vs[1:] if task.reverse else tape.vs[:steps]
    for start, stop in reversed(task.blocks(steps, block)):
        x_rows, v_rows, da_rows, drecurrent_rows, dx_rows = (
            array[start:stop].reshape((stop - start) * batch, -1) for array in (tape.x, v, da, drecurrent, dx)
        )
        gemm(backend, x_rows, da_rows, grads["W_x"], products=products, transa=True, accumulate=True)
        gemm(backend, v_rows, drecurrent_rows, grads["W_h"], products=products, transa=True, accumulate=True)
        if not has_dx:
            gemm(backend, da_rows, task.params["W_x"], dx_rows, products=products, transb=True)
        if "b" in grads:
            grads["b"] += da_rows.sum(axis=0)
        if "b_hn" in grads:
            grads["b_hn"] += drecurrent_rows[:, 2 * task.spec.hidden_size :].sum(axis=0)
    return dx
