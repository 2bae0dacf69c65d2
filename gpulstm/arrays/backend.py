"""An array library bound to one device: what both have in common, and NumPy on the CPU.

Everything above works through a `Backend`: its namespace `xp`, transfers to and from the host, synchronization and the
memory in use.  Nothing here moves an array between devices unless a method named for that is called.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from gpulstm.errors import DeviceError, DTypeError, ShapeError

Array = Any  # a NumPy, CuPy or array-api-strict array; which one is known only at run time


class Backend(ABC):
    """An array library bound to one device.

    Attributes:
        device: `"cpu"` or `"cuda:N"`.
        xp: the array namespace, `numpy` or `cupy`.
        capability: compute capability of a GPU, ten times the major number plus the minor one; None on the CPU.
    """

    device: str
    xp: Any
    capability: int | None = None

    @property
    def is_cuda(self) -> bool:
        """Whether arrays live on a CUDA device."""
        return self.device != "cpu"

    def __repr__(self) -> str:
        return f"Backend({self.device!r})"

    @abstractmethod
    def __reduce__(self) -> str | tuple[Any, ...]:
        """Copies and pickles are the one backend of that device."""

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
        """An uninitialized array."""
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

    def __reduce__(self) -> str:
        return "NUMPY"

    def owns(self, value: object) -> bool:
        return isinstance(value, np.ndarray)

    def asarray(self, value: Any, dtype: Any = None, *, name: str = "array") -> Array:
        if type(value) is not np.ndarray:
            value = _taken(value, name)
        if value.dtype.kind not in "fiub":
            raise DTypeError(f"{name} has dtype {value.dtype}, expected real numbers")
        if not value.flags.aligned:  # a view into bytes: native code takes elements at their own addresses alone
            value = value.copy()
        return value if dtype is None or value.dtype is dtype else value.astype(dtype, copy=False)

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


def _taken(value: Any, name: str) -> np.ndarray:
    """What is no plain NumPy array as one, where it lies on the host; errors as `Backend.asarray`."""
    if isinstance(value, np.ndarray):
        return unmasked(value, name) if isinstance(value, np.ma.MaskedArray) else value
    where = foreign_device(value)
    if where is not None:
        raise DeviceError(f"{name} lives on {where} but the model is on cpu; move it with gpulstm.to_host({name})")
    try:
        return _shared(value, name) if hasattr(value, "__dlpack__") else np.asarray(value)
    except ValueError as error:
        raise ShapeError(
            f"{name} is a {type(value).__name__} whose parts differ in length, expected an array"
        ) from error


def unmasked(value: np.ma.MaskedArray, name: str) -> np.ndarray:
    """The data of a masked array without masked entries.

    Raises:
        DTypeError: an entry is masked, which a plain array cannot say.
    """
    if np.ma.is_masked(value):
        raise DTypeError(
            f"{name} is a masked array with {int(np.ma.getmaskarray(value).sum())} masked values; fill them first, as "
            f"{name}.filled(numpy.nan)"
        )
    return value.data


def _shared(value: Any, name: str) -> np.ndarray:
    """An array of another library as a NumPy array; one of PyTorch may have a gradient, or a dtype NumPy has not."""
    if hasattr(value, "detach"):
        value = value.detach()
        if "bfloat16" in str(value.dtype) or "float8" in str(value.dtype):
            value = value.float()
    try:
        return np.from_dlpack(value)
    except (RuntimeError, BufferError, TypeError) as error:
        raise DTypeError(f"{name} has dtype {getattr(value, 'dtype', '?')}, which NumPy does not have") from error


_HOST_KINDS = (1, 3)  # of DLPack: kDLCPU, kDLCUDAHost


def foreign_device(value: object) -> str | None:
    """The device of an array that is not on the host, of any library that speaks DLPack or CUDA arrays; else None.

    Page-locked host memory is on the host.
    """
    if hasattr(value, "__dlpack_device__"):
        kind, index = value.__dlpack_device__()
        return None if int(kind) in _HOST_KINDS else f"cuda:{index}"
    return "a CUDA device" if hasattr(value, "__cuda_array_interface__") else None


NUMPY = NumpyBackend()
