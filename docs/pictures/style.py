"""What the pictures of the documentation share: the look of the package's own, their width, how a file is written.

Pictures are 7 inches wide: text of 9.5 points is 13 pixels high where a page shows 700 pixels.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from gpulstm.plots.style import BLACK, BLUE, GRAY, GREEN, ORANGE, PURPLE, SKY, STYLE, VERMILION

__all__ = [
    "BLACK",
    "BLUE",
    "FOLDER",
    "GRAY",
    "GREEN",
    "ORANGE",
    "PALE",
    "PURPLE",
    "SKY",
    "VERMILION",
    "pyplot",
    "save",
    "shrink",
]  # fmt: skip

FOLDER = Path(__file__).resolve().parent
PALE = "#e9eef2"


def pyplot() -> Any:
    """`matplotlib.pyplot` on the file backend, with the settings of all pictures."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    # The font comes with matplotlib, so that the files are the same everywhere; formulas are formulas here.
    plt.rcParams.update(STYLE | {"font.family": "DejaVu Sans", "font.size": 9.5, "text.parse_math": True})
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
