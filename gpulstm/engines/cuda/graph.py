"""A stretch of device work recorded as a CUDA graph once, and replayed on new inputs with one call.

What is recorded is a function of arrays that enqueues work and waits for nothing.  Its temporaries come from a memory
pool of the recording's own, so their addresses stay valid for as long as the recording lives, and the inputs are copied
into buffers that it holds.  CuPy refuses cuBLAS in a capture, so all products are this project's own kernels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from gpulstm.backend import Array, CupyBackend
from gpulstm.products import own_kernels


class Recording:
    """A function of arrays as a graph.

    The function runs once for real, so that every kernel is compiled and the pool is filled, and once into the capture.
    It must do the same work each time, depend on nothing but the arrays, and be harmless when run once too often.

    Args:
        backend: the device.
        function: takes the arrays of `inputs` by name (None where None is given) and returns arrays.
        inputs: arrays whose shapes and dtypes are those of all later calls.

    Attributes:
        outputs: what the function returned; every replay writes it anew.
    """

    def __init__(self, backend: CupyBackend, function: Callable[..., Any], inputs: Mapping[str, Array | None]) -> None:
        cuda = backend.xp.cuda
        self._backend, self._function = backend, function  # the function holds what the graph reads and writes
        with backend.activate():
            self._pool = cuda.MemoryPool()
            current, stream = cuda.get_current_stream(), cuda.Stream(non_blocking=True)
            with cuda.using_allocator(self._pool.malloc):
                self._held: dict[str, Any] = {
                    name: None if value is None else backend.xp.empty(value.shape, value.dtype)
                    for name, value in inputs.items()
                }
            self._load(inputs)
            stream.wait_event(current.record())
            with cuda.using_allocator(self._pool.malloc), stream, own_kernels():
                function(**self._held)
                stream.begin_capture()
                try:
                    self.outputs = function(**self._held)
                except BaseException:
                    with contextlib.suppress(cuda.runtime.CUDARuntimeError):  # the capture may be invalid by now
                        stream.end_capture()
                    raise
                self._graph = stream.end_capture()
            self._done = cuda.Event(disable_timing=True)
            self._done.record(stream)
            self._on = stream.ptr

    def __call__(self, inputs: Mapping[str, Array | None]) -> Any:
        """Copy the inputs in and replay on the current stream, behind the last replay; returns `outputs`."""
        with self._backend.activate():
            current = self._backend.xp.cuda.get_current_stream()
            if current.ptr != self._on:
                current.wait_event(self._done)
                self._on = current.ptr
            self._load(inputs)
            self._graph.launch(current)
            self._done.record(current)
        return self.outputs

    @property
    def bytes_held(self) -> int:
        """Device memory that the recording keeps for its buffers."""
        return int(self._pool.total_bytes())

    def _load(self, inputs: Mapping[str, Array | None]) -> None:
        for name, value in inputs.items():
            if value is not None:
                self._held[name][...] = value


def signature(inputs: Mapping[str, Array | None]) -> tuple[Any, ...]:
    """What a recording is cached by: names, shapes and dtypes."""
    return tuple((name, None if v is None else (v.shape, v.dtype.name)) for name, v in inputs.items())
