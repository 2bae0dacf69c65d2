"""Tables to series, series to windows and batches.

The reader is imported when it is first asked for: a forecast from a saved model reads no table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpulstm.data.loading import load_series
    from gpulstm.data.series import SeriesSet

__all__ = ["SeriesSet", "load_series"]


def __getattr__(name: str) -> Any:
    if name == "load_series":
        from gpulstm.data.loading import load_series

        return load_series
    if name == "SeriesSet":
        from gpulstm.data.series import SeriesSet

        return SeriesSet
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
