"""The compiled module `gpulstm._cpu`: whether this installation has it, its instruction set and the caches it knows of.

Behind it are the CPU engine (`gpulstm.engines.cpu`) and the fused passes over flat buffers (`optimizers`, `losses`).
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import re
from pathlib import Path
from typing import Any

from gpulstm.errors import ConfigError

VARIABLE = "GPULSTM_CPU_ISA"
CACHES = "GPULSTM_CPU_CACHES"
SUBINTERPRETER = "native code runs in the main interpreter only, and this is another one of the process"


@functools.cache
def load() -> Any | None:
    """The module, set to the instruction set that GPULSTM_CPU_ISA names (else the best one); None where there is none.

    Raises:
        ConfigError: GPULSTM_CPU_ISA names an instruction set that this machine does not have, or GPULSTM_CPU_CACHES is
            not three sizes.
    """
    if importlib.util.find_spec("gpulstm._cpu") is None or not _in_main_interpreter():
        return None
    native = importlib.import_module("gpulstm._cpu")
    isa = os.environ.get(VARIABLE)
    if isa:
        if isa not in native.instruction_sets():
            sets = ", ".join(native.instruction_sets())
            raise ConfigError(f"{VARIABLE} is {isa!r}, expected one that this machine has: {sets}")
        native.use(isa)
    sizes = os.environ.get(CACHES)
    if sizes:
        native.give_caches(*_cache_sizes(sizes))
    return native


def _cache_sizes(text: str) -> list[int]:
    """Three sizes in bytes from a text like "32K,512K,32M"."""
    parts = [re.fullmatch(r"\s*(\d+)([KM]?)\s*", part) for part in text.split(",")]
    if len(parts) != 3 or not all(part and (index == 2 or int(part[1])) for index, part in enumerate(parts)):
        raise ConfigError(f"{CACHES} is {text!r}, expected three sizes of caches such as '32K,512K,32M'")
    return [int(part[1]) * {"": 1, "K": 1 << 10, "M": 1 << 20}[part[2]] for part in parts if part]


def describe_caches() -> str | None:
    """The caches that the engine counts with and what it decides from them; None without native code."""
    native = load()
    if native is None:
        return None
    first, second, third, source = native.caches()
    block, resident, ahead = native.cache_model()
    sizes = ", ".join(f"L{level} {size >> 10} KiB" for level, size in ((1, first), (2, second), (3, third)) if size)
    return (
        f"{sizes} ({source}): weights in blocks of {block >> 10} KiB, resident up to {resident >> 10} KiB,"
        f" {ahead >> 10} KiB taken ahead"
    )


@functools.cache
def missing() -> str:
    """Why `load` gave None, and the command that mends it, as one sentence each."""
    if not _in_main_interpreter():
        return SUBINTERPRETER
    import importlib.metadata  # here, because it takes a while to import and is needed only to explain

    package = Path(__file__).parent.parent
    try:
        installed = importlib.metadata.distribution("gpulstm").locate_file("gpulstm")
    except importlib.metadata.PackageNotFoundError:
        installed = package
    elsewhere = Path(str(installed)).resolve()
    if elsewhere != package.resolve() and any(elsewhere.glob("_cpu.*")):
        return (
            f"gpulstm was imported from the source tree {package.parent}, which has no native code, while the "
            "installed package has it. Start Python in another folder: cd / && python"
        )
    if (package.parent / "CMakeLists.txt").exists():
        return (
            f"the source tree {package.parent} has no native code. With a C++17 compiler, run: "
            f"pip install -e {package.parent}"
        )
    return (
        "this installation has no native code, it was built without a C++ compiler. With one, run: "
        "pip install --force-reinstall --no-deps --no-cache-dir --no-binary gpulstm gpulstm"
    )


def _in_main_interpreter() -> bool:
    """False in a subinterpreter, whose first call into a module of the main one would wait for ever."""
    try:
        interpreters = importlib.import_module("_interpreters")  # Python 3.13 and later
    except ImportError:
        try:
            interpreters = importlib.import_module("_xxsubinterpreters")
        except ImportError:  # a Python without them
            return True
    current, main = interpreters.get_current(), interpreters.get_main()
    first = [one[0] if isinstance(one, tuple) else one for one in (current, main)]  # 3.13 gives (number, owner)
    return first[0] == first[1]


def describe() -> str:
    """How optimizers and losses go over flat buffers on the CPU, in a few words."""
    native = load()
    return f"native, {native.instruction_set()} instructions" if native else f"NumPy; {missing()}"
