"""Training passes replayed as CUDA graphs, on two streams and two devices.

    python tests/engines/cuda/programs/cuda_replays.py

Two networks are trained at once, each on a stream of its own, and on a device of its own where there are two.  The
losses must be those of the same training on the CPU with the reference engine.  Ends with status 1 otherwise.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

from gpulstm.arrays.cupy_backend import device_count
from gpulstm.arrays.devices import resolve
from gpulstm.engines.cuda import planner
from gpulstm.engines.spec import StackSpec
from gpulstm.losses import MSE, Pinball
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.optimizers import Adam
from gpulstm.training.gradients import GradientPass

STEPS = 6
KINDS: dict[str, dict[str, Any]] = {
    "lstm": {},
    "lstm with dropout": {"dropout": 0.3, "recurrent_dropout": 0.2, "zoneout": (0.1, 0.2)},
    "gru both ways": {"bidirectional": True},
}


class Run:
    """One training run, a step at a time; batches of two shapes take turns."""

    def __init__(self, kind: str, device: str, seed: int, engine: str | None = None) -> None:
        spec = StackSpec(kind.split()[0], 3, 13, 2, dtype="float64", **KINDS[kind])  # type: ignore[arg-type]
        loss = Pinball((0.2, 0.8)) if seed % 2 else MSE()
        config = NetworkConfig(spec, horizon=2, outputs=loss.outputs, future_size=1)
        self.network = Network(config, device=device, seed=seed, engine=engine)
        self.grads, self.optimizer = self.network.params.like(), Adam()
        self.optimizer.init(self.network.params)
        self.gradients = GradientPass(self.network, loss, self.grads, 0.5)
        self.rng, self.losses = np.random.default_rng(seed), []
        self.taken: list[Any] = []

    def step(self, number: int) -> None:
        """One step; the loss stays on the device, copied behind the pass."""
        batch = 4 if number % 3 else 3
        shapes = ((5, batch, 3), (batch, 2, 1), (batch, 2, 1), (batch, 2, 1))
        x, target, future, weight = (self.network.backend.from_host(self.rng.uniform(size=s)) for s in shapes)
        result = self.gradients(x, target, future, weight)
        self.optimizer.step(self.network.params, self.grads, rate=0.01, scale=result.scale)
        self.taken.append(result.value.copy())

    def values(self) -> np.ndarray:
        """The losses of all steps; waits for the device."""
        return np.array([float(value) for value in self.taken])


def main() -> int:
    """Compare; the number of runs that differ."""
    os.environ[planner.GRAPH] = "1"  # whatever the planner finds
    failed = 0
    for kind in KINDS:
        expected = []
        for seed in (1, 2):
            reference = Run(kind, "cpu", seed, "reference")
            for number in range(STEPS):
                reference.step(number)
            expected.append(reference.values())
        places = [resolve(f"cuda:{index % device_count()}") for index in range(2)]
        runs, streams = [], []
        for index, at in enumerate(places):
            with at.activate():
                runs.append(Run(kind, at.device, index + 1))
                at.synchronize()
                streams.append([at.xp.cuda.Stream(non_blocking=True) for _ in range(2)])
        for number in range(STEPS):
            for run, at, pair in zip(runs, places, streams, strict=True):
                mine = pair[number % 2]  # from step to step another stream, in the order of an event
                with at.activate():
                    if number:
                        mine.wait_event(pair[1 - number % 2].record())
                    with mine:
                        run.step(number)
        for run, at, pair, want in zip(runs, places, streams, expected, strict=True):
            with at.activate():
                for stream in pair:
                    stream.synchronize()
                error = float(np.abs(run.values() - want).max())
            good = error < 1e-12
            failed += not good
            print(f"{'ok ' if good else 'BAD'} {kind} on {at.device}: losses differ by {error:.1e}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
