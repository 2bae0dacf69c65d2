"""Which device a name or an array means, and the ways between host and devices."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from gpulstm.arrays.backend import NUMPY, Array, Backend
from gpulstm.arrays.cupy_backend import cuda_backend, cuda_missing, device_count
from gpulstm.arrays.launch import place
from gpulstm.errors import ConfigError, DeviceError

_DEVICE_PATTERN = re.compile(r"cuda(?::(\d+))?")


def resolve(device: str | Backend = "auto") -> Backend:
    """The backend for `"auto"`, `"cpu"`, `"cuda"` or `"cuda:N"`; a backend is given back as it is.

    `"auto"` is a CUDA device where CuPy and a device are there, else the CPU.  Without a number it is the first one; of
    processes that mpiexec or the like started together on a machine, each has the next.

    Raises:
        DeviceError: the device is not there; the message says what is missing.
        ConfigError: the name is none of the four.
    """
    if isinstance(device, Backend):
        return device
    if device == "cpu":
        return NUMPY
    if device == "auto":
        return NUMPY if cuda_missing() else cuda_backend(_own_card())
    match = _DEVICE_PATTERN.fullmatch(device) if isinstance(device, str) else None
    if match is None:
        raise ConfigError(f"device is {device!r}, expected 'auto', 'cpu', 'cuda' or 'cuda:N'")
    missing = cuda_missing()
    if missing:
        raise DeviceError(f"device {device!r} cannot be used: {missing}")
    index, count = _own_card() if match.group(1) is None else int(match.group(1)), device_count()
    if index >= count:
        raise DeviceError(f"device {device!r} is not there: this machine has cuda:0 to cuda:{count - 1}")
    return cuda_backend(index)


def _own_card() -> int:
    return place().local_rank % device_count()


def backend_of(value: object) -> Backend:
    """The backend that an array belongs to: its device for a CuPy array, else the CPU."""
    interface = getattr(value, "__cuda_array_interface__", None)
    return NUMPY if interface is None else cuda_backend(int(getattr(getattr(value, "device", None), "id", 0)))


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


@contextlib.contextmanager
def one_device(*values: object) -> Iterator[Backend]:
    """Activate the one device that all arrays share; arrays of two devices are refused by name."""
    backends = {backend_of(value) for value in values}
    if len(backends) != 1:
        raise DeviceError(f"the arrays live on different devices: {', '.join(sorted(b.device for b in backends))}")
    backend = backends.pop()
    with backend.activate():
        yield backend


def processor() -> str:
    """The name of the CPU as Linux gives it, else what Python knows."""
    import platform
    from pathlib import Path

    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
