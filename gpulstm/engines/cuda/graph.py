"""A stretch of device work recorded as a CUDA graph once, and replayed on new inputs with one call.

What is recorded is a function of arrays that enqueues work and waits for nothing.  Its temporaries come from a memory
pool of the recording's own, so their addresses stay valid for as long as the recording lives, and the inputs are copied
into buffers that it holds.  CuPy refuses cuBLAS in a capture, so all products are this project's own kernels.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gpulstm.arrays.backend import Array
from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.gemm import own_kernels

KEPT = 4  # shapes whose recordings a layer or a training pass keeps, each with its buffers

_CAPTURE = threading.Lock()  # the streams that a capture forks to belong to one capture at a time
_STATE = threading.local()


class Order:
    """Whose turn it is with some buffers: what comes next on another stream waits for what came before, by an event."""

    def __init__(self, backend: CupyBackend) -> None:
        self._cuda = backend.xp.cuda
        with backend.activate():
            self._event = self._cuda.Event(disable_timing=True)
        self._on: int | None = None

    def follow(self, stream: Any) -> None:
        """The next work is on `stream`."""
        if self._on not in (None, stream.ptr):
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
    It must do the same work each time, depend on nothing but the arrays, and be harmless when run once too often.  What
    it reads and writes beside them has to live as long as the recording, which does not keep it: it mostly belongs to
    the recording's owner.

    Args:
        backend: the device.
        function: takes the arrays of `inputs` by name (None where None is given) and returns arrays.
        inputs: arrays whose shapes and dtypes are those of all later calls.
        order: of other work on the same buffers, which this takes its turn with.

    Attributes:
        outputs: what the function returned; every replay writes it anew.
        order: as given, or its own.
        parts: recordings that read what this one writes, kept with it.
    """

    def __init__(
        self,
        backend: CupyBackend,
        function: Callable[..., Any],
        inputs: Mapping[str, Array | None],
        order: Order | None = None,
    ) -> None:
        cuda = backend.xp.cuda
        self._backend = backend
        self._user: weakref.ref[Any] | None = None
        self.parts: dict[Any, Recording] = {}
        with backend.activate():
            self._pool = cuda.MemoryPool()
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
            with _CAPTURE, _recording(), cuda.using_allocator(self._pool.malloc), stream, own_kernels():
                function(**self._held)
                stream.begin_capture()
                try:
                    self.outputs = function(**self._held)
                except BaseException:
                    with contextlib.suppress(cuda.runtime.CUDARuntimeError):  # the capture may be invalid by now
                        stream.end_capture()
                    raise
                self._graph = stream.end_capture()
            self.order.done(stream)

    def __call__(self, inputs: Mapping[str, Array | None], take: Callable[[Any], Any] | None = None) -> Any:
        """Copy the inputs in and replay on the current stream, behind the last replay.

        Args:
            inputs: as those of the recording.
            take: given `outputs`, enqueues copies of what the caller keeps, which the next replay waits for.

        Returns:
            What `take` returned; `outputs` without it.
        """
        with self._backend.activate(), self.order.turn() as stream:
            self._load(inputs)
            self._graph.launch(stream)
            return self.outputs if take is None else take(self.outputs)

    @property
    def bytes_held(self) -> int:
        """Device memory that the recording and its parts keep for their buffers."""
        with self._backend.activate():  # a pool counts for the current device
            own = int(self._pool.total_bytes())
        return own + sum(part.bytes_held for part in self.parts.values())

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


class Recordings:
    """The recordings of a layer or a training pass: of the shapes that came last, each from its second call on.

    A copy of it is empty: what was recorded belongs to the arrays that it was recorded with.

    Args:
        kept: how many shapes.
        each: recordings of one shape, for results that several users hold at once.
    """

    def __init__(self, kept: int = KEPT, each: int = 1) -> None:
        self.kept, self.each = kept, each
        self.lock = threading.RLock()  # held from `find` to the end of the replay
        self._seen: OrderedDict[Any, list[Recording]] = OrderedDict()
        self._full: set[Any] = set()  # shapes for whose buffers there was no memory

    def __len__(self) -> int:
        return sum(map(len, self._seen.values()))

    def __reduce__(self) -> tuple[Any, ...]:
        return Recordings, (self.kept, self.each)

    @property
    def bytes_held(self) -> int:
        """Device memory that all of them keep."""
        return sum(one.bytes_held for shape in list(self._seen.values()) for one in shape)

    @property
    def full(self) -> int:
        """Shapes for whose buffers there was no memory."""
        return len(self._full)

    def find(self, key: Any, make: Callable[[], Recording]) -> Recording | None:
        """A recording for a shape that is free to be replayed.

        None at the first call with a key, for many shapes come only once, where all that may be kept are in use, and
        where there was no memory for one: the caller then does the work piece by piece, with the same bits.
        """
        if key not in self._seen:
            self._seen[key] = []
            if len(self._seen) > self.kept:
                self._full.discard(self._seen.popitem(last=False)[0])
            return None
        self._seen.move_to_end(key)
        shape = self._seen[key]
        found = next((one for one in shape if one.free), None)
        if found is None and len(shape) < self.each and key not in self._full:
            try:
                found = make()
            except MemoryError:  # CuPy's is one too; `explain` says so
                self._full.add(key)
                return None
            shape.append(found)
        return found


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
