"""Draws long_memory.png from the table of docs/guides/long-sequences.md, which `gpulstm bench --suite long` made."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from style import FOLDER, shrink

from gpulstm.plots import figures

TABLE = FOLDER.parent / "guides" / "long-sequences.md"
HEAD = "| T | gpulstm, whole |"


def read(path: Path = TABLE) -> dict[str, list[tuple[float, float]]]:
    """Steps and MiB of each column; PyTorch's once, since flushed denormals change its time alone."""
    text = path.read_text(encoding="utf-8")
    head, _, *rows = text[text.index(HEAD) :].partition("\n\n")[0].splitlines()
    names = [name.strip().replace("`", "") for name in head.strip("|").split("|")]
    lines: dict[str, list[tuple[float, float]]] = {name: [] for name in names[1:4]}
    for row in rows:
        steps, *cells = row.strip("|").split("|")
        for name, cell in zip(lines, cells, strict=False):
            lines[name].append((float(steps), float(re.match(r"[\d. ]+", cell)[0])))
    return lines


def draw(folder: Path = FOLDER) -> Path:
    """The table as a picture."""
    with tempfile.TemporaryDirectory() as made:
        title = "Peak memory of a training step, B=32 I=16 H=256 L=2, float32"
        return shrink(figures.memory(Path(made) / "memory.png", read(), title=title), "long_memory.png", folder)


if __name__ == "__main__":
    draw()
