"""Which array library computes, and where: NumPy on the CPU, CuPy on an NVIDIA GPU.

This is the only file that imports CuPy, and it does so at the first use of a CUDA device.  Everything above works
through a `Backend`: its namespace `xp`, transfers to and from the host, compiled elementwise kernels, synchronisation
and the memory in use.  Nothing here moves an array between devices unless a method named for that is called.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.errors import ConfigError, DeviceError, DTypeError, ShapeError, missing_extra

Array = Any  # a NumPy, CuPy or array-api-strict array; which one is known only at run time

_INCLUDE = re.compile(r'^#include "([\w/]+\.cuh?|[\w/]+\.h)"$', re.MULTILINE)
_DEVICE_PATTERN = re.compile(r"cuda(?::(\d+))?")


class Backend(ABC):
    """An array library bound to one device.

    Attributes:
        device: `"cpu"` or `"cuda:N"`.
        xp: the array namespace, `numpy` or `cupy`.
    """

    device: str
    xp: Any

    @property
    def is_cuda(self) -> bool:
        """Whether arrays live on a CUDA device."""
        return self.device != "cpu"

    def __repr__(self) -> str:
        return f"Backend({self.device!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are the one backend of that device."""
        return resolve, (self.device,)

    @abstractmethod
    def owns(self, value: object) -> bool:
        """Whether `value` is an array of this library on this device."""

    @abstractmethod
    def asarray(self, value: Any, dtype: Any = None, *, name: str = "array") -> Array:
        """`value` as an array of this backend, without a copy where none is needed.

        Accepts this library's own arrays, anything with DLPack or `__cuda_array_interface__` on this very device, and
        (on the CPU) whatever `numpy.asarray` takes.  `dtype` None keeps the dtype that came.

        Raises:
            DeviceError: `value` lives on another device; it names both and the call that would move it.
            DTypeError: `value` holds no real numbers.
            ShapeError: `value` is a nested list whose parts differ in length.
        """

    @abstractmethod
    def from_host(self, value: Any, dtype: Any = None) -> Array:
        """A copy of a host array on this device (the array itself on the CPU)."""

    @abstractmethod
    def uploads(self, parts: Iterable[np.ndarray], dtype: Any) -> Iterator[Array]:
        """Host arrays one after another on this device as `dtype`; on a GPU the next is copied while one is in use.

        So `parts` is read one ahead there.
        """

    @abstractmethod
    def to_host(self, value: Array) -> np.ndarray:
        """`value` as a NumPy array; from a GPU this waits for the work that computes it."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until all work handed to the current stream is done."""

    @abstractmethod
    def memory_used(self) -> int:
        """Bytes in use: blocks handed out by CuPy's pool on a GPU; the process's resident set on the CPU (Linux)."""

    @abstractmethod
    def activate(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which new arrays and launches go to this device."""

    def constant(self, values: tuple[float, ...], dtype: str) -> Array:
        """A short vector that never changes; a GPU gets it once, so that asking again moves nothing."""
        return self.xp.asarray(values, dtype=dtype)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An uninitialised array."""
        with self.activate():
            return self.xp.empty(shape, dtype=dtype)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array of zeros."""
        with self.activate():
            return self.xp.zeros(shape, dtype=dtype)


class NumpyBackend(Backend):
    """NumPy on the host."""

    device = "cpu"
    xp = np

    def owns(self, value: object) -> bool:
        return isinstance(value, np.ndarray)

    def asarray(self, value: Any, dtype: Any = None, *, name: str = "array") -> Array:
        if not isinstance(value, np.ndarray):
            where = foreign_device(value)
            if where is not None:
                raise DeviceError(
                    f"{name} lives on {where} but the model is on cpu; move it with gpulstm.to_host({name})"
                )
            try:
                value = np.from_dlpack(value) if hasattr(value, "__dlpack__") else np.asarray(value)
            except ValueError as error:
                raise ShapeError(
                    f"{name} is a {type(value).__name__} whose parts differ in length, expected an array"
                ) from error
        if value.dtype.kind not in "fiub":
            raise DTypeError(f"{name} has dtype {value.dtype}, expected real numbers")
        return value if dtype is None else value.astype(dtype, copy=False)

    def from_host(self, value: Any, dtype: Any = None) -> Array:
        return np.asarray(value, dtype=dtype)

    def uploads(self, parts: Iterable[np.ndarray], dtype: Any) -> Iterator[Array]:
        return (np.asarray(part, dtype=dtype) for part in parts)

    def to_host(self, value: Array) -> np.ndarray:
        return np.asarray(value)

    def synchronize(self) -> None:
        """NumPy returns only when its work is done."""

    def memory_used(self) -> int:
        try:
            with open("/proc/self/statm") as statm:
                return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except FileNotFoundError as error:
            raise DeviceError("memory_used on the cpu reads /proc, which this system does not have") from error

    def activate(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()


class CupyBackend(Backend):
    """CuPy on one CUDA device; work is enqueued on CuPy's current stream."""

    def __init__(self, index: int) -> None:
        self.xp = _cupy()
        self.index = index
        self.device = f"cuda:{index}"

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


@functools.cache
def module_source(file: str, defines: tuple[tuple[str, str], ...]) -> str:
    """The text that is compiled for `file` under a choice of macros: the macros, the file and all that it includes."""
    half = any(value == "__half" for _, value in defines)
    head = ["#include <cuda_fp16.h>", "#define GL_HALF"] if half else []
    return "\n".join([*head, *(f"#define {name} {value}" for name, value in defines), kernel_preamble((file,))])


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


@functools.cache
def kernel_preamble(headers: tuple[str, ...]) -> str:
    """The named headers with all they include, each once: NVRTC is given text and has no include path."""
    done: list[str] = []

    def text(name: str) -> str:
        if name in done:
            return ""
        done.append(name)
        return _INCLUDE.sub(lambda match: text(match.group(1)), kernel_source(name))

    return "\n".join(text(header) for header in headers)


@functools.cache
def kernel_source(name: str) -> str:
    """The text of a file of `kernels/`: beside this file in an installed package, beside the package in a checkout."""
    return (kernel_folder() / name).read_text(encoding="utf-8")


@functools.cache
def kernel_folder() -> Path:
    """Where the kernel sources lie; an installation without them is broken and says so."""
    here = Path(__file__).resolve().parent
    for folder in (here / "kernels", here.parent / "kernels"):
        if (folder / "gates.h").is_file():
            return folder
    raise ConfigError(f"the kernel sources are missing from {here}; the installation is damaged, reinstall gpulstm")


def resolve(device: str | Backend = "auto") -> Backend:
    """The backend for `"auto"`, `"cpu"`, `"cuda"` or `"cuda:N"`; a backend is given back as it is.

    `"auto"` is the first CUDA device where CuPy and a device are there, else the CPU.

    Raises:
        DeviceError: the device is not there; the message says what is missing.
        ConfigError: the name is none of the four.
    """
    if isinstance(device, Backend):
        return device
    if device == "cpu":
        return _NUMPY
    if device == "auto":
        return _NUMPY if cuda_missing() else _cuda(0)
    match = _DEVICE_PATTERN.fullmatch(device) if isinstance(device, str) else None
    if match is None:
        raise ConfigError(f"device is {device!r}, expected 'auto', 'cpu', 'cuda' or 'cuda:N'")
    missing = cuda_missing()
    if missing:
        raise DeviceError(f"device {device!r} cannot be used: {missing}")
    index, count = int(match.group(1) or 0), device_count()
    if index >= count:
        raise DeviceError(f"device {device!r} is not there: this machine has cuda:0 to cuda:{count - 1}")
    return _cuda(index)


def backend_of(value: object) -> Backend:
    """The backend that an array belongs to: its device for a CuPy array, else the CPU."""
    interface = getattr(value, "__cuda_array_interface__", None)
    return _NUMPY if interface is None else _cuda(int(getattr(getattr(value, "device", None), "id", 0)))


def namespace(value: Array) -> Any:
    """The array namespace of `value`: the standard's own answer, or CuPy, whose arrays do not give it."""
    return value.__array_namespace__() if hasattr(value, "__array_namespace__") else backend_of(value).xp


def to_host(value: Any) -> np.ndarray:
    """An array from any device as a NumPy array."""
    return backend_of(value).to_host(value)


def to_device(value: Any, device: str | Backend) -> Array:
    """A host array copied to `device`; an array that is there already is given back as it is."""
    backend = resolve(device)
    return value if backend.owns(value) else backend.from_host(to_host(value))


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


def host_generator(seed: int, *stream: int) -> np.random.Generator:
    """A NumPy generator for what is drawn on the host: initial weights, the order of the data.

    The same `(seed, *stream)` gives the same numbers on every machine and device (Philox, a counter-based generator).
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, *stream))))


@contextlib.contextmanager
def one_device(*values: object) -> Iterator[Backend]:
    """Activate the one device that all arrays share; arrays of two devices are refused by name."""
    backends = {backend_of(value) for value in values}
    if len(backends) != 1:
        raise DeviceError(f"the arrays live on different devices: {', '.join(sorted(b.device for b in backends))}")
    backend = backends.pop()
    with backend.activate():
        yield backend


def foreign_device(value: object) -> str | None:
    """The device of an array that is not on the host, of any library that speaks DLPack or CUDA arrays; else None."""
    if hasattr(value, "__dlpack_device__"):
        kind, index = value.__dlpack_device__()
        return None if int(kind) == 1 else f"cuda:{index}"
    return "a CUDA device" if hasattr(value, "__cuda_array_interface__") else None


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
def _cuda(index: int) -> CupyBackend:
    missing = _libraries_missing()
    if missing:
        raise DeviceError(f"device 'cuda:{index}' cannot be used: {missing}")
    return CupyBackend(index)


_NUMPY = NumpyBackend()
