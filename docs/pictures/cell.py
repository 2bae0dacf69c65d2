"""Draws cell.png: what flows where in one step of the LSTM cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from style import BLACK, BLUE, FOLDER, GRAY, GREEN, ORANGE, PALE, PURPLE, SKY, VERMILION, pyplot, save

BELT, LOWER = 4.0, 1.9  # heights of the belt and of the boxes that compute the gates


def draw(folder: Path = FOLDER) -> Path:
    """The belt on top, the four products of x_t and h_{t-1} below, the output gate on the right."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(7, 4.0))
    axes.set(xlim=(0, 10.4), ylim=(-0.2, 5.6), aspect="equal")
    axes.axis("off")
    axes.add_patch(plt.Rectangle((0.95, 0.45), 8.35, 4.55, facecolor=PALE, edgecolor=GRAY, lw=1, zorder=0))

    # the belt: c_{t-1} -> times f -> plus i*g -> c_t
    _arrow(axes, (0.1, BELT), (1.93, BELT), VERMILION, 3)
    _arrow(axes, (2.47, BELT), (4.53, BELT), VERMILION, 3)
    _arrow(axes, (5.07, BELT), (10.3, BELT), VERMILION, 3)
    _round(axes, 2.2, BELT, "×")
    _round(axes, 4.8, BELT, "+")
    axes.text(0.12, BELT + 0.17, "$c_{t-1}$", fontsize=12, color=VERMILION)
    axes.text(9.75, BELT + 0.17, "$c_t$", fontsize=12, color=VERMILION)
    axes.text(6.9, BELT + 0.17, "long memory: the additive belt", ha="center", color=VERMILION)

    # what every gate reads
    axes.plot([0.1, 7.0], [0.85, 0.85], color=BLACK, lw=1.4, zorder=1)
    axes.plot([1.25, 1.25], [-0.1, 0.85], color=BLACK, lw=1.4, zorder=1)
    axes.text(0.12, 1.0, "$h_{t-1}$", fontsize=12)
    axes.text(1.4, -0.12, "$x_t$", fontsize=12)
    for x, name, act, color in (
        (2.2, "forget gate", "sigmoid", BLUE),
        (3.75, "input gate", "sigmoid", GREEN),
        (5.35, "candidate", "tanh", ORANGE),
        (7.0, "output gate", "sigmoid", PURPLE),
    ):
        axes.plot([x, x], [0.85, LOWER - 0.28], color=BLACK, lw=1.4, zorder=1)
        _box(plt, axes, x, LOWER, act, color)
        axes.text(x, 0.56, name, ha="center", va="center", color=BLACK, fontsize=9)

    # f up to the belt; i and g multiplied, then added
    _arrow(axes, (2.2, LOWER + 0.28), (2.2, BELT - 0.27), BLUE)
    axes.text(2.3, 2.5, "$f_t$", fontsize=12, color=BLUE)
    _round(axes, 4.8, 2.95, "×")
    axes.plot([3.75, 3.75], [LOWER + 0.28, 2.95], color=GREEN, lw=1.6)
    _arrow(axes, (3.75, 2.95), (4.53, 2.95), GREEN)
    axes.text(3.4, 2.5, "$i_t$", fontsize=12, color=GREEN)
    axes.plot([5.35, 5.35], [LOWER + 0.28, 2.95], color=ORANGE, lw=1.6)
    _arrow(axes, (5.35, 2.95), (5.07, 2.95), ORANGE)
    axes.text(5.45, 2.5, "$g_t$", fontsize=12, color=ORANGE)
    _arrow(axes, (4.8, 3.22), (4.8, BELT - 0.27), BLACK)

    # the output: tanh of the belt, shown as far as o allows
    axes.plot([8.3, 8.3], [BELT, 3.43], color=VERMILION, lw=1.6)
    _box(plt, axes, 8.3, 3.15, "tanh", SKY)
    _arrow(axes, (8.3, 2.87), (8.3, LOWER + 0.27), SKY)
    _arrow(axes, (7.44, LOWER), (8.03, LOWER), PURPLE)
    axes.text(7.55, LOWER + 0.17, "$o_t$", fontsize=12, color=PURPLE)
    _round(axes, 8.3, LOWER, "×")
    axes.plot([8.3, 8.3], [LOWER - 0.27, 0.85], color=BLACK, lw=1.6)
    _arrow(axes, (8.3, 0.85), (10.3, 0.85), BLACK)
    axes.plot([8.85, 8.85], [0.85, 3.9], color=BLACK, lw=1.4)
    axes.plot([8.85, 8.85], [4.1, 5.1], color=BLACK, lw=1.4)
    _arrow(axes, (8.85, 5.05), (8.85, 5.5), BLACK)
    axes.text(9.75, 1.0, "$h_t$", fontsize=12)
    axes.text(9.0, 5.3, "$h_t$: the layer's output", va="center", ha="left", fontsize=8.5)
    axes.text(
        0.95,
        5.3,
        r"$c_t = f_t\odot c_{t-1} + i_t\odot g_t$        $h_t = o_t\odot\tanh(c_t)$",
        fontsize=11,
        va="center",
    )
    return save(figure, "cell.png", folder)


def _arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], color: str, width: float = 1.6) -> None:
    style = {"arrowstyle": "-|>", "color": color, "lw": width, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 12}
    axes.annotate("", end, start, arrowprops=style)


def _round(axes: Any, x: float, y: float, sign: str) -> None:
    """An elementwise operation."""
    axes.scatter([x], [y], s=330, facecolor="white", edgecolor=BLACK, linewidth=1.2, zorder=3)
    axes.text(x, y, sign, ha="center", va="center_baseline", fontsize=14, zorder=4)


def _box(plt: Any, axes: Any, x: float, y: float, text: str, color: str) -> None:
    """A function of the pre-activations."""
    axes.add_patch(plt.Rectangle((x - 0.46, y - 0.28), 0.92, 0.56, facecolor="white", edgecolor=color, lw=2, zorder=3))
    axes.text(x, y, text, ha="center", va="center", fontsize=9, zorder=4)


if __name__ == "__main__":
    draw()
