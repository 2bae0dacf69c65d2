"""The training loop, its state, callbacks and history.

Modules are imported when a name of theirs is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpulstm.training.callbacks import (
        Callback,
        CheckpointEvery,
        EarlyStopping,
        HistoryCSV,
        Progress,
        Run,
        TensorBoard,
    )
    from gpulstm.training.gradients import GradientPass, Result
    from gpulstm.training.history import History
    from gpulstm.training.mixed_precision import LossScale
    from gpulstm.training.trainer import Trainer, data_order

_MODULES = {
    "Callback": "callbacks",
    "CheckpointEvery": "callbacks",
    "EarlyStopping": "callbacks",
    "GradientPass": "gradients",
    "History": "history",
    "HistoryCSV": "callbacks",
    "LossScale": "mixed_precision",
    "Progress": "callbacks",
    "Result": "gradients",
    "Run": "callbacks",
    "TensorBoard": "callbacks",
    "Trainer": "trainer",
    "data_order": "trainer",
}

__all__ = [
    "Callback",
    "CheckpointEvery",
    "EarlyStopping",
    "GradientPass",
    "History",
    "HistoryCSV",
    "LossScale",
    "Progress",
    "Result",
    "Run",
    "TensorBoard",
    "Trainer",
    "data_order",
]


def __getattr__(name: str) -> Any:
    """A name of this package, whose module is imported when the name is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
