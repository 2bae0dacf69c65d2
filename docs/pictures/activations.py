"""Draws activations.png: sigmoid and tanh, and their slopes, which saturation takes to zero."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from style import BLUE, FOLDER, GRAY, VERMILION, pyplot, save

from gpulstm.engines.cells import Sigmoid, Tanh


def draw(folder: Path = FOLDER) -> Path:
    """Value and slope of both functions over pre-activations from -6 to 6, computed by the cells' own code."""
    plt = pyplot()
    z = np.linspace(-6, 6, 601)
    figure, (values, slopes) = plt.subplots(1, 2, figsize=(7, 2.7))
    for function, name, color, dash in ((Tanh(), "tanh", BLUE, "-"), (Sigmoid(), "sigmoid", VERMILION, "--")):
        y = function(np, z)
        values.plot(z, y, color, ls=dash, label=name)
        slopes.plot(z, function.slope(np, y), color, ls=dash, label=f"slope of {name}")
    for axes, text in ((values, "value"), (slopes, "slope")):
        axes.set(xlabel="pre-activation z", title=text, xlim=(-6, 6), xticks=range(-6, 7, 2))
    values.legend(loc="upper left")
    slopes.annotate("1, at z = 0 alone", (0, 1), (1.5, 0.93), color=GRAY, arrowprops={"arrowstyle": "-", "color": GRAY})
    slopes.annotate("1/4", (0, 0.25), (-5.2, 0.42), color=GRAY, arrowprops={"arrowstyle": "-", "color": GRAY})
    slopes.annotate("saturated:\nhardly any\ngradient", (4, 0.01), (2.1, 0.35), color=GRAY)
    slopes.set_ylim(0, 1.05)
    return save(figure, "activations.png", folder)


if __name__ == "__main__":
    draw()
