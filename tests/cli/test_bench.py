"""`gpulstm bench` writes what it measured, and ends quietly."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import call
from rich.console import Console

from gpulstm.bench import runner
from gpulstm.bench.cases import Case, Result
from gpulstm.cli.bench import memory_table


def test_bench_writes_what_it_measured_and_overwrites_only_by_force(tmp_path: Path) -> None:
    arguments = ["bench", "--shape", "2,2,2,2,1", "--kind", "inference", "--rounds", "1", "--seconds", "0.001"]
    arguments += ["--threads", "1", "--peers-python", str(tmp_path / "no python"), "--output", str(tmp_path / "out")]
    shown = call(*arguments)
    assert shown.exit_code == 0
    assert "2,2,2,2,1" in shown.stdout
    assert "not measured: PyTorch: " in shown.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["bench.json", "inference.png"]
    document = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert {row["contender"]: row["calls"] > 0 for row in document["results"]}["gpulstm reference"]
    again = call(*arguments)
    assert again.exit_code == 2
    assert "already holds bench.json, inference.png" in again.stderr
    assert call(*arguments, "--force").exit_code == 0


def test_ctrl_c_gives_130_and_no_traceback() -> None:
    command = [sys.executable, "-m", "gpulstm", "bench", "--shape", "50,32,8,64,1", "--seconds", "60"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        started = ""
        while "gpulstm.bench" not in started:  # the first process that measures
            assert process.poll() is None
            for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                started = Path(f"/proc/{child}/cmdline").read_text()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate()
    assert process.returncode == 130
    assert "gpulstm: interrupted" in stderr
    assert "Traceback" not in stderr


SHORT, LONG = (Case(steps, 8, 4, 16, 1, "memory") for steps in (250, 500))


def measured(case: Case, name: str, seconds: list[float], mebibytes: int, reason: str = "") -> Result:
    return Result(case, name, "own", seconds, reason, peak=mebibytes << 20)


MEASURED = [
    measured(SHORT, "gpulstm, whole", [0.5, 0.7], 20),
    measured(SHORT, "gpulstm, sqrt", [0.9], 5),
    measured(LONG, "gpulstm, whole", [1.25], 40),
    measured(LONG, "gpulstm, sqrt", [1.75], 7),
    *(measured(case, "PyTorch", [], 0, "it is not installed") for case in (SHORT, LONG)),
]


def test_memory_has_a_row_a_case_and_a_column_a_contender_that_ran() -> None:
    screen = Console(width=140, record=True, file=io.StringIO())
    screen.print(memory_table(MEASURED))
    text = screen.export_text()
    assert "gpulstm, whole" in text and "PyTorch" not in text
    row = next(line for line in text.splitlines() if "500,8,4,16,1" in line)
    assert "40" in row and "1.25" in row and "7" in row and "1.75" in row


def test_the_suite_long_writes_its_files_and_names_who_was_not_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(suite: str, chosen: Any, who: Any, **options: Any) -> list[Result]:
        assert suite == "long" and [case.steps for case in chosen] == [250]
        return MEASURED

    monkeypatch.setattr(runner, "run", run)
    arguments = ("bench", "--suite", "long", "--shape", "250,8,4,16,1", "--output", tmp_path / "out")
    shown = call(*arguments)
    assert shown.exit_code == 0, shown.output
    assert "not measured: PyTorch: it is not installed" in shown.stderr
    document = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert [result["mebibytes"] for result in document["results"][:2]] == [20.0, 5.0]
    assert (tmp_path / "out" / "memory.png").stat().st_size > 10_000
    assert call(*arguments).exit_code == 2  # the files are there already
