"""A program, run in modes of the simulator: engines and training on CUDA against NumPy, then again, bit for bit.

    HOSTGPU_SCHED=reverse tests/hostgpu/hostgpu python tests/hostgpu/programs/mode_program.py [no-pool]

`no-pool` makes each array an allocation of its own, so that the simulator sees where each one ends.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "helpers"))
from engine_cases import Around, EngineCase, Shape, assert_close, assert_same

import gpulstm as gl
from gpulstm.arrays.backend import Backend
from gpulstm.arrays.devices import resolve, to_device, to_host
from gpulstm.engines import reference
from gpulstm.engines.cuda import engine as cuda
from gpulstm.losses import MSE
from gpulstm.optimizers import Adam, clip_scale

EVERYTHING = Around(True, True, True)


def check_engines(backend: Backend) -> None:
    """Each cell with all that is around it, in float64 and float32, in both directions, on odd sizes."""
    for cell in ("lstm", "gru", "rnn"):
        for dtype, reverse in (("float64", False), ("float32", True)):
            for around in (Around(), EVERYTHING):
                case = EngineCase.make(cell, Shape(6, 5, 3, 7), dtype=dtype, around=around, reverse=reverse)
                expected = case.astype("float64").results(reference)
                first, second = (case.results(cuda, backend.from_host, backend.to_host) for _ in range(2))
                assert_close(first, expected, dtype)
                assert_same(first, second)


def train(device: str) -> list[np.ndarray]:
    """Three Adam steps of a deep stack with dropout and lengths; the loss of each, then the weights."""
    options: dict[str, Any] = {"bidirectional": True, "dropout": 0.3, "recurrent_dropout": 0.2, "zoneout": 0.1}
    stack = gl.LSTM(3, 7, 2, dtype="float64", device=device, **options)
    rng, loss, optimizer, results = np.random.default_rng(1), MSE(), Adam(), []
    optimizer.init(stack.params)
    for _ in range(3):
        x, target = rng.normal(size=(6, 5, 3)), rng.normal(size=(5, 14, 1))
        y, _, tape = stack.forward(to_device(x, device), lengths=[6, 0, 3, 1, 5], outputs="last")
        value, dy = loss(y[:, :, None, None], to_device(target, device))
        grads = stack.backward(tape, dy[:, :, 0, 0])[2]
        optimizer.step(stack.params, grads, rate=1e-2, scale=clip_scale(grads, 1.0)[1])
        results.append(to_host(value))
    return [*results, to_host(stack.params.flat)]


def main() -> None:
    backend = resolve("cuda")
    if sys.argv[1:] == ["no-pool"]:
        backend.xp.cuda.set_allocator(None)
    check_engines(backend)
    first, second = train("cuda"), train("cuda")
    with backend.xp.cuda.Stream(non_blocking=True):
        third = train("cuda")
    for one, other, another, expected in zip(first, second, third, train("cpu"), strict=True):
        assert one.tobytes() == other.tobytes() == another.tobytes()
        np.testing.assert_allclose(one, expected, rtol=1e-10, atol=1e-12)
    print("ok")


if __name__ == "__main__":
    main()
