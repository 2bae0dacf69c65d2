"""One launch a step: a tile of the recurrent product with the gates as its epilogue (`kernels/cuda/fused.cu`).

The recurrent product of a step never reaches memory: the four gates of a hidden unit are sums in one thread's
registers, and the nonlinearities, the state update and what lengths, zoneout and recurrent dropout do follow there.
Backward, the product of the step before is the part of dh that the gates' gradients need, so that is one launch a step
too, and one more for the gradient of the initial state.  Results repeat bit for bit.
"""

from __future__ import annotations

from typing import Any, cast

from gpulstm.arrays.backend import Array
from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.devices import backend_of
from gpulstm.arrays.gemm import Tile, blocks, threads, tile
from gpulstm.engines.cuda.passes import BackwardPass, ForwardPass, columns, defines
from gpulstm.engines.cuda.tape import Tape
from gpulstm.engines.spec import Grads, State, Task

# what leaves the other pass of the file out, by the name of the kernel
ONLY = {"gpulstm_forward": ("GL_ONLY_FORWARD", "1"), "gpulstm_backward": ("GL_ONLY_BACKWARD", "1")}


def forward(task: Task, x: Array, state: State, shape: Tile, block: int) -> tuple[Array, State, Tape | None]:
    """All time steps of one layer and direction, in tiles of `shape`; see `Engine.forward`."""
    backend = cast(CupyBackend, backend_of(x))
    work = ForwardPass(backend, task, x, state, block)
    kernel = compiled(backend, task, work.dtype, shape, "gpulstm_forward")
    grid, size = blocks(shape, work.rows, columns(task)), (threads(shape),)
    for t in work.order:
        kernel(grid, size, (work.arguments, t))
    return work.results()


def backward(
    task: Task, tape: Tape, dy: Array, dstate: State, grads: Grads, shape: Tile, block: int
) -> tuple[Array, State]:
    """The gradient of `forward`, in tiles of `shape`; see `Engine.backward`."""
    backend = cast(CupyBackend, backend_of(dy))
    work = BackwardPass(backend, task, tape, dy, dstate, block)
    kernel = compiled(backend, task, work.dtype, shape, "gpulstm_backward")
    grid, size = blocks(shape, work.rows, work.units), (threads(shape),)
    after = -1
    for t in (*work.order, -1):
        kernel(grid, size, (work.arguments, t, after))
        after = t
    return work.results(grads)


def compiled(backend: CupyBackend, task: Task, dtype: str, shape: Tile, name: str) -> Any:
    """The kernel `name` of `kernels/cuda/fused.cu` for a cell, a dtype and a tile."""
    macros = (*defines(task, dtype), *tile(shape, dtype))
    if task.save and name == "gpulstm_forward":  # the other pass will want it soon
        backend.prepare("cuda/fused.cu", (*macros, ONLY["gpulstm_backward"]), "gpulstm_backward")
    return backend.kernel("cuda/fused.cu", (*macros, ONLY[name]), name)
