"""A device for the package's CUDA engine whose kernels are PTX, interpreted.

`PtxBackend` stands where a `CupyBackend` does: arrays are NumPy's in the interpreter's memory, modules are compiled by
NVRTC with CuPy's options, and a launch is a `Machine`.  Array code and cuBLAS are NumPy's.
"""

from __future__ import annotations

import contextlib
import functools
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import nvrtc

import gpulstm.arrays.devices
from gpulstm.arrays.kernel_source import kernel_preamble, module_source
from ptx.counters import Counters
from ptx.cupy_sources import CupySources
from ptx.faults import Faults
from ptx.machine import Machine, Settings
from ptx.memory import DeviceArray, GlobalMemory
from ptx.parser import Kernel, parse

_SCALARS = {"float": "<f", "double": "<d", "long long": "<q", "unsigned int": "<I", "int": "<i", "bool": "<?"}
_PARAMETER = re.compile(r"(?:const )?(CArray|CIndexer)?(?:<([^>]*)>)?\s*([\w ]*?)\s*(\w+)$")
BLOCK = 128  # threads of an elementwise kernel's block, as CuPy launches it


@functools.lru_cache(maxsize=256)
def text_of(source: str, capability: int, toolkit: nvrtc.Toolkit, lines: bool = False) -> str:
    """The PTX of a source."""
    return toolkit.ptx(source, capability, lines=lines)


@functools.lru_cache(maxsize=256)
def kernels(source: str, capability: int, toolkit: nvrtc.Toolkit, lines: bool = False) -> dict[str, Kernel]:
    """The parsed kernels of a source."""
    return parse(text_of(source, capability, toolkit, lines))


class _Arrays:
    """NumPy, but for what makes arrays: those lie in the device's memory."""

    def __init__(self, memory: GlobalMemory) -> None:
        self.memory = memory
        self.empty, self.array, self.asarray = memory.empty, memory.array, self.ascontiguousarray
        driver = SimpleNamespace(occupancyMaxActiveBlocksPerMultiprocessor=lambda *limits: 1)
        self.cuda = SimpleNamespace(driver=driver)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def zeros(self, shape: Any, dtype: Any = float) -> DeviceArray:
        return self.array(np.zeros(shape, dtype))

    def empty_like(self, array: np.ndarray) -> DeviceArray:
        return self.empty(array.shape, array.dtype)

    def ascontiguousarray(self, array: Any, dtype: Any = None) -> DeviceArray:
        if isinstance(array, DeviceArray) and array.flags.c_contiguous and self.memory.holds(array):
            return array
        return self.array(np.ascontiguousarray(array, dtype))


@dataclass(frozen=True)
class Launch:
    """What is kept of a launch."""

    kernel: Kernel
    grid: tuple[int, ...]
    block: tuple[int, ...]
    counters: Counters
    source: str


@dataclass(eq=False)
class PtxBackend:
    """The interpreter's device.

    Args:
        toolkit: whose NVRTC compiles.
        capability: what for, times ten.
        settings: of every launch.
        size: bytes of global memory.
        mutate: what a test does to the PTX of modules before it is run.
        lines: whether it is the PTX that machine code with line information refers to.
    """

    toolkit: nvrtc.Toolkit
    capability: int = 90
    settings: Settings = field(default_factory=Settings)
    size: int = 1 << 24
    mutate: Any = None
    lines: bool = False
    processors: int = 132
    shared_memory: int = 232448
    registers: int = 65536
    device: str = "cuda:0"
    device_name: str = "PTX interpreter"
    is_cuda: bool = True
    uses_tf32: bool = False
    watched: bool = False

    def __post_init__(self) -> None:
        self.memory = GlobalMemory(self.size)
        self.xp = _Arrays(self.memory)
        self.launches: list[Launch] = []
        self.sources: dict[int, str] = {}  # of a kernel, by its id
        self.faults = Faults()

    def activate(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def owns(self, value: object) -> bool:
        return isinstance(value, DeviceArray)

    def from_host(self, value: Any, dtype: Any = None) -> DeviceArray:
        return self.memory.array(value, dtype)

    def empty(self, shape: Any, dtype: Any) -> DeviceArray:
        return self.memory.empty(shape, dtype)

    def zeros(self, shape: Any, dtype: Any) -> DeviceArray:
        return self.xp.zeros(shape, dtype)

    def gemm(
        self, a: Any, b: Any, out: Any, *, transa: bool = False, transb: bool = False, accumulate: bool = False
    ) -> None:
        """What cuBLAS would do."""
        wide = np.float64 if out.dtype == np.float64 else np.float32
        left, right = (np.asarray(x).T if turned else np.asarray(x) for x, turned in ((a, transa), (b, transb)))
        product = left.astype(wide) @ right.astype(wide)
        out[...] = out + product if accumulate else product

    def module(self, file: str, defines: tuple[tuple[str, str], ...], *, cooperative: bool = False) -> Any:
        """The kernels of a file under a choice of macros."""
        source = module_source(file, defines)
        kernels = self.kernels(source)
        self.sources |= {id(kernel): source for kernel in kernels.values()}
        return SimpleNamespace(get_function=lambda name: _Function(self, kernels[name]))

    def kernel(self, file: str, defines: tuple[tuple[str, str], ...], name: str, *, cooperative: bool = False) -> Any:
        """A kernel of a file, as `CupyBackend` gives it."""
        return self.module(file, defines).get_function(name)

    def prepare(self, file: str, defines: tuple[tuple[str, str], ...], name: str, *, cooperative: bool = False) -> None:
        """Compiled when it is asked for."""

    def kernels(self, source: str) -> dict[str, Kernel]:
        """The kernels of a source, mutated where a test wants that."""
        if self.mutate is None:
            return kernels(source, self.capability, self.toolkit, self.lines)
        return parse(self.mutate(text_of(source, self.capability, self.toolkit)))

    def elementwise(self, name: str, inputs: str, outputs: str, body: str, *, headers: tuple[str, ...] = ()) -> Any:
        """An elementwise kernel, in the source that CuPy writes for it."""
        return _Elementwise(self, name, inputs, outputs, body, kernel_preamble(headers))

    def launch(
        self, kernel: Kernel, grid: tuple[int, ...], block: tuple[int, ...], arguments: list[bytes], shared: int = 0
    ) -> None:
        """Run a launch and keep what its checks found and what it cost."""
        sizes = ((*grid, 1, 1)[:3], (*block, 1)[:2])
        machine = Machine(kernel, self.memory, *sizes, arguments, shared, self.settings)  # type: ignore[arg-type]
        try:
            machine.run()
        finally:
            self.faults.found.update(machine.faults.found)
        self.launches.append(Launch(kernel, sizes[0], sizes[1], machine.counters, self.sources.get(id(kernel), "")))


class _Function:
    """A kernel as `cupy.RawKernel` has it."""

    def __init__(self, backend: PtxBackend, kernel: Kernel) -> None:
        self.backend, self.parsed = backend, kernel
        self.max_dynamic_shared_size_bytes = 0
        self.kernel = SimpleNamespace(ptr=0)

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...], *, shared_mem: int = 0
    ) -> None:
        packed = [_bytes(value, one.size) for value, one in zip(arguments, self.parsed.parameters, strict=True)]
        self.backend.launch(self.parsed, grid, block, packed, shared_mem)


def _bytes(value: Any, size: int) -> bytes:
    """An argument as CuPy passes it: structs by value, arrays by address, Python's integers as eight bytes."""
    if isinstance(value, np.void):
        return value.tobytes()
    if isinstance(value, np.ndarray):
        return struct.pack("<Q", value.data.ptr)
    return int(value).to_bytes(size, "little", signed=True)


class _Elementwise:
    """An elementwise kernel: CuPy's source for it, with arguments laid out as `cupy/carray.cuh` reads them."""

    def __init__(self, backend: PtxBackend, name: str, inputs: str, outputs: str, body: str, preamble: str) -> None:
        self.backend, self.name, self.body, self.preamble = backend, name, body, preamble
        self.inputs, self.outputs = inputs, outputs
        self.parameters = [part.split() for part in f"{inputs}, {outputs}".split(", ")]
        self.returned = len(outputs.split(", "))

    def __call__(self, *arguments: Any, size: int | None = None) -> Any:
        values = list(arguments)
        values += [None] * (len(self.parameters) - len(values))
        self._resolve(values)
        broadcast = [np.asarray(value) for value, kind in zip(values, self.parameters, strict=True) if kind[0] != "raw"]
        shape = (size,) if size is not None else np.broadcast_shapes(*(value.shape for value in broadcast))
        count = math.prod(shape)
        if count:
            code = CupySources.get(self.name, self.inputs, self.outputs, self.body, self.preamble, values, size)
            kernel = self.backend.kernels(code)[self.name]
            packed = [self._pack(parameter, values, count) for parameter in _signature(code, self.name)]
            self.backend.launch(kernel, (-(-count // BLOCK),), (BLOCK,), packed)
        results = values[-self.returned :]
        return results[0] if len(results) == 1 else tuple(results)

    def _resolve(self, values: list[Any]) -> None:
        """Scalars of the types that the kernel declares, and room for outputs that were not given."""
        generic = next((v.dtype for v in values if isinstance(v, np.ndarray)), np.dtype("f4"))
        for index, kind in enumerate(self.parameters):
            dtype = np.dtype(generic if kind[-2] == "T" else kind[-2])
            if values[index] is None:
                shapes = [v.shape for v in values if isinstance(v, np.ndarray)]
                values[index] = self.backend.memory.empty(shapes[0] if shapes else (), dtype)
            elif isinstance(values[index], np.ndarray) and values[index].ndim == 0:  # a sum, for example
                values[index] = self.backend.memory.array(values[index], dtype)
            elif not isinstance(values[index], DeviceArray):
                values[index] = dtype.type(values[index])

    def _pack(self, parameter: tuple[str, str, str], values: list[Any], count: int) -> bytes:
        """One parameter: (CArray, CIndexer or the type of a scalar; template arguments; name)."""
        kind, template, name = parameter
        if kind == "CIndexer":
            return struct.pack("<qqq", count, count, 0) if template.split(", ")[0] != "0" else struct.pack("<q", count)
        index = next(i for i, one in enumerate(self.parameters) if name in (one[-1], f"_raw_{one[-1]}"))
        value = values[index]
        if kind != "CArray":
            return struct.pack(_SCALARS[kind], value.item())
        dimensions = int(template.split(", ")[1])
        shape, strides = value.shape, value.strides
        if len(shape) != dimensions:  # CuPy joins the axes of contiguous arrays
            shape, strides = (value.size,) * dimensions, (value.itemsize,) * dimensions
        return struct.pack(f"<QQ{2 * dimensions}q", value.data.ptr, value.size, *shape, *strides)


def _signature(code: str, name: str) -> list[tuple[str, str, str]]:
    """The parameters of a kernel in CuPy's source."""
    text = re.search(rf"__global__ void {name}\((.*?)\)\s*{{", code, re.DOTALL)
    assert text is not None, code
    parts = re.split(r",\s*(?![^<]*>)", " ".join(text.group(1).split()))
    parameters = []
    for part in parts:
        match = _PARAMETER.match(part)
        assert match is not None, part
        parameters.append((match.group(1) or match.group(3), match.group(2) or "", match.group(4)))
    return parameters


@contextlib.contextmanager
def installed(backend: PtxBackend) -> Iterator[PtxBackend]:
    """A context in which the package finds this device wherever it looks for one."""
    interface = property(lambda array: {"version": 3})
    with (
        mock.patch.object(gpulstm.arrays.devices, "cuda_backend", return_value=backend),
        mock.patch.object(DeviceArray, "__cuda_array_interface__", interface, create=True),
    ):
        yield backend
