"""The native engine for an hour: `make soak`.

    python tests/soak.py --seconds 3600

Eight threads train, predict and stream small models at the same time, each model on several native threads, while the
main thread forks children that compute as well, sends itself signals whose handler computes, and looks at the memory.
Every result must have the bits that it had in the beginning, every child must end with 0, and at the end the process
may hold no more memory than after the first tenth.  The last line counts all of it.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import gpulstm as gl

THREADS = 8
ROOM = 16 << 20  # bytes that the process may have grown by: arrays that happen to be in use


def layers(cell: type, seed: int, **options: Any) -> Callable[[], bytes]:
    """A forward pass and its gradient, of a model that all threads share; gives the bits of all results."""
    model = cell(5, 24, 2, device="cpu", seed=seed, **options)
    x = np.random.default_rng(seed).normal(size=(30, 16, 5))

    def use() -> bytes:
        y, _, tape = model.forward(x)
        dx, _, grads = model.backward(tape, np.ones_like(y))
        inferred, _ = model(x)
        return b"".join(part.tobytes() for part in (y, dx, grads.flat, inferred))

    return use


def stream(cell: type, seed: int) -> Callable[[], bytes]:
    """Steps of a stream of the thread's own, of a shared model."""
    model = cell(5, 24, 2, device="cpu", seed=seed)
    x = np.random.default_rng(seed).normal(size=(40, 3, 5))

    def use() -> bytes:
        steps = model.stream(3)
        return b"".join(steps(row).tobytes() for row in x)

    return use


def large() -> Callable[[], bytes]:
    """A pass whose units are divided among native threads, which meet at each step."""
    model = gl.LSTM(64, 256, device="cpu")
    x = np.random.default_rng(0).normal(size=(20, 4, 64))
    return lambda: model.forward(x, training=False)[0].tobytes()


def works() -> list[Callable[[], bytes]]:
    """What threads, children and the handler of signals compute."""
    return [
        layers(gl.LSTM, 1),
        layers(gl.GRU, 2, dtype="float64"),
        layers(gl.RNN, 3, bidirectional=True),
        layers(gl.LSTM, 4, layer_norm=True),
        stream(gl.LSTM, 5),
        stream(gl.GRU, 6),
        large(),
    ]


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class Soak:
    """All of it, and what has been counted."""

    def __init__(self, seed: int) -> None:
        self.rng, self.works, self.counts, self.faults = random.Random(seed), works(), Counter[str](), list[str]()
        self.right = [work() for work in self.works]
        self.over = threading.Event()

    def one(self, rng: random.Random, where: str) -> None:
        """Compute one of them and compare."""
        index = rng.randrange(len(self.works))
        if self.works[index]() != self.right[index]:
            self.faults.append(f"other bits of work {index} in {where}")
        self.counts[where] += 1

    def thread(self, seed: int) -> None:
        """What each of the threads does."""
        rng = random.Random(seed)
        while not self.over.is_set():
            self.one(rng, "threads")

    def fork(self) -> None:
        """A child that computes."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks where there are threads
            child = os.fork()
        if child == 0:
            signal.alarm(600)  # a child that hangs ends by it
            before = len(self.faults)
            self.one(self.rng, "children")
            os._exit(len(self.faults) > before)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        self.counts["children"] += 1
        if status:
            self.faults.append(f"a child ended with {status}")

    def handler(self, number: int, frame: object) -> None:
        """Between any two instructions of the main thread."""
        self.one(self.rng, "signals")

    def run(self, seconds: float) -> None:
        """Until the time is over."""
        signal.signal(signal.SIGUSR1, self.handler)
        threads = [threading.Thread(target=self.thread, args=(seed,)) for seed in range(THREADS)]
        for thread in threads:
            thread.start()
        began, settled = time.monotonic(), 0
        while time.monotonic() - began < seconds and not self.faults:
            for action in (self.fork, lambda: os.kill(os.getpid(), signal.SIGUSR1), lambda: self.one(self.rng, "main")):
                action()
            if not settled and time.monotonic() - began > seconds / 10:
                settled = resident()
        grown = resident() - settled
        self.over.set()
        for thread in threads:
            thread.join()
        self.counts["MiB in the beginning"], self.counts["MiB at the end"] = settled >> 20, (settled + grown) >> 20
        if grown > ROOM + settled // 20:
            self.faults.append(f"the process has grown by {grown >> 20} MiB")


def main() -> int:
    """Soak; 1 where anything was wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    gl.set_num_threads(4)  # more than some machines have: that they wait for one another is what is looked at
    soak = Soak(options.seed)
    soak.run(options.seconds)
    print(*soak.faults, sep="\n", end="\n" if soak.faults else "")
    counts = ", ".join(f"{count} {name}" for name, count in soak.counts.items())
    print(f"{options.seconds:.0f} s ({counts}): {len(soak.faults)} faults")
    return min(len(soak.faults), 1)


if __name__ == "__main__":
    sys.exit(main())
