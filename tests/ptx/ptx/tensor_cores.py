"""Matrix instructions of whole warps (PTX ISA, 9.7.14): wmma with an opaque layout, mma and ldmatrix with their own.

Which lane holds which element of a wmma fragment is left open by the ISA: here element e lies in lane e % 32,
scattered on purpose.  The layouts of `mma.m16n8k16`, `mma.m16n8k8` and `ldmatrix` are those of the ISA.  Sums are added
in float64 and rounded once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ptx import faults
from ptx.faults import PtxError
from ptx.kinds import WIDTHS, from_bfloat16
from ptx.parser import Instruction, Operand, Vector
from ptx.registers import Lanes
from ptx.transfers import check_shared, shared_addresses

if TYPE_CHECKING:
    from ptx.machine import Machine

Run = Callable[[Lanes], None]
_LANE = np.arange(32)


def warps(machine: Machine, x: Instruction, lanes: Lanes) -> np.ndarray:
    """The threads that execute, one row a warp."""
    threads = machine.lanes(lanes)
    if len(threads) % 32:
        machine.stop(faults.PARTIAL_WARP, x)
    rows = threads.reshape(-1, 32)
    if (rows[:, 0] % 32).any() or (rows[:, 31] - rows[:, 0] != 31).any():
        machine.stop(faults.PARTIAL_WARP, x)
    return rows


def _parts(operand: Operand) -> tuple[Operand, ...]:
    if not isinstance(operand, Vector):
        raise PtxError(f"{operand} is no fragment")
    return operand.parts


def _same(machine: Machine, x: Instruction, values: np.ndarray, count: int) -> np.ndarray:
    """One value a warp."""
    rows = np.broadcast_to(values, (count * 32,)).reshape(-1, 32)
    if (rows != rows[:, :1]).any():
        machine.stop(faults.LANES_DISAGREE, x)
    return rows[:, 0].astype(np.int64)


def _halves(words: np.ndarray, bfloat: bool) -> np.ndarray:
    """Pairs of 16-bit numbers in words, as float64 with one more axis."""
    pairs = np.stack([words & np.uint32(0xFFFF), words >> np.uint32(16)], -1).astype(np.uint16)
    return (from_bfloat16(pairs) if bfloat else pairs.view(np.float16)).astype(np.float64)


def _words(machine: Machine, operand: Operand) -> Callable[[Lanes, int], np.ndarray]:
    """The registers of a fragment, [warp][register][lane]."""
    reads = [machine.registers.reader(part, "b32") for part in _parts(operand)]

    def read(lanes: Lanes, count: int) -> np.ndarray:
        return np.stack([np.broadcast_to(one(lanes), (count * 32,)).reshape(-1, 32) for one in reads], 1)

    return read


def wmma(machine: Machine, x: Instruction) -> Run:
    """`wmma.load`, `wmma.mma`, `wmma.store`."""
    return {"load": _wmma_load, "mma": _wmma_mma, "store": _wmma_store}[x.modifiers[0]](machine, x)


def _elements(
    machine: Machine,
    x: Instruction,
    lanes: Lanes,
    address: np.ndarray,
    pitch: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """(threads, one row a warp; checked offsets into shared memory, [warp][element])."""
    threads = warps(machine, x, lanes)
    base = _same(machine, x, shared_addresses(machine, x, address, size, 32), len(threads))
    step = _same(machine, x, pitch, len(threads))
    if (step * size % 16).any():
        machine.stop(faults.MISALIGNED, x)
    within = base[:, None] + (rows * step[:, None] + columns) * size
    if not machine.shared.reachable(within.ravel(), size):
        machine.stop(faults.OUT_OF_BOUNDS, x)
    return threads, within + (threads[:, :1] // machine.threads) * machine.shared.pitch


def _wmma_load(machine: Machine, x: Instruction) -> Run:
    use, layout, shape, kind = x.modifiers[1], x.modifiers[4], x.modifiers[5], x.kind
    depth, size = int(shape.split("k")[1]), WIDTHS[kind]
    rows, columns = np.divmod(np.arange(16 * depth), depth if use == "a" else 16)
    if layout == "col":
        rows, columns = columns, rows
    writes = [machine.registers.writer(part) for part in _parts(x.operands[0])]
    address, pitch = machine.registers.address(x.operands[1]), machine.registers.reader(x.operands[2], "u32")

    def run(lanes: Lanes) -> None:
        threads, at = _elements(machine, x, lanes, address(lanes), pitch(lanes), rows, columns, size)
        holders = np.repeat(threads, 16 * depth // 32, axis=1).ravel()
        check_shared(machine, x, holders, at.ravel(), size, write=False)
        values = machine.shared.views[size][at >> (size.bit_length() - 1)]
        if size == 2:
            pairs = values.reshape(len(threads), -1, 32, 2).astype(np.uint32)
            values = pairs[..., 0] | pairs[..., 1] << np.uint32(16)
        words = values.reshape(len(threads), -1, 32).swapaxes(0, 1)
        for index, write in enumerate(writes):  # a half's fragment has twice the registers that it needs
            write(lanes, words[index % len(words)].ravel())

    return run


def _wmma_mma(machine: Machine, x: Instruction) -> Run:
    depth = int(next(part for part in x.modifiers if part.startswith("m16n16k")).split("k")[1])
    half = depth == 16
    bfloat = "bf16" in x.modifiers
    left, right, sums = (_words(machine, operand) for operand in x.operands[1:4])
    writes = [machine.registers.writer(part) for part in _parts(x.operands[0])]

    def matrix(words: np.ndarray, rows: int) -> np.ndarray:
        count = len(words)
        if half:
            return _halves(words[:, : 16 * depth // 64], bfloat).reshape(count, rows, -1)
        if (words & np.uint32(0x1FFF)).any():
            machine.note(faults.NOT_TF32, x)
        return words.view(np.float32).astype(np.float64).reshape(count, rows, -1)

    def run(lanes: Lanes) -> None:
        count = len(warps(machine, x, lanes))
        total = sums(lanes, count).view(np.float32).astype(np.float64).reshape(count, 16, 16)
        total = matrix(left(lanes, count), 16) @ matrix(right(lanes, count), depth) + total
        result = total.astype(np.float32).reshape(count, 8, 32).swapaxes(0, 1)
        for write, values in zip(writes, result, strict=True):
            write(lanes, values.ravel())

    return run


def _wmma_store(machine: Machine, x: Instruction) -> Run:
    rows, columns = np.divmod(np.arange(256), 16)
    address, pitch = machine.registers.address(x.operands[0]), machine.registers.reader(x.operands[2], "u32")
    sums = _words(machine, x.operands[1])

    def run(lanes: Lanes) -> None:
        threads, at = _elements(machine, x, lanes, address(lanes), pitch(lanes), rows, columns, 4)
        check_shared(machine, x, np.repeat(threads, 8, axis=1).ravel(), at.ravel(), 4, write=True)
        machine.shared.views[4][at >> 2] = sums(lanes, len(threads)).reshape(len(threads), 256)

    return run


def mma(machine: Machine, x: Instruction) -> Run:
    """`mma.sync.aligned.m16n8k16` of halves or bfloat16, `m16n8k8` of TF32, with float sums."""
    depth = int(next(part for part in x.modifiers if part.startswith("m16n8k")).split("k")[1])
    bfloat, tf32 = "bf16" in x.modifiers, "tf32" in x.modifiers
    if x.modifiers[3:5] != ("row", "col") or x.kind != "f32" or (depth, tf32) not in ((16, False), (8, True)):
        raise PtxError(f"unknown: {x.text}")
    left, right, sums = (_words(machine, operand) for operand in x.operands[1:4])
    writes = [machine.registers.writer(part) for part in _parts(x.operands[0])]
    group, within = _LANE // 4, _LANE % 4

    def numbers(words: np.ndarray) -> np.ndarray:  # [warp][register][lane][of a register]
        if not tf32:
            return _halves(words, bfloat)
        if (words & np.uint32(0x1FFF)).any():
            machine.note(faults.NOT_TF32, x)
        return words.view(np.float32).astype(np.float64)[..., None]

    def run(lanes: Lanes) -> None:
        count, per = len(warps(machine, x, lanes)), 1 if tf32 else 2
        a, b = np.zeros((count, 16, depth)), np.zeros((count, depth, 8))
        factors_a, factors_b = numbers(left(lanes, count)), numbers(right(lanes, count))
        for part in range(per):
            for register in range(4):
                a[:, group + register % 2 * 8, within * per + register // 2 * depth // 2 + part] = factors_a[
                    :, register, :, part
                ]
            for register in range(2):
                b[:, within * per + register * depth // 2 + part, group] = factors_b[:, register, :, part]
        before = sums(lanes, count).view(np.float32)  # [warp][register][lane]
        product = a @ b
        for register, write in enumerate(writes):
            total = product[:, group + register // 2 * 8, within * 2 + register % 2] + before[:, register]
            write(lanes, total.astype(np.float32).ravel())

    return run


def load_matrix(machine: Machine, x: Instruction) -> Run:
    """`ldmatrix`: 8 x 8 matrices of 16-bit numbers; lanes 8i to 8i + 7 give the addresses of the rows of matrix i."""
    writes = [machine.registers.writer(part) for part in _parts(x.operands[0])]
    transposed, address = "trans" in x.modifiers, machine.registers.address(x.operands[1])
    if "m8n8" not in x.modifiers or x.kind != "b16":
        raise PtxError(f"unknown: {x.text}")

    def run(lanes: Lanes) -> None:
        threads, addresses = warps(machine, x, lanes), address(lanes).reshape(-1, 32)
        for index, write in enumerate(writes):
            mine = addresses[:, 8 * index : 8 * index + 8]
            within = shared_addresses(machine, x, mine.ravel(), 16, 16)
            rows = threads[:, 8 * index : 8 * index + 8].ravel()
            at = within + rows // machine.threads * machine.shared.pitch
            check_shared(machine, x, rows, at, 16, write=False)
            machine.count_shared(x, rows, within, 16)
            matrix = machine.shared.views[2][(at >> 1)[:, None] + np.arange(8)].reshape(-1, 8, 8)
            if transposed:
                matrix = matrix.swapaxes(1, 2)
            pairs = np.ascontiguousarray(matrix).reshape(-1, 32, 2).astype(np.uint32)
            write(lanes, (pairs[..., 0] | pairs[..., 1] << np.uint32(16)).ravel())

    return run


TENSOR_CORES: dict[str, Callable[[Machine, Instruction], Run]] = {"wmma": wmma, "mma": mma, "ldmatrix": load_matrix}
