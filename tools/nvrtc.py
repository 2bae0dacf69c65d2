"""NVRTC through ctypes, for machines without nvcc: compile a text to machine code and give what ptxas says of it.

The library and the headers come from wheels: `pip install nvidia-cuda-nvrtc-cu12 nvidia-cuda-runtime-cu12`, and what
these headers ask for of CCCL from CuPy's, as when CuPy compiles.  No GPU is needed.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from pathlib import Path


def _folders() -> list[Path]:
    return [path for entry in sys.path if (path := Path(entry) / "nvidia").is_dir()]


@functools.cache
def library() -> ctypes.CDLL | None:
    """The library, or None where its wheel is not installed."""
    found = [
        file for folder in _folders() for file in folder.glob("*/lib/libnvrtc.so.*") if "builtins" not in file.name
    ]
    if not found:
        return None
    for builtins in found[0].parent.glob("libnvrtc-builtins.so*"):
        ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(found[0]))


def _loaded() -> ctypes.CDLL:
    found = library()
    if found is None:
        raise SystemExit("NVRTC is not here; run: pip install nvidia-cuda-nvrtc-cu12 nvidia-cuda-runtime-cu12")
    return found


def version() -> str:
    """The library's version."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _loaded().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


def compiled(source: str, arch: int) -> str:
    """Compile for `sm_<arch>`; the log, with what `ptxas -v` says of each kernel.

    Raises:
        SystemExit: it does not compile.
    """
    nvrtc, program = _loaded(), ctypes.c_void_p()
    options = [
        f"--gpu-architecture=sm_{arch}",
        "--std=c++17",
        "--ptxas-options=-v",
        "--device-as-default-execution-space",
    ]
    headers = [folder for root in _folders() for folder in root.glob("*/include")]
    headers += [folder for entry in sys.path for folder in Path(entry).glob("cupy/_core/include/cupy/_cccl/*")]
    options += [f"--include-path={folder}" for folder in headers]
    arguments = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
    status = nvrtc.nvrtcCompileProgram(program, len(options), arguments)
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    if status:
        raise SystemExit(f"sm_{arch} does not compile:\n{log.value.decode()[-4000:]}")
    return log.value.decode()
