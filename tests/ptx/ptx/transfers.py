"""Loads, stores, atomics and asynchronous copies (PTX ISA, 9.7.9), each with its checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ptx import faults
from ptx.faults import PtxError
from ptx.kinds import UNSIGNED, WIDTHS, numpy_type
from ptx.memory import SharedMemory
from ptx.parser import Address, Instruction, Integer, Symbol, Vector
from ptx.races import cells
from ptx.registers import Lanes

if TYPE_CHECKING:
    from ptx.machine import Machine

Run = Callable[[Lanes], None]
_SPACES = ("param", "shared", "local", "global")
SYNCHRONIZING = ("acquire", "volatile", "relaxed")  # loads by which a thread waits for another


def space_of(x: Instruction) -> str:
    """The state space of an access; a generic one is taken to be global, and fails its bounds where it is not."""
    return next((modifier for modifier in x.modifiers if modifier in _SPACES), "global")


def global_offsets(machine: Machine, x: Instruction, addresses: np.ndarray, size: int) -> np.ndarray:
    """Checked addresses of global memory as offsets."""
    offsets = addresses - machine.memory_base
    if len(offsets) and (offsets & (size - 1)).any():
        machine.stop(faults.MISALIGNED, x)
    if not machine.memory.reachable(offsets, size):
        machine.stop(faults.OUT_OF_BOUNDS, x)
    return offsets


def shared_addresses(machine: Machine, x: Instruction, addresses: np.ndarray, size: int, align: int) -> np.ndarray:
    """Checked addresses of shared memory, within a block."""
    addresses = np.where(addresses >= SharedMemory.WINDOW, addresses - SharedMemory.WINDOW, addresses)
    if len(addresses) and (addresses & (align - 1)).any():
        machine.stop(faults.MISALIGNED, x)
    if not machine.shared.reachable(addresses, size):
        machine.stop(faults.OUT_OF_BOUNDS, x)
    return addresses


def check_global(
    machine: Machine, x: Instruction, threads: np.ndarray, offsets: np.ndarray, size: int, write: bool
) -> None:
    """Look for unwritten bytes and races of an access of global memory."""
    if not machine.checked:
        return
    places = offsets[:, None] + np.arange(size)
    if write:
        machine.memory.written[places] = True
    elif not machine.memory.written[places].all():
        machine.note(faults.UNWRITTEN, x)
    races = machine.global_races
    grid, block = (races.write if write else races.read_by)(threads, cells(offsets, size, machine.cell))
    if grid:
        machine.note(faults.GRID_RACE, x)
    if block:
        machine.note(faults.BLOCK_RACE, x)


def check_shared(machine: Machine, x: Instruction, threads: np.ndarray, at: np.ndarray, size: int, write: bool) -> None:
    """Look for unwritten bytes and races of an access of shared memory; `at` counts from the first block's."""
    if not machine.checked:
        return
    shared, places = machine.shared, at[:, None] + np.arange(size)
    if write:
        shared.written[places] = True
    elif shared.flying[places].any():
        machine.note(faults.IN_FLIGHT, x)
    elif not shared.written[places].all():
        machine.note(faults.UNWRITTEN, x)
    races = machine.shared_races
    if (races.write if write else races.read_by)(threads, threads // machine.threads, cells(at, size, machine.cell)):
        machine.note(faults.SHARED_RACE, x)


def load(machine: Machine, x: Instruction) -> Run:
    """`ld`."""
    target = x.operands[0]
    writes = [machine.registers.writer(each) for each in (target.parts if isinstance(target, Vector) else (target,))]
    kind, width, space = x.kind, WIDTHS[x.kind], space_of(x)
    dtype, address = numpy_type(kind), machine.registers.address(x.operands[1])
    widened = {"s8": np.int16, "u8": np.uint16, "b8": np.uint16}.get(kind, dtype)  # registers have 16 bits at least
    size, shift = width * len(writes), width.bit_length() - 1

    def deliver(lanes: Lanes, values: Callable[[int], np.ndarray]) -> None:
        for index, write in enumerate(writes):
            write(lanes, np.ascontiguousarray(values(index)).view(dtype).astype(widened, copy=False))

    if space == "param":
        parameters, where = machine.parameters, x.operands[1]
        assert isinstance(where, Address)

        def run(lanes: Lanes) -> None:
            offsets = address(lanes)
            if len(offsets) and offsets.min() != offsets.max():
                raise PtxError(f"threads read different parameters: {x.text}")
            if len(offsets):
                at = int(offsets[0])
                deliver(lanes, lambda i: np.frombuffer(parameters, UNSIGNED[width], 1, at + i * width)[0])

        return run
    if space == "local":

        def run(lanes: Lanes) -> None:
            rows, at = machine.lanes(lanes)[:, None], address(lanes)[:, None] + np.arange(size)
            data = np.ascontiguousarray(machine.local[rows, at]).view(UNSIGNED[width])
            deliver(lanes, lambda i: data[:, i])

        return run
    if space == "shared":

        def run(lanes: Lanes) -> None:
            threads = machine.lanes(lanes)
            within = shared_addresses(machine, x, address(lanes), size, size)
            at = within + (threads // machine.threads) * machine.shared.pitch
            check_shared(machine, x, threads, at, size, write=False)
            machine.count_shared(x, threads, within, size)
            first, view = at >> shift, machine.shared.views[width]
            deliver(lanes, lambda i: view[first + i])

        return run
    acquire = "acquire" in x.modifiers
    if any(modifier in SYNCHRONIZING for modifier in x.modifiers) and "cta" in x.modifiers:
        machine.note(faults.SCOPE, x)

    def run(lanes: Lanes) -> None:
        threads, offsets = machine.lanes(lanes), global_offsets(machine, x, address(lanes), size)
        if not any(modifier in SYNCHRONIZING for modifier in x.modifiers):
            check_global(machine, x, threads, offsets, size, write=False)
        machine.count_global(x, threads, offsets, size)
        if acquire and machine.checked:
            for thread, offset in zip(threads, offsets, strict=True):
                machine.global_races.acquire(int(thread) // machine.threads, int(offset))
        deliver(lanes, lambda i: machine.global_read(threads, offsets + i * width, width))

    return run


def store(machine: Machine, x: Instruction) -> Run:
    """`st`."""
    source = x.operands[1]
    parts = source.parts if isinstance(source, Vector) else (source,)
    width, space = WIDTHS[x.kind], space_of(x)
    reads = [machine.registers.reader(each, f"b{8 * width}") for each in parts]
    address, size, shift = machine.registers.address(x.operands[0]), width * len(parts), width.bit_length() - 1
    if space == "local":

        def run(lanes: Lanes) -> None:
            rows, at = machine.lanes(lanes), address(lanes)
            for index, read in enumerate(reads):
                values = np.ascontiguousarray(np.broadcast_to(read(lanes), rows.shape)).astype(UNSIGNED[width])
                places = at[:, None] + index * width + np.arange(width)
                machine.local[rows[:, None], places] = values[:, None].view(np.uint8)

        return run
    if space == "shared":

        def run(lanes: Lanes) -> None:
            threads = machine.lanes(lanes)
            within = shared_addresses(machine, x, address(lanes), size, size)
            at = within + (threads // machine.threads) * machine.shared.pitch
            check_shared(machine, x, threads, at, size, write=True)
            machine.count_shared(x, threads, within, size)
            for index, read in enumerate(reads):
                machine.shared.views[width][(at >> shift) + index] = read(lanes)

        return run
    release = "release" in x.modifiers
    synchronizing = release or any(modifier in SYNCHRONIZING for modifier in x.modifiers)
    if synchronizing and "cta" in x.modifiers:
        machine.note(faults.SCOPE, x)

    def run(lanes: Lanes) -> None:
        threads, offsets = machine.lanes(lanes), global_offsets(machine, x, address(lanes), size)
        if synchronizing and machine.checked:
            machine.memory.written[offsets[:, None] + np.arange(size)] = True
        elif not synchronizing:
            check_global(machine, x, threads, offsets, size, write=True)
        machine.count_global(x, threads, offsets, size)
        if release:
            machine.release(threads, offsets)
        for index, read in enumerate(reads):
            machine.global_write(threads, offsets + index * width, width, read(lanes), at_once=synchronizing)
        machine.progress += 1

    return run


def atomic(machine: Machine, x: Instruction) -> Run:
    """`atom` and `red`: additions of 32-bit integers in global memory, one thread after the other."""
    if "add" not in x.modifiers or x.kind not in ("u32", "s32"):
        raise PtxError(f"unknown: {x.text}")
    operands = x.operands if x.opcode == "atom" else (Symbol("_"), *x.operands)
    write, address = machine.registers.writer(operands[0]), machine.registers.address(operands[1])
    read = machine.registers.reader(operands[2], "u32")
    release = "release" in x.modifiers or "acq_rel" in x.modifiers
    acquire = "acquire" in x.modifiers or "acq_rel" in x.modifiers
    if "cta" in x.modifiers:
        machine.note(faults.SCOPE, x)

    def run(lanes: Lanes) -> None:
        threads, offsets = machine.lanes(lanes), global_offsets(machine, x, address(lanes), 4)
        added, old = np.broadcast_to(read(lanes), offsets.shape), np.zeros(len(offsets), np.uint32)
        if release:
            machine.release(threads, offsets)
        view = machine.memory.views[4]
        machine.memory.written[offsets[:, None] + np.arange(4)] = True
        for index, offset in enumerate(offsets):
            old[index] = view[offset >> 2]
            view[offset >> 2] = old[index] + added[index]
            if acquire and machine.checked:
                machine.global_races.acquire(int(threads[index]) // machine.threads, int(offset))
        write(lanes, old)
        machine.progress += 1

    return run


def fence(machine: Machine, x: Instruction) -> Run:
    """`fence` and `membar`: in `late` mode, what a block has written becomes visible."""

    def run(lanes: Lanes) -> None:
        machine.flush(np.unique(machine.lanes(lanes) // machine.threads))

    return run


@dataclass
class Copy:
    """16 bytes a thread on their way to shared memory."""

    x: Instruction
    threads: np.ndarray
    group: np.ndarray  # the number of the thread's group that it belongs to
    source: np.ndarray
    target: np.ndarray

    def part(self, mask: np.ndarray) -> Copy:
        """The copies of some of the threads."""
        return Copy(self.x, self.threads[mask], self.group[mask], self.source[mask], self.target[mask])


def copy(machine: Machine, x: Instruction) -> Run:
    """`cp.async`: the data arrive when the thread waits for them, not before."""
    if x.modifiers[1] == "commit_group":

        def commit(lanes: Lanes) -> None:
            machine.groups[machine.lanes(lanes)] += 1

        return commit
    if x.modifiers[1] in ("wait_group", "wait_all"):
        left = x.operands[0].value if x.operands and isinstance(x.operands[0], Integer) else 0
        everything = x.modifiers[1] == "wait_all"
        return lambda lanes: _arrive(machine, machine.lanes(lanes), left, everything)
    target, source = (machine.registers.address(operand) for operand in x.operands[:2])
    if x.operands[2] != Integer(16) or x.operands[3:] not in ((), (Integer(16),)):
        raise PtxError(f"unknown: {x.text}")

    def run(lanes: Lanes) -> None:
        threads = machine.lanes(lanes)
        from_ = global_offsets(machine, x, source(lanes), 16)
        within = shared_addresses(machine, x, target(lanes), 16, 16)
        to = within + (threads // machine.threads) * machine.shared.pitch
        check_global(machine, x, threads, from_, 16, write=False)
        check_shared(machine, x, threads, to, 16, write=True)
        machine.shared.flying[to[:, None] + np.arange(16)] = True
        machine.count_global(x, threads, from_, 16)
        machine.flying.append(Copy(x, threads, machine.groups[threads], from_, to))

    return run


def _arrive(machine: Machine, threads: np.ndarray, left: int, everything: bool) -> None:
    """Copies of threads arrive, but for those of their last `left` groups."""
    waiting = np.zeros(machine.count, bool)
    waiting[threads] = True
    rest = []
    for one in machine.flying:
        limit = machine.groups[one.threads] - left + (1 if everything else 0)
        ready = waiting[one.threads] & (one.group < limit)
        if ready.any():
            _land(machine, one.part(ready))
        if not ready.all():
            rest.append(one.part(~ready))
    machine.flying = rest


def _land(machine: Machine, one: Copy) -> None:
    for word in range(0, 16, 4):
        values = machine.global_read(one.threads, one.source + word, 4)
        machine.shared.views[4][(one.target + word) >> 2] = values
    machine.shared.flying[one.target[:, None] + np.arange(16)] = False
    check_shared(machine, one.x, one.threads, one.target, 16, write=True)


def convert_address(machine: Machine, x: Instruction) -> Run:
    """`cvta`: generic addresses of global memory are its own, those of shared memory lie in a window."""
    space = space_of(x)
    if space == "local":
        raise PtxError(f"a generic address of local memory: {x.text}")
    read, write = machine.registers.reader(x.operands[1], "u64"), machine.registers.writer(x.operands[0])
    if space == "global":
        return lambda lanes: write(lanes, read(lanes))
    window = np.uint64(SharedMemory.WINDOW)
    if "to" in x.modifiers:
        return lambda lanes: write(lanes, read(lanes) - window)
    return lambda lanes: write(lanes, read(lanes) + window)


TRANSFERS: dict[str, Callable[[Machine, Instruction], Run]] = {
    "ld": load,
    "ldu": load,
    "st": store,
    "atom": atomic,
    "red": atomic,
    "fence": fence,
    "membar": fence,
    "cp": copy,
    "cvta": convert_address,
}
