"""CuPy on one CUDA device: the only file that imports CuPy, at the first use of such a device."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from gpulstm.arrays.backend import Array, Backend, foreign_device
from gpulstm.arrays.kernel_source import kernel_preamble, module_source
from gpulstm.errors import DeviceError, DTypeError, missing_extra


class CupyBackend(Backend):
    """CuPy on one CUDA device; work is enqueued on CuPy's current stream."""

    def __init__(self, index: int) -> None:
        self.xp = _cupy()
        self.index = index
        self.device = f"cuda:{index}"

    def __reduce__(self) -> tuple[Any, ...]:
        return cuda_backend, (self.index,)

    def owns(self, value: object) -> bool:
        return isinstance(value, self.xp.ndarray) and value.device.id == self.index

    def asarray(self, value: Any, dtype: Any = None, *, name: str = "array") -> Array:
        if not isinstance(value, self.xp.ndarray):
            if hasattr(value, "__cuda_array_interface__"):
                value = self.xp.asarray(value)
            elif foreign_device(value) is not None:
                value = self.xp.from_dlpack(value)
            else:
                raise DeviceError(
                    f"{name} is a {type(value).__name__} on the host but the model is on {self.device}; "
                    f"move it with gpulstm.to_device({name}, '{self.device}')"
                )
        if value.device.id != self.index:
            raise DeviceError(f"{name} lives on cuda:{value.device.id} but the model is on {self.device}")
        if value.dtype.kind not in "fiub":
            raise DTypeError(f"{name} has dtype {value.dtype}, expected real numbers")
        if dtype is None or value.dtype == dtype:
            return value
        with self.activate():
            return value.astype(dtype)

    def from_host(self, value: Any, dtype: Any = None) -> Array:
        with self.activate():
            return self.xp.asarray(np.asarray(value, dtype=dtype))

    def uploads(self, parts: Iterable[np.ndarray], dtype: Any) -> Iterator[Array]:
        with self.activate():
            lane = _Uploads(self.xp, dtype)
        ahead = None
        for part in parts:
            with self.activate():
                started = lane.start(part)  # before the work on the one ahead is enqueued, so that the two overlap
                ready = None if ahead is None else lane.ready(ahead)
            ahead = started
            if ready is not None:
                yield ready
                del ready
        if ahead is not None:
            with self.activate():
                ready = lane.ready(ahead)
            yield ready

    def to_host(self, value: Array) -> np.ndarray:
        return self.xp.asnumpy(value)

    @functools.lru_cache(maxsize=256)  # noqa: B019 (backends live as long as the process)
    def constant(self, values: tuple[float, ...], dtype: str) -> Array:
        array = self.from_host(values, dtype)
        self.synchronize()  # another stream may read it next
        return array

    def synchronize(self) -> None:
        with self.activate():
            self.xp.cuda.get_current_stream().synchronize()

    def memory_used(self) -> int:
        with self.activate():
            return int(self.xp.get_default_memory_pool().used_bytes())

    def activate(self) -> contextlib.AbstractContextManager[Any]:
        return self.xp.cuda.Device(self.index)

    @functools.cached_property
    def processors(self) -> int:
        """Multiprocessors of the card."""
        return int(self.xp.cuda.Device(self.index).attributes["MultiProcessorCount"])

    @functools.cached_property
    def shared_memory(self) -> int:
        """Bytes of shared memory that a block may ask for."""
        return int(self.xp.cuda.Device(self.index).attributes["MaxSharedMemoryPerBlockOptin"])

    @functools.cached_property
    def capability(self) -> int:
        """Compute capability, ten times the major number plus the minor one."""
        return int(self.xp.cuda.Device(self.index).compute_capability)

    @property
    def device_name(self) -> str:
        """The card's name as the driver gives it."""
        return self.xp.cuda.runtime.getDeviceProperties(self.index)["name"].decode()

    def gemm(
        self, a: Array, b: Array, out: Array, *, transa: bool = False, transb: bool = False, accumulate: bool = False
    ) -> None:
        """out = op(a) op(b), or out += op(a) op(b): one cuBLAS call on C-contiguous matrices, no temporary.

        float16 has no accumulating form here (`cupy.cublas.gemm` knows float32 and float64) and takes a temporary then.
        """
        if a.dtype != np.float16:
            ops = ("NT"[transa], "NT"[transb])
            self.xp.cublas.gemm(*ops, a, b, out=out, alpha=1.0, beta=1.0 if accumulate else 0.0)
            return
        left, right = a.T if transa else a, b.T if transb else b
        if accumulate:
            out += self.xp.matmul(left, right)
        else:
            self.xp.matmul(left, right, out=out)

    def elementwise(self, name: str, inputs: str, outputs: str, body: str, *, headers: tuple[str, ...] = ()) -> Any:
        """A `cupy.ElementwiseKernel`, compiled once per process, whose preamble is the named files of `kernels/`.

        Args:
            name: the kernel's name, as profilers show it.
            inputs, outputs: CuPy's parameter lists, for example `"raw T z, T c"`.
            body: the CUDA C++ statements run for element `i`.
            headers: file names under `kernels/`, put before the kernel in this order.
        """
        return _elementwise(name, inputs, outputs, body, headers)

    def module(self, file: str, defines: tuple[tuple[str, str], ...], *, cooperative: bool = False) -> Any:
        """The `cupy.RawModule` of a file of `kernels/` under a choice of macros, compiled at the first use of a kernel.

        Args:
            file: for example `"cuda/fused.cu"`.
            defines: macros and their values.
            cooperative: whether its kernels are launched with all blocks resident, for barriers across the grid.
        """
        with self.activate():  # a module belongs to one device
            return _module(self.index, file, defines, cooperative)


@functools.cache
def _module(index: int, file: str, defines: tuple[tuple[str, str], ...], cooperative: bool) -> Any:
    return _cupy().RawModule(
        code=module_source(file, defines), options=("-std=c++17",), enable_cooperative_groups=cooperative
    )


class _Uploads:
    """Copies to the device on a stream of their own, from two buffers of pinned host memory in turn."""

    def __init__(self, cupy: Any, dtype: Any) -> None:
        self.cupy, self.dtype = cupy, np.dtype(dtype)
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.pinned: list[Any] = [None, None]
        self.copied: list[Any] = [None, None]  # events: what a buffer held has been copied
        self.turn = 0

    def start(self, part: np.ndarray) -> tuple[Array, Any]:
        """Begin to copy; the array is to be used after `ready` alone."""
        cuda, turn = self.cupy.cuda, self.turn
        self.turn = 1 - turn
        if self.copied[turn] is not None:
            self.copied[turn].synchronize()
        bytes_ = max(1, part.size * self.dtype.itemsize)
        if self.pinned[turn] is None or self.pinned[turn].mem.size < bytes_:
            self.pinned[turn] = cuda.alloc_pinned_memory(bytes_)
        host = np.frombuffer(self.pinned[turn], self.dtype, part.size).reshape(part.shape)
        host[...] = part
        value = self.cupy.empty(part.shape, self.dtype)
        # the memory of `value` may have belonged to arrays that work on the current stream still reads
        self.stream.wait_event(cuda.get_current_stream().record())
        value.set(host, stream=self.stream)
        self.copied[turn] = self.stream.record()
        return value, self.copied[turn]

    def ready(self, started: tuple[Array, Any]) -> Array:
        """The array, which the current stream waits for; the host does not."""
        value, copied = started
        self.cupy.cuda.get_current_stream().wait_event(copied)
        return value


@functools.cache
def _elementwise(name: str, inputs: str, outputs: str, body: str, headers: tuple[str, ...]) -> Any:
    return _cupy().ElementwiseKernel(inputs, outputs, body, name, preamble=kernel_preamble(headers))


def cuda_missing() -> str | None:
    """Why CUDA cannot be used here, in one sentence, or None when it can."""
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed; run: pip install 'gpulstm[cuda12]' (or cuda13, to match the driver)"
    cupy = _cupy()
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CuPy is installed but finds no usable device ({error})"
    return _libraries_missing() if count else "CuPy is installed but finds no device"


def device_count() -> int:
    """How many CUDA devices can be used (0 without CuPy or a driver)."""
    return 0 if cuda_missing() else int(_cupy().cuda.runtime.getDeviceCount())


@functools.cache
def _cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        raise missing_extra("CuPy", "cuda12", "a CUDA device") from error
    return cupy


@functools.cache
def _libraries_missing() -> str | None:
    """Why cuBLAS cannot be loaded, or None; `import cupy` alone neither loads it nor needs it."""
    try:
        import cupy.cublas  # noqa: F401
    except ImportError as error:
        reason = str(error).splitlines()[0]
        return f"CuPy is installed without the libraries of CUDA ({reason}); run: pip install 'gpulstm[cuda12]'"
    return None


@functools.cache
def cuda_backend(index: int) -> CupyBackend:
    """The backend of one CUDA device, the same at each call.

    Raises:
        DeviceError: the libraries of CUDA are not there.
    """
    missing = _libraries_missing()
    if missing:
        raise DeviceError(f"device 'cuda:{index}' cannot be used: {missing}")
    return CupyBackend(index)
