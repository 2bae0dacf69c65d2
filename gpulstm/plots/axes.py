"""The same pictures on axes that a caller may go on with: returned, not written to a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpulstm.errors import missing_extra
from gpulstm.plots.figures import BLACK, BLUE, CYCLE, DASHES, VERMILLION, Fan


def own_axes(axes: Any) -> Any:
    """`axes`, or new ones of matplotlib's current figure manager.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    if axes is not None:
        return axes
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise missing_extra("plots", "drawing a picture") from error
    return plt.subplots(figsize=(10, 4.5), layout="constrained")[1]


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
    if len(time):
        axes.plot(time, observed, color=BLACK, linewidth=1.1, label="observed")
    for number, fan in enumerate(fans):
        color = (BLUE, VERMILLION)[number % 2]
        for index, (coverage, low, high) in enumerate(fan.bands):
            text = f"{100 * coverage:.0f} % interval" if number == 0 else None
            axes.fill_between(fan.time, low, high, color=color, alpha=0.18 + 0.12 * index, linewidth=0, label=text)
        if fan.center is not None:
            name = ("median" if 0.5 in fan.quantiles else "mean") if number == 0 else None
            axes.plot(fan.time, fan.center, color=color, linewidth=1.6, label=name)
    axes.set_ylabel(label, parse_math=False)  # names are plain text: $, _, ^ and % mean themselves
    axes.legend()
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
    axes.set(xlabel="epoch", ylabel="loss")
    axes.legend()
    return axes
