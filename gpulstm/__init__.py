"""Stacked LSTMs in plain array code: the same model on NVIDIA GPUs (CuPy) and on CPUs (NumPy)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gpulstm import errors
from gpulstm.backend import to_device, to_host
from gpulstm.layers import GRU, LSTM, RNN, Dense
from gpulstm.threads import get_num_threads, set_num_threads

if TYPE_CHECKING:
    from gpulstm import interop
    from gpulstm.forecast import Forecaster

__version__ = "0.1.0"

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Dense",
    "Forecaster",
    "errors",
    "get_num_threads",
    "interop",
    "set_num_threads",
    "to_device",
    "to_host",
]


def __getattr__(name: str) -> Any:
    """`Forecaster` and `interop`, imported when first asked for: who uses layers alone does not wait for them."""
    if name == "interop":
        return importlib.import_module("gpulstm.interop")
    if name != "Forecaster":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from gpulstm.forecast import Forecaster

    return Forecaster
