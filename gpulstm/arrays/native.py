"""The compiled module `gpulstm._cpu`: whether this installation has it, and the instruction set it uses.

Behind it are the CPU engine (`gpulstm.engines.cpu`) and the fused passes over flat buffers (`optimizers`, `losses`).
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from typing import Any

from gpulstm.errors import ConfigError

VARIABLE = "GPULSTM_CPU_ISA"
MISSING = "this installation has no native code: it was built without a C++ compiler"
SUBINTERPRETER = "native code runs in the main interpreter only, and this is another one of the process"


@functools.cache
def load() -> Any | None:
    """The module, set to the instruction set that GPULSTM_CPU_ISA names (else the best one); None where there is none.

    Raises:
        ConfigError: GPULSTM_CPU_ISA names an instruction set that this machine does not have.
    """
    if importlib.util.find_spec("gpulstm._cpu") is None or not _in_main_interpreter():
        return None
    native = importlib.import_module("gpulstm._cpu")
    isa = os.environ.get(VARIABLE)
    if isa:
        if isa not in native.instruction_sets():
            there = ", ".join(native.instruction_sets())
            raise ConfigError(f"{VARIABLE} is {isa!r}, expected one that this machine has: {there}")
        native.use(isa)
    return native


def missing() -> str:
    """Why `load` gave None."""
    return MISSING if _in_main_interpreter() else SUBINTERPRETER


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
