"""Instructions of whole warps: ldmatrix and mma (PTX ISA, 9.7.14) with the layouts given there, and shfl (9.7.9).

Sums are added in float64 and rounded once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ptx import faults
from ptx.faults import PtxError
from ptx.kinds import from_bfloat16
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


def mma(machine: Machine, x: Instruction) -> Run:
    """`mma.sync.aligned.m16n8k16` and `m16n8k8` of halves or bfloat16, `m16n8k8` of TF32, with float sums."""
    depth = int(next(part for part in x.modifiers if part.startswith("m16n8k")).split("k")[1])
    bfloat, tf32 = "bf16" in x.modifiers, "tf32" in x.modifiers
    if (
        x.modifiers[3:5] != ("row", "col")
        or x.kind != "f32"
        or (depth, tf32) not in ((16, False), (8, False), (8, True))
    ):
        raise PtxError(f"unknown: {x.text}")
    per = 1 if tf32 else 2  # numbers of a register
    along = depth // (4 * per)  # registers of a lane along the depth
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
        count = len(warps(machine, x, lanes))
        a, b = np.zeros((count, 16, depth)), np.zeros((count, depth, 8))
        factors_a, factors_b = numbers(left(lanes, count)), numbers(right(lanes, count))
        for part in range(per):
            for register in range(2 * along):
                index = within * per + register // 2 * 4 * per + part
                a[:, group + register % 2 * 8, index] = factors_a[:, register, :, part]
            for register in range(along):
                b[:, within * per + register * 4 * per + part, group] = factors_b[:, register, :, part]
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


def shuffle(machine: Machine, x: Instruction) -> Run:
    """`shfl.sync.bfly.b32` of whole warps: a lane gets the value of the one whose number differs in the bits of `b`."""
    if x.modifiers != ("sync", "bfly", "b32"):
        raise PtxError(f"unknown: {x.text}")
    target, source, *numbers = x.operands
    parts = target.parts if isinstance(target, Vector) else (target,)  # the predicate says that the lane is there
    writes = [machine.registers.writer(part) for part in parts]
    value = machine.registers.reader(source, "b32")
    turned, clamp, members = (machine.registers.reader(number, "b32") for number in numbers)

    def run(lanes: Lanes) -> None:
        count = len(warps(machine, x, lanes))
        if (np.asarray(members(lanes)) != 0xFFFFFFFF).any() or (np.asarray(clamp(lanes)) != 31).any():
            machine.stop(faults.PARTIAL_WARP, x)
        rows = np.broadcast_to(value(lanes), (count * 32,)).reshape(-1, 32)
        places = np.broadcast_to(turned(lanes), (count * 32,)).reshape(-1, 32) ^ _LANE
        writes[0](lanes, np.take_along_axis(rows, places.astype(np.int64), 1).ravel())
        for write in writes[1:]:
            write(lanes, np.ones(count * 32, bool))

    return run


WARPS: dict[str, Callable[[Machine, Instruction], Run]] = {"mma": mma, "ldmatrix": load_matrix, "shfl": shuffle}
