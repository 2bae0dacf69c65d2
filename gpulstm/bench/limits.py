"""What this machine can do, measured with NumPy: the rate of its matrix product, and of copies in L2 and in memory.

Started with two arguments, the number of threads (0: all that there are) and the seconds for each figure; prints JSON:

    threads          how many were used
    sgemm_gflops     float32 product of square matrices of 2048, by NumPy's BLAS with its own threads
    copy_l2_gbs      reading and writing within a quarter of a MiB, all threads together, each on arrays of its own
    copy_memory_gbs  the same with arrays of 64 MiB

Figures are of the median call in 10^9 operations or bytes a second (a copied byte is read once and written once: two).
Writing through a cache costs a read of what is overwritten as well, unless the copy avoids it; that is not counted.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable

import numpy as np

SIDE = 2048
L2_BYTES, MEMORY_BYTES = 1 << 17, 1 << 26  # of one array; a copy has two


def seconds_of(call: Callable[[], object], seconds: float) -> float:
    """The median time of a call, over `seconds` of them."""
    call()
    taken: list[float] = []
    stop = time.perf_counter() + seconds
    while len(taken) < 3 or time.perf_counter() < stop:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def sgemm(seconds: float, side: int = SIDE) -> float:
    """Operations a second of a float32 product of square matrices."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((side, side), dtype=np.float32) for _ in range(2))
    out = np.empty_like(a)
    return 2 * side**3 / seconds_of(lambda: np.matmul(a, b, out=out), seconds)


def copy(size: int, threads: int, seconds: float) -> float:
    """Bytes a second that `threads` threads read and write together, each copying its own array of `size` bytes."""
    repeat = max(1, (1 << 22) // size)  # enough for Python's share of a call to be small
    rates: list[float] = []
    together = threading.Barrier(threads)

    def work() -> None:
        source, target = np.ones(size // 4, np.float32), np.zeros(size // 4, np.float32)

        def call() -> None:
            for _ in range(repeat):
                np.copyto(target, source)

        together.wait()
        rates.append(2 * size * repeat / seconds_of(call, seconds))

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(rates)


def main() -> int:
    """Measure and print."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # who asked is gone: so is this, without a word
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads, seconds = int(sys.argv[1]) or cores, float(sys.argv[2])
    measured = {
        "sgemm_gflops": sgemm(seconds),
        "copy_l2_gbs": copy(L2_BYTES, threads, seconds),
        "copy_memory_gbs": copy(MEMORY_BYTES, threads, seconds),
    }
    print(json.dumps({"threads": threads, **{name: round(value / 1e9, 1) for name, value in measured.items()}}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
