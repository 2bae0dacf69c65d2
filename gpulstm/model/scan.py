"""A scan: layers of one time direction that run one after another, over all of time or segment by segment.

A stack of one direction is one scan.  In a bidirectional stack each layer and direction is a scan of its own, because a
layer reads both directions of the one below.  A scan over one segment keeps what backpropagation needs; over several
it keeps only the states at their borders, and computes each segment again when its gradient is due (Chen et al. 2016,
arXiv:1604.06174, "Training deep nets with sublinear memory cost").  Both give the same bits: masks are counter-based,
segments begin at multiples of the engine's block of steps, and gradients are added up block by block in one order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from gpulstm.arrays import random
from gpulstm.arrays.backend import Array, Backend
from gpulstm.arrays.dtypes import where
from gpulstm.arrays.params import ParamDict
from gpulstm.arrays.random import MaskKey, Purpose
from gpulstm.engines.spec import Plan, StackSpec, State, Task
from gpulstm.model.state import join, split

if TYPE_CHECKING:
    from gpulstm.engines.cuda.graph import Recording

Segment = tuple[int, int]  # first step, step after the last


class LayerView(dict[str, Any]):
    """The arrays of one layer and direction, by name without suffix; `view[name] += value` writes through."""

    def __init__(self, params: Mapping[str, Array], suffix: str) -> None:
        super().__init__({name[: -len(suffix)]: array for name, array in params.items() if name.endswith(suffix)})


class Weights(NamedTuple):
    """What a stack's passes read: its parameters, where they live, and what its dropout masks are drawn by.

    Attributes:
        seed: of the masks.
        first_row: of the whole batch that row 0 of a pass is, where several processes share one.
    """

    backend: Backend
    params: ParamDict
    seed: int
    first_row: int = 0


@dataclass
class Pass:
    """One call of a stack, as its scans see it.

    Args:
        plan: how it is computed.
        weights: of the stack.
        number: of the pass; with the seed the key of the dropout masks, see `MaskKey`.
        lengths: `(B,)` int64 on the device, or None.
    """

    plan: Plan
    weights: Weights
    number: Any
    lengths: Array | None

    @property
    def spec(self) -> StackSpec:
        """The stack's."""
        return self.plan.call.spec

    @property
    def backend(self) -> Backend:
        """Where the arrays live."""
        return self.weights.backend

    def task(self, layer: int, direction: int, segment: Segment, batch: int, save: bool) -> Task:
        """The engine's task for one layer, direction and segment."""
        spec, (start, stop) = self.spec, segment
        index = layer * spec.directions + direction
        task = Task(spec, layer, direction == 1, LayerView(self.weights.params, spec.suffixes[index]))
        task.training, task.save, task.plan = self.plan.call.training, save, self.plan
        if self.lengths is not None:
            task.lengths, task.valid = self.lengths - start, self.valid(segment)
        if not task.training:
            return task
        steps, units = stop - start, (batch, spec.state_size)
        if spec.recurrent_dropout:
            key = self._key(index, Purpose.RECURRENT)
            mask = random.dropout_mask(self.backend, spec.recurrent_dropout, (1, *units), spec.dtype, key)
            task.recurrent_mask = mask[0]
        if spec.zoneout[0]:
            key = self._key(index, Purpose.ZONEOUT_H)
            task.keep_h = random.keep_mask(self.backend, spec.zoneout[0], (steps, *units), key, start)
        if spec.zoneout[1]:
            key = self._key(index, Purpose.ZONEOUT_C)
            task.keep_c = random.keep_mask(self.backend, spec.zoneout[1], (steps, batch, spec.hidden_size), key, start)
        return task

    def valid(self, segment: Segment) -> Array:
        """`(steps, B, 1)` bool: which steps of a segment lie within their rows."""
        steps = self.backend.xp.arange(*segment)
        return (steps[:, None] < self.lengths[None, :])[:, :, None]  # type: ignore[index]

    def between(self, layer: int, shape: tuple[int, ...], start: int) -> Array | None:
        """The dropout mask on the input of a layer, of that shape; None for none."""
        if not layer or not self.plan.call.training or not self.spec.dropout:
            return None
        key = self._key(layer * self.spec.directions, Purpose.BETWEEN_LAYERS)
        return random.dropout_mask(self.backend, self.spec.dropout, shape, self.spec.dtype, key, start)

    def _key(self, layer: int, purpose: Purpose) -> MaskKey:
        return MaskKey(self.weights.seed, self.number, layer, purpose, self.weights.first_row)


@dataclass
class _Saved:
    """What one segment keeps for its gradient: each layer's mask, task and the engine's tape, from first to last."""

    masks: list[Array | None]
    tasks: list[Task]
    tapes: list[Any]


@dataclass
class ScanTape:
    """What a scan keeps: its input, the states where segments begin, and, with one segment, all it saved."""

    x: Array
    segments: list[Segment]  # in the order in which the scan ran through them
    starts: list[list[State]]
    saved: _Saved | None


@dataclass
class Tape:
    """What `Recurrent.forward` keeps for `Recurrent.backward`; opaque, usable more than once."""

    run: Pass
    batch: int
    scans: list[list[ScanTape]]
    recording: Recording | None = None  # whose buffers it lies in


@dataclass(frozen=True)
class Scan:
    """Layers `first` to `stop - 1` in one direction."""

    first: int
    stop: int
    direction: int

    def indices(self, spec: StackSpec) -> list[int]:
        """Where the scan's states lie on the state's first axis."""
        return [layer * spec.directions + self.direction for layer in range(self.first, self.stop)]

    def forward(
        self, run: Pass, x: Array, states: list[State], segment: Segment, *, save: bool
    ) -> tuple[Array, list[State], _Saved]:
        """Run over one segment.

        Args:
            run: the call.
            x: `(T, B, I)`, all of it; not to be changed before `backward`.
            states: of each layer before the segment.
            segment: which steps.
            save: keep what `backward` needs.

        Returns:
            y `(steps, B, P)` of the last layer, the states after the segment, what was saved.
        """
        saved, layers = _Saved([], [], []), range(self.first, self.stop)
        ends: list[State] = []
        part, batch = x[segment[0] : segment[1]], x.shape[1]
        if run.lengths is not None and self.first == 0:  # padding may hold anything, NaN included
            part = where(run.backend.xp, run.valid(segment), part, run.backend.xp.zeros((), x.dtype))
        together = run.plan.engine.side_by_side(run.plan) if len(layers) > 1 else None
        if together is not None:
            shape = (*part.shape[:2], run.spec.state_size)
            saved.masks = [run.between(layer, shape, segment[0]) for layer in layers]
            saved.tasks = [run.task(layer, self.direction, segment, batch, save) for layer in layers]
            y, ends, tapes = together.forward(saved.tasks, saved.masks, part, states)
            saved.tapes = list(tapes)
            return y, ends, saved
        for layer, state in zip(layers, states, strict=True):
            mask = run.between(layer, part.shape, segment[0])
            part = part if mask is None else part * mask
            task = run.task(layer, self.direction, segment, batch, save)
            part, end, tape = run.plan.engine.forward(task, part, state)
            ends.append(end)
            if save:
                saved.masks.append(mask)
                saved.tasks.append(task)
                saved.tapes.append(tape)
        return part, ends, saved

    def backward(
        self, run: Pass, tape: ScanTape, dy: Array, dstates: list[State], grads: Mapping[str, Array]
    ) -> tuple[Array, list[State]]:
        """dx `(T, B, I)` and the gradients of the initial states; adds to the parameters' gradients.

        `dy` is `(T, B, P)`, or `(B, P)` where the forward pass gave the last steps.
        """
        spec, xp = run.spec, run.backend.xp
        views = [LayerView(grads, spec.suffixes[index]) for index in self.indices(spec)]
        dx = None if tape.saved is not None else xp.empty(tape.x.shape, tape.x.dtype)
        zeros = None  # once for all segments in which no row ends
        for segment, start in zip(reversed(tape.segments), reversed(tape.starts), strict=True):
            saved = tape.saved or self.forward(run, tape.x, start, segment, save=True)[2]
            if dy.ndim == 3:
                part = dy[segment[0] : segment[1]]
            elif run.lengths is not None or segment[1] == run.plan.call.steps:
                part = _last_backward(run, dy, segment)
            else:
                zeros = _last_backward(run, dy, segment) if zeros is None else zeros
                part = zeros
            part, dstates = self._segment_backward(run, saved, part, dstates, views)
            if dx is None:
                dx = part
            else:
                dx[segment[0] : segment[1]] = part
            del saved, part  # before the next segment is computed again: one at a time in memory
        return dx, dstates

    @staticmethod
    def _segment_backward(
        run: Pass, saved: _Saved, dy: Array, dstates: list[State], grads: list[LayerView]
    ) -> tuple[Array, list[State]]:
        engine, dstates = run.plan.engine, list(dstates)
        together = engine.side_by_side(run.plan) if len(grads) > 1 else None
        if together is not None:
            return together.backward(saved.tasks, saved.masks, saved.tapes, dy, dstates, grads)
        for index in reversed(range(len(grads))):
            task, mask = saved.tasks[index], saved.masks[index]
            dy, dstates[index] = engine.backward(task, saved.tapes[index], dy, dstates[index], grads[index])
            dy = dy if mask is None else dy * mask
        return dy, dstates


def forward(
    plan: Plan, weights: Weights, x: Array, h: Array | None, c: Array | None, lengths: Array | None, number: Any
) -> tuple[Array, Array, Array | None, Tape | None]:
    """A whole stack: y, h and c after each row's last step, and the tape in training.

    Args:
        plan: how it is computed.
        weights: of the stack.
        x, h, c, lengths: as in `Recurrent.forward`, checked and on the device.
        number: of the pass, see `MaskKey`.
    """
    run, backend, (steps, batch, _) = Pass(plan, weights, number, lengths), weights.backend, x.shape
    spec, xp, save = plan.call.spec, backend.xp, plan.call.training
    states, segments = split(h, c, spec, backend, batch), cut(steps, plan.segment)
    groups, tape, whole = scans(spec), Tape(run, batch, []), len(segments) == 1
    for group in groups:
        parts, tapes, last = [], [], plan.outputs == "last" and group is groups[-1]
        for scan in group:
            indices, kept = scan.indices(spec), ScanTape(x, segments[::-1] if scan.direction else segments, [], None)
            now, y = [states[index] for index in indices], None
            if last or not whole:
                shape = (batch, spec.state_size) if last else (steps, batch, spec.state_size)
                y = (xp.zeros if last else xp.empty)(shape, x.dtype)
            for segment in kept.segments:
                if save:
                    kept.starts.append(now)
                part, now, saved = scan.forward(run, x, now, segment, save=save and whole)
                if last:
                    y = _last(run, part, segment, y)
                elif y is None:
                    y = part
                else:
                    y[segment[0] : segment[1]] = part
                kept.saved = saved if save and whole else None
            for index, state in zip(indices, now, strict=True):
                states[index] = state
            parts.append(y)
            tapes += [kept] * save
        x = parts[0] if len(parts) == 1 else xp.concatenate(parts, axis=-1)
        tape.scans.append(tapes)
    return x, *join(states, backend), tape if save else None


def backward(
    tape: Tape, grads: ParamDict, dy: Array, h: Array | None, c: Array | None
) -> tuple[Array, Array, Array | None]:
    """dx and the gradient of the initial state, from dy and that of the final state; adds to `grads`."""
    run, spec = tape.run, tape.run.spec
    dstates = split(h, c, spec, run.backend, tape.batch)
    for group, tapes in zip(reversed(scans(spec)), reversed(tape.scans), strict=True):
        parts = []
        for scan, kept in zip(group, tapes, strict=True):
            indices, first = scan.indices(spec), scan.direction * spec.state_size
            part = dy[..., first : first + spec.state_size]
            dx, starts = scan.backward(run, kept, part, [dstates[index] for index in indices], grads)
            for index, start in zip(indices, starts, strict=True):
                dstates[index] = start
            parts.append(dx)
        dy = parts[0] if len(parts) == 1 else parts[0] + parts[1]
    return dy, *join(dstates, run.backend)


def backward_apart(
    tape: Tape, dy: Array, h: Array | None, c: Array | None, grads: Array | None
) -> tuple[Array, Array, Array | None, Array]:
    """`backward` for a recording: leaves the flat `grads` as they are and gives their sum with the new ones."""
    work = tape.run.weights.params.like()
    if grads is not None:
        work.flat[...] = grads
    return *backward(tape, work, dy, h, c), work.flat


def scans(spec: StackSpec) -> list[list[Scan]]:
    """The scans of a stack: those of one group read the same input, and the next group reads their outputs."""
    if not spec.bidirectional:
        return [[Scan(0, spec.num_layers, 0)]]
    return [[Scan(layer, layer + 1, direction) for direction in (0, 1)] for layer in range(spec.num_layers)]


def cut(steps: int, length: int) -> list[Segment]:
    """Segments of `length` steps, the last one shorter where it does not divide; one empty segment for no steps."""
    return [(start, min(start + length, steps)) for start in range(0, steps, max(length, 1))] or [(0, 0)]


def _last(run: Pass, y: Array, segment: Segment, before: Array) -> Array:
    """`before` `(B, P)`, but each row's last valid step where that lies in this segment."""
    xp, steps = run.backend.xp, y.shape[0]
    if not steps:
        return before
    if run.lengths is None:
        return y[-1].copy() if segment[1] == run.plan.call.steps else before
    index, ends_here = _last_index(run, segment)
    return where(xp, ends_here[:, None], y[index, xp.arange(y.shape[1])], before)


def _last_backward(run: Pass, dlast: Array, segment: Segment) -> Array:
    """The gradient of a segment's outputs `(steps, B, P)` from that of the last steps `(B, P)`."""
    xp, steps = run.backend.xp, segment[1] - segment[0]
    dy = xp.zeros((steps, *dlast.shape), dlast.dtype)
    if not steps:
        return dy
    if run.lengths is None:
        if segment[1] == run.plan.call.steps:
            dy[-1] = dlast
        return dy
    index, ends_here = _last_index(run, segment)
    dy[index, xp.arange(dlast.shape[0])] = where(xp, ends_here[:, None], dlast, xp.zeros((), dlast.dtype))
    return dy


def _last_index(run: Pass, segment: Segment) -> tuple[Array, Array]:
    """Where in the segment each row ends, and whether it does; 0 or the segment's last step for rows that do not."""
    index, steps = run.lengths - 1 - segment[0], segment[1] - segment[0]  # type: ignore[operator]
    return run.backend.xp.clip(index, 0, steps - 1), (index >= 0) & (index < steps)
