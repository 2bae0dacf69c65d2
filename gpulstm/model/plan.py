"""The plans of a stack's calls: which engine, in which form and segments, as a graph or not; made once for a shape."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from gpulstm.arrays.variables import variables
from gpulstm.engines.dispatch import choose
from gpulstm.engines.spec import Call, Plan, StackSpec
from gpulstm.model.memory import Memory, check_memory, segment_length, training_bytes
from gpulstm.model.scan import cut
from gpulstm.validate import format_bytes

LARGEST = 1 << 28  # bytes of a training pass that are kept between calls without being asked for
SHARE = 4  # and the share of the card's memory that a unit around such a pass may keep
KEPT = 64  # shapes of one stack

Role = Literal["call", "unit", "part"]


def forget_plans() -> None:
    """Forget all plans, and the environment variables that they were made by: the next call reads them again."""
    variables.cache_clear()


class Plans:
    """Cache of the plans of one stack by shape; copies start empty.

    Args:
        spec, device: of the stack.
        engine: that the stack is held to, or None.
        quantize: what the weights are rounded to, or None.
    """

    def __init__(self, spec: StackSpec, device: str, engine: str | None, quantize: str | None = None) -> None:
        self.spec, self.device, self.engine, self._quantize = spec, device, engine, quantize
        self._plans: dict[Any, Plan] = {}
        self._variables: Any = None  # by which the plans were made

    def __reduce__(self) -> tuple[Any, ...]:
        return Plans, (self.spec, self.device, self.engine, self._quantize)

    @property
    def quantize(self) -> str | None:
        """What inference rounds the weights to; see `Call`."""
        return self._quantize

    @quantize.setter
    def quantize(self, kind: str | None) -> None:
        self._quantize = kind
        self._plans.clear()

    def find(
        self,
        steps: int,
        batch: int,
        training: bool = False,
        lengths: bool = False,
        memory: Memory = None,
        outputs: str = "all",
        role: Role = "call",
    ) -> Plan:
        """The plan for a shape.

        Args:
            steps, batch: T and B.
            training, lengths, memory, outputs: as in `Recurrent.forward`.
            role: "unit" for a larger piece of work around such a call that is recorded as a whole, "part" for a call
                within one: neither its graph nor its products are its own then.

        Raises:
            ConfigError, EngineError: as `choose` and `segment_length`.
        """
        if self._variables is not variables():
            self._plans.clear()
            self._variables = variables()
        if memory is not None:
            memory = check_memory(memory)
        key = (steps, batch, training, lengths, memory, outputs, role)
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= KEPT:
                self._plans.clear()
            call = Call(self.spec, self.device, steps, batch, training, lengths, self._quantize)
            plan = self._plans[key] = _made(call, self.engine, memory, outputs, role)
        return plan


def _made(call: Call, engine: str | None, memory: Memory, outputs: str, role: Role) -> Plan:
    plan = choose(call, engine)
    segment = segment_length(plan.engine, call, memory, outputs)
    alone = not (call.training or call.spec.bidirectional) and memory is None and outputs == "all"
    plan = replace(plan, segment=segment, outputs=outputs, at_once=alone and role == "call")
    if not call.on_cuda:
        return plan
    if role == "part":
        return replace(plan, products="own", no_graph="it is a part of a larger graph")
    if plan.no_graph is not None:
        return plan
    from gpulstm.engines.cuda import planner

    if call.training and not planner.graph_asked():
        size = training_bytes(plan.engine, call, cut(call.steps, call.steps), outputs)
        most = LARGEST if role == "call" else planner.memory_of(call) // SHARE
        if size > most:
            reason = f"a training pass of {format_bytes(size)} is not kept between calls"
            return replace(plan, no_graph=reason, products="cublas", wavefront=0)
    if role == "unit":
        return replace(plan, products="own")
    if segment < call.steps or not call.steps:
        reason = "segments bound its memory" if call.steps else "there are no steps"
        return replace(plan, products="own", no_graph=reason)
    return replace(plan, products="own")
