"""Arithmetic, comparison, selection and conversion (PTX ISA, 9.7.1 to 9.7.8), as NumPy computes them.

fma rounds once for float32 (the product of two is exact in float64) and nearly so for float64, where the host's long
double stands in.  `.approx` functions are exact here: a GPU differs by a few units in the last place.  With `.ftz`
results that are subnormal become zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ptx.faults import PtxError
from ptx.kinds import UNSIGNED, WIDTHS, bits_of_bfloat16, bits_of_tf32, from_bfloat16, numpy_type
from ptx.parser import Instruction, Vector
from ptx.registers import Lanes, Registers

Run = Callable[[Lanes], None]
_TINY = np.float32(np.finfo(np.float32).tiny)
_WIDER = {"s16": np.int32, "u16": np.uint32, "s32": np.int64, "u32": np.uint64}


def _is_float(kind: str) -> bool:
    return kind in ("f16", "f32", "f64")


def flushed(values: np.ndarray) -> np.ndarray:
    """Subnormal float32 values as zeros of their sign."""
    small = np.abs(values) < _TINY
    return np.where(small, np.copysign(np.float32(0), values), values) if small.any() else values


def _map(registers: Registers, x: Instruction, function: Callable[..., Any], kind: str | None = None) -> Run:
    """destination = function(the other operands, all of one type)."""
    kind = kind or x.kind
    write = registers.writer(x.operands[0])
    reads = [registers.reader(operand, kind) for operand in x.operands[1:]]
    if "ftz" in x.modifiers and x.kind == "f32" and x.opcode != "setp":
        return lambda lanes: write(lanes, flushed(function(*(read(lanes) for read in reads))))
    return lambda lanes: write(lanes, function(*(read(lanes) for read in reads)))


def _multiply(registers: Registers, x: Instruction) -> Run:
    if _is_float(x.kind) or x.modifiers[0] == "lo":
        return _map(registers, x, np.multiply)
    wide = _WIDER[x.kind]
    if x.modifiers[0] == "wide":
        return _map(registers, x, lambda a, b: np.multiply(a, b, dtype=wide))
    dtype, shift = numpy_type(x.kind), wide(8 * WIDTHS[x.kind])
    return _map(registers, x, lambda a, b: (np.multiply(a, b, dtype=wide) >> shift).astype(dtype))


def _multiply_add(registers: Registers, x: Instruction) -> Run:
    if x.modifiers[0] not in ("lo", "wide"):
        raise PtxError(f"unknown: {x.text}")
    wide = x.modifiers[0] == "wide"
    dtype = _WIDER[x.kind] if wide else numpy_type(x.kind)
    total = f"{x.kind[0]}{2 * 8 * WIDTHS[x.kind]}" if wide else x.kind
    a, b = (registers.reader(operand, x.kind) for operand in x.operands[1:3])
    c, write = registers.reader(x.operands[3], total), registers.writer(x.operands[0])
    return lambda lanes: write(lanes, np.multiply(a(lanes), b(lanes), dtype=dtype) + c(lanes))


def _fused(registers: Registers, x: Instruction) -> Run:
    narrow = numpy_type(x.kind)
    wide = np.float64 if x.kind == "f32" else np.longdouble
    return _map(registers, x, lambda a, b, c: (np.multiply(a, b, dtype=wide) + c).astype(narrow))


def _divide(registers: Registers, x: Instruction) -> Run:
    if _is_float(x.kind):
        return _map(registers, x, np.divide)
    if x.kind[0] == "u":
        return _map(registers, x, np.floor_divide)
    dtype = numpy_type(x.kind)
    return _map(registers, x, lambda a, b: (np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(dtype))


def _shift(registers: Registers, x: Instruction) -> Run:
    bits, dtype = 8 * WIDTHS[x.kind], numpy_type(x.kind)
    value, amount = registers.reader(x.operands[1], x.kind), registers.reader(x.operands[2], "u32")
    write, left, signed = registers.writer(x.operands[0]), x.opcode == "shl", x.kind[0] == "s"

    def run(lanes: Lanes) -> None:
        a, n = value(lanes), amount(lanes)
        near = np.minimum(n, np.uint32(bits - 1)).astype(dtype)
        moved = a << near if left else a >> near
        write(lanes, moved if signed and not left else np.where(n < bits, moved, dtype(0)))

    return run


def _insert(registers: Registers, x: Instruction) -> Run:
    dtype, bits = numpy_type(x.kind), 8 * WIDTHS[x.kind]
    source, target = (registers.reader(operand, x.kind) for operand in x.operands[1:3])
    start, length = (registers.reader(operand, "u32") for operand in x.operands[3:5])
    write = registers.writer(x.operands[0])

    def run(lanes: Lanes) -> None:
        at, count, one = start(lanes).astype(dtype), length(lanes).astype(dtype), dtype(1)
        mask = np.where(count >= bits, ~dtype(0), (one << count) - one) << at
        write(lanes, (target(lanes) & ~mask) | ((source(lanes) << at) & mask))

    return run


def _extract(registers: Registers, x: Instruction) -> Run:
    if x.kind[0] != "u":
        raise PtxError(f"unknown: {x.text}")
    dtype, bits = numpy_type(x.kind), 8 * WIDTHS[x.kind]
    source = registers.reader(x.operands[1], x.kind)
    start, length = (registers.reader(operand, "u32") for operand in x.operands[2:4])
    write = registers.writer(x.operands[0])

    def run(lanes: Lanes) -> None:
        at, count, one = start(lanes).astype(dtype), length(lanes).astype(dtype), dtype(1)
        mask = np.where(count >= bits, ~dtype(0), (one << count) - one)
        write(lanes, (source(lanes) >> at) & mask)

    return run


def _permute(registers: Registers, x: Instruction) -> Run:
    if x.modifiers != ("b32",):
        raise PtxError(f"unknown: {x.text}")
    reads, write = [registers.reader(operand, "u32") for operand in x.operands[1:]], registers.writer(x.operands[0])

    def run(lanes: Lanes) -> None:
        a, b, choice = (read(lanes).astype(np.uint64) for read in reads)
        both, result = a | b << np.uint64(32), np.uint64(0)
        for byte in range(4):
            nibble = (choice >> np.uint64(4 * byte)) & np.uint64(15)
            value = (both >> ((nibble & np.uint64(7)) * np.uint64(8))) & np.uint64(255)
            sign = np.where(value & np.uint64(128), np.uint64(255), np.uint64(0))
            result = result | np.where(nibble & np.uint64(8), sign, value) << np.uint64(8 * byte)
        write(lanes, np.asarray(result).astype(np.uint32))

    return run


def _funnel(registers: Registers, x: Instruction) -> Run:
    left = x.modifiers[0] == "l"
    wrap = x.modifiers[1] == "wrap"
    reads, write = [registers.reader(operand, "u32") for operand in x.operands[1:]], registers.writer(x.operands[0])

    def run(lanes: Lanes) -> None:
        low, high, amount = (read(lanes).astype(np.uint64) for read in reads)
        n = amount & np.uint64(31) if wrap else np.minimum(amount, np.uint64(32))
        both = low | high << np.uint64(32)
        moved = (both << n) >> np.uint64(32) if left else both >> n
        write(lanes, moved.astype(np.uint32))

    return run


def _three_way(registers: Registers, x: Instruction) -> Run:
    table = registers.reader(x.operands[4], "u32")(None)
    reads, write = [registers.reader(operand, "u32") for operand in x.operands[1:4]], registers.writer(x.operands[0])

    def run(lanes: Lanes) -> None:
        a, b, c = (read(lanes) for read in reads)
        result = np.uint32(0)
        for index in range(8):
            if int(table) >> index & 1:
                part = a if index & 4 else ~a
                part = part & (b if index & 2 else ~b)
                result = result | (part & (c if index & 1 else ~c))
        write(lanes, np.asarray(result, np.uint32))

    return run


_COMPARE: dict[str, Callable[..., Any]] = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal,
}  # fmt: skip


def _set_predicate(registers: Registers, x: Instruction) -> Run:
    name = x.modifiers[0]

    def unordered(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.isnan(a) | np.isnan(b)

    if name in ("nan", "num"):
        return _map(registers, x, unordered if name == "nan" else lambda a, b: ~unordered(a, b))
    if not _is_float(x.kind):
        return _map(registers, x, _COMPARE[name])
    if name in _COMPARE:  # false where an operand is a NaN
        compare = _COMPARE[name]
        return _map(registers, x, lambda a, b: compare(a, b) & ~unordered(a, b))
    compare = _COMPARE[name.removesuffix("u")]
    return _map(registers, x, lambda a, b: compare(a, b) | unordered(a, b))


def _select(registers: Registers, x: Instruction) -> Run:
    a, b = (registers.reader(operand, x.kind) for operand in x.operands[1:3])
    choose, write = registers.reader(x.operands[3], "pred"), registers.writer(x.operands[0])
    return lambda lanes: write(lanes, np.where(choose(lanes), a(lanes), b(lanes)))


def _move(registers: Registers, x: Instruction) -> Run:
    target, source = x.operands
    if isinstance(source, Vector):  # packs
        part = WIDTHS[x.kind] // len(source.parts)
        reads, write = [registers.reader(each, f"b{8 * part}") for each in source.parts], registers.writer(target)
        wide = UNSIGNED[WIDTHS[x.kind]]

        def pack(lanes: Lanes) -> None:
            total = wide(0)
            for index, read in enumerate(reads):
                total = total | (read(lanes).astype(wide) << wide(8 * part * index))
            write(lanes, np.asarray(total, wide))

        return pack
    if isinstance(target, Vector):  # unpacks
        part = WIDTHS[x.kind] // len(target.parts)
        read, writes = registers.reader(source, x.kind), [registers.writer(each) for each in target.parts]
        narrow, wide = UNSIGNED[part], UNSIGNED[WIDTHS[x.kind]]

        def unpack(lanes: Lanes) -> None:
            value = read(lanes).view(wide)
            for index, write in enumerate(writes):
                write(lanes, (value >> wide(8 * part * index)).astype(narrow))

        return unpack
    return _map(registers, x, lambda value: value)


_ROUND = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


def _convert(registers: Registers, x: Instruction) -> Run:
    kinds = [modifier for modifier in x.modifiers if modifier in WIDTHS]
    to, source = kinds[0], kinds[-1]
    write = registers.writer(x.operands[0])
    if to in ("f16x2", "bf16x2"):  # the first operand goes to the upper half
        high, low = (registers.reader(operand, "f32") for operand in x.operands[1:3])
        narrow = bits_of_bfloat16 if to == "bf16x2" else lambda v: v.astype(np.float16).view(np.uint16)

        def both(lanes: Lanes) -> None:
            upper, lower = (narrow(np.atleast_1d(read(lanes))).astype(np.uint32) for read in (high, low))
            write(lanes, upper << np.uint32(16) | lower)

        return both
    read = registers.reader(x.operands[1], source)
    if to == "bf16":
        return lambda lanes: write(lanes, bits_of_bfloat16(np.atleast_1d(read(lanes))))
    if source == "bf16":
        return lambda lanes: write(lanes, from_bfloat16(read(lanes)).astype(numpy_type(to)))
    if to == "tf32":
        return lambda lanes: write(lanes, bits_of_tf32(np.atleast_1d(read(lanes))))
    dtype = numpy_type(to)
    rounding = next((_ROUND[modifier] for modifier in x.modifiers if modifier in _ROUND), None)
    if rounding and not _is_float(to):
        limits = np.iinfo(dtype)

        def to_integer(lanes: Lanes) -> None:
            value = np.nan_to_num(rounding(read(lanes).astype(np.longdouble)), nan=0.0)
            write(lanes, np.clip(value, limits.min, limits.max).astype(dtype))

        return to_integer
    if rounding:
        return lambda lanes: write(lanes, rounding(read(lanes)).astype(dtype))
    if "sat" in x.modifiers:
        return lambda lanes: write(lanes, np.clip(read(lanes), 0, 1).astype(dtype))
    return lambda lanes: write(lanes, read(lanes).astype(dtype))


def _reciprocal(registers: Registers, x: Instruction) -> Run:
    if x.kind == "f64" and "approx" in x.modifiers:  # the upper half of the bits alone
        upper = np.uint64(0xFFFFFFFF00000000)
        return _map(registers, x, lambda v: ((1.0 / v).view(np.uint64) & upper).view(np.float64))
    one = numpy_type(x.kind)(1)
    return _map(registers, x, lambda v: one / v)


def _double(function: Callable[..., Any]) -> Callable[..., Any]:
    """A float32 function computed in float64."""
    return lambda value: function(value.astype(np.float64)).astype(np.float32)


def _same(function: Callable[..., Any]) -> Callable[[Registers, Instruction], Run]:
    return lambda registers, x: _map(registers, x, function)


def _extreme(
    float_function: Callable[..., Any], function: Callable[..., Any]
) -> Callable[[Registers, Instruction], Run]:
    return lambda registers, x: _map(registers, x, float_function if _is_float(x.kind) else function)


def _negate(registers: Registers, x: Instruction) -> Run:
    return _map(registers, x, np.logical_not if x.kind == "pred" else np.invert)


def _nothing(registers: Registers, x: Instruction) -> Run:
    return lambda lanes: None


ARITHMETIC: dict[str, Callable[[Registers, Instruction], Run]] = {
    "add": _same(np.add),
    "sub": _same(np.subtract),
    "mul": _multiply,
    "mad": _multiply_add,
    "fma": _fused,
    "div": _divide,
    "rem": _same(np.fmod),
    "min": _extreme(np.fmin, np.minimum),
    "max": _extreme(np.fmax, np.maximum),
    "abs": _same(np.abs),
    "neg": _same(np.negative),
    "copysign": _same(lambda sign, value: np.copysign(value, sign)),
    "and": _same(np.bitwise_and),
    "or": _same(np.bitwise_or),
    "xor": _same(np.bitwise_xor),
    "not": _negate,
    "shl": _shift,
    "shr": _shift,
    "shf": _funnel,
    "bfi": _insert,
    "bfe": _extract,
    "prmt": _permute,
    "lop3": _three_way,
    "setp": _set_predicate,
    "selp": _select,
    "mov": _move,
    "cvt": _convert,
    "ex2": _same(_double(np.exp2)),
    "lg2": _same(_double(np.log2)),
    "tanh": _same(_double(np.tanh)),
    "sqrt": _same(np.sqrt),
    "rcp": _reciprocal,
    "pragma": _nothing,
}
