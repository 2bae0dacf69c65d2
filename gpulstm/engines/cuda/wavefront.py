"""The layers of a stack side by side: while a layer computes some steps, the one below it is ahead by as many.

Step t of a layer needs its own step t - 1 and step t of the layer below.  So within a graph each layer has a branch of
its own: time is cut into slices, and a layer waits, by an event, for the slice of the layer below, takes the input
product of that slice and launches its steps.  Backward it is the other way round, and the layer above hands down dx.
With L layers and K slices the longest way through the graph is `K + L - 1` slices in place of `K L`.  That helps where
one layer's step does not fill the card.

The bits are those of one layer after the other: a product over time has the tile of its whole block (`Task.blocks`)
whatever part of it is taken, and products that sum over time are taken after the branches have come together.

All buffers belong to the stream that the branches fork from and come back to, and live until they have come back.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

from gpulstm.arrays.backend import Array
from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.devices import backend_of
from gpulstm.arrays.gemm import affine, blocks, sliced_gemm, threads
from gpulstm.engines.cuda import fused
from gpulstm.engines.cuda.passes import BackwardPass, ForwardPass, columns
from gpulstm.engines.cuda.tape import Tape
from gpulstm.engines.spec import Grads, State, Task, plan_of

Slice = tuple[int, int, int]  # first step, step after the last, rows of the product that it is a part of


def slices(steps: int, batch: int, block: int, length: int) -> list[Slice]:
    """The slices of all steps, in time order; none reaches over the end of a block of products."""
    parts: list[Slice] = []
    for start in range(0, steps, block):
        stop = min(start + block, steps)
        rows = (stop - start) * batch
        parts += [(first, min(first + length, stop), rows) for first in range(start, stop, length)]
    return parts


def forward(
    tasks: Sequence[Task],
    masks: Sequence[Array | None],
    x: Array,
    states: Sequence[State],
) -> tuple[Array, list[State], list[Tape | None]]:
    """All steps of several layers.

    Args:
        tasks: the layers, from below.
        masks: on each layer's input, or None; the first is None, as x has been multiplied.
        x, states: as in `Engine.forward`, a state for each layer.
    """
    plan, block = plan_of(tasks[0]), plan_of(tasks[0]).engine.block_steps(x.shape[1])
    shape = plan.tiles[0]
    backend = cast(CupyBackend, backend_of(x))
    works: list[ForwardPass] = []
    for task, mask, state in zip(tasks, masks, states, strict=True):
        if works:
            x = works[-1].outputs if mask is None else backend.xp.empty_like(works[-1].outputs)
        works.append(ForwardPass(backend, task, x, state, block, product=False))
    parts = slices(x.shape[0], x.shape[1], block, plan.wavefront)
    kernel = fused.compiled(backend, tasks[0], works[0].dtype, shape, "gpulstm_forward")
    grid, size = blocks(shape, works[0].rows, columns(tasks[0])), (threads(shape),)

    def work(layer: int, number: int) -> None:
        (start, stop, rows), this, mask = parts[number], works[layer], masks[layer]
        if mask is not None:
            backend.xp.multiply(works[layer - 1].outputs[start:stop], mask[start:stop], out=this.x[start:stop])
        params = tasks[layer].params
        affine(backend, this.x[start:stop], params["W_x"], params.get("b"), this.gates[start:stop], "own", rows)
        for t in range(start, stop):
            kernel(grid, size, (this.arguments, t))

    _run(backend, len(tasks), len(parts), work)
    results = [work.results() for work in works]
    return results[-1][0], [state for _, state, _ in results], [tape for _, _, tape in results]


def backward(
    tasks: Sequence[Task],
    masks: Sequence[Array | None],
    tapes: Sequence[Tape],
    dy: Array,
    dstates: Sequence[State],
    grads: Sequence[Grads],
) -> tuple[Array, list[State]]:
    """The gradient of `forward`; adds to `grads`, those of each layer."""
    plan, block = plan_of(tasks[0]), plan_of(tasks[0]).engine.block_steps(dy.shape[1])
    shape = plan.tiles[1]
    backend = cast(CupyBackend, backend_of(dy))
    dxs = [backend.xp.empty_like(tape.x) for tape in tapes]
    works = [
        BackwardPass(backend, task, tape, dtop, dstate, block)
        for task, tape, dtop, dstate in zip(tasks, tapes, (*dxs[1:], dy), dstates, strict=True)
    ]
    steps, rows_a_step = dy.shape[:2]
    parts = slices(steps, rows_a_step, block, plan.wavefront)[::-1]
    kernel = fused.compiled(backend, tasks[0], works[0].dtype, shape, "gpulstm_backward")
    grid, size, top = blocks(shape, works[0].rows, works[0].units), (threads(shape),), len(tasks) - 1

    def work(index: int, number: int) -> None:
        (start, stop, rows), layer = parts[number], top - index
        this, mask = works[layer], masks[layer]
        for t in range(stop - 1, start - 1, -1):
            kernel(grid, size, (this.arguments, t, -1 if t == steps - 1 else t + 1))
        if not start:
            kernel(grid, size, (this.arguments, -1, 0))
        da, dx = this.dgates[start:stop], dxs[layer][start:stop]
        da, flat = (part.reshape((stop - start) * rows_a_step, -1) for part in (da, dx))
        sliced_gemm(backend, da, tasks[layer].params["W_x"], flat, rows)
        if mask is not None:
            backend.xp.multiply(dx, mask[start:stop], out=dx)

    _run(backend, len(tasks), len(parts), work)
    results = [work.results(layer_grads, dx) for work, layer_grads, dx in zip(works, grads, dxs, strict=True)]
    return dxs[0], [state for _, state in results]


def _run(backend: CupyBackend, layers: int, count: int, work: Callable[[int, int], None]) -> None:
    """`work(layer, slice)` for all, a layer on a stream of its own, behind its last slice and that of the one before.

    The last layer stays on the current stream: behind its last slice all others have come back.
    """
    main = backend.xp.cuda.get_current_stream()
    streams = [*(_stream(backend, layer) for layer in range(layers - 1)), main]
    fork = _event(backend, -1)
    fork.record(main)
    for stream in streams[:-1]:
        stream.wait_event(fork)
    for diagonal in range(count + layers - 1):
        for layer in range(layers):
            number = diagonal - layer
            if not 0 <= number < count:
                continue
            if layer:
                streams[layer].wait_event(_event(backend, (layer - 1) * count + number))
            with streams[layer]:
                work(layer, number)
            if layer < layers - 1:
                _event(backend, layer * count + number).record(streams[layer])


@functools.cache
def _stream(backend: CupyBackend, index: int) -> Any:
    """A stream to fork to; kept, as one that is being recorded must not be destroyed."""
    with backend.activate():
        return backend.xp.cuda.Stream(non_blocking=True)


@functools.cache
def _event(backend: CupyBackend, index: int) -> Any:
    """An event for one place of the pattern, kept as the streams are."""
    with backend.activate():
        return backend.xp.cuda.Event(disable_timing=True)
