"""Draws demo_backtest.png: what `gpulstm demo` makes, and prints the table of its errors as the README shows it.

Training takes about half a minute on two cores.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from style import FOLDER, shrink

from gpulstm.cli import demo


def draw(folder: Path = FOLDER) -> Path:
    """Run the demonstration in a temporary folder and keep the picture of its backtest."""
    with tempfile.TemporaryDirectory() as place:
        result = demo.run(place, quiet=True, device="cpu")
        for name, errors in result.backtest.metrics().items():
            coverage = f"{errors['coverage']:.0f} %" if "coverage" in errors else ""
            print(f"| {name} | {errors['MAE']:.2f} | {errors['MASE']:.2f} | {coverage} |")
        return shrink(result.files["backtest picture"], "demo_backtest.png", folder)


if __name__ == "__main__":
    draw()
