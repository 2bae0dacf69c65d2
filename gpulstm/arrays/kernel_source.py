"""The text of the files in `kernels/` with their includes: NVRTC is given text and has no include path."""

from __future__ import annotations

import functools
import hashlib
import re
from pathlib import Path

from gpulstm.errors import ConfigError

_INCLUDE = re.compile(r'^#include "([\w/]+\.cuh?|[\w/]+\.h)"$', re.MULTILINE)

_HEADS = {  # what a storage type needs that the compiler does not know by itself
    "__half": ("#include <cuda_fp16.h>",),
    "__nv_bfloat16": ("#include <cuda_bf16.h>", "#define GL_BFLOAT"),
}
SHORT = "equations/short.h"  # goes before the other headers where numbers are stored in 16 bits


@functools.cache
def module_source(file: str, defines: tuple[tuple[str, str], ...]) -> str:
    """The text that is compiled for `file`: the macros, the file and its includes."""
    values = {value for _, value in defines}
    head = [line for kind, lines in _HEADS.items() if kind in values for line in lines]
    files = (SHORT, file) if head else (file,)
    return "\n".join([*head, *(f"#define {name} {value}" for name, value in defines), kernel_preamble(files)])


@functools.cache
def kernel_preamble(headers: tuple[str, ...]) -> str:
    """The named headers and their includes, each once: NVRTC is given text and has no include path."""
    done: list[str] = []

    def text(name: str) -> str:
        if name in done:
            return ""
        done.append(name)
        return _INCLUDE.sub(lambda match: text(match.group(1)), kernel_source(name))

    return "\n".join(text(header) for header in headers)


@functools.cache
def kernel_source(name: str) -> str:
    """The text of a file of `kernels/`: within an installed package, next to the package in a checkout."""
    return (kernel_folder() / name).read_text(encoding="utf-8")


@functools.cache
def digest() -> str:
    """What tells the kernels of one version from those of another, also while somebody works on them."""
    files = sorted(path for name in ("cuda", "equations") for path in (kernel_folder() / name).iterdir())
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:8]


@functools.cache
def kernel_folder() -> Path:
    """Where the kernel sources lie; an installation without them is broken and says so."""
    here = Path(__file__).resolve().parents[1]
    for folder in (here / "kernels", here.parent / "kernels"):
        if (folder / "equations" / "gates.h").is_file():
            return folder
    raise ConfigError(f"the kernel sources are missing from {here}; the installation is damaged, reinstall gpulstm")
