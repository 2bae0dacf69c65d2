"""A chain: layers of one time direction that run one after another, over all of time or segment by segment.

A stack of one direction is one chain.  In a bidirectional stack each layer and direction is a chain of its own, because
a layer reads both directions of the one below.  A chain over one segment keeps what backpropagation needs; over several
it keeps only the states at their borders, and computes each segment again when its gradient is due (Chen et al. 2016,
arXiv:1604.06174, "Training deep nets with sublinear memory cost").  Both give the same bits: masks are counter-based,
segments begin at multiples of the engine's block of steps, and gradients are added up block by block in one order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from gpulstm.arrays import random
from gpulstm.arrays.backend import Array, Backend
from gpulstm.arrays.random import MaskKey, Purpose
from gpulstm.engines.spec import StackSpec, State, Task

Segment = tuple[int, int]  # first step, step after the last


class LayerView(dict[str, Any]):
    """The arrays of one layer and direction, by name without suffix; `view[name] += value` writes through."""

    def __init__(self, params: Mapping[str, Array], suffix: str) -> None:
        super().__init__({name[: -len(suffix)]: array for name, array in params.items() if name.endswith(suffix)})


@dataclass
class Pass:
    """One call of a stack, as its chains see it.

    Args:
        spec, backend, engine: what is computed, where, by whom.
        params: all parameters of the stack.
        seed, call: key of the dropout masks; `call` as in `MaskKey`.
        steps: T.
        training: whether there are any masks.
        lengths: `(B,)` int64 on the device, or None.
        chunk: steps of a chunk where the layers of a chain run side by side (engines/cuda/wavefront.py), else 0.
    """

    spec: StackSpec
    backend: Backend
    engine: ModuleType
    params: Mapping[str, Array]
    seed: int
    call: int | Array
    steps: int
    training: bool
    lengths: Array | None
    chunk: int = 0

    def task(self, layer: int, direction: int, segment: Segment, batch: int, save: bool) -> Task:
        """The engine's task for one layer, direction and segment."""
        spec, (start, stop) = self.spec, segment
        index = layer * spec.directions + direction
        task = Task(spec, layer, direction == 1, LayerView(self.params, spec.suffixes[index]))
        task.training, task.save = self.training, save
        if self.lengths is not None:
            task.lengths, task.valid = self.lengths - start, self.valid(segment)
        if not self.training:
            return task
        steps, units = stop - start, (batch, spec.state_size)
        if spec.recurrent_dropout:
            key = MaskKey(self.seed, self.call, index, Purpose.RECURRENT)
            mask = random.dropout_mask(self.backend, spec.recurrent_dropout, (1, *units), spec.dtype, key)
            task.recurrent_mask = mask[0]
        if spec.zoneout[0]:
            key = MaskKey(self.seed, self.call, index, Purpose.ZONEOUT_H)
            task.keep_h = random.keep_mask(self.backend, spec.zoneout[0], (steps, *units), key, start)
        if spec.zoneout[1]:
            key = MaskKey(self.seed, self.call, index, Purpose.ZONEOUT_C)
            task.keep_c = random.keep_mask(self.backend, spec.zoneout[1], (steps, batch, spec.hidden_size), key, start)
        return task

    def valid(self, segment: Segment) -> Array:
        """`(steps, B, 1)` bool: which steps of a segment lie within their rows."""
        steps = self.backend.xp.arange(*segment)
        return (steps[:, None] < self.lengths[None, :])[:, :, None]  # type: ignore[index]

    def between(self, layer: int, shape: tuple[int, ...], start: int) -> Array | None:
        """The dropout mask on the input of a layer, of that shape; None for none."""
        if not layer or not self.training or not self.spec.dropout:
            return None
        key = MaskKey(self.seed, self.call, layer * self.spec.directions, Purpose.BETWEEN_LAYERS)
        return random.dropout_mask(self.backend, self.spec.dropout, shape, self.spec.dtype, key, start)


@dataclass
class _Saved:
    """What one segment keeps for its gradient: each layer's mask, task and the engine's tape, from first to last."""

    masks: list[Array | None]
    tasks: list[Task]
    tapes: list[Any]


@dataclass
class ChainTape:
    """What a chain keeps: its input, the states where segments begin, and, with one segment, all it saved."""

    x: Array
    segments: list[Segment]  # in the order in which the chain ran through them
    starts: list[list[State]]
    saved: _Saved | None
    last: bool


@dataclass(frozen=True)
class Chain:
    """Layers `first` to `stop - 1` in one direction."""

    first: int
    stop: int
    direction: int

    def indices(self, spec: StackSpec) -> list[int]:
        """Where the chain's states lie on the state's first axis."""
        return [layer * spec.directions + self.direction for layer in range(self.first, self.stop)]

    def forward(
        self, run: Pass, x: Array, states: list[State], segments: list[Segment], *, last: bool, tape: bool
    ) -> tuple[Array, list[State], ChainTape | None]:
        """Run over all segments.

        Args:
            run: the call.
            x: `(T, B, I)`, not to be changed before `backward`.
            states: initial state of each layer.
            segments: in time order; together they cover all steps.
            last: give `(B, P)`, each row's last valid step, instead of `(T, B, P)`.
            tape: keep what `backward` needs.
        """
        xp, batch, units = run.backend.xp, x.shape[1], run.spec.state_size
        order = segments[::-1] if self.direction else segments
        kept = ChainTape(x, order, [], None, last)
        whole = len(segments) == 1
        y = (
            None
            if whole
            else xp.zeros((batch, units), x.dtype)
            if last
            else xp.empty((x.shape[0], batch, units), x.dtype)
        )
        for segment in order:
            if tape:
                kept.starts.append(states)
            part, states, saved = self._segment(run, x, states, segment, save=tape and whole)
            if last:
                part = _last(run, part, segment, xp.zeros((batch, units), x.dtype) if y is None else y)
            if y is None or last:
                y = part
            else:
                y[segment[0] : segment[1]] = part
            if tape and whole:
                kept.saved = saved
        return y, states, kept if tape else None

    def backward(
        self, run: Pass, tape: ChainTape, dy: Array, dstates: list[State], grads: Mapping[str, Array]
    ) -> tuple[Array, list[State]]:
        """dx `(T, B, I)` and the gradients of the initial states; adds to the parameters' gradients.

        `dy` is `(T, B, P)`, or `(B, P)` where the forward pass gave the last steps.
        """
        spec, xp = run.spec, run.backend.xp
        views = [LayerView(grads, spec.suffixes[index]) for index in self.indices(spec)]
        dx = None if tape.saved is not None else xp.empty(tape.x.shape, tape.x.dtype)
        nothing = None  # zeros, once for all segments in which no row ends
        for segment, start in zip(reversed(tape.segments), reversed(tape.starts), strict=True):
            saved = tape.saved or self._segment(run, tape.x, start, segment, save=True)[2]
            if not tape.last:
                part = dy[segment[0] : segment[1]]
            elif run.lengths is not None or segment[1] == run.steps:
                part = _last_backward(run, dy, segment)
            else:
                nothing = _last_backward(run, dy, segment) if nothing is None else nothing
                part = nothing
            part, dstates = self._segment_backward(run, saved, part, dstates, views)
            if dx is None:
                dx = part
            else:
                dx[segment[0] : segment[1]] = part
            del saved, part  # before the next segment is computed again: one at a time in memory
        return dx, dstates

    def _segment(
        self, run: Pass, x: Array, states: list[State], segment: Segment, *, save: bool
    ) -> tuple[Array, list[State], _Saved]:
        saved, ends = _Saved([], [], []), []
        part = x[segment[0] : segment[1]]
        if run.lengths is not None and self.first == 0:  # padding may hold anything, NaN included
            part = run.backend.xp.where(run.valid(segment), part, run.backend.xp.zeros((), x.dtype))
        if run.chunk and self.stop - self.first > 1:
            shape, layers = (*part.shape[:2], run.spec.state_size), range(self.first, self.stop)
            saved.masks = [run.between(layer, shape, segment[0]) for layer in layers]
            saved.tasks = [run.task(layer, self.direction, segment, x.shape[1], save) for layer in layers]
            part, ends, saved.tapes = run.engine.forward_layers(saved.tasks, saved.masks, part, states, run.chunk)
            return part, ends, saved
        for layer, state in zip(range(self.first, self.stop), states, strict=True):
            mask = run.between(layer, part.shape, segment[0])
            part = part if mask is None else part * mask
            task = run.task(layer, self.direction, segment, x.shape[1], save)
            part, end, tape = run.engine.forward(task, part, state)
            ends.append(end)
            if save:
                saved.masks.append(mask)
                saved.tasks.append(task)
                saved.tapes.append(tape)
        return part, ends, saved

    @staticmethod
    def _segment_backward(
        run: Pass, saved: _Saved, dy: Array, dstates: list[State], grads: list[LayerView]
    ) -> tuple[Array, list[State]]:
        if run.chunk and len(grads) > 1:
            return run.engine.backward_layers(saved.tasks, saved.masks, saved.tapes, dy, dstates, grads, run.chunk)
        dstates = list(dstates)
        for place in reversed(range(len(grads))):
            task, mask = saved.tasks[place], saved.masks[place]
            dy, dstates[place] = run.engine.backward(task, saved.tapes[place], dy, dstates[place], grads[place])
            dy = dy if mask is None else dy * mask
        return dy, dstates


def chains(spec: StackSpec) -> list[list[Chain]]:
    """The chains of a stack: those of one group read the same input, and the next group reads their outputs."""
    if not spec.bidirectional:
        return [[Chain(0, spec.num_layers, 0)]]
    return [[Chain(layer, layer + 1, direction) for direction in (0, 1)] for layer in range(spec.num_layers)]


def cut(steps: int, length: int) -> list[Segment]:
    """Segments of `length` steps, the last one shorter where it does not divide; one empty segment for no steps."""
    return [(start, min(start + length, steps)) for start in range(0, steps, max(length, 1))] or [(0, 0)]


def _last(run: Pass, y: Array, segment: Segment, before: Array) -> Array:
    """`before` `(B, P)`, but each row's last valid step where that lies in this segment."""
    xp, steps = run.backend.xp, y.shape[0]
    if not steps:
        return before
    if run.lengths is None:
        return y[-1].copy() if segment[1] == run.steps else before
    index, here = _last_index(run, segment)
    return xp.where(here[:, None], y[index, xp.arange(y.shape[1])], before)


def _last_backward(run: Pass, dlast: Array, segment: Segment) -> Array:
    """The gradient of a segment's outputs `(steps, B, P)` from that of the last steps `(B, P)`."""
    xp, steps = run.backend.xp, segment[1] - segment[0]
    dy = xp.zeros((steps, *dlast.shape), dlast.dtype)
    if not steps:
        return dy
    if run.lengths is None:
        if segment[1] == run.steps:
            dy[-1] = dlast
        return dy
    index, here = _last_index(run, segment)
    dy[index, xp.arange(dlast.shape[0])] = xp.where(here[:, None], dlast, xp.zeros((), dlast.dtype))
    return dy


def _last_index(run: Pass, segment: Segment) -> tuple[Array, Array]:
    """Where in the segment each row ends, and whether it does; 0 or the segment's last step for rows that do not."""
    index, steps = run.lengths - 1 - segment[0], segment[1] - segment[0]  # type: ignore[operator]
    return run.backend.xp.clip(index, 0, steps - 1), (index >= 0) & (index < steps)
