"""What a training step takes in memory, and how long a segment may be under a bound.

An engine says for one layer what it keeps per time step, what its backward pass needs in addition, and what it needs
whatever the length (`footprint`).  From this come the predicted peak of a training step, which `explain` prints, and
the longest segment that fits `memory=...`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Sequence
from typing import Any, cast

import numpy as np

from gpulstm.engines.spec import Call, Engine, Footprint, StackSpec
from gpulstm.errors import ConfigError
from gpulstm.model.scan import Segment, cut, scans
from gpulstm.validate import format_bytes, parse_bytes

Memory = str | int | None


def training_bytes(engine: Engine, call: Call, segments: Sequence[Segment], outputs: str) -> int:
    """Predicted peak of a training step over what is held before it: outputs, tapes, gradients and working space.

    Args:
        engine: who computes.
        call: the shapes.
        segments: as `scan.cut` gives them.
        outputs: "all" or "last".
    """
    spec, size, whole = call.spec, np.dtype(call.spec.dtype).itemsize, len(segments) == 1
    longest = max(stop - start for start, stop in segments)
    row = call.batch * size  # bytes of one number for each row of the batch
    held = sum(math.prod(shape) for shape in spec.shapes().values()) * size
    if outputs == "all" and (spec.bidirectional or not whole):  # the scan's outputs are in its tape
        held += row * spec.output_size * call.steps
    groups, peak, kept = scans(spec), 0, 0
    for group in groups:
        inner = group is not groups[-1]
        for scan in group:
            block, key = engine.block_steps(call.batch), cast(Hashable, engine)
            prints = [_footprint(key, spec, layer, call.batch, block) for layer in range(scan.first, scan.stop)]
            tapes = sum(each.saved + each.outputs for each in prints) * longest
            if outputs == "last" and not inner:  # the outputs of the last layer are dropped but for one step
                tapes -= prints[-1].outputs * longest
            masks = row * spec.output_size * longest * (scan.stop - max(scan.first, 1)) * 2 * bool(spec.dropout)
            own_dy = [
                layer < scan.stop - 1 or (outputs == "last" and not inner) for layer in range(scan.first, scan.stop)
            ]
            work = max(
                each.work * longest + each.fixed + row * longest * (inputs + spec.state_size * own)
                for each, own, inputs in zip(
                    prints, own_dy, map(spec.layer_input_size, range(scan.first, scan.stop)), strict=True
                )
            )
            borders = len(segments) * (scan.stop - scan.first) * row * (spec.state_size + spec.hidden_size)
            kept += borders + (tapes + masks if whole else 0)
            peak = max(peak, work + (0 if whole else tapes + masks))
            if not whole:
                kept += row * call.steps * spec.state_size * inner
        if not whole:
            peak += row * call.steps * spec.layer_input_size(group[0].first)  # dx
        if spec.bidirectional:
            kept += row * call.steps * spec.output_size * inner
    return held + kept + peak


@functools.lru_cache(maxsize=256)
def _footprint(engine: Any, spec: StackSpec, layer: int, batch: int, block: int) -> Footprint:
    """The engine's own answer; `block`, its steps a block, is part of it."""
    return engine.footprint(spec, layer, batch)


def segment_length(engine: Engine, call: Call, memory: Memory, outputs: str) -> int:
    """Steps of a segment: a multiple of the engine's block, or all steps for `memory` None.

    Args:
        engine, call, outputs: as in `training_bytes`.
        memory: bytes, a string such as "256MiB", "sqrt" for about the square root of T, or None.

    Raises:
        ConfigError: `memory` is none of these, or less than the shortest segments need.
    """
    if memory is None:
        return call.steps
    block = engine.block_steps(call.batch)
    if memory == "sqrt":
        return block * max(1, round(math.sqrt(call.steps) / block))
    bound = parse_bytes(memory)
    fitting = [
        length
        for length in _lengths(call.steps, block)
        if training_bytes(engine, call, cut(call.steps, length), outputs) <= bound
    ]
    if not fitting:
        least = min(
            training_bytes(engine, call, cut(call.steps, length), outputs) for length in _lengths(call.steps, block)
        )
        raise ConfigError(
            f"memory is {memory!r}, but a training step of T={call.steps} B={call.batch} needs at least "
            f"{format_bytes(least)}"
        )
    return max(fitting)


def _lengths(steps: int, block: int) -> list[int]:
    """Lengths worth trying: the shortest for each number of segments, and the whole."""
    blocks = max(1, math.ceil(steps / block))
    return sorted({max(steps, 1)} | {block * math.ceil(blocks / count) for count in range(2, blocks + 1)})


def check_memory(memory: Any) -> Memory:
    """`memory` if it is one that `segment_length` takes.

    Raises:
        ConfigError: it is not.
    """
    if memory is not None and memory != "sqrt":
        parse_bytes(memory)
    return memory
