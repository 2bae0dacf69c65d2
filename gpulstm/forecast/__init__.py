"""The forecaster: fit, predict, backtest, stream.

Modules are imported when a name of theirs is first asked for: the first forecast of a loaded model imports no training.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpulstm.forecast.forecaster import Forecaster
    from gpulstm.forecast.results import Backtest, Forecast

_MODULES = {
    "Backtest": "results",
    "Forecast": "results",
    "Forecaster": "forecaster",
}

__all__ = ["Backtest", "Forecast", "Forecaster"]


def __getattr__(name: str) -> Any:
    """A name of this package, whose module is imported when the name is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
