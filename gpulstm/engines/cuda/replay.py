"""Work on the device as a CUDA graph: launched at the first call of a shape, recorded at the second, then replayed.

A replay computes into the recording's buffers, and the next replay writes them again.  So results are copied out.  The
tape of a training pass is lent instead: while its user lives, the buffers are not written.  A loop that
asks for the next tape while it still holds the last one needs two sets of buffers (`TAPES`); with more tapes at once
the passes are launched piece by piece, with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from gpulstm.arrays.backend import Array
from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.devices import resolve
from gpulstm.engines.cuda.graph import NO_MEMORY, Order, Recording, RecordingFailed, Recordings, signature
from gpulstm.engines.spec import Plan
from gpulstm.validate import format_bytes

TAPES = 2  # sets of buffers for a training pass of one shape

Take = Callable[[Any, "Recording | None"], Any]  # outputs and the recording that wrote them; None: they are new arrays


def replay(
    plan: Plan,
    function: Callable[..., Any],
    inputs: Mapping[str, Array | None],
    recordings: Recordings,
    take: Take,
    *,
    key: Any = None,
    order: Order | None = None,
) -> Any:
    """What `take` makes of the outputs of `function(**inputs)`: launched, or replayed as a CUDA graph.

    Args:
        plan: with `products` "own"; whose graphs these are.
        function: enqueues work and waits for nothing; see `Recording`.
        inputs: arrays by name.
        recordings: those of the caller, which this one goes to.
        take: given the outputs and the recording that wrote them, enqueues copies of what the caller keeps; with None
            for the recording the outputs are new arrays.
        key: what else, in addition to the plan and the shapes of `inputs`, tells one recording from another.
        order: of other work on the same buffers.

    Raises:
        CaptureRefused: the function cannot be recorded.
    """
    with recordings.lock:
        key = (plan, key, signature(inputs))
        backend = cast(CupyBackend, resolve(plan.call.device))
        recording = recordings.find(key, lambda: Recording(backend, function, inputs, order))
        if recording is not None:
            try:
                return recording(inputs, lambda outputs: take(outputs, recording))
            except RecordingFailed as error:
                recordings.give_up(key, recording, error)
    return take(function(**inputs), None)


def summary(*kept: Recordings) -> str:
    """What is recorded and what it holds, in a few words."""
    count, held = sum(map(len, kept)), sum(each.bytes_held for each in kept)
    words = f"{count} recorded, which hold {format_bytes(held)}"
    forward = [reason for each in kept for reason in each.failed]
    backward = [reason for each in kept for reason in each.failed_parts]
    for reasons, more in ((forward, "more"), (backward, "backward")):
        for reason in dict.fromkeys(reasons):
            number = f"{reasons.count(reason)} {more}"
            words += f"; no memory for {number}" if reason == NO_MEMORY else f"; not recorded, {number}: {reason}"
    return words


class Replays:
    """The recordings of one stack; a copy of it has none."""

    def __init__(self) -> None:
        self.passes, self.tapes = Recordings(), Recordings(each=TAPES)

    def __reduce__(self) -> tuple[Any, ...]:
        return Replays, ()

    def __str__(self) -> str:
        return f"replayed from the second call of a shape on; {summary(self.passes, self.tapes)}"

    @property
    def bytes_held(self) -> int:
        """Device memory that the recordings keep."""
        return self.passes.bytes_held + self.tapes.bytes_held
