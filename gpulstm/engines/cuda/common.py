"""What all forms of the CUDA engine share: the tape, and the products over the whole sequence after the last step."""

from __future__ import annotations

from dataclasses import dataclass

from gpulstm.backend import Array, CupyBackend
from gpulstm.engines.cells import Grads
from gpulstm.engines.spec import Task
from gpulstm.products import gemm

COMPUTE = {"float16": ("float", "float32"), "float32": ("float", "float32"), "float64": ("double", "float64")}


@dataclass
class Tape:
    """What a forward pass of any form keeps; any form's backward pass reads it and leaves it as it is."""

    x: Array
    gates: Array  # (T, B, G*H): activated
    hs: Array  # (T+1, B, H): all hidden states in time order
    vs: Array  # hs, or hs * mask under recurrent dropout
    cs: Array | None  # (T+1, B, H) in the type to compute in
    s: Array | None  # (T, B, H): GRU, u_n + b_hn


def sequence_gradients(backend: CupyBackend, task: Task, tape: Tape, da: Array, products: Array, grads: Grads) -> Array:
    """dx, and the gradients of W_x, W_h and the biases, each one product or sum over all time steps.

    Args:
        backend: of the arrays.
        task: the layer; gradients are added to `grads`.
        tape: of its forward pass.
        da: `(T, B, G*H)`, gradient of the input product.
        products: `(T, B, G*H)`, gradient of the recurrent product.
        grads: added to.
    """
    steps = da.shape[0]
    dx = backend.xp.empty_like(tape.x)
    if not steps:
        return dx
    v = tape.vs[1:] if task.reverse else tape.vs[:steps]
    rows = steps * da.shape[1]
    flat_da, flat_products = da.reshape(rows, -1), products.reshape(rows, -1)
    gemm(backend, tape.x.reshape(rows, -1), flat_da, grads["W_x"], transa=True, accumulate=True)
    gemm(backend, v.reshape(rows, -1), flat_products, grads["W_h"], transa=True, accumulate=True)
    gemm(backend, flat_da, task.params["W_x"], dx.reshape(rows, -1), transb=True)
    if "b" in grads:
        grads["b"] += flat_da.sum(axis=0)
    if "b_hn" in grads:
        grads["b_hn"] += flat_products[:, 2 * task.spec.hidden_size :].sum(axis=0)
    return dx
