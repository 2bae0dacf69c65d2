"""Small training runs that several test files make: windows, a network, a trainer, and all its numbers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np

from gpulstm import losses, optimizers, schedules
from gpulstm.arrays.devices import to_host
from gpulstm.data.windows import WindowSet
from gpulstm.engines.spec import StackSpec
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.training.callbacks import Callback, EarlyStopping, Run
from gpulstm.training.trainer import Trainer

SMALL: dict[str, Any] = {"context": 6, "horizon": 2}


def windows(rows: int = 40, dtype: str = "float64", missing: bool = False, **options: Any) -> WindowSet:
    """A noisy wave in windows: 33 of them from 40 rows; with gaps, some targets count for nothing."""
    rng = np.random.default_rng(11)
    values = (np.sin(np.arange(rows) / 3) + 0.1 * rng.normal(size=rows)).astype(dtype)[:, None]
    observed = rng.random((rows, 1)) > 0.2 if missing else None
    return WindowSet(values, np.array([0, rows]), **SMALL, observed=observed, **options)


def network(device: str = "cpu", dtype: str = "float64", **options: Any) -> Network:
    stack = StackSpec("lstm", 1, 5, num_layers=2, dtype=dtype, dropout=0.2)
    return Network(NetworkConfig(stack, horizon=2, **options), device=device, seed=4)


def make(device: str = "cpu", dtype: str = "float64", **options: Any) -> Trainer:
    """A trainer with everything in it that has state."""
    settings: dict[str, Any] = {
        "optimizer": optimizers.Adam(),
        "schedule": schedules.WarmUp(schedules.OnPlateau(base=0.02, patience=0, threshold=0.05), steps=5),
        "epochs": 6,
        "batch_size": 8,
        "clip_norm": 0.5,
        "seed": 3,
        "log_every": 2,
        "callbacks": [EarlyStopping(patience=50)],
    }
    return Trainer(network(device, dtype), losses.MSE(), **{**settings, **options})


def numbers(trainer: Trainer) -> dict[str, Any]:
    """Everything a run computed, in bits."""
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in trainer.history.rows]
    return {
        "weights": to_host(trainer.network.params.flat).tobytes(),
        "moments": {name: to_host(value).tobytes() for name, value in trainer.state.optimizer.arrays().items()},
        "rows": rows,
        "best": (trainer.history.best_epoch, trainer.history.best_loss),
        "counters": (trainer.epoch, trainer.batch, trainer.step, trainer.network.calls),
        "schedule": trainer.state.schedule.scalars(),
        "callbacks": [callback.scalars() for callback in trainer.callbacks],
    }


class Call(Callback):
    """Run a function after the given step."""

    def __init__(self, step: int, function: Callable[[Run], None]) -> None:
        self.step, self.function = step, function

    def on_step(self, run: Run) -> None:
        if run.step == self.step:
            self.function(run)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)
