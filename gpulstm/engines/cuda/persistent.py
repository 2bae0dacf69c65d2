"""All time steps of a layer in one launch, where its recurrent weights fit into the card's shared memory.

Each block keeps the weights of some hidden units for the whole sequence (`kernels/cuda/persistent.cu`), so a step reads
nothing but h, and a barrier across the grid takes the place of the next launch.  That needs all blocks on the card at
once: one block a multiprocessor at most, launched cooperatively.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, cast

from gpulstm.backend import Array, CupyBackend, backend_of
from gpulstm.engines.cells import Grads
from gpulstm.engines.cuda.common import Tape
from gpulstm.engines.cuda.steps import BackwardPass, ForwardPass, defines
from gpulstm.engines.spec import State, Task
from gpulstm.errors import EngineError
from gpulstm.products import threads, tile

THREADS = 256
ROWS = (4, 32)  # rows of a tile: few for a small batch
UNITS = (4, 8, 16, 32)  # hidden units of a block


@dataclass(frozen=True)
class Layout:
    """How a layer lies on a card.

    Attributes:
        units: hidden units of a block.
        panels: blocks that own all units.
        groups: such sets of blocks, each with rows of its own.
        forward, backward: tiles.
        forward_bytes, backward_bytes: shared memory of a block.
    """

    units: int
    panels: int
    groups: int
    forward: tuple[int, ...]
    backward: tuple[int, ...]
    forward_bytes: int
    backward_bytes: int


def layout(cell: str, dtype: str, batch: int, hidden: int, processors: int, shared: int) -> Layout | str:
    """Where the weights of a layer can stay on a card, or why they cannot.

    Args:
        cell, dtype: of the layer; `batch` and `hidden` are B and H.
        processors: multiprocessors of the card.
        shared: bytes of shared memory that a block may ask for.
    """
    size = {"float16": 2, "float32": 4, "float64": 8}[dtype]
    if dtype == "float64":
        return "the persistent kernel has no float64"
    gates, wide = {"lstm": (4, 4), "gru": (3, 4), "rnn": (1, 1)}[cell]
    rows = ROWS[0] if batch <= ROWS[0] else ROWS[1]
    least = 0
    for units in UNITS:
        columns = max(units * wide, 4)
        forward, backward = shape(rows, columns), shape(rows, units)
        needs = (
            bytes_of(forward, hidden * columns * size),
            bytes_of(backward, gates * hidden * units * size),
        )
        panels = -(-hidden // units)
        if panels <= processors and max(needs) <= shared:
            groups = max(1, min(-(-batch // rows), processors // panels))
            return Layout(units, panels, groups, forward, backward, *needs)
        least = max(needs) if panels <= processors else least
    if not least:
        return f"H={hidden} needs {panels} blocks of {UNITS[-1]} units at once, the card has {processors}"
    return f"the weights of a block need {least} bytes of shared memory, the card has {shared}"


def shape(rows: int, columns: int) -> tuple[int, ...]:
    """The tile of `rows` x `columns` over 256 threads: what they do not cover they share in depth."""
    slices = THREADS // (rows // 4 * (columns // 4))
    return rows, columns, max(64, slices), 4, 1, slices


def bytes_of(shape: tuple[int, ...], resident: int) -> int:
    """Shared memory of a block: tiles or sums (`GlShared` in kernels/cuda/tile.cuh), and the resident weights."""
    rows, columns, depth, _, _, slices = shape
    work = max(2 * depth * (rows + 4) * 4, slices * rows * columns * 4 if slices > 1 else 0)
    return -(-work // 16) * 16 + resident


def forward(task: Task, x: Array, state: State, where: Layout, block: int) -> tuple[Array, State, Tape | None]:
    """All time steps of one layer and direction in one launch; the rest as `reference.forward`."""
    backend = cast(CupyBackend, backend_of(x))
    work = ForwardPass(backend, task, x, state, block)
    macros = (*defines(task, work.dtype), *tile(where.forward, work.dtype))
    _launch(backend, macros, "gpulstm_forward_all", where.forward, where.forward_bytes, where, work)
    return work.results()


def backward(
    task: Task, tape: Tape, dy: Array, dstate: State, grads: Grads, where: Layout, block: int
) -> tuple[Array, State]:
    """The gradient of `forward` in one launch; the rest as `reference.backward`."""
    backend = cast(CupyBackend, backend_of(dy))
    work = BackwardPass(backend, task, tape, dy, dstate, block)
    macros = (*defines(task, work.dtype), *tile(where.backward, work.dtype))
    _launch(backend, macros, "gpulstm_backward_all", where.backward, where.backward_bytes, where, work)
    return work.results(grads)


def _launch(
    backend: CupyBackend,
    macros: tuple[tuple[str, str], ...],
    name: str,
    shape: tuple[int, ...],
    shared: int,
    where: Layout,
    work: ForwardPass | BackwardPass,
) -> None:
    kernel = _compiled(backend, macros, name, threads(shape), shared, where.panels * where.groups)
    numbers = (work.arguments, work.steps, where.panels, where.groups)
    kernel((where.panels * where.groups,), (threads(shape),), numbers, shared_mem=shared)


@functools.cache
def _compiled(
    backend: CupyBackend, macros: tuple[tuple[str, str], ...], name: str, block: int, shared: int, grid: int
) -> Any:
    """The kernel, once it is known that the card holds the whole grid at once."""
    kernel = backend.module("cuda/persistent.cu", macros, cooperative=True).get_function(name)
    # all that a block may have, not what this size needs: the kernel is shared by layers of all sizes
    kernel.max_dynamic_shared_size_bytes = backend.shared_memory
    driver = backend.xp.cuda.driver
    room = driver.occupancyMaxActiveBlocksPerMultiprocessor(kernel.kernel.ptr, block, shared) * backend.processors
    if room < grid:  # CuPy would launch a smaller grid and only warn
        raise EngineError(
            f"the kernel {name} needs {grid} blocks at once and {backend.device_name} holds {room}; "
            "set GPULSTM_CUDA_FORM=fused"
        )
    return kernel
