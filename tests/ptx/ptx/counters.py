"""What a launch costs, counted: instructions of warps, bank conflicts, sectors of global memory.

Instructions are counted for every warp of the grid; bank conflicts and sectors too, by the rules of the CUDA C++
Programming Guide and the Best Practices Guide: 32 banks of four bytes, a request of 8 or 16 bytes a thread is served in
halves or quarters of a warp, global memory moves in sectors of 32 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Traffic:
    """Of one instruction: requests of warps, what they took, and what they would take at best."""

    requests: int = 0
    taken: int = 0
    least: int = 0


@dataclass
class Counters:
    """Counts of a launch.

    Attributes:
        executed: by instruction, warps that executed it.
        shared: by instruction, wavefronts of shared memory.
        sectors: by instruction, sectors of global memory.
    """

    executed: np.ndarray
    shared: dict[int, Traffic] = field(default_factory=dict)
    sectors: dict[int, Traffic] = field(default_factory=dict)

    def count(self, pc: int, lanes: np.ndarray | None, threads: int) -> None:
        """Lanes (ascending) execute an instruction."""
        if lanes is None:
            self.executed[pc] += threads // 32
        else:
            warps = lanes >> 5
            self.executed[pc] += 1 + np.count_nonzero(warps[1:] != warps[:-1])

    def access_shared(self, pc: int, threads: np.ndarray, addresses: np.ndarray, size: int) -> None:
        """Threads access `size` bytes each at addresses within their block's shared memory."""
        groups = _by_warp(threads, addresses).reshape(-1, min(32, 128 // size))
        groups = groups[(groups >= 0).any(1)]
        words = np.where(groups[..., None] >= 0, (groups[..., None] >> 2) + np.arange(max(1, size // 4)), -1)
        words = np.sort(words.reshape(len(groups), -1), 1)
        fresh = words >= 0
        fresh[:, 1:] &= words[:, 1:] != words[:, :-1]
        rows = np.broadcast_to(np.arange(len(groups))[:, None], words.shape)
        banks = np.bincount((rows * 32 + (words & 31))[fresh], minlength=len(groups) * 32).reshape(-1, 32)
        traffic = self.shared.setdefault(pc, Traffic())
        traffic.requests += len(np.unique(threads >> 5))
        traffic.taken += int(banks.max(1).sum())
        traffic.least += len(groups)

    def access_global(self, pc: int, threads: np.ndarray, offsets: np.ndarray, size: int) -> None:
        """Threads access `size` bytes each at offsets into global memory."""
        warps = _by_warp(threads, offsets)
        ends = np.stack([warps >> 5, np.where(warps >= 0, (warps + size - 1) >> 5, -1)], 2).reshape(len(warps), -1)
        ends = np.sort(ends, 1)
        fresh = ends >= 0
        fresh[:, 1:] &= ends[:, 1:] != ends[:, :-1]
        traffic = self.sectors.setdefault(pc, Traffic())
        traffic.requests += len(warps)
        traffic.taken += int(fresh.sum())
        traffic.least += int((-(-((warps >= 0).sum(1) * size) // 32)).sum())

    @property
    def instructions(self) -> int:
        """Of all warps."""
        return int(self.executed.sum())


def _by_warp(threads: np.ndarray, addresses: np.ndarray) -> np.ndarray:
    """One row of 32 addresses a warp, -1 where a lane does nothing."""
    warps, row = np.unique(threads >> 5, return_inverse=True)
    table = np.full((len(warps), 32), -1, np.int64)
    table[row, threads & 31] = addresses
    return table
