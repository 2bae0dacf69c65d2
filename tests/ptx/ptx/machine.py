"""A launch: all threads of a grid, one array element each.

Threads at the same instruction run together; of several groups the one furthest back goes first, so that threads which
have parted meet again as early as they can.  A barrier holds a group until all live threads of its block have come; a
load by which a thread waits for another (acquire, volatile) lets all others go first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from ptx import faults
from ptx.arithmetic import ARITHMETIC, Run
from ptx.counters import Counters
from ptx.faults import Faults, PtxError
from ptx.kinds import WIDTHS
from ptx.memory import BASE, GlobalMemory, SharedMemory
from ptx.parser import Instruction, Kernel, Symbol, round_up
from ptx.races import GlobalRaces, SharedRaces
from ptx.registers import Lanes, Registers
from ptx.transfers import SYNCHRONIZING, TRANSFERS, Copy
from ptx.warps import WARPS

_FLOW = ("bra", "ret", "exit", "bar", "barrier", "trap")
_IDLE = 8  # rounds in which threads only wait, until that is called a deadlock


@dataclass(frozen=True)
class Settings:
    """How a launch is run.

    Attributes:
        checked: whether reads of unwritten bytes and races are looked for.
        counted: whether bank conflicts and sectors are counted; instructions always are.
        seed: None runs all blocks in step; a number runs them apart, in a random order that it starts.
        late: what a block writes reaches the others late and in random order, unless it releases; needs `seed`.
        limit: instructions of groups after which a launch is given up.
    """

    checked: bool = True
    counted: bool = False
    seed: int | None = None
    late: bool = False
    limit: int = 20_000_000


@dataclass
class _StoreBuffers:
    """What blocks have written and others do not see yet: [block][byte] and the interval of the write, 0 for none."""

    values: np.ndarray
    interval: np.ndarray

    def read(self, memory: GlobalMemory, blocks: np.ndarray, offsets: np.ndarray, width: int) -> np.ndarray:
        at = offsets[:, None] + np.arange(width)
        own = self.interval[blocks[:, None], at] > 0
        values = np.where(own, self.values[blocks[:, None], at], memory.bytes[at])
        return np.ascontiguousarray(values, np.uint8).view(f"u{width}")[:, 0]

    def write(self, blocks: np.ndarray, offsets: np.ndarray, values: np.ndarray, width: int, now: np.ndarray) -> None:
        at = offsets[:, None] + np.arange(width)
        data = np.ascontiguousarray(np.broadcast_to(values, offsets.shape)).view(np.uint8).reshape(-1, width)
        self.values[blocks[:, None], at] = data
        self.interval[blocks[:, None], at] = now[blocks][:, None]

    def drain(self, memory: GlobalMemory, block: int, mask: np.ndarray) -> None:
        memory.bytes[: len(mask)][mask] = self.values[block][mask]
        self.interval[block][mask] = 0


@dataclass
class _Group:
    """Threads that wait at a barrier."""

    pc: int
    threads: np.ndarray


@dataclass
class Machine:
    """One launch of a kernel.

    Args:
        kernel, memory: what runs, and on which global memory.
        grid, block: sizes in x, y and z, and in x and y.
        arguments: the bytes of each parameter.
        dynamic: bytes of dynamic shared memory.
        settings: how it is run.
    """

    kernel: Kernel
    memory: GlobalMemory
    grid: tuple[int, int, int]
    block: tuple[int, int]
    arguments: list[bytes]
    dynamic: int = 0
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        kernel, settings = self.kernel, self.settings
        self.threads, self.blocks = self.block[0] * self.block[1], self.grid[0] * self.grid[1] * self.grid[2]
        if self.threads % 32:
            raise PtxError(f"a block of {self.threads} threads is not whole warps")
        if settings.late and settings.seed is None:
            raise PtxError("late stores need blocks that run apart: name a seed")
        self.count = self.threads * self.blocks
        self.checked, self.memory_base = settings.checked, BASE
        self.faults, self.progress, self.flying = Faults(), 0, list[Copy]()
        self.all, self.groups = np.arange(self.count), np.zeros(self.count, np.int64)
        self.parameters = self._pack()
        shared, symbols = self._place_shared()
        self.shared = SharedMemory(self.blocks, shared)
        self.local = np.zeros((self.count, max(8, kernel.local_bytes)), np.uint8)
        symbols |= kernel.local | {parameter.name: parameter.offset for parameter in kernel.parameters}
        workspace = BASE + self.memory.allocate(64)  # where cooperative groups keep the barrier of the grid
        self.memory.bytes[workspace - BASE : workspace - BASE + 64] = 0
        self.intervals = np.zeros(self.blocks, np.int32)
        self.cell = 1 if any(x.opcode == "st" and WIDTHS[x.kind] == 1 for x in kernel.code) else 2
        watched = (len(self.shared.bytes), self.memory.used + 1) if settings.checked else (0, 0)
        self.shared_races = SharedRaces(watched[0] // self.cell, self.intervals)
        blocks = self.blocks if settings.checked else 1
        self.global_races = GlobalRaces(-(-watched[1] // self.cell), blocks, self.threads)
        self.buffers = self._buffers() if settings.late else None
        self.random = np.random.default_rng(settings.seed)
        self.registers = Registers(kernel, self.count, self._specials(workspace), symbols)
        self.counters = Counters(np.zeros(len(kernel.code), np.int64))
        self.arrived, self.alive = np.zeros(self.blocks, np.int64), np.full(self.blocks, self.threads)
        self.waiting: list[_Group] = []
        self.ready: dict[tuple[int, int], np.ndarray] = {}
        self.spinning: dict[tuple[int, int], np.ndarray] = {}
        self.memory.notice_host()
        self.runs: list[Run | None] = [self._compile(x) for x in kernel.code]
        self.targets = [self._target(x) for x in kernel.code]

    def _buffers(self) -> _StoreBuffers:
        size = round_up(self.memory.used, 8)
        return _StoreBuffers(np.zeros((self.blocks, size), np.uint8), np.zeros((self.blocks, size), np.int32))

    def _pack(self) -> bytes:
        space, kernel = bytearray(self.kernel.parameter_bytes), self.kernel
        if len(self.arguments) != len(kernel.parameters):
            raise PtxError(f"{kernel.name} takes {len(kernel.parameters)} arguments, not {len(self.arguments)}")
        for value, parameter in zip(self.arguments, kernel.parameters, strict=True):
            if len(value) != parameter.size:
                raise PtxError(f"{parameter.name} has {parameter.size} bytes, not {len(value)}")
            space[parameter.offset : parameter.offset + parameter.size] = value
        return bytes(space)

    def _place_shared(self) -> tuple[int, dict[str, int]]:
        total, symbols = self.kernel.shared_bytes, dict(self.kernel.shared)
        for align, name in self.kernel.dynamic:
            symbols[name] = total = round_up(total, align)
        return total + self.dynamic, symbols

    def _specials(self, workspace: int) -> dict[str, np.ndarray]:
        thread, block = self.all % self.threads, self.all // self.threads
        sizes = {"%ntid": (*self.block, 1), "%nctaid": self.grid}
        values = {
            f"{name}.{axis}": np.full(self.count, size)
            for name, all_ in sizes.items()
            for axis, size in zip("xyz", all_, strict=True)
        }
        values |= {"%tid.x": thread % self.block[0], "%tid.y": thread // self.block[0], "%tid.z": np.zeros(self.count)}
        values |= {
            "%ctaid.x": block % self.grid[0],
            "%ctaid.y": block // self.grid[0] % self.grid[1],
            "%ctaid.z": block // (self.grid[0] * self.grid[1]),
        }
        values |= {"%laneid": self.all % 32, "%warpid": thread // 32}
        values |= {
            "%envreg1": np.full(self.count, workspace >> 32),
            "%envreg2": np.full(self.count, workspace & 0xFFFFFFFF),
        }
        return {name: value.astype(np.uint32) for name, value in values.items()}

    def _compile(self, x: Instruction) -> Run | None:
        if x.opcode in _FLOW:
            if x.opcode in ("bar", "barrier") and (x.modifiers[0] != "sync" or len(x.operands) != 1):
                raise PtxError(f"unknown: {x.text}")
            return None
        if x.opcode in ARITHMETIC:
            return ARITHMETIC[x.opcode](self.registers, x)
        builder = TRANSFERS.get(x.opcode) or WARPS.get(x.opcode)
        if builder is None:
            raise PtxError(f"no opcode {x.opcode}: {x.text}")
        return builder(self, x)

    def _target(self, x: Instruction) -> int:
        if x.opcode != "bra":
            return -1
        label = x.operands[0]
        assert isinstance(label, Symbol)
        return self.kernel.labels[label.name]

    # ---- what instructions ask for

    def lanes(self, lanes: Lanes) -> np.ndarray:
        """The threads that execute, by index in the grid."""
        return self.all if lanes is None else lanes

    def note(self, kind: str, x: Instruction) -> None:
        """A fault after which the launch goes on."""
        self.faults.add(kind, self.kernel.name, x.pc, x.text)

    def stop(self, kind: str, x: Instruction) -> NoReturn:
        """A fault that a GPU would stop at."""
        self.note(kind, x)
        raise PtxError(f"{kind} in {self.kernel.name} at {x.pc}: {x.text}")

    def count_shared(self, x: Instruction, threads: np.ndarray, addresses: np.ndarray, size: int) -> None:
        """Count the bank conflicts of an access."""
        if self.settings.counted and len(threads):
            self.counters.access_shared(x.pc, threads, addresses, size)

    def count_global(self, x: Instruction, threads: np.ndarray, offsets: np.ndarray, size: int) -> None:
        """Count the sectors of an access."""
        if self.settings.counted and len(threads):
            self.counters.access_global(x.pc, threads, offsets, size)

    def global_read(self, threads: np.ndarray, offsets: np.ndarray, width: int) -> np.ndarray:
        """What threads see in global memory."""
        if self.buffers is not None and len(offsets):
            return self.buffers.read(self.memory, threads // self.threads, offsets, width)
        return self.memory.views[width][offsets >> (width.bit_length() - 1)]

    def global_write(
        self, threads: np.ndarray, offsets: np.ndarray, width: int, values: np.ndarray, *, at_once: bool
    ) -> None:
        """Threads write to global memory, where others see it at once or, in `late` mode, later."""
        if self.buffers is None or at_once:
            self.memory.views[width][offsets >> (width.bit_length() - 1)] = values
        else:
            self.buffers.write(threads // self.threads, offsets, values, width, self.intervals + 1)

    def release(self, threads: np.ndarray, offsets: np.ndarray) -> None:
        """Threads release at locations: what their blocks wrote before their last barrier becomes visible."""
        blocks = threads // self.threads
        if self.checked:
            for block, offset in zip(blocks, offsets, strict=True):
                self.global_races.release(int(block), int(offset))
        self.flush(np.unique(blocks))

    def flush(self, blocks: np.ndarray, *, everything: bool = False) -> None:
        """In `late` mode, make visible what blocks wrote before their last barrier, or all they wrote."""
        if self.buffers is not None:
            for block in blocks:
                waiting = self.buffers.interval[block]
                limit = np.iinfo(np.int32).max if everything else self.intervals[block] + 1
                self.buffers.drain(self.memory, block, (waiting > 0) & (waiting < limit))

    def _drain_some(self) -> None:
        if self.buffers is not None:
            block = int(self.random.integers(self.blocks))
            mask = (self.buffers.interval[block] > 0) & (self.random.random(self.buffers.interval.shape[1]) < 0.2)
            if mask.any():
                self.buffers.drain(self.memory, block, mask)
                self.progress += 1

    # ---- scheduling

    def _push(self, pc: int, threads: np.ndarray) -> None:
        """Threads may go on at an instruction."""
        if not len(threads):
            return
        if self.settings.seed is None:
            self._merge(self.ready, (0, pc), threads)
            return
        blocks = threads // self.threads
        for block in np.unique(blocks):
            self._merge(self.ready, (int(block), pc), threads[blocks == block])

    @staticmethod
    def _merge(table: dict[tuple[int, int], np.ndarray], key: tuple[int, int], threads: np.ndarray) -> None:
        table[key] = np.sort(np.concatenate([table[key], threads])) if key in table else threads

    def _next(self) -> tuple[int, int] | None:
        """The group to run: the one furthest back, of all blocks or of a random one."""
        if not self.ready:
            self.ready, self.spinning = self.spinning, {}
            if not self.ready:
                return None
            self._drain_some()
            self.idle = self.idle + 1 if self.progress == self.seen else 0
            self.seen = self.progress
            if self.idle > _IDLE and (self.buffers is None or not self.buffers.interval.any()):
                raise PtxError(f"{faults.DEADLOCK} in {self.kernel.name}")
        if self.settings.seed is None:
            return min(self.ready)
        parts = sorted({part for part, _ in self.ready})
        part = parts[int(self.random.integers(len(parts)))]
        self._drain_some()
        return min(key for key in self.ready if key[0] == part)

    def run(self) -> Machine:
        """Execute.

        Raises:
            PtxError: a fault that a GPU would stop at, or an instruction that is not known.
        """
        self.steps, self.idle, self.seen = 0, 0, -1
        self._push(0, self.all)
        with np.errstate(all="ignore"):
            while (key := self._next()) is not None:
                self._advance(key[0], key[1], self.ready.pop(key))
        if self.waiting:
            raise PtxError(f"{faults.DEADLOCK} in {self.kernel.name}: a barrier that not all threads come to")
        if self.flying:
            self.note(faults.NEVER_WAITED, self.flying[0].x)
        self.flush(np.arange(self.blocks), everything=True)
        return self

    def _advance(self, part: int, pc: int, threads: np.ndarray) -> None:
        """Run a group until it waits, ends, or meets another."""
        code, runs, values = self.kernel.code, self.runs, self.registers.values
        ahead = min((other for owner, other in self.ready if owner == part), default=len(code) + 1)
        while True:
            if pc >= ahead:
                self._push(pc, threads)
                return
            x, lanes = code[pc], None if len(threads) == self.count else threads
            self.steps += 1
            if self.steps > self.settings.limit:
                raise PtxError(f"{faults.TOO_LONG} in {self.kernel.name}")
            self.counters.count(pc, lanes, self.count)
            chosen, taken = threads, None
            if x.guard is not None:
                taken = values[x.guard.index] if lanes is None else values[x.guard.index][lanes]
                taken = ~taken if x.negated else taken
                if not taken.any():
                    pc += 1
                    continue
                if not taken.all():
                    chosen = threads[taken]
            run = runs[pc]
            if run is not None:
                run(None if len(chosen) == self.count else chosen)
                pc += 1
                if x.opcode == "ld" and any(modifier in SYNCHRONIZING for modifier in x.modifiers):
                    self._merge(self.spinning, (part, pc), threads)
                    return
                continue
            rest = threads[:0] if len(chosen) == len(threads) else threads[~taken]
            if x.opcode == "trap":
                self.stop(faults.TRAP, x)
            if x.opcode == "bra" and not len(rest):
                pc = self.targets[pc]
                continue
            if x.opcode == "bra":
                self._push(self.targets[pc], chosen)
                ahead = min(ahead, self.targets[pc])
            elif x.opcode in ("ret", "exit"):
                self.alive -= np.bincount(chosen // self.threads, minlength=self.blocks)
                self._release_barriers()
            else:
                self.waiting.append(_Group(pc + 1, chosen))
                self.arrived += np.bincount(chosen // self.threads, minlength=self.blocks)
                self._release_barriers()
            threads, pc = rest, pc + 1
            if not len(threads):
                return
            ahead = min((other for owner, other in self.ready if owner == part), default=len(code) + 1)

    def _release_barriers(self) -> None:
        """Let go the blocks all of whose live threads have come."""
        done = (self.arrived == self.alive) & (self.arrived > 0)
        if not done.any():
            return
        still = []
        for group in self.waiting:
            free = done[group.threads // self.threads]
            self._push(group.pc, group.threads[free])
            if not free.all():
                still.append(_Group(group.pc, group.threads[~free]))
        self.waiting = still
        self.arrived[done] = 0
        self.intervals[done] += 1
        if self.checked:
            self.global_races.barrier(done)
        self.progress += 1
