"""Stacked LSTMs in plain array code: the same model on NVIDIA GPUs (CuPy) and on CPUs (NumPy)."""

from __future__ import annotations

TYPE_CHECKING = False  # as `typing` has it, which takes milliseconds in which the program cannot take care of Ctrl-C
if TYPE_CHECKING:
    from typing import Any

    from gpulstm import errors, interop
    from gpulstm.arrays.devices import to_device, to_host
    from gpulstm.arrays.threads import get_num_threads, set_num_threads
    from gpulstm.data import datasets
    from gpulstm.forecast.forecaster import Forecaster
    from gpulstm.model.embedding import Embedding
    from gpulstm.model.layers import GRU, LSTM, RNN, Dense
    from gpulstm.model.network import Network, NetworkConfig
    from gpulstm.training.trainer import Trainer

__version__ = "0.1.0"

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Dense",
    "Embedding",
    "Forecaster",
    "Network",
    "NetworkConfig",
    "Trainer",
    "datasets",
    "errors",
    "get_num_threads",
    "interop",
    "set_num_threads",
    "to_device",
    "to_host",
]

_PACKAGES = {"errors": "gpulstm.errors", "interop": "gpulstm.interop", "datasets": "gpulstm.data.datasets"}
_NAMES = {
    "Forecaster": "gpulstm.forecast.forecaster",
    "Embedding": "gpulstm.model.embedding",
    "Network": "gpulstm.model.network",
    "NetworkConfig": "gpulstm.model.network",
    "Trainer": "gpulstm.training.trainer",
    **dict.fromkeys(("GRU", "LSTM", "RNN", "Dense"), "gpulstm.model.layers"),
    **dict.fromkeys(("get_num_threads", "set_num_threads"), "gpulstm.arrays.threads"),
    **dict.fromkeys(("to_device", "to_host"), "gpulstm.arrays.devices"),
}


def __getattr__(name: str) -> Any:
    """What is imported when first asked for: who uses a part does not wait for the rest, the program least of all."""
    import importlib

    if name in _PACKAGES:
        value = importlib.import_module(_PACKAGES[name])
    elif name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
