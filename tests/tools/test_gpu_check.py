"""The program and the notebook for a machine with a GPU: both run here, on tiny sizes."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from paths import CHECKOUT, TOOLS

from gpulstm.arrays.devices import resolve

PROGRAM = TOOLS / "gpu_check.py"
NOTEBOOK = CHECKOUT / "docs" / "notebooks" / "gpu-check.ipynb"
SHAPE = "3,2,2,8,2"


def cache(folder: Path) -> dict[str, str]:
    """A place for verdicts of the test's own."""
    return {"XDG_CACHE_HOME": str(folder)}


def cells() -> list[list[str]]:
    """The lines of each code cell of the notebook."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    return ["".join(cell["source"]).splitlines() for cell in notebook["cells"] if cell["cell_type"] == "code"]


def commands() -> list[str]:
    """What the notebook hands to a shell, in order."""
    return [line[1:] for cell in cells() for line in cell if line.startswith("!")]


def test_the_cells_of_the_notebook_are_python_and_shell() -> None:
    for cell in cells():
        lines = [line for line in cell if not line.startswith(("!", "%"))]
        compile("\n".join(lines), NOTEBOOK.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for line in cell:
            if line.startswith("%"):
                assert re.fullmatch(r"%cd \w+", line)
    for command in commands():
        shell = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True)
        assert shell.returncode == 0, shell.stderr
    cloned = next(command for command in commands() if command.startswith("git clone"))
    assert f"%cd {cloned.split()[-1]}" in [line for cell in cells() for line in cell]
    extras = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    installed = next(command for command in commands() if "pip install" in command)
    assert re.search(r"^test = \[", extras, re.MULTILINE) and "'.[test]'" in installed


@pytest.mark.cuda
@pytest.mark.slow
def test_the_notebooks_command_runs_and_its_report_holds_everything(tmp_path: Path) -> None:
    (command,) = [command for command in commands() if "gpu_check" in command]
    words = shlex.split(command)
    output = words[words.index("--output") + 1]
    assert f'Path("{output}")' in "\n".join(cells()[-1])  # the report that is shown is the one that was written
    words[words.index("--output") + 1] = str(tmp_path / "report.md")
    assert words[0] == "python"
    command = [sys.executable, *words[1:], "--quick"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, env={**os.environ, **cache(tmp_path)})
    assert run.returncode == 0, run.stdout + run.stderr
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "7 of 7 items done; 0 of them wrong." in text
    assert re.search(r"- [1-9]\d* programs were compiled in \d+ s", text)
    for part in (
        *("## Verdict", "## Tests marked cuda", "4 passed", "| lstm | float16 | persistent | right |"),
        *(
            "| fused, graph, wavefront | least by count | PyTorch cuDNN |",
            f"| {SHAPE} | float32 | forward and backward | ",
        ),
        f"| {SHAPE} | float16 | ",
    ):
        assert part in text
    assert ("**The simulator, not a GPU: these times mean nothing.**" in text) == (os.environ.get("HOSTGPU") == "1")


@pytest.mark.cuda
def test_it_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAM), "--quick", "--output", str(tmp_path / "report.md"), "--seconds"]
    stopped = subprocess.run([*command, "0"], capture_output=True, text=True, env={**os.environ, **cache(tmp_path)})
    assert stopped.returncode == 75
    assert "7 items are left: run this again" in stopped.stdout
    done = {
        f"{section}: {name}": {"rows": ["| kept |"], "wrong": []}
        for section, name in (
            ("Tests marked cuda", "tests/arrays/test_compilation.py"),
            *(("Forms against the plainest", f"lstm {dtype}") for dtype in ("float32", "float16")),
            *(("Layers alone, ms", f"{SHAPE} {dtype}") for dtype in ("float32", "float16")),
            ("Calls as they are planned, ms", f"{SHAPE} float16"),
        )
    }
    device = resolve("cuda").device_name  # type: ignore[attr-defined]
    (tmp_path / "report.json").write_text(json.dumps({"device": device, "done": done}))
    run = subprocess.run([*command, "600"], capture_output=True, text=True, env={**os.environ, **cache(tmp_path)})
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count(" of 7: ") == 1
    assert (tmp_path / "report.md").read_text(encoding="utf-8").count("| kept |") == 6
