"""Which accesses are ordered: by barriers within a block, by release and acquire between blocks.

Time is counted in intervals between the barriers of a block.  Within a block two accesses are ordered if a barrier lies
between them.  Between blocks they are ordered by happens-before, with a vector clock for each block (Lamport 1978;
Mattern 1989): a release publishes what its block knew and did before its last barrier, an acquire takes effect at the
next one.  That is how the barrier of a grid is built, and stricter than PTX's memory model: what a thread releases
without a barrier before it counts for nothing.

Memory is watched in cells of two bytes, or of one where a kernel writes single bytes.  A race is two accesses of one
cell that are not ordered, at least one of them a write, whatever the order in which this interpreter happens to execute
them.
"""

from __future__ import annotations

import numpy as np

_MANY = -2  # several threads have read a cell since it was written


def cells(offsets: np.ndarray, size: int, cell: int) -> np.ndarray:
    """The cells of `cell` bytes that `size` bytes from each offset touch, one row an offset."""
    return (offsets // cell)[:, None] + np.arange(-(-size // cell))


class SharedRaces:
    """Shared memory: threads of a block, ordered by its barriers.

    Args:
        count: cells of all blocks.
        intervals: of each block, counted by the machine.
    """

    def __init__(self, count: int, intervals: np.ndarray) -> None:
        self.intervals = intervals
        self.writer, self.written = np.full(count, -1, np.int32), np.full(count, -1, np.int32)
        self.reader, self.read = np.full(count, -1, np.int32), np.full(count, -1, np.int32)

    def write(self, threads: np.ndarray, blocks: np.ndarray, at: np.ndarray) -> bool:
        """Threads write cells, one row each; whether that races."""
        me, now = threads[:, None].astype(np.int32), self.intervals[blocks][:, None]
        bad = (self.written[at] == now) & (self.writer[at] != me)
        bad |= (self.read[at] == now) & (self.reader[at] != me)
        self.writer[at], self.written[at] = me, now
        return bool(bad.any() or (self.writer[at] != me).any())

    def read_by(self, threads: np.ndarray, blocks: np.ndarray, at: np.ndarray) -> bool:
        """Threads read cells, one row each; whether that races."""
        me, now = threads[:, None].astype(np.int32), self.intervals[blocks][:, None]
        bad = (self.written[at] == now) & (self.writer[at] != me)
        others = (self.read[at] == now) & (self.reader[at] != me)
        self.reader[at], self.read[at] = np.where(others, _MANY, me), now
        late = self.reader[at] != me
        self.reader[at[late]] = _MANY
        return bool(bad.any())


class GlobalRaces:
    """Global memory: blocks ordered by release and acquire, threads of a block by its barriers.

    Args:
        count: cells of the memory in use.
        blocks: of the grid.
        threads: of a block.
    """

    def __init__(self, count: int, blocks: int, threads: int) -> None:
        self.threads, self.blocks = threads, blocks
        self.known = np.zeros((blocks, blocks), np.int32)  # [b][w]: intervals of w that b comes after
        self.published = np.zeros((blocks, blocks), np.int32)  # what a release of b tells
        self.acquired = np.zeros((blocks, blocks), np.int32)  # what takes effect at the next barrier of b
        self.now = np.ones(blocks, np.int32)
        self.locations: dict[int, np.ndarray] = {}
        self.writer, self.written = np.full(count, -1, np.int32), np.zeros(count, np.int32)
        self.reader, self.read = np.full((count, blocks), -1, np.int32), np.zeros((count, blocks), np.int32)

    def barrier(self, done: np.ndarray) -> None:
        """The blocks `done` (a mask) pass a barrier."""
        which = np.flatnonzero(done)
        self.known[which] = np.maximum(self.known[which], self.acquired[which])
        self.published[which] = self.known[which]
        self.published[which, which] = self.now[which]
        self.now[which] += 1

    def release(self, block: int, offset: int) -> None:
        """A thread of a block releases at a location."""
        told = self.locations.get(offset)
        self.locations[offset] = (
            self.published[block].copy() if told is None else np.maximum(told, self.published[block])
        )

    def acquire(self, block: int, offset: int) -> None:
        """A thread of a block acquires from a location."""
        told = self.locations.get(offset)
        if told is not None:
            self.acquired[block] = np.maximum(self.acquired[block], told)

    def _behind(self, at: np.ndarray, threads: np.ndarray, mine: np.ndarray) -> tuple[bool, bool]:
        """Whether the last writes of cells race with (another block, another thread of the block)."""
        writer, written = self.writer[at], self.written[at]
        block = writer // self.threads
        foreign = (writer >= 0) & (block != mine) & (written > self.known[mine, block])
        near = (writer >= 0) & (block == mine) & (writer != threads) & (written == self.now[mine])
        return bool(foreign.any()), bool(near.any())

    def write(self, threads: np.ndarray, at: np.ndarray) -> tuple[bool, bool]:
        """Threads write cells, one row each; whether that races (between blocks, within one)."""
        me = threads[:, None].astype(np.int32)
        mine = np.broadcast_to(me // self.threads, at.shape)
        grid, block = self._behind(at, me, mine)
        reader, read = self.reader[at], self.read[at]  # [threads][cells][blocks]
        foreign = read > self.known[mine]
        foreign[np.arange(self.blocks) == mine[..., None]] = False
        own, own_read = (np.take_along_axis(x, mine[..., None], 2)[..., 0] for x in (reader, read))
        block |= bool(((own_read == self.now[mine]) & (own != me)).any())
        grid |= bool(foreign.any())
        self.writer[at], self.written[at] = me, self.now[mine]
        lost = self.writer[at] != me  # two threads at once
        if lost.any():
            same = self.writer[at] // self.threads == mine
            block |= bool((lost & same).any())
            grid |= bool((lost & ~same).any())
        return grid, block

    def read_by(self, threads: np.ndarray, at: np.ndarray) -> tuple[bool, bool]:
        """Threads read cells, one row each; whether that races (between blocks, within one)."""
        me = threads[:, None].astype(np.int32)
        mine = np.broadcast_to(me // self.threads, at.shape)
        result = self._behind(at, me, mine)
        others = (self.read[at, mine] == self.now[mine]) & (self.reader[at, mine] != me)
        self.reader[at, mine], self.read[at, mine] = np.where(others, _MANY, me), self.now[mine]
        late = self.reader[at, mine] != me
        self.reader[at[late], mine[late]] = _MANY
        return result
