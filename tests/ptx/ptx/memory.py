"""Global memory of the interpreter's device, and the shared memory of a launch.

Every byte knows whether it was allocated and whether it was written.  Arrays of the host live in the same memory as the
kernels', so that no copies are needed: what the host writes is found before a launch, see `GlobalMemory.notice_host`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ptx.kinds import UNSIGNED
from ptx.parser import round_up

BASE = 0x2_0000_0000  # the address of the first byte
GAP = 512  # bytes between two allocations, so that an address past the end of one is none of another
POISON = 0xFFFFFFFF  # memory that nobody wrote holds this, which is a NaN


class Pointer(NamedTuple):
    """What CuPy has as `array.data`."""

    ptr: int


class DeviceArray(np.ndarray):
    """A NumPy array in `GlobalMemory`; `data.ptr` is its address, as in CuPy.

    Copies lie there too.  A result of NumPy's arithmetic is a DeviceArray outside of that memory and has no address.
    """

    memory: GlobalMemory | None = None

    def __array_finalize__(self, source: Any) -> None:
        self.memory = getattr(source, "memory", None)

    @property
    def data(self) -> Pointer:  # type: ignore[override]
        """Its address on the device."""
        if self.memory is None:
            raise ValueError("an array of no device")
        return Pointer(self.memory.address(self))

    def copy(self, order: Any = "C") -> DeviceArray:
        """A copy on the device."""
        return self.astype(self.dtype)

    def astype(self, dtype: Any, *arguments: Any, **options: Any) -> DeviceArray:
        """A copy on the device as another type."""
        values = np.asarray(self).astype(dtype)
        return values.view(DeviceArray) if self.memory is None else self.memory.array(values)

    def get(self) -> np.ndarray:
        """A copy for the host."""
        return np.array(self)


class GlobalMemory:
    """Global memory: allocations with gaps between them.

    Args:
        size: bytes, all that can ever be allocated.
    """

    def __init__(self, size: int = 1 << 24) -> None:
        self.bytes = np.zeros(size, np.uint8)
        self.allocated, self.written = np.zeros(size, bool), np.zeros(size, bool)
        self.views = {width: self.bytes.view(dtype) for width, dtype in UNSIGNED.items()}
        self.used = 0

    def allocate(self, size: int, misalign: int = 0) -> int:
        """Room for `size` bytes at a multiple of 256, plus `misalign`; its offset."""
        start = round_up(self.used + GAP, 256) + misalign
        if start + size + GAP > len(self.bytes):
            raise MemoryError(f"{size} bytes more than this device has")
        self.used = start + size
        self.bytes[start : start + size] = 0xFF
        self.allocated[start : start + size] = True
        return start

    def empty(self, shape: Any, dtype: Any = float, misalign: int = 0) -> DeviceArray:
        """An array that nobody has written."""
        dtype, shape = np.dtype(dtype), (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        size = int(np.prod(shape)) * dtype.itemsize
        start = self.allocate(size, misalign)
        array = self.bytes[start : start + size].view(dtype).reshape(shape).view(DeviceArray)
        array.memory = self
        return array

    def array(self, values: Any, dtype: Any = None, misalign: int = 0) -> DeviceArray:
        """A copy of an array of the host."""
        values = np.asarray(values, dtype)
        array = self.empty(values.shape, values.dtype, misalign)
        array[...] = values
        start = self.address(array) - BASE
        self.written[start : start + values.nbytes] = True
        return array

    def holds(self, array: np.ndarray) -> bool:
        """Whether an array lies in this memory."""
        first = array.__array_interface__["data"][0] - self.bytes.__array_interface__["data"][0]
        return 0 <= first < len(self.bytes)

    def address(self, array: np.ndarray) -> int:
        """Of the first byte of an array."""
        if array.size and not self.holds(array):
            raise ValueError(f"an array {array.shape} of {array.dtype} is not in the device's memory")
        return BASE + array.__array_interface__["data"][0] - self.bytes.__array_interface__["data"][0]

    def notice_host(self) -> None:
        """Before a launch: words that no longer hold POISON were written by the host."""
        end = round_up(self.used, 4)
        touched = np.repeat(self.views[4][: end // 4] != POISON, 4)
        self.written[:end] |= touched & self.allocated[:end]

    def reachable(self, offsets: np.ndarray, size: int) -> bool:
        """Whether all of `size` bytes from each offset were allocated."""
        if not len(offsets):
            return True
        if offsets.min() < 0 or offsets.max() + size > len(self.bytes):
            return False
        return bool(self.allocated[offsets].all() and self.allocated[offsets + size - 1].all())


class SharedMemory:
    """The shared memory of all blocks of a launch, one behind the other.

    Args:
        blocks: of the grid.
        limit: bytes that a block has.
    """

    WINDOW = 0x7F00_0000_0000  # generic addresses of shared memory lie from here on

    def __init__(self, blocks: int, limit: int) -> None:
        self.limit, self.pitch = limit, round_up(max(limit, 128), 128)
        self.bytes = np.full(self.pitch * blocks, 0xFF, np.uint8)
        self.written = np.zeros(self.pitch * blocks, bool)
        self.flying = np.zeros(self.pitch * blocks, bool)  # a cp.async is on its way there
        self.views = {width: self.bytes.view(dtype) for width, dtype in UNSIGNED.items()}

    def reachable(self, addresses: np.ndarray, size: int) -> bool:
        """Whether `size` bytes from each address (within a block) lie within what a block has."""
        return not len(addresses) or bool(addresses.min() >= 0 and addresses.max() + size <= self.limit)
