"""Draws belt.png: what a constant forget gate leaves of the memory, and of its gradient along the belt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from style import BLACK, BLUE, FOLDER, GREEN, ORANGE, VERMILION, pyplot, save

from gpulstm.engines.cells import Sigmoid

BIASES = ((0.0, VERMILION, ":"), (1.0, ORANGE, "-."), (3.0, GREEN, "--"), (5.0, BLUE, "-"))


def draw(folder: Path = FOLDER) -> Path:
    """f^k over k for forget gates held at sigmoid(bias)."""
    plt = pyplot()
    steps = np.arange(1, 1001)
    figure, axes = plt.subplots(figsize=(7, 2.9))
    axes.axhline(1.0, color=BLACK, lw=1.2)
    axes.text(1.1, 1.6, "f = 1: the cell of 1997, which cannot forget", color=BLACK)
    for bias, color, dash in BIASES:
        f = float(Sigmoid()(np, np.float64(bias)))
        half = np.log(0.5) / np.log(f)
        axes.plot(
            steps,
            f**steps,
            color=color,
            ls=dash,
            label=f"bias {bias:g}, f = {f:.3f}\nhalf-life {half:.1f}",
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlim=(1, 1000),
        ylim=(1e-10, 20),
        xlabel="steps k along the belt",
        ylabel="f to the power k",
    )
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
    return save(figure, "belt.png", folder)


if __name__ == "__main__":
    draw()
