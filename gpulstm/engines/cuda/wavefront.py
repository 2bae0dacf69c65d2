"""The layers of a stack side by side: while a layer computes some steps, the one below it is ahead by as many.

Step t of a layer needs its own step t - 1 and step t of the layer below.  So within a graph each layer has a branch of
its own: time is cut into chunks, and a layer waits, by an event, for the chunk of the layer below, takes the input
product of that chunk and launches its steps.  Backward it is the other way round, and the layer above hands down dx.
With L layers and K chunks the longest way through the graph is `K + L - 1` chunks in place of `K L`.  That helps where
one layer's step does not fill the card.

The bits are those of one layer after the other: a product over time has the tile of its whole block (`Task.blocks`)
whatever part of it is taken, and products that sum over time are taken after the branches have come together.

All buffers belong to the stream that the branches fork from and come back to, and live until they have come back.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, cast

from gpulstm.arrays.backend import Array
from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.devices import backend_of
from gpulstm.arrays.gemm import Tile, affine, blocks, choose_tile, gemm, is_tensor, threads
from gpulstm.engines.cells import Grads
from gpulstm.engines.cuda import cost, fused, planner, tuning
from gpulstm.engines.cuda.passes import BackwardPass, ForwardPass, columns
from gpulstm.engines.cuda.planner import WAVEFRONT
from gpulstm.engines.cuda.tape import Tape
from gpulstm.engines.spec import Call, State, Task
from gpulstm.errors import ConfigError

COUNTS = (2, 4, 8, 16, 32)  # chunks that are considered

Chunk = tuple[int, int, int]  # first step, step after the last, rows of the product that it is a part of


def chunk_steps(call: Call) -> int | str:
    """Steps of a chunk for a call that is recorded, or why its layers are computed one after the other.

    GPULSTM_CUDA_WAVEFRONT=0 or 1 overrides what the cost model finds.
    """
    asked = os.environ.get(WAVEFRONT)
    if asked not in (None, "", "0", "1"):
        raise ConfigError(f"{WAVEFRONT} is {asked!r}, expected 0 or 1")
    spec, plan = call.spec, planner.plan(call)
    if asked == "0":
        return f"{WAVEFRONT} is 0"
    if spec.num_layers < 2:
        return "there is one layer"
    if spec.bidirectional:
        return "a layer reads both directions of the one below to their ends"
    if plan.form != "fused":
        return f"in the form {plan.form!r} the steps of a layer stay together"
    if call.steps < 2:
        return "there is one step"
    found = seconds(call, plan, planner.card_of(call.device))
    count = min(found, key=lambda count: found[count] if count > 1 else float("inf"))
    tuned = plan.tuned
    if not asked and isinstance(tuned, tuning.Tuned) and not tuned.wavefront:
        return f"the tuning file {tuned.path} says that it is slower"
    if found[count] < found[1] or asked == "1" or isinstance(tuned, tuning.Tuned):
        return -(-call.steps // count)
    return f"it is predicted to take {1e3 * found[count]:.3g} ms, one layer after the other {1e3 * found[1]:.3g} ms"


def seconds(call: Call, plan: planner.CudaPlan, card: cost.Card) -> dict[int, float]:
    """Predicted time of the recurrence with the products between the layers, by the number of chunks; 1 for none."""
    found = {}
    for count in (1, *(each for each in COUNTS if each <= call.steps)):
        steps = -(-call.steps // count)
        found[count] = 0.0
        for backward in (False, True)[: 1 + call.training]:
            tile = plan.backward_tile if backward else plan.forward_tile
            inner = planner.layers(call.spec, steps, call.batch)[-1]
            width = inner.gates * inner.hidden
            rows, across = steps * call.batch, inner.inputs if backward else width
            shape = choose_tile(call.steps * call.batch, across, card.processors, is_tensor(tile))
            product = cost.product(card, shape, rows, across, width if backward else inner.inputs, inner.dtype)
            wide = inner.hidden if backward or inner.gates == 1 else 4 * inner.hidden
            together = min(count, call.spec.num_layers)
            product *= _slower(card, blocks(shape, rows, across), together)
            slower = _slower(card, blocks(tile, call.batch, wide), together)
            step = cost.step_fused(card, inner, tile, backward, recorded=True) * slower
            stretches = count + call.spec.num_layers - 1 if count > 1 else call.spec.num_layers
            found[count] += stretches * (steps * step + cost.GAP + product)
    return found


def _slower(card: cost.Card, grid: tuple[int, int], together: int) -> float:
    """By what a kernel takes longer where so many run side by side."""
    alone = grid[0] * grid[1]
    return -(-alone * together // card.processors) / -(-alone // card.processors)


def chunks(steps: int, batch: int, block: int, length: int) -> list[Chunk]:
    """The chunks of all steps, in time order; none reaches over the end of a block of products."""
    found = []
    for start in range(0, steps, block):
        stop = min(start + block, steps)
        rows = (stop - start) * batch
        found += [(first, min(first + length, stop), rows) for first in range(start, stop, length)]
    return found


def forward(
    tasks: Sequence[Task],
    masks: Sequence[Array | None],
    x: Array,
    states: Sequence[State],
    shape: Tile,
    block: int,
    length: int,
) -> tuple[Array, list[State], list[Tape | None]]:
    """All steps of several layers.

    Args:
        tasks: the layers, from below.
        masks: on each layer's input, or None; the first is None, as x has been multiplied.
        x, states, shape, block: as in `fused.forward`, a state for each layer.
        length: steps of a chunk.
    """
    backend = cast(CupyBackend, backend_of(x))
    works: list[ForwardPass] = []
    for task, mask, state in zip(tasks, masks, states, strict=True):
        if works:
            x = works[-1].outputs if mask is None else backend.xp.empty_like(works[-1].outputs)
        works.append(ForwardPass(backend, task, x, state, block, product=False))
    parts = chunks(x.shape[0], x.shape[1], block, length)
    kernel = fused.compiled(backend, tasks[0], works[0].dtype, shape, "gpulstm_forward")
    grid, size = blocks(shape, works[0].rows, columns(tasks[0])), (threads(shape),)

    def work(layer: int, number: int) -> None:
        (start, stop, rows), this, mask = parts[number], works[layer], masks[layer]
        if mask is not None:
            backend.xp.multiply(works[layer - 1].outputs[start:stop], mask[start:stop], out=this.x[start:stop])
        params = tasks[layer].params
        affine(backend, this.x[start:stop], params["W_x"], params.get("b"), this.gates[start:stop], rows)
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
    shape: Tile,
    block: int,
    length: int,
) -> tuple[Array, list[State]]:
    """The gradient of `forward`; adds to `grads`, those of each layer."""
    backend = cast(CupyBackend, backend_of(dy))
    dxs = [backend.xp.empty_like(tape.x) for tape in tapes]
    works = [
        BackwardPass(backend, task, tape, given, dstate, block)
        for task, tape, given, dstate in zip(tasks, tapes, (*dxs[1:], dy), dstates, strict=True)
    ]
    steps, rows_a_step = dy.shape[:2]
    parts = chunks(steps, rows_a_step, block, length)[::-1]
    kernel = fused.compiled(backend, tasks[0], works[0].dtype, shape, "gpulstm_backward")
    grid, size, top = blocks(shape, works[0].rows, works[0].units), (threads(shape),), len(tasks) - 1

    def work(place: int, number: int) -> None:
        (start, stop, rows), layer = parts[number], top - place
        this, mask = works[layer], masks[layer]
        for t in range(stop - 1, start - 1, -1):
            kernel(grid, size, (this.arguments, t, -1 if t == steps - 1 else t + 1))
        if not start:
            kernel(grid, size, (this.arguments, -1, 0))
        da, dx = this.dgates[start:stop], dxs[layer][start:stop]
        da, flat = (part.reshape((stop - start) * rows_a_step, -1) for part in (da, dx))
        gemm(backend, da, tasks[layer].params["W_x"], flat, transb=True, rows_of=rows)
        if mask is not None:
            backend.xp.multiply(dx, mask[start:stop], out=dx)

    _run(backend, len(tasks), len(parts), work)
    results = [work.results(given, dx) for work, given, dx in zip(works, grads, dxs, strict=True)]
    return dxs[0], [state for _, state in results]


def _run(backend: CupyBackend, layers: int, count: int, work: Callable[[int, int], None]) -> None:
    """`work(layer, chunk)` for all, a layer on a stream of its own, behind its last chunk and that of the one before.

    The last layer stays on the current stream: behind its last chunk all others have come back.
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
