"""The same pictures on axes that a caller may go on with: returned, not written to a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpulstm.plots import figures
from gpulstm.plots.figures import Fan
from gpulstm.plots.style import CYCLE, DASHES, style


def own_axes(axes: Any) -> Any:
    """`axes`, or new ones of matplotlib's current figure manager.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    if axes is not None:
        return axes
    with style():
        import matplotlib.pyplot as plt

        return plt.subplots(figsize=(10, 4.5))[1]


def fans_on(axes: Any, fans: Sequence[Fan], *, time: np.ndarray, observed: np.ndarray, label: str) -> Any:
    """Forecasts with their bands over what was observed.

    Args:
        axes: to draw on, or None for new ones.
        fans: forecasts, in the order of time.
        time, observed: `(n,)` of the observed part, which may be empty.
        label: the vertical axis.

    Returns:
        the axes.
    """
    axes = own_axes(axes)
    figures.draw_fans(axes, fans, time, observed, label)
    return axes


def history_on(axes: Any, columns: Mapping[str, Sequence[float]]) -> Any:
    """Losses over epochs; `columns` as `History.columns` gives them.

    Returns:
        the axes.
    """
    axes = own_axes(axes)
    for name, color, dash in zip(("train_loss", "validation_loss"), CYCLE, DASHES, strict=False):
        values = np.asarray(columns[name], dtype=np.float64)
        if np.isfinite(values).any():
            axes.plot(columns["epoch"], values, color=color, linestyle=dash, label=name.replace("_", " "))
    axes.set(xlabel="epoch", ylabel="loss (scaled units)")
    axes.legend()
    return axes
