"""Tables to series, series to windows and batches.

Modules are imported when a name of theirs is first asked for: a forecast from a saved model reads no table.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpulstm.data.loading import load_series
    from gpulstm.data.scaling import Scaler
    from gpulstm.data.series import SeriesSet
    from gpulstm.data.splits import Cuts, chronological_cuts
    from gpulstm.data.tbptt import Lanes
    from gpulstm.data.windows import Batch, WindowSet, window_set

_MODULES = {
    "Batch": "windows",
    "Cuts": "splits",
    "Lanes": "tbptt",
    "Scaler": "scaling",
    "SeriesSet": "series",
    "WindowSet": "windows",
    "chronological_cuts": "splits",
    "load_series": "loading",
    "window_set": "windows",
}

__all__ = [
    "Batch",
    "Cuts",
    "Lanes",
    "Scaler",
    "SeriesSet",
    "WindowSet",
    "chronological_cuts",
    "load_series",
    "window_set",
]


def __getattr__(name: str) -> Any:
    """A name of this package, whose module is imported when the name is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
