"""How the calls of a stack are computed: by which engine, in which segments, as a graph or wavefront on a GPU or not.

What only a GPU needs is imported by the first call on one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

from gpulstm.engines.cuda import engine as cuda
from gpulstm.engines.dispatch import VARIABLE, Choice, choose
from gpulstm.engines.spec import Call
from gpulstm.model.memory import Memory, check_memory, segment_length, training_bytes
from gpulstm.model.scan import cut
from gpulstm.validate import format_bytes


@dataclass(frozen=True)
class Plan:
    """What will run for a call; print it.

    Attributes:
        call: what is asked.
        choice: who computes it.
        segment: steps that are kept for the gradient at a time.
        memory: predicted peak of a training step in bytes, over what is held before it.
        graph: on CUDA, whether such calls are replayed as a graph, or why not, in a few words; else None.
    """

    call: Call
    choice: Choice
    segment: int
    memory: int
    graph: str | None = None

    def __str__(self) -> str:
        spec, call = self.call.spec, self.call
        name = spec.cell.upper() if spec.cell != "rnn" else f"RNN ({spec.nonlinearity})"
        sizes = {"T": call.steps, "B": call.batch, "I": spec.input_size, "H": spec.hidden_size, "L": spec.num_layers}
        shape = " ".join(f"{letter}={size}" for letter, size in sizes.items()) + f" D={spec.directions}"
        lines = [
            f"{name}  {shape}  {spec.dtype} on {call.device}, {'training' if call.training else 'inference'}",
            f"  engine: {self.choice.engine.name} ({self.choice.path})",
        ]
        lines += [f"  not {engine}: {reason}" for engine, reason in self.choice.refused]
        if self.graph is not None:
            lines.append(f"  graph: {self.graph}")
        if call.training:
            segments = -(-call.steps // max(self.segment, 1))
            how = "kept whole" if segments <= 1 else f"{segments} segments of {self.segment} steps, computed twice"
            lines.append(f"  memory of a training step: {self.memory / 2**20:.1f} MiB over the parameters ({how})")
        return "\n".join(lines)


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
