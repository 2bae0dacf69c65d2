"""Registers, constants and addresses of a launch: operands become functions of the threads that execute.

A register is an array with one element a thread, unsigned of its width, or bool.  `Lanes` are the threads that execute
an instruction: their indices in ascending order, or None for all of the grid.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ptx.faults import PtxError
from ptx.kinds import UNSIGNED, WIDTHS, numpy_type
from ptx.parser import Address, Bits, Integer, Kernel, Operand, Register, Symbol

Lanes = np.ndarray | None
Read = Callable[[Lanes], np.ndarray]
Write = Callable[[Lanes, np.ndarray], None]

_GARBAGE = 0xDEADBEEFDEADBEEF  # what a register holds before it is written


class Registers:
    """The registers of all threads of a grid.

    Args:
        kernel: whose code runs.
        threads: of the grid.
        specials: special registers, one element a thread.
        symbols: addresses of variables, and offsets of parameters.
    """

    def __init__(self, kernel: Kernel, threads: int, specials: dict[str, np.ndarray], symbols: dict[str, int]) -> None:
        self.threads, self.specials, self.symbols, self.widths = threads, specials, symbols, kernel.widths
        self.values = [
            np.full(threads, _GARBAGE & ((1 << 8 * width) - 1), UNSIGNED[width]) if width else np.zeros(threads, bool)
            for width in kernel.widths
        ]

    def reader(self, operand: Operand, kind: str) -> Read:
        """The operand as a type of PTX: an array as long as the lanes, or a scalar for a constant."""
        dtype, width = numpy_type(kind), WIDTHS[kind]
        if isinstance(operand, Register):
            values, index = self.values, operand.index
            if operand.width == width:
                return lambda lanes: (values[index] if lanes is None else values[index][lanes]).view(dtype)
            unsigned = UNSIGNED[width]  # a wider or narrower register: its low bits
            return lambda lanes: (values[index] if lanes is None else values[index][lanes]).astype(unsigned).view(dtype)
        if isinstance(operand, Symbol) and operand.name in self.specials:
            special, unsigned = self.specials[operand.name], UNSIGNED[width]
            return lambda lanes: (special if lanes is None else special[lanes]).astype(unsigned).view(dtype)
        constant = self._constant(operand, kind)
        return lambda lanes: constant

    def _constant(self, operand: Operand, kind: str) -> np.ndarray:
        if isinstance(operand, Symbol) and operand.name in self.symbols:
            operand = Integer(self.symbols[operand.name])
        if isinstance(operand, Bits) and operand.width == WIDTHS[kind]:
            return np.array(operand.value, UNSIGNED[operand.width]).view(numpy_type(kind))
        if isinstance(operand, Integer) and kind == "pred":
            return np.array(bool(operand.value))
        if isinstance(operand, Integer) and kind not in ("f16", "f32", "f64"):
            bits = operand.value & ((1 << 8 * WIDTHS[kind]) - 1)
            return np.array(bits, UNSIGNED[WIDTHS[kind]]).view(numpy_type(kind))
        raise PtxError(f"{operand} is no {kind}")

    def writer(self, operand: Operand) -> Write:
        """Store values of any type of the register's width; those of another width are extended or cut as integers."""
        if operand == Symbol("_"):
            return lambda lanes, values: None
        if not isinstance(operand, Register):
            raise PtxError(f"{operand} cannot be written")
        registers, index, width, threads = self.values, operand.index, operand.width, self.threads
        dtype = np.dtype(UNSIGNED[width] if width else bool)

        def write(lanes: Lanes, values: np.ndarray) -> None:
            values = np.asarray(values)
            if width:
                if values.dtype.itemsize != width:
                    values = values.astype(f"{'i' if values.dtype.kind == 'i' else 'u'}{width}")
                values = values.view(dtype)
            if lanes is not None:
                registers[index][lanes] = values
            else:
                registers[index] = values.copy() if values.shape == (threads,) else np.full(threads, values, dtype)

        return write

    def address(self, operand: Operand) -> Read:
        """The addresses that `[base + offset]` stands for, int64."""
        if not isinstance(operand, Address):
            raise PtxError(f"{operand} is no address")
        base, offset = operand.base, operand.offset
        if isinstance(base, Register):
            read = self.reader(base, "u64" if base.width == 8 else "u32")
            return lambda lanes: read(lanes).astype(np.int64) + offset
        start = self.symbols[base.name] if isinstance(base, Symbol) else base.value
        count = self.threads
        return lambda lanes: np.full(count if lanes is None else len(lanes), start + offset, np.int64)
