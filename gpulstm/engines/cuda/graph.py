"""A stretch of device work recorded as a CUDA graph once, and replayed on new inputs with one call.

A recording is made of a function of arrays that enqueues work and waits for nothing.  Its temporaries come from the
recording's own memory pool, so their addresses stay valid while it lives; inputs are copied into buffers that it holds.
CuPy refuses cuBLAS in a capture, so all products must be this project's own kernels.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gpulstm.arrays.backend import Array
from gpulstm.arrays.cupy_backend import CupyBackend

TRIES = 3  # to record a shape, where somebody else made the capture invalid
NO_MEMORY = "no memory"  # why a shape is not recorded
_NO_MEMORY, _INVALIDATED = 2, 901  # cudaErrorMemoryAllocation, cudaErrorStreamCaptureInvalidated; the driver's too
KEPT = 4  # shapes whose recordings a layer or a training pass keeps, each with its buffers


class CaptureRefused(RuntimeError):
    """What a function does cannot be recorded: it waits for the device, or calls what a capture refuses."""


class RecordingFailed(RuntimeError):
    """CUDA could not make or launch a recording, for no fault of what is recorded: the work is done piece by piece.

    Attributes:
        lasting: whether it is of no use to try again.
    """

    def __init__(self, reason: str, *, lasting: bool) -> None:
        super().__init__(reason)
        self.lasting = lasting


# Memory pools of recordings that live.  A pool within a cycle that the garbage collector takes has lost its weak
# references, by which arrays find it, before any finalizer can save it; what they hold would be lost for good.
_LIVE: set[Any] = set()
_RETIRED: list[tuple[CupyBackend, Any]] = []  # memory pools of recordings that are gone, not yet given back
_CAPTURE = threading.Lock()  # the streams that a capture forks to belong to one capture at a time
_STATE = threading.local()


_PER_THREAD = 2  # the address of CUDA's per-thread default stream: another stream in every thread


class Order:
    """Whose turn it is with some buffers: what comes next on another stream waits for what came before, by an event."""

    def __init__(self, backend: CupyBackend) -> None:
        self._cuda = backend.xp.cuda
        with backend.activate():
            self._event = self._cuda.Event(disable_timing=True)
        self._on: int | None = None

    def follow(self, stream: Any) -> None:
        """The next work is on `stream`."""
        if self._on is not None and (self._on != stream.ptr or stream.ptr == _PER_THREAD):
            stream.wait_event(self._event)
        self._on = stream.ptr

    def done(self, stream: Any) -> None:
        """What has been handed to `stream` is the last work so far."""
        self._event.record(stream)
        self._on = stream.ptr

    @contextlib.contextmanager
    def turn(self) -> Iterator[Any]:
        """The current stream, on which the work of this context is done.

        Where it is being recorded by the caller, what the graph waits for at its replay is the caller's matter.
        """
        stream = self._cuda.get_current_stream()
        recorded = is_capturing(stream)
        if not recorded:
            self.follow(stream)
        yield stream
        if not recorded:
            self.done(stream)


class Recording:
    """A function of arrays as a graph.

    The function runs once for real, so that every kernel is compiled and the pool is filled, and once into the capture.
    It must do the same work each time, depend on nothing but the arrays, and be harmless when run once too often.
    Other buffers it uses must outlive the recording; it holds no reference to them.

    Args:
        backend: the device.
        function: takes the arrays of `inputs` by name (None where None is given) and returns arrays.
        inputs: arrays whose shapes and dtypes are those of all later calls.
        order: of other work on the same buffers, which this takes its turn with.

    Attributes:
        outputs: what the function returned; every replay writes it again.
        order: as given, or its own.
        parts: recordings that read what this one writes, kept with it.

    Raises:
        CaptureRefused: the function cannot be recorded.
        RecordingFailed: CUDA has no memory for the graph, or another thread waited for the device meanwhile.
        MemoryError: there is none for the buffers.
    """

    def __init__(
        self,
        backend: CupyBackend,
        function: Callable[..., Any],
        inputs: Mapping[str, Array | None],
        order: Order | None = None,
    ) -> None:
        cuda = backend.xp.cuda
        _give_back()
        self._backend = backend
        self._user: weakref.ref[Any] | None = None
        self.parts = Recordings(at_call=1)
        with backend.activate(), _failures(backend):
            # what the first call left in CuPy's pool would be held twice
            backend.xp.get_default_memory_pool().free_all_blocks()
            self._pool = cuda.MemoryPool()
            _LIVE.add(self._pool)
            current, stream = cuda.get_current_stream(), cuda.Stream(non_blocking=True)
            self.order = Order(backend) if order is None else order
            self.order.follow(current)
            with cuda.using_allocator(self._pool.malloc):
                self._held: dict[str, Any] = {
                    name: None if value is None else backend.xp.empty(value.shape, value.dtype)
                    for name, value in inputs.items()
                }
            self._load(inputs)
            stream.wait_event(current.record())
            with _CAPTURE, _recording(), cuda.using_allocator(self._pool.malloc), stream:
                function(**self._held)
                stream.begin_capture()
                try:
                    self.outputs = function(**self._held)
                except BaseException as error:
                    with contextlib.suppress(cuda.runtime.CUDARuntimeError):  # the capture may be invalid by now
                        stream.end_capture()
                    if isinstance(error, RuntimeError) and not _at_fault(backend, error):
                        raise CaptureRefused(str(error)) from error
                    raise
                self._graph = stream.end_capture()
                self._graph.upload(stream)  # the first launch has nothing to allocate then
            self.order.done(stream)

    def __call__(self, inputs: Mapping[str, Array | None], take: Callable[[Any], Any] | None = None) -> Any:
        """Copy the inputs in and replay on the current stream, behind the last replay.

        Args:
            inputs: as those of the recording.
            take: given `outputs`, enqueues copies of what the caller keeps, which the next replay waits for.

        Returns:
            What `take` returned; `outputs` without it.

        Raises:
            RecordingFailed: CUDA has no memory to launch it; nothing has been done.
        """
        with self._backend.activate(), self.order.turn() as stream:
            self._load(inputs)
            with _failures(self._backend):
                self._graph.launch(stream)
            return self.outputs if take is None else take(self.outputs)

    def __del__(self) -> None:
        """Give the memory back: CuPy's pools keep their free blocks when they are dropped (14.1 and later)."""
        pool = getattr(self, "_pool", None)
        if pool is None or sys.is_finalizing():
            return
        self.parts = Recordings(at_call=1)
        self._graph = self.outputs = None
        self._held = {}  # the arrays go back to the pool while it lives, then the pool's blocks to the device
        _RETIRED.append((self._backend, pool))
        _LIVE.discard(pool)
        _give_back()

    @property
    def bytes_held(self) -> int:
        """Device memory that the recording and its parts keep for their buffers."""
        with self._backend.activate():  # a pool counts for the current device
            held = int(self._pool.total_bytes())
        return held + self.parts.bytes_held

    @property
    def free(self) -> bool:
        """Whether nobody needs what the last replay wrote."""
        return self._user is None or self._user() is None

    def lend(self, user: Any) -> None:
        """What the last replay wrote is needed for as long as `user` lives."""
        self._user = weakref.ref(user)

    def _load(self, inputs: Mapping[str, Array | None]) -> None:
        for name, value in inputs.items():
            if value is not None:
                self._held[name][...] = value


def _at_fault(backend: CupyBackend, error: BaseException) -> bool:
    """Whether CUDA is what failed, and not what was asked of it."""
    return isinstance(error, backend.errors) and getattr(error, "status", None) in (_NO_MEMORY, _INVALIDATED)


@contextlib.contextmanager
def _failures(backend: CupyBackend) -> Iterator[None]:
    """Errors of CUDA that are of the moment, as `RecordingFailed`."""
    try:
        yield
    except backend.errors as error:
        if not _at_fault(backend, error):
            raise
        raise RecordingFailed(str(error), lasting=error.status == _NO_MEMORY) from error  # type: ignore[attr-defined]


def _give_back() -> None:
    """Free the memory of recordings that are gone.

    What a caller still holds of their outputs is freed at the next recording's end or beginning, and so is everything
    while the caller records: freeing may not be allowed then.
    """
    waiting = []
    while _RETIRED:
        backend, pool = _RETIRED.pop()
        with backend.activate():
            if not capturing(backend):
                pool.free_all_blocks()
            if pool.total_bytes():
                waiting.append((backend, pool))
    _RETIRED.extend(waiting)


class Recordings:
    """The recordings of a layer or a training pass: of the shapes that came last, each from its second call on.

    A copy of it is empty: what was recorded belongs to the arrays that it was recorded with.

    Args:
        kept: how many shapes.
        each: recordings of one shape, for results that several users hold at once.
        at_call: the call of a shape that is recorded.
    """

    def __init__(self, kept: int = KEPT, each: int = 1, at_call: int = 2) -> None:
        self.kept, self.each, self.at_call = kept, each, at_call
        self.lock = threading.RLock()  # held from `find` to the end of the replay
        self._seen: OrderedDict[Any, list[Recording]] = OrderedDict()
        self._failed: dict[Any, str] = {}  # why a shape is not recorded any more
        self._tries: dict[Any, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._seen.values()))

    def __reduce__(self) -> tuple[Any, ...]:
        return Recordings, (self.kept, self.each, self.at_call)

    @property
    def bytes_held(self) -> int:
        """Device memory that all of them keep."""
        return sum(one.bytes_held for shape in list(self._seen.values()) for one in shape)

    @property
    def failed(self) -> list[str]:
        """Why shapes are not recorded, one a shape."""
        return list(self._failed.values())

    @property
    def failed_parts(self) -> list[str]:
        """Why shapes of their parts are not recorded."""
        return [reason for shape in list(self._seen.values()) for one in shape for reason in one.parts.failed]

    def give_up(self, key: Any, recording: Recording, error: RecordingFailed) -> None:
        """A recording cannot be launched any more."""
        self._seen[key].remove(recording)
        self._note(key, error)

    def _note(self, key: Any, error: MemoryError | RecordingFailed) -> None:
        self._tries[key] = self._tries.get(key, 0) + 1
        if isinstance(error, MemoryError):  # CuPy's is one too
            self._failed[key] = NO_MEMORY
        elif error.lasting or self._tries[key] >= TRIES:
            self._failed[key] = str(error)

    def find(self, key: Any, make: Callable[[], Recording]) -> Recording | None:
        """A recording for a shape that is free to be replayed.

        None before the call with a key that is recorded, for many shapes come only once, where all that may be kept are
        in use, and where CUDA could not make one: the caller then does the work piece by piece, with the same bits.
        """
        if key not in self._seen:
            self._seen[key] = []
            if len(self._seen) > self.kept:
                oldest, _ = self._seen.popitem(last=False)
                self._failed.pop(oldest, None)
                self._tries.pop(oldest, None)
            if self.at_call > 1:
                return None
        self._seen.move_to_end(key)
        shape = self._seen[key]
        recording = next((one for one in shape if one.free), None)
        if recording is None and len(shape) < self.each and key not in self._failed:
            try:
                recording = make()
            except (MemoryError, RecordingFailed) as error:  # `explain` says so
                self._note(key, error)
                return None
            recording.parts.lock = self.lock
            shape.append(recording)
        return recording


@contextlib.contextmanager
def _recording() -> Iterator[None]:
    _STATE.recording = True
    try:
        yield
    finally:
        _STATE.recording = False


def recording() -> bool:
    """Whether this thread is making a `Recording`: it has the device's side streams to itself."""
    return getattr(_STATE, "recording", False)


def capturing(backend: CupyBackend) -> bool:
    """Whether the caller records a graph of its own on the current stream."""
    return is_capturing(backend.xp.cuda.get_current_stream())


def is_capturing(stream: Any) -> bool:
    """Whether a graph is recorded on a stream; the null stream cannot be."""
    return bool(stream.ptr) and stream.is_capturing()


def signature(inputs: Mapping[str, Array | None]) -> tuple[Any, ...]:
    """What a recording is cached by: names, shapes and dtypes."""
    return tuple((name, None if v is None else (v.shape, v.dtype.name)) for name, v in inputs.items())
