"""A stack's calls as CUDA graphs: a shape is recorded at its second call, and replayed from then on.

What a replay computes lies in the recording's buffers, which the next replay writes anew.  So results are copied out
before they are given away, and a training pass lends its buffers to the tape: while the tape lives, they are not
written.  A loop that asks for the next tape while it still holds the last one needs two sets of buffers, and so many
are kept of each shape; with more tapes at once the passes are launched piece by piece, with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from gpulstm.arrays.backend import Array, Backend
from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.gemm import own_kernels
from gpulstm.engines.cuda.graph import Recording, Recordings, signature
from gpulstm.validate import format_bytes

Arrays = dict[str, Array | None]
Compute = Callable[..., tuple[Array, Array, Array | None, Any]]  # x, h, c, lengths, call -> y, h, c, tape

TAPES = 2  # sets of buffers for a training pass of one shape


def summary(*kept: Recordings) -> str:
    """What is recorded and what it holds, in a few words."""
    count, held, full = (sum(values) for values in zip(*((len(k), k.bytes_held, k.full) for k in kept), strict=True))
    return f"{count} recorded, which hold {format_bytes(held)}" + (f"; no memory for {full} more" if full else "")


class Replays:
    """The recordings of one stack; a copy of it has none."""

    def __init__(self) -> None:
        self.passes, self.tapes = Recordings(), Recordings(each=TAPES)
        self.full: set[Any] = set()  # backward passes for whose buffers there was no memory

    def __reduce__(self) -> tuple[Any, ...]:
        return Replays, ()

    def __str__(self) -> str:
        full = f"; no memory for {len(self.full)} backward" if self.full else ""
        return f"replayed from the second call of a shape on; {summary(self.passes, self.tapes)}{full}"

    @property
    def bytes_held(self) -> int:
        """Device memory that the recordings keep."""
        return self.passes.bytes_held + self.tapes.bytes_held

    def run(self, backend: Backend, key: Any, compute: Compute, inputs: Arrays) -> tuple[Array, Array, Array | None]:
        """Outputs and final state of a pass without a tape.

        Args:
            backend: the device.
            key: what beside the shapes of `inputs` tells one recording from another.
            compute: the pass; takes the arrays of `inputs`.
            inputs: x, h, c, lengths, call.
        """
        with self.passes.lock:
            found = self._find(self.passes, backend, key, compute, inputs)
            if found is not None:
                return found(inputs, _results)
        with own_kernels():
            return compute(**inputs)[:3]

    def record(self, backend: Backend, key: Any, compute: Compute, inputs: Arrays, lend: Callable[..., Any]) -> Any:
        """Outputs, final state and tape of a training pass; the arguments are those of `run`.

        Args:
            lend: makes the tape that is given away from the one that `compute` gave and the recording, or None where
                it was launched piece by piece.
        """
        with self.tapes.lock:
            found = self._find(self.tapes, backend, key, compute, inputs)
            if found is not None:
                *results, tape = found(inputs, lambda outputs: (*_results(outputs), outputs[3]))
                tape = lend(tape, found)
                found.lend(tape)
                return (*results, tape)
        with own_kernels():
            *results, tape = compute(**inputs)
        return (*results, lend(tape, None))

    def backward(self, backend: Backend, forward: Recording, compute: Callable[..., Any], inputs: Arrays) -> Any:
        """What `compute` gives for a tape that a recording lent: dx, dh, dc and the flat gradients.

        None where there was no memory to record it: the caller then does the work piece by piece, with the same bits.

        Args:
            backend: the device.
            forward: the recording.
            compute: the backward pass; takes the arrays of `inputs`.
            inputs: dy, dh, dc, and flat gradients to add to, or None.
        """

        def take(found: Any) -> Any:
            if inputs["grads"] is None:
                return _copies(found)
            inputs["grads"][...] = found[3]
            return (*_copies(found[:3]), inputs["grads"])

        key = signature(inputs)
        with self.tapes.lock:
            if key not in forward.parts and key not in self.full:
                try:
                    forward.parts[key] = Recording(cast(CupyBackend, backend), compute, inputs, forward.order)
                except MemoryError:  # CuPy's is one too; `explain` says so
                    self.full.add(key)
            return forward.parts[key](inputs, take) if key in forward.parts else None

    @staticmethod
    def _find(kept: Recordings, backend: Backend, key: Any, compute: Compute, inputs: Arrays) -> Recording | None:
        return kept.find((key, signature(inputs)), lambda: Recording(cast(CupyBackend, backend), compute, inputs))


def _results(outputs: Any) -> Any:
    return _copies(outputs[:3])


def _copies(arrays: Any) -> Any:
    return tuple(None if array is None else array.copy() for array in arrays)
