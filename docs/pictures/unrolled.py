"""Draws unrolled.png: two layers over three time steps, each with its own zero state, and the dense head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from style import BLACK, BLUE, FOLDER, GRAY, GREEN, PALE, VERMILION, pyplot, save

COLUMNS, ROWS = (2.4, 4.9, 7.4), (1.5, 3.7)  # middles of the boxes: time runs to the right, depth upwards


def draw(folder: Path = FOLDER) -> Path:
    """Same box, same weights within a row; the second row reads what the first put out."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(7, 3.75))
    axes.set(xlim=(0, 10.6), ylim=(-0.05, 5.5), aspect="equal")
    axes.axis("off")
    for layer, (y, color) in enumerate(zip(ROWS, (BLUE, GREEN), strict=True), start=1):
        axes.add_patch(plt.Rectangle((1.55, y - 0.62), 6.7, 1.24, facecolor=PALE, edgecolor="none", zorder=0))
        axes.text(8.4, y - 0.85, f"layer {layer}:\none set of weights", color=color, va="center", fontsize=9)
        _arrow(axes, (0.95, y + 0.2), (1.75, y + 0.2), VERMILION, 2.4)
        _arrow(axes, (0.95, y - 0.2), (1.75, y - 0.2), BLACK)
        axes.text(0.88, y + 0.2, f"$c_0^{{({layer})}} = 0$", ha="right", va="center", color=VERMILION)
        axes.text(0.88, y - 0.2, f"$h_0^{{({layer})}} = 0$", ha="right", va="center")
        for t, x in enumerate(COLUMNS, start=1):
            axes.add_patch(
                plt.Rectangle((x - 0.65, y - 0.42), 1.3, 0.84, facecolor="white", edgecolor=color, lw=2, zorder=3)
            )
            axes.text(x, y, f"LSTM {layer}\nstep {t}", ha="center", va="center", fontsize=9, zorder=4)
            end = COLUMNS[t] - 0.65 if t < 3 else 8.75
            _arrow(axes, (x + 0.65, y + 0.2), (end, y + 0.2), VERMILION, 2.4)
            _arrow(axes, (x + 0.65, y - 0.2), (end, y - 0.2), BLACK)
            middle = (x + 0.65 + end) / 2 if t < 3 else 8.82
            side = "center" if t < 3 else "left"
            axes.text(
                middle,
                y + 0.29,
                f"$c_{t}^{{({layer})}}$",
                color=VERMILION,
                ha=side,
                va="bottom" if t < 3 else "center",
            )
            axes.text(middle, y - 0.29, f"$h_{t}^{{({layer})}}$", ha=side, va="top" if t < 3 else "center")
    for t, x in enumerate(COLUMNS, start=1):
        _arrow(axes, (x, 0.35), (x, ROWS[0] - 0.42), BLACK)
        axes.text(x, 0.15, f"$x_{t}$", ha="center", va="center", fontsize=12)
        _arrow(axes, (x, ROWS[0] + 0.42), (x, ROWS[1] - 0.42), BLACK)
        axes.text(x + 0.1, 2.35, f"$h_{t}^{{(1)}}$ as input", ha="left", va="center", fontsize=8.5)
        if t < 3:
            _arrow(axes, (x, ROWS[1] + 0.42), (x, 4.85), GRAY)
            axes.text(x, 5.0, f"$h_{t}^{{(2)}}$", ha="center", va="bottom", color=GRAY)
    _arrow(axes, (COLUMNS[2], ROWS[1] + 0.42), (COLUMNS[2], 4.75), BLACK)
    axes.add_patch(plt.Rectangle((6.55, 4.75), 1.7, 0.5, facecolor="white", edgecolor=BLACK, lw=1.4))
    axes.text(COLUMNS[2], 5.0, "dense head", ha="center", va="center", fontsize=9)
    _arrow(axes, (8.25, 5.0), (8.85, 5.0), BLACK)
    axes.text(8.95, 5.0, "forecast", va="center")
    axes.text(8.95, ROWS[1] + 0.75, "final state,\nfor the next call", va="center", fontsize=8.5, color=GRAY)
    return save(figure, "unrolled.png", folder)


def _arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], color: str, width: float = 1.5) -> None:
    style = {"arrowstyle": "-|>", "color": color, "lw": width, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 11}
    axes.annotate("", end, start, arrowprops=style)


if __name__ == "__main__":
    draw()
