"""All time steps of a layer in one launch, where its recurrent weights fit into the card's multiprocessors.

Each block keeps the weights of some hidden units for the whole sequence, in registers and in shared memory
(`kernels/cuda/persistent.cu`), so a step reads nothing but h, and a barrier across the grid takes the place of the next
launch.  That needs all blocks on the card at once: one block a multiprocessor at most, launched cooperatively.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, cast

from gpulstm.arrays.backend import Array
from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.devices import backend_of
from gpulstm.arrays.gemm import SIZE
from gpulstm.arrays.variables import variables
from gpulstm.engines.cuda.passes import BackwardPass, ForwardPass, ceil_divide, defines, round_up
from gpulstm.engines.cuda.tape import Tape
from gpulstm.engines.spec import Grads, State, Task
from gpulstm.errors import ConfigError, EngineError

FORWARD, BACKWARD = "gpulstm_forward_all", "gpulstm_backward_all"
# what leaves the other pass of the file out, by the name of the kernel
ONLY = {FORWARD: ("GL_ONLY_FORWARD", "1"), BACKWARD: ("GL_ONLY_BACKWARD", "1")}
AT_ONCE = 1 << 14  # steps of a launch on a card that draws a screen too: the driver ends what runs for seconds
BARRIER = "GPULSTM_CUDA_BARRIER"
THREADS = 256  # of a block, at most
FEW = 8192  # weights of a block up to which half as many threads do: what each does besides would outweigh its products
WEIGHTS = 128  # registers of a thread for weights, at most
WORKING = 127  # registers of a thread that are not for weights: sums, addresses, what is being loaded
MORE_ROWS = 16  # the same for each further sixteen rows on tensor cores, where a warp has the whole depth
COPIED = 16384  # bytes of h that are copied to shared memory at once, where two steps of the depth take no more
ROWS = {False: (4, 8), True: (16, 32)}  # of a tile, by whether it is for tensor cores: few for a small batch
UNITS = {False: (8, 12, 16, 32), True: (16, 32)}  # hidden units of a block


@dataclass(frozen=True)
class Shape:
    """The product of a block: what `kernels/cuda/persistent.cu` is compiled for, and what follows from that.

    Attributes:
        tensor: whether it is computed on tensor cores (`resident_tensor.cuh`), else `resident.cuh`.
        size: bytes of a number.
        rows, columns: of the tile.
        across: owners of weights side by side: threads of four columns, on tensor cores warps.
        slices: owners that share the depth.
        turns: steps of the depth in a stretch of h.
        held: steps whose weights are in registers.
        steps: in all.
    """

    tensor: bool
    size: int
    rows: int
    columns: int
    across: int
    slices: int
    turns: int
    held: int
    steps: int

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.across * self.slices * (32 if self.tensor else 1)

    @property
    def depth(self) -> int:
        """Rows of the weights that a step takes."""
        return self.slices * _depth(self.tensor, self.size, self.slices)

    @property
    def work(self) -> int:
        """Bytes of shared memory in addition to the weights: two stretches of h or the sums, then sums of sums."""
        pad = 16 // self.size
        stretches = 2 * self.rows * (self.depth * self.turns + pad) * self.size
        if self.tensor:
            apart = self.slices > 1  # else a warp has the whole depth, and no parts are added
            sums = self.slices * self.rows * (self.columns + 8) * 4 * apart
            loading = self.columns * (self.depth + pad) * self.size
            return round_up(round_up(max(stretches, sums, loading), 16) + self.threads * 16 * apart, 32)
        sums = self.rows * (self.slices + 1) * self.columns * 4
        return round_up(max(stretches, sums), 16) + round_up(self.threads * 16, 32)

    @property
    def bytes(self) -> int:
        """Shared memory of a block."""
        spare = (self.steps - self.held) * self.depth
        if self.tensor and spare:
            spare += 16 // self.size
        return self.work + spare * self.columns * self.size

    @property
    def share(self) -> float:
        """The part of the weights that is in registers."""
        return self.held / self.steps

    @property
    def macros(self) -> tuple[tuple[str, str], ...]:
        """What the kernel is compiled with in addition to `passes.defines`."""
        numbers = (
            self.rows,
            self.columns,
            *((self.across,) if self.tensor else ()),
            self.slices,
            self.turns,
            self.held,
            self.steps,
        )
        macros = (("GL_SHAPE", ",".join(map(str, numbers))), ("GL_WORK", str(self.work)))
        return (*macros, ("GL_TENSOR", "1")) if self.tensor else macros


@dataclass(frozen=True)
class Layout:
    """How a layer lies on a card.

    Attributes:
        units: hidden units of a block.
        panels: blocks that own all units.
        groups: such sets of blocks, each with rows of its own.
        forward, backward: the products of a block.
    """

    units: int
    panels: int
    groups: int
    forward: Shape
    backward: Shape

    def __str__(self) -> str:
        held = min(self.forward.share, self.backward.share)
        where = "in registers" if held == 1 else f"to {held:.0%} in registers, the rest in shared memory"
        tensor = " on tensor cores" if self.forward.tensor else ""
        return f"{self.panels * self.groups} blocks of {self.units} units{tensor}, weights {where}"


def layout(
    cell: str, dtype: str, batch: int, hidden: int, processors: int, shared: int, registers: int, tensor: bool
) -> Layout | str:
    """Where the weights of a layer can stay on a card, or why they cannot.

    Args:
        cell, dtype: of the layer; `batch` and `hidden` are B and H.
        processors: multiprocessors of the card.
        shared: bytes of shared memory that a block may ask for.
        registers: that a block may have.
        tensor: whether the products are for tensor cores.
    """
    if dtype == "float64":
        return "the persistent kernel has no float64"
    gates, wide = {"lstm": (4, 4), "gru": (3, 4), "rnn": (1, 1)}[cell]
    least: tuple[int, Shape] | None = None
    kinds = (True, False) if tensor and dtype == "float32" else (tensor,)  # float32 may, but need not, be TF32
    for kind in kinds:
        few, many = ROWS[kind]
        for units in UNITS[kind]:
            panels = ceil_divide(hidden, units)
            if panels > processors:
                continue
            fit = processors // panels
            rows = few if ceil_divide(batch, few) <= fit else many
            forward = shape(rows, units * wide, hidden, SIZE[dtype], registers, kind)
            backward = shape(rows, units, gates * hidden, SIZE[dtype], registers, kind)
            needs = forward.bytes, backward.bytes
            if max(needs) <= shared:
                groups = max(1, min(ceil_divide(batch, rows), fit))
                return Layout(units, panels, groups, forward, backward)
            if least is None or max(needs) < least[0]:
                least = max(needs), forward
    if least is None:
        most = UNITS[tensor][-1]
        return f"H={hidden} needs {ceil_divide(hidden, most)} blocks of {most} units at once, the card has {processors}"
    first = least[1]
    held_too = f" besides {first.held * first.depth * first.columns * first.size} of registers" if first.held else ""
    return f"the weights of a block need {least[0]} bytes of shared memory{held_too}, the card has {shared}"


def shape(rows: int, columns: int, inner: int, size: int, registers: int, tensor: bool) -> Shape:
    """The product of `rows` x `columns` on up to 256 threads: what they do not cover they share in depth.

    Args:
        rows, columns: of the tile.
        inner: rows of the weights.
        size: bytes of a number.
        registers: that a block may have; a thread keeps weights in those that it does not need for its work.
        tensor: for tensor cores; `columns` is a multiple of 16 then.
    """
    if tensor:  # the gates of a forward step: a warp has the whole depth, so that their sums stay where they are
        tiles, warps = columns // 8, THREADS // 32
        across = warps if tiles >= warps else max(1, tiles // 4)
        slices = warps // across
        of_step = 2 * (tiles // across) * _depth(True, size, slices) * size // 32
    else:
        across, of_step = columns // 4, 16
        threads = THREADS if columns * inner > FEW else THREADS // 2
        slices = threads // across // 2 * 2
    depth = slices * _depth(tensor, size, slices)
    steps = ceil_divide(inner, depth)
    working = WORKING + (MORE_ROWS * (rows // 16 - 1) if tensor and slices == 1 else 0)
    held, turns = min(WEIGHTS, max(0, registers // THREADS - working)) // of_step, 1
    # two at least: each stretch held is a copy of the loop that fetches h
    while (turns == 1 or 2 * turns * depth * rows * size <= COPIED) and 2 * turns <= min(held or 8, steps):
        turns *= 2
    held = steps if held >= steps else held // turns * turns
    return Shape(tensor, size, rows, columns, across, slices, turns, held, steps)


def _depth(tensor: bool, size: int, slices: int) -> int:
    """Of what an owner takes in a step: four fragments where there are few slices, of 32 bytes each."""
    return 32 // size * max(1, 4 // slices) if tensor else 4


def forward(task: Task, x: Array, state: State, where: Layout, block: int) -> tuple[Array, State, Tape | None]:
    """All time steps of one layer and direction in one launch; the rest see `Engine.forward`."""
    backend = cast(CupyBackend, backend_of(x))
    work = ForwardPass(backend, task, x, state, block)
    _launch(backend, FORWARD, where.forward, where, work)
    return work.results()


def backward(
    task: Task, tape: Tape, dy: Array, dstate: State, grads: Grads, where: Layout, block: int
) -> tuple[Array, State]:
    """The gradient of `forward` in one launch; the rest see `Engine.backward`."""
    backend = cast(CupyBackend, backend_of(dy))
    work = BackwardPass(backend, task, tape, dy, dstate, block)
    _launch(backend, BACKWARD, where.backward, where, work)
    return work.results(grads)


def counts_arrivals() -> bool:
    """Whether a block waits between steps for the blocks that share its rows, not for the whole grid.

    GPULSTM_CUDA_BARRIER=counters asks for that.  No GPU has judged it yet, so it is not chosen otherwise.

    Raises:
        ConfigError: the variable is neither "grid" nor "counters".
    """
    asked = variables().get(BARRIER) or "grid"
    if asked not in ("grid", "counters"):
        raise ConfigError(f"{BARRIER} is {asked!r}, expected grid or counters")
    return asked == "counters"


def _launch(backend: CupyBackend, name: str, shape: Shape, where: Layout, work: ForwardPass | BackwardPass) -> None:
    counters = counts_arrivals()
    counting = (("GL_COUNTERS", "1"),) if counters else ()
    macros = (*defines(work.task, work.dtype), *shape.macros, ONLY[name], *counting)
    if work.task.save and name == FORWARD:  # the other pass will want it soon
        other = (*defines(work.task, work.dtype), *where.backward.macros, ONLY[BACKWARD], *counting)
        backend.prepare("cuda/persistent.cu", other, BACKWARD, cooperative=True)
    kernel = _compiled(backend, macros, name, shape.threads, shape.bytes, where.panels * where.groups)
    total = work.steps + (name == BACKWARD)  # one more for the gradient of the initial state
    at_once = AT_ONCE if backend.watched else total
    for first in range(0, total, at_once):
        last = min(first + at_once, total)
        arrived = (backend.zeros((where.groups,), "uint32"),) if counters else ()
        arguments = (work.arguments, work.steps, where.panels, where.groups, first, last, *arrived)
        kernel((where.panels * where.groups,), (shape.threads,), arguments, shared_mem=shape.bytes)


@functools.cache
def _compiled(
    backend: CupyBackend, macros: tuple[tuple[str, str], ...], name: str, block: int, shared: int, grid: int
) -> Any:
    """The kernel, once it is known that the card holds the whole grid at once."""
    kernel = backend.kernel("cuda/persistent.cu", macros, name, cooperative=True)
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
