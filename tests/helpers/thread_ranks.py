"""Ranks that are threads of one process: what a run of several ranks computes and decides, without MPI."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

from gpulstm.arrays.backend import Array


class Ended(Exception):
    """A rank has ended all others."""

    everywhere = True


class ThreadRanks:
    """One of `size` ranks; `Ranks` in gpulstm.training.parallel says what each method does."""

    def __init__(self, rank: int, size: int, shared: dict[str, Any]) -> None:
        self.rank = self.local_rank = rank
        self.size, self._shared = size, shared

    def gather(self, value: Any) -> list[Any]:
        shared = self._shared
        shared["values"][self.rank] = value
        try:
            shared["barrier"].wait()
            values = list(shared["values"])
            shared["barrier"].wait()
        except threading.BrokenBarrierError:
            raise Ended(shared.get("reason", "a rank hangs")) from None
        return values

    def all_reduce(self, buffer: Array) -> None:
        total = sum(self.gather(buffer.copy()))
        buffer[...] = total

    def broadcast(self, value: Any) -> Any:
        return self.gather(value)[0]

    def agree(self, code: int) -> int:
        return max(self.gather(code))

    def barrier(self) -> None:
        self.gather(None)

    def abort(self, reason: str) -> NoReturn:
        self._shared.setdefault("reason", f"rank {self.rank}: {reason}")
        self._shared["barrier"].abort()
        raise Ended(self._shared["reason"])


def run_ranks(size: int, work: Callable[[ThreadRanks], Any]) -> list[Any]:
    """What `work` gives on each of `size` ranks, its exception where it raises one."""
    shared = {"values": [None] * size, "barrier": threading.Barrier(size, timeout=600)}

    def one(rank: int) -> Any:
        try:
            return work(ThreadRanks(rank, size, shared))
        except Exception as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))
