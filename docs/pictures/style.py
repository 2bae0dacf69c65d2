"""What the pictures of the documentation have in common: size, fonts, colors, and how a file is written.

Colors are those of Okabe & Ito 2008 ("Color Universal Design"), which stay apart for color-blind readers; lines
differ in dash as well.  Pictures are 7 inches wide: text of 9 points is 12 pixels high where a page shows 700 pixels.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent

BLACK, GRAY, PALE = "#1a1a1a", "#6b6b6b", "#e9eef2"
ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = "#e69f00", "#56b4e9", "#009e73", "#0072b2", "#d55e00", "#cc79a7"


def pyplot() -> Any:
    """`matplotlib.pyplot` on the file backend, with the settings of all pictures."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams.update(
        {
            "font.family": "DejaVu Sans",  # comes with matplotlib, so that the files are the same everywhere
            "font.size": 9.5,
            "axes.titlesize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": GRAY,
            "axes.grid": True,
            "grid.color": "#dddddd",
            "grid.linewidth": 0.6,
            "lines.linewidth": 1.6,
            "legend.frameon": False,
            "figure.constrained_layout.use": True,
        }
    )
    return plt


def save(figure: Any, name: str, folder: Path = FOLDER) -> Path:
    """Write `name` as PNG, 1050 pixels wide for a figure of 7 inches, in 64 colors; a rerun changes nothing."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=150, metadata={"Software": None})
    return shrink(drawn, name, folder)


def shrink(drawn: Any, name: str, folder: Path = FOLDER) -> Path:
    """Write a PNG (a path or an open file) as `name` in 64 colors, which takes a third of the space."""
    from PIL import Image  # comes with matplotlib

    path = folder / name
    with Image.open(drawn) as picture:
        picture.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
    return path
