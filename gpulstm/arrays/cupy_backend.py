"""CuPy on one CUDA device: the only file that imports CuPy, at the first use of such a device."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from gpulstm.arrays.backend import Array, Backend, foreign_device
from gpulstm.arrays.compilation import Compilations
from gpulstm.arrays.dtypes import dtype_of, is_half, is_real
from gpulstm.arrays.kernel_source import kernel_preamble, module_source
from gpulstm.arrays.variables import variables
from gpulstm.errors import DeviceError, DTypeError, missing_extra

_TF32_MATH = 3  # cublasMath_t: CUBLAS_TF32_TENSOR_OP_MATH, which CuPy binds no name for


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
            # DLPack first: with it the array's library makes this one's stream wait for its own
            if foreign_device(value) is None:
                raise DeviceError(
                    f"{name} is a {type(value).__name__} on the host but the model is on {self.device}; "
                    f"move it with gpulstm.to_device({name}, '{self.device}')"
                )
            value = self.xp.from_dlpack(value) if hasattr(value, "__dlpack__") else self.xp.asarray(value)
        if value.device.id != self.index:
            raise DeviceError(f"{name} lives on cuda:{value.device.id} but the model is on {self.device}")
        if not is_real(value.dtype):
            raise DTypeError(f"{name} has dtype {value.dtype}, expected real numbers")
        if dtype is None or value.dtype == dtype:
            return value
        with self.activate():
            return value.astype(dtype_of(dtype))

    def from_host(self, value: Any, dtype: Any = None) -> Array:
        with self.activate():
            if dtype is not None and str(dtype) == "bfloat16":  # which is made on the device
                return self.xp.asarray(np.asarray(value, np.float32)).astype(dtype_of(dtype))
            return self.xp.asarray(np.asarray(value, dtype=dtype))

    def uploads(self, parts: Iterable[np.ndarray], dtype: Any) -> Iterator[Array]:
        with self.activate():
            lane = _uploads(self.index)
        ahead: _Upload | None = None
        try:
            for part in parts:
                with self.activate():
                    started = lane.start(part, dtype)  # before the work on the one ahead is enqueued: the two overlap
                    ready = None if ahead is None else ahead.ready(self.xp.cuda.get_current_stream())
                ahead = started
                if ready is not None:
                    yield ready
                    del ready
            if ahead is not None:
                with self.activate():
                    ready = ahead.ready(self.xp.cuda.get_current_stream())
                ahead = None
                yield ready
        finally:
            if ahead is not None:  # left early: the memory of the array is the next one's only behind the copy
                with self.activate():
                    ahead.ready(ahead.stream)

    def to_host(self, value: Array) -> np.ndarray:
        return self.xp.asnumpy(value.astype(np.float32) if value.dtype.name == "bfloat16" else value)

    @functools.cache  # noqa: B019 (backends live as long as the process; a graph may read what it was given once)
    def constant(self, values: tuple[float, ...], dtype: str) -> Array:
        array = self.from_host(values, dtype)
        self.synchronize()  # another stream may read it next
        return array

    def synchronize(self) -> None:
        with self.activate():
            self.xp.cuda.get_current_stream().synchronize()

    def activate(self) -> contextlib.AbstractContextManager[Any]:
        return self.xp.cuda.Device(self.index)

    @functools.cached_property
    def errors(self) -> tuple[type[Exception], ...]:
        """What CUDA and its compiler raise through CuPy; a lack of memory is a MemoryError, too."""
        cuda = self.xp.cuda
        return cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError, cuda.compiler.CompileException

    @functools.cached_property
    def memory_total(self) -> int:
        """Bytes of memory of the card."""
        with self.activate():
            return int(self.xp.cuda.runtime.memGetInfo()[1])

    @functools.cached_property
    def processors(self) -> int:
        """Multiprocessors of the card."""
        return int(self.xp.cuda.Device(self.index).attributes["MultiProcessorCount"])

    @functools.cached_property
    def shared_memory(self) -> int:
        """Bytes of shared memory that a block may ask for."""
        return int(self.xp.cuda.Device(self.index).attributes["MaxSharedMemoryPerBlockOptin"])

    @functools.cached_property
    def capability(self) -> int:  # type: ignore[override]
        """Compute capability, ten times the major number plus the minor one."""
        return int(self.xp.cuda.Device(self.index).compute_capability)

    @functools.cached_property
    def watched(self) -> bool:
        """Whether the driver ends a kernel that runs for seconds, as it does where the card draws a screen too."""
        return bool(self.xp.cuda.Device(self.index).attributes["KernelExecTimeout"])

    @property
    def device_name(self) -> str:
        """The card's name as the driver gives it."""
        return self.xp.cuda.runtime.getDeviceProperties(self.index)["name"].decode()

    @property
    def uses_tf32(self) -> bool:
        """Whether float32 products round their factors to TF32: CUPY_TF32=1, which CuPy reads too, from 8.0 on."""
        return variables().get("CUPY_TF32") == "1" and self.capability >= 80

    @contextlib.contextmanager
    def _math_mode(self) -> Iterator[None]:
        """cuBLAS in the mode that CUPY_TF32 asks for; CuPy itself looks at it in `matmul` and `tensordot` alone."""
        if not self.uses_tf32:
            yield
            return
        cublas, handle = self.xp.cuda.cublas, self.xp.cuda.get_cublas_handle()
        before = cublas.getMathMode(handle)
        cublas.setMathMode(handle, _TF32_MATH)
        try:
            yield
        finally:
            cublas.setMathMode(handle, before)

    def gemm(
        self, a: Array, b: Array, out: Array, *, transa: bool = False, transb: bool = False, accumulate: bool = False
    ) -> None:
        """out = op(a) op(b), or out += op(a) op(b): one cuBLAS call on C-contiguous matrices, no temporary.

        16 bits have no accumulating form here (`cupy.cublas.gemm` knows float32 and float64) and take a temporary then.
        """
        if not is_half(a.dtype):
            ops = ("NT"[transa], "NT"[transb])
            with self._math_mode():
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

    def kernel(self, file: str, defines: tuple[tuple[str, str], ...], name: str, *, cooperative: bool = False) -> Any:
        """A kernel of a file of `kernels/` under a choice of macros, as CuPy gives it; compiled at the first call.

        Args:
            file: for example `"cuda/fused.cu"`.
            defines: macros and their values.
            name: of the kernel.
            cooperative: whether it is launched with all blocks resident, for barriers across the grid.
        """
        return self._compilations.get(*self._kernel(file, defines, name, cooperative))

    def prepare(self, file: str, defines: tuple[tuple[str, str], ...], name: str, *, cooperative: bool = False) -> None:
        """Begin to compile a kernel on another thread; the arguments are those of the later call of `kernel`."""
        self._compilations.begin(*self._kernel(file, defines, name, cooperative))

    def _kernel(
        self, file: str, defines: tuple[tuple[str, str], ...], name: str, cooperative: bool
    ) -> tuple[tuple[Any, ...], Callable[[], Any]]:
        def compiled() -> Any:
            with self.activate():  # a module belongs to one device
                return _module(self.index, file, defines, cooperative).get_function(name)

        return (file, defines, name, cooperative), compiled

    @property
    def compiled(self) -> int:
        """Kernels of this package that have been compiled, or read from CuPy's cache, in this process."""
        return len(self._compilations)

    @functools.cached_property
    def _compilations(self) -> Compilations:
        return Compilations(self.device_name)


@functools.cache
def _module(index: int, file: str, defines: tuple[tuple[str, str], ...], cooperative: bool) -> Any:
    return _cupy().RawModule(
        code=module_source(file, defines), options=("-std=c++17",), enable_cooperative_groups=cooperative
    )


class _Upload:
    """A copy to the device that has begun.

    Attributes:
        array: which is used behind `ready` alone.
        stream: that its memory belongs to.
        copied: the event behind the copy.
    """

    def __init__(self, array: Array, stream: Any, copied: Any) -> None:
        self.array, self.stream, self.copied = array, stream, copied

    def ready(self, stream: Any) -> Array:
        """The array; `stream` waits for it, the host does not."""
        stream.wait_event(self.copied)
        return self.array


class _Uploads:
    """Copies to a device on a stream of their own, from two buffers of pinned host memory in turn.

    There is one for a device, and it lives as long as the process: a buffer is written, or given back, only when what
    it held has been copied, whoever asked for that copy.
    """

    def __init__(self, cupy: Any) -> None:
        self._cuda, self._empty = cupy.cuda, cupy.empty
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._pinned: list[Any] = [None, None]
        self._copied: list[Any] = [None, None]  # events: what a buffer held has been copied
        self._turn = 0
        self._lock = threading.Lock()

    def start(self, part: np.ndarray, dtype: Any) -> _Upload:
        """Begin to copy a host array as `dtype`."""
        dtype, current = np.dtype(dtype), self._cuda.get_current_stream()
        with self._lock:
            turn = self._turn
            self._turn = 1 - turn
            if self._copied[turn] is not None:
                self._copied[turn].synchronize()
            size = max(1, part.size * dtype.itemsize)
            if self._pinned[turn] is None or self._pinned[turn].mem.size < size:
                self._pinned[turn] = self._cuda.alloc_pinned_memory(size)
            host = np.frombuffer(self._pinned[turn], dtype, part.size).reshape(part.shape)
            host[...] = part
            array = self._empty(part.shape, dtype)
            # the memory of `array` may have belonged to arrays that work on the current stream still reads
            self._stream.wait_event(current.record())
            array.set(host, stream=self._stream)
            self._copied[turn] = self._stream.record()
            return _Upload(array, current, self._copied[turn])


@functools.cache
def _uploads(index: int) -> _Uploads:
    """The copies to the current device."""
    return _Uploads(_cupy())


@functools.cache
def _elementwise(name: str, inputs: str, outputs: str, body: str, headers: tuple[str, ...]) -> Any:
    return _cupy().ElementwiseKernel(inputs, outputs, body, name, preamble=kernel_preamble(headers))


def nccl_id() -> tuple[int, ...]:
    """A name for a new group of processes, which all of them give to `Communicator`."""
    return _nccl().get_unique_id()


class Communicator:
    """One process of a group that adds up arrays between GPUs by NCCL.

    Args:
        backend: this process's card, which no other one of the group has.
        size: processes of the group; the constructor waits for all of them.
        name: of the group, by `nccl_id`.
        rank: number of this process.
    """

    def __init__(self, backend: CupyBackend, size: int, name: tuple[int, ...], rank: int) -> None:
        self._backend, self._nccl = backend, _nccl()
        with backend.activate():
            self._group = self._nccl.NcclCommunicator(size, name, rank)

    def sum(self, buffer: Array) -> None:
        """Put the sum over all processes in the place of a float32 or float64 array; only enqueues it."""
        kind = {"float32": self._nccl.NCCL_FLOAT32, "float64": self._nccl.NCCL_FLOAT64}[buffer.dtype.name]
        with self._backend.activate():
            stream = self._backend.xp.cuda.get_current_stream()
            at = buffer.data.ptr
            self._group.allReduce(at, at, buffer.size, kind, self._nccl.NCCL_SUM, stream.ptr)


def _nccl() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy's own advice; ours follows
        from cupy.cuda import nccl
    if not nccl.available:
        kind = _cupy().cuda.runtime.runtimeGetVersion() // 1000
        raise missing_extra(f"nvidia-nccl-cu{kind}", "training on several GPUs")
    return nccl


def cuda_missing() -> str | None:
    """Why CUDA cannot be used here, in one sentence, or None when it can."""
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed; run: pip install 'cupy-cuda12x[ctk]' (or cupy-cuda13x, to match the driver)"
    try:
        cupy = _cupy()
    except DeviceError as error:
        return str(error)
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CuPy is installed but finds no usable device ({error})"
    if not count:
        return "CuPy is installed but finds no device"
    return _libraries_missing() or _cannot_compile(0)


def device_count() -> int:
    """How many CUDA devices can be used (0 without CuPy or a driver)."""
    return 0 if cuda_missing() else int(_cupy().cuda.runtime.getDeviceCount())


@functools.cache
def _cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        if importlib.util.find_spec("cupy") is None:
            raise missing_extra("'cupy-cuda12x[ctk]'", "a CUDA device") from error
        raise DeviceError(f"CuPy is installed but cannot be imported ({error})") from error
    return cupy


@functools.cache
def _libraries_missing() -> str | None:
    """Why cuBLAS cannot be loaded, or None; `import cupy` alone neither loads it nor needs it."""
    try:
        import cupy.cublas  # noqa: F401
    except ImportError as error:
        reason = str(error).splitlines()[0]
        return f"CuPy is installed without the libraries of CUDA ({reason}); run: pip install 'cupy-cuda12x[ctk]'"
    return None


@functools.cache
def _cannot_compile(index: int) -> str | None:
    """Why no kernel can be compiled for a device, or None: one is, which CuPy keeps for later processes."""
    cupy = _cupy()
    with cupy.cuda.Device(index) as device:
        try:
            cupy.RawKernel('extern "C" __global__ void gpulstm_probe() {}', "gpulstm_probe").compile()
        except (cupy.cuda.compiler.CompileException, cupy.cuda.driver.CUDADriverError, RuntimeError, OSError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        else:
            return None
        name = cupy.cuda.runtime.getDeviceProperties(index)["name"].decode()
        capability, version = device.compute_capability, cupy.cuda.nvrtc.getVersion()
    return (
        f"CUDA {version[0]}.{version[1]} compiles no kernel for {name} of compute capability "
        f"{capability[:-1]}.{capability[-1]} ({reason}); install the CuPy of the CUDA that serves this card"
    )


@functools.cache
def cuda_backend(index: int) -> CupyBackend:
    """The backend of one CUDA device, the same at each call.

    Raises:
        DeviceError: the libraries of CUDA are not there, or compile no kernel for the device.
    """
    missing = _libraries_missing() or _cannot_compile(index)
    if missing:
        raise DeviceError(f"device 'cuda:{index}' cannot be used: {missing}")
    return CupyBackend(index)
