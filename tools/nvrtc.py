"""NVRTC of one CUDA toolkit, used as CuPy uses it: the same options, and no headers but those that CuPy finds.

A toolkit is what `pip install 'cupy-cuda12x[ctk]'` brings: the wheels of NVRTC and of the runtime's headers.  `make
toolkits` puts those of CUDA 12 and 13 into folders of their own under build/toolkits, next to each other, so that
neither sees the other's files, nor those of an nvcc that happens to be installed.  No GPU is needed.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "toolkits"
MISSING = "NVRTC is not in build/toolkits; run: make toolkits"


class CompileError(Exception):
    """A source that NVRTC refuses; the message ends with its log."""


@dataclass(frozen=True)
class Toolkit:
    """One CUDA toolkit.

    Attributes:
        folder: where its wheels were unpacked.
    """

    folder: Path

    @functools.cached_property
    def loaded(self) -> ctypes.CDLL:
        """The loaded library."""
        path = next(file for file in self.folder.glob("nvidia/*/lib/libnvrtc.so.*") if ".alt" not in file.name)
        for builtins in path.parent.glob("libnvrtc-builtins.so*"):
            ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
        return ctypes.CDLL(str(path))

    @functools.cached_property
    def version(self) -> str:
        """Of the library, for example "12.9"."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.loaded.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        return f"{major.value}.{minor.value}"

    @property
    def headers(self) -> Path:
        """The folder of the runtime's headers."""
        return next(self.folder.glob("nvidia/*/include/cuda_fp16.h")).parent

    def architectures(self) -> tuple[int, ...]:
        """The capabilities, times ten, that it compiles for."""
        count = ctypes.c_int()
        self.loaded.nvrtcGetNumSupportedArchs(ctypes.byref(count))
        values = (ctypes.c_int * count.value)()
        self.loaded.nvrtcGetSupportedArchs(values)
        return tuple(values)

    def options(self, target: str) -> list[str]:
        """What CuPy 14 gives to NVRTC for a module of ours: `target` is "sm_90" or "compute_90".

        In CuPy's order: `RawModule`'s own options between the include folders of `cupy._core.core`, then those that
        `cupy.cuda.compiler` adds.
        """
        cupy = cupy_headers()
        bundled = [f"-I{cupy / 'cupy' / '_cccl' / name}" for name in ("cub", "thrust", "libcudacxx")]
        includes = [f"-I{cupy}", f"-I{self.headers}"]
        return [
            *bundled,
            "-std=c++17",
            *includes,
            "-ftz=true",
            f"-arch={target}",
            "--device-as-default-execution-space",
        ]

    def ptx(self, source: str, capability: int, *, lines: bool = False) -> str:
        """The PTX of a source, from which CuPy's cubin would be made.

        Args:
            source: the text.
            capability: what for, times ten.
            lines: whether it is the PTX whose lines a cubin made with `lines` refers to.

        Raises:
            CompileError: it does not compile.
        """
        more = ("-lineinfo",) if lines else ()
        return self._compile(source, f"compute_{capability}", more, "PTX")[0].rstrip(b"\0").decode()

    def cubin(self, source: str, capability: int, *, lines: bool = False) -> tuple[bytes, str]:
        """The machine code of a source, and what `ptxas -v` says of each kernel; arguments as in `ptx`.

        Raises:
            CompileError: it does not compile.
        """
        more = ("--ptxas-options=-v", "-lineinfo") if lines else ("--ptxas-options=-v",)
        return self._compile(source, f"sm_{capability}", more, "CUBIN")

    def _compile(self, source: str, target: str, more: tuple[str, ...], kind: str) -> tuple[bytes, str]:
        nvrtc, program, size = self.loaded, ctypes.c_void_p(), ctypes.c_size_t()
        options = [option.encode() for option in (*self.options(target), *more)]
        nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
        try:
            status = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
            nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            nvrtc.nvrtcGetProgramLog(program, log)
            if status:
                raise CompileError(f"CUDA {self.version} for {target}:\n{log.value.decode()[-4000:]}")
            getattr(nvrtc, f"nvrtcGet{kind}Size")(program, ctypes.byref(size))
            code = ctypes.create_string_buffer(size.value)
            getattr(nvrtc, f"nvrtcGet{kind}")(program, code)
            return code.raw, log.value.decode()
        finally:
            nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def cupy_headers() -> Path:
    """CuPy's own include folder, without importing CuPy."""
    spec = importlib.util.find_spec("cupy")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("kernels are compiled with CuPy's headers, and CuPy is not installed")
    return Path(spec.origin).parent / "_core" / "include"


@functools.cache
def toolkits() -> tuple[Toolkit, ...]:
    """Those that `make toolkits` has installed, the oldest first."""
    return tuple(
        Toolkit(folder) for folder in sorted(FOLDER.glob("cuda*")) if any(folder.glob("nvidia/*/lib/libnvrtc*"))
    )
