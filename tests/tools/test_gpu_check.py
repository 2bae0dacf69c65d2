"""The program and the notebook for a machine with a GPU: both run here, on tiny sizes."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from paths import CHECKOUT, TOOLS

from gpulstm.bench import cuda_forms
from gpulstm.engines.cuda import planner, tuning

PROGRAM = TOOLS / "gpu_check.py"
NOTEBOOK = CHECKOUT / "docs" / "notebooks" / "gpu-check.ipynb"
SHAPE = "3,2,2,8,2"


def cells() -> list[list[str]]:
    """The lines of each code cell of the notebook."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    return ["".join(cell["source"]).splitlines() for cell in notebook["cells"] if cell["cell_type"] == "code"]


def commands() -> list[str]:
    """What the notebook hands to a shell, in order."""
    return [line[1:] for cell in cells() for line in cell if line.startswith("!")]


def test_every_way_is_in_the_report() -> None:
    ways = runpy.run_path(str(PROGRAM), run_name="gpu_check")["WAYS"]
    assert set(cuda_forms.WAYS) - {"first, graph"} == set(ways) - {"as planned"}
    assert {values[0] for values in ways.values() if values} == set(planner.FORMS)


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
def test_the_notebooks_command_runs_and_its_report_holds_everything(tmp_path: Path) -> None:
    (command,) = [command for command in commands() if "gpu_check" in command]
    words = shlex.split(command)
    output = words[words.index("--output") + 1]
    assert f'Path("{output}")' in "\n".join(cells()[-1])  # the report that is shown is the one that was written
    words[words.index("--output") + 1] = str(tmp_path / "report.md")
    assert words[0] == "python"
    run = subprocess.run([sys.executable, *words[1:], "--quick"], capture_output=True, text=True, cwd=CHECKOUT)
    assert run.returncode == 0, run.stdout + run.stderr
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert text.count(f"| {SHAPE} | float") == 3 + 2 * 3  # dtypes; and layers alone, in each of the forms
    for part in (
        *(
            "## Tests marked cuda",
            "1 passed",
            "persistent, graph",
            "fused, graph, wavefront",
            "step of a stream, graph",
        ),
        *("## Benchmark beside PyTorch and cuDNN", "## Every form, for a tuning file", "1 choices written to"),
    ):
        assert part in text
    ((key, entry),) = tuning.load(tmp_path / "cuda-tuning.json").items()
    assert key[0] == planner.card_of("cuda:0").name
    assert set(entry["milliseconds"]) == set(cuda_forms.WAYS)
    assert ("**The simulator, not a GPU: these times mean nothing.**" in text) == (os.environ.get("HOSTGPU") == "1")
