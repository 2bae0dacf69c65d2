"""What a launch did wrong."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

# The names of the checks, as tests ask for them.
MISALIGNED = "misaligned address"
OUT_OF_BOUNDS = "address out of bounds"
UNWRITTEN = "reads what was never written"
IN_FLIGHT = "reads a copy that was not waited for"
SHARED_RACE = "race in shared memory"
BLOCK_RACE = "race within a block in global memory"
GRID_RACE = "race between blocks in global memory"
NEVER_WAITED = "copy never waited for"
PARTIAL_WARP = "not a whole warp"
NOT_TF32 = "factor not rounded to TF32"
DEADLOCK = "waits for ever"
TRAP = "trap"
TOO_LONG = "too many instructions"
SCOPE = "synchronizes within less than the GPU"


class PtxError(Exception):
    """A launch that cannot go on: what a GPU would stop at, or what the interpreter does not know."""


class Place(NamedTuple):
    """Where a check found something."""

    kind: str
    kernel: str
    pc: int
    text: str


class Faults:
    """What the checks of a launch have found, each place with the number of times."""

    def __init__(self) -> None:
        self.found: Counter[Place] = Counter()

    def add(self, kind: str, kernel: str, pc: int, text: str) -> None:
        """Note a fault and go on."""
        self.found[Place(kind, kernel, pc, text)] += 1

    @property
    def kinds(self) -> set[str]:
        """The kinds of all faults."""
        return {fault.kind for fault in self.found}

    def __bool__(self) -> bool:
        return bool(self.found)

    def __str__(self) -> str:
        lines = (f"{count} x {at.kind} in {at.kernel} at {at.pc}: {at.text}" for at, count in self.found.items())
        return "\n".join(lines) or "no fault"
