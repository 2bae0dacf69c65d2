"""One rank of a small training run: `ranks.py FOLDER DEVICE [what goes wrong]`, under mpiexec."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "helpers"))

from runs import make, windows

from gpulstm.arrays.devices import to_host
from gpulstm.arrays.launch import place
from gpulstm.training.callbacks import CheckpointEvery, EarlyStopping
from gpulstm.training.trainer import Trainer


def spoil(trainer: Trainer, fault: str) -> None:
    """Let something happen to the second rank in its fourth step."""
    take = trainer._steps.take

    def spoiled(*arguments: Any) -> None:
        if trainer.step == 3:
            if fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise MemoryError if fault == "memory" else RuntimeError("a bug")
        take(*arguments)

    trainer._steps.take = spoiled  # type: ignore[method-assign]


def main(folder: str, device: str, fault: str = "") -> None:
    rank = place().rank
    options: dict[str, Any] = {"epochs": 3 if fault == "options" and rank == 1 else 2}
    dtype = "float32" if device == "cuda" else "float64"  # of the data
    path = Path(folder) / "run.safetensors"
    callbacks = [EarlyStopping(50), CheckpointEvery(path, steps=2)]
    small = make(device, "float16" if fault == "float16" else dtype, **options)
    trainer = Trainer(
        small.network, small.state.loss, small.state.optimizer, small.state.schedule, epochs=small.epochs,
        batch_size=8, clip_norm=0.5, seed=3, log_every=2, callbacks=callbacks,
    )  # fmt: skip
    if rank == 1 and fault in ("kill", "memory", "bug"):
        spoil(trainer, fault)
    if fault == "resume":
        trainer.restore(path)
    data = windows(dtype=dtype)
    if fault == "data" and rank == 1:
        data.values[3] += 1
    trainer.fit(data, windows(dtype=dtype, missing=True))
    scale = [] if trainer.state.loss_scale is None else [to_host(trainer.state.loss_scale.state)]
    numbers = np.concatenate([to_host(trainer.weights.flat), *scale])
    np.save(Path(folder) / f"weights-{trainer.ranks.size}-{rank}.npy", numbers)
    if rank == 0:
        print(f"{trainer.ranks.size} ranks, {trainer.step} steps, {trainer.history.stopped}")


if __name__ == "__main__":
    main(*sys.argv[1:])
