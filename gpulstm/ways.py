"""How the calls of a stack are computed: by which engine, in which segments, as a graph or wavefront on a GPU or not.

What only a GPU needs is imported by the first call on one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

from gpulstm.chain import cut
from gpulstm.engines import cuda
from gpulstm.engines.choose import VARIABLE, Choice, choose
from gpulstm.engines.spec import Call
from gpulstm.memory import Memory, check_memory, format_bytes, segment_length, training_bytes

LARGEST = 1 << 28  # bytes of a training pass that are kept between calls without being asked for
KEPT = 64  # calls of one stack


@dataclass(frozen=True)
class Way:
    """How calls of one shape are computed.

    Attributes:
        call, choice: what is computed, and by whom.
        segment: steps that are kept for the gradient at a time.
        refusal: why a call is not replayed as a graph, None where it is.
        chunk: of steps of the wavefront in a graph, or why there is none.
        settings: of the environment, when that was found out.
    """

    call: Call
    choice: Choice
    segment: int
    refusal: str | None
    chunk: int | str
    settings: tuple[str | None, ...]


class Ways(dict[Any, Way]):
    """What was found out of one stack's calls, once for each shape and environment; a copy has nothing yet."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Ways, ()

    def find(self, call: Call, engine: str | None, memory: Memory, outputs: str) -> Way:
        """How a call is computed.

        Args:
            call: what is asked.
            engine: that the stack is held to, or None.
            memory, outputs: as in `Recurrent.forward`.

        Raises:
            ConfigError, EngineError: as `choose` and `segment_length`.
        """
        memory, on_cuda = check_memory(memory), call.on_cuda
        if on_cuda:
            from gpulstm.engines.cuda import planner, wavefront
        settings = planner.settings() if on_cuda else (os.environ.get(VARIABLE),)
        key = (call.steps, call.batch, call.training, call.lengths, memory, outputs, settings)
        found = self.get(key)
        if found is None:
            choice = choose(call, engine)
            segment = segment_length(choice.engine, call, memory, outputs)
            refusal: str | None = "the model is on the CPU"
            chunk: int | str = "the model is on the CPU"
            if on_cuda:
                refusal = _refusal(call, choice, outputs)
                served = choice.engine is cuda
                chunk = wavefront.chunk_steps(call) if served else f"the {choice.engine.name} engine has none"
            found = Way(call, choice, segment, refusal, chunk, settings)
            if len(self) >= KEPT:
                self.clear()
            if on_cuda or memory is None:
                self[key] = found
        return found


def _refusal(call: Call, choice: Choice, outputs: str) -> str | None:
    """Why a call is not replayed as a graph; outside training that must not depend on T, as the bits do not."""
    from gpulstm.engines.cuda import planner

    engine = choice.engine
    if not call.training:
        return planner.graph_refusal(replace(call, steps=engine.block_steps(call.batch)), engine.name)
    refusal = planner.graph_refusal(call, engine.name)
    if refusal is None and not planner.graph_asked():
        held = training_bytes(engine, call, cut(call.steps, call.steps), outputs)
        if held > LARGEST:
            return f"a training pass of {format_bytes(held)} is not kept between calls"
    return refusal
