"""Optimizer steps, the norm of the gradients and losses by NumPy and by the native passes: CPU time, as Markdown.

    python tools/flat_passes.py

One thread and float32; each figure is the least CPU time of many calls through the public functions, in microseconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np

import gpulstm as gl
from gpulstm import losses, optimizers
from gpulstm.arrays import native
from gpulstm.arrays.devices import resolve
from gpulstm.arrays.params import ParamDict

SIZES = (10_000, 100_000, 1_000_000)
TARGETS = ((32, 24, 1), (256, 24, 8))  # B, horizon, targets
STEPS = {
    "SGD": optimizers.SGD(),
    "SGD, momentum": optimizers.SGD(momentum=0.9),
    "RMSprop": optimizers.RMSprop(),
    "RMSprop, centered, momentum": optimizers.RMSprop(centered=True, momentum=0.9),
    "Adam": optimizers.Adam(),
    "AdamW": optimizers.AdamW(),
}
LOSSES = (losses.MSE(), losses.MAE(), losses.Huber(), losses.Pinball(), losses.GaussianNLL())

Work = Callable[[], object]


def passes() -> Iterator[tuple[str, int, Work]]:
    """What it is, how many numbers it goes over, and a call of it."""
    rng, cpu, scale = np.random.default_rng(0), resolve("cpu"), np.asarray(0.5, "float32")
    for size in SIZES:
        params = ParamDict.allocate(cpu, {"w": (size,)}, "float32")
        grads = params.like()
        grads["w"] = rng.normal(size=size)
        for name, optimizer in STEPS.items():
            optimizer.init(params)

            def step(optimizer=optimizer, params=params, grads=grads) -> None:
                optimizer.step(params, grads, rate=1e-3, scale=scale)

            yield f"step of {name}", size, step
        yield "norm of the gradients", size, lambda grads=grads: optimizers.clip_scale(grads, 1.0)
    for shape in TARGETS:
        target = rng.normal(size=shape).astype("float32")
        for loss in LOSSES:
            raw = rng.normal(size=(*shape, loss.outputs)).astype("float32")
            for weight, word in ((None, ""), (np.ones(shape, "float32"), ", weighted")):
                name = f"{type(loss).__name__}{word}"
                yield name, target.size, lambda f=loss, z=raw, y=target, w=weight: f(z, y, w)


def least(work: Work, size: int, repeat: int) -> float:
    """The least CPU time of a call in microseconds."""
    calls, best = max(1, min(20, 200_000 // size)), float("inf")
    for _ in range(repeat):
        start = time.thread_time()
        for _ in range(calls):
            work()
        best = min(best, (time.thread_time() - start) / calls)
    return best * 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=60)
    repeat = parser.parse_args().repeat
    gl.set_num_threads(1)
    module = native.load()
    assert module is not None, native.MISSING
    print(f"instructions: {module.instruction_set()}\n")
    print("| pass | numbers | NumPy, us | native, us | ratio |\n| --- | --- | --- | --- | --- |")
    load = native.load
    for name, size, work in passes():
        fused = least(work, size, repeat)
        native.load = lambda: None  # type: ignore[assignment]
        plain = least(work, size, repeat)
        native.load = load
        print(f"| {name} | {size} | {plain:.3g} | {fused:.3g} | {plain / fused:.1f} |", flush=True)


if __name__ == "__main__":
    main()
