"""Stacks of recurrent layers and networks: parameters, state, and the way of a batch through them and back.

Modules are imported when a name of theirs is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpulstm.model.layers import GRU, LSTM, RNN, Dense
    from gpulstm.model.network import Network, NetworkConfig, NetworkTape
    from gpulstm.model.scan import Tape
    from gpulstm.model.stack import Recurrent

_MODULES = {
    "Dense": "layers",
    "GRU": "layers",
    "LSTM": "layers",
    "Network": "network",
    "NetworkConfig": "network",
    "NetworkTape": "network",
    "RNN": "layers",
    "Recurrent": "stack",
    "Tape": "scan",
}

__all__ = ["GRU", "LSTM", "RNN", "Dense", "Network", "NetworkConfig", "NetworkTape", "Recurrent", "Tape"]


def __getattr__(name: str) -> Any:
    """A name of this package, whose module is imported when the name is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
