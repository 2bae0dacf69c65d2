"""The gallery's scripts as pages and as notebooks, from one source: docs/gallery/*.py.

    python tools/gallery.py pictures [NAME...]      run scripts; their pictures and what they print go next to them
    python tools/gallery.py notebooks FOLDER        write the notebooks and run them with nbconvert

A script is in percent format: a cell begins with `# %%`, one of text with `# %% [markdown]`, and its picture has the
script's own name.  Those of CUDA need a GPU or the simulator, and PyTorch.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
GALLERY = ROOT / "docs" / "gallery"
PRINTED = GALLERY / "printed.json"
ORDER = [
    "one_series", "panel", "weather", "classification", "anomalies", "streaming", "characters", "pipeline",
]  # fmt: skip
CUDA = ["pipeline"]


@dataclass(frozen=True)
class Cell:
    """One cell of a script: Markdown or Python, and the line that it begins at."""

    markdown: bool
    text: str
    line: int


def cells(script: Path) -> list[Cell]:
    """The cells of a script, in order."""
    cells: list[Cell] = []
    lines = script.read_text(encoding="utf-8").splitlines()
    starts = [at for at, line in enumerate(lines) if line.startswith("# %%")]
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
        body, markdown = lines[start + 1 : stop], lines[start].endswith("[markdown]")
        if markdown:
            body = [re.sub(r"^# ?", "", line) for line in body]
        cells.append(Cell(markdown, "\n".join(body).strip("\n") + "\n", start + 2))
    return cells


def title(name: str) -> str:
    """The headline of a page."""
    return cells(GALLERY / f"{name}.py")[0].text.splitlines()[0].removeprefix("# ")


def page(name: str) -> str:
    """A script as Markdown: its text, its code, what that printed, its picture."""
    printed = iter(json.loads(PRINTED.read_text(encoding="utf-8")).get(name, []))
    parts = []
    for cell in cells(GALLERY / f"{name}.py"):
        if cell.markdown:
            parts.append(cell.text)
            continue
        parts.append(f"```python\n{cell.text}```\n")
        if text := next(printed, ""):
            parts.append(f"<!-- prints -->\n```text\n{text}```\n")
        if f'"{name}.png"' in cell.text:
            parts.append(f"![{title(name)}]({name}.png)\n")
    if name in CUDA:
        parts.append("What is printed and drawn here comes from the simulator, not from a GPU.\n")
    parts.append(f"[The same as a notebook]({name}.ipynb)\n")
    return "\n".join(parts)


def notebook(name: str) -> dict[str, Any]:
    """A script as a notebook (nbformat 4.5)."""
    pages = []
    for at, cell in enumerate(cells(GALLERY / f"{name}.py")):
        pages.append(
            {
                "cell_type": "markdown" if cell.markdown else "code",
                "id": f"cell-{at}",
                "metadata": {},
                "source": cell.text.rstrip("\n").splitlines(keepends=True),
                **({} if cell.markdown else {"execution_count": None, "outputs": []}),
            }
        )
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": pages, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def run(name: str) -> list[str]:
    """Run a script in the present folder, where its picture is then; what each cell of code printed."""
    import matplotlib

    matplotlib.use("agg")
    script, namespace, printed = GALLERY / f"{name}.py", {"__name__": "__main__"}, []
    with matplotlib.rc_context():
        for cell in cells(script):
            if not cell.markdown:
                output = io.StringIO()
                code = compile("\n" * (cell.line - 1) + cell.text, str(script), "exec")
                with contextlib.redirect_stdout(output):
                    exec(code, namespace)
                printed.append(output.getvalue())
        import matplotlib.pyplot

        matplotlib.pyplot.close("all")
    return printed


def write_pictures(names: list[str]) -> None:
    """Run scripts, and keep their pictures and what they printed next to them."""
    printed = json.loads(PRINTED.read_text(encoding="utf-8")) if PRINTED.exists() else {}
    for name in names:
        print(f"== {name}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            printed[name] = run(name)
            os.chdir(ROOT)
            shutil.copy(Path(folder) / f"{name}.png", GALLERY / f"{name}.png")
        PRINTED.write_text(json.dumps(printed, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def run_notebooks(folder: Path) -> int:
    """Write all notebooks and run them with nbconvert, those of CUDA on the simulator where there is no GPU."""
    folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in ORDER:
        path = folder / f"{name}.ipynb"
        path.write_text(json.dumps(notebook(name), indent=1, ensure_ascii=False), encoding="utf-8")
        command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace", str(path)]
        if name in CUDA and shutil.which("nvidia-smi") is None:
            command.insert(0, str(ROOT / "tests" / "hostgpu" / "hostgpu"))
        print(f"== {path}", flush=True)
        if subprocess.run(command, env={**os.environ, "MPLBACKEND": "agg"}).returncode:
            failed.append(name)
    print(f"failed: {', '.join(failed)}" if failed else f"{len(ORDER)} notebooks ran")
    return bool(failed)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["pictures", "notebooks"])
    parser.add_argument("names", nargs="*", help="scripts, or the folder of the notebooks")
    arguments = parser.parse_args()
    if arguments.what == "notebooks":
        return run_notebooks(Path(arguments.names[0]))
    write_pictures(arguments.names or ORDER)
    return 0


if __name__ == "__main__":
    sys.exit(main())
