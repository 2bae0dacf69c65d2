"""The suite `long` of the command `bench`: its table, its files, and what it says of contenders that failed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from command_line import call
from rich.console import Console

from gpulstm.bench import long_sequences
from gpulstm.bench.cases import Case
from gpulstm.bench.long_sequences import Measured
from gpulstm.cli.long import results_table

SHORT, LONG = (Case(steps, 8, 4, 16, 1, "training") for steps in (250, 500))
RESULTS = [
    Measured(SHORT, "gpulstm, whole", [0.5, 0.7], 0, 20 << 20),
    Measured(SHORT, "gpulstm, sqrt", [0.9], 0, 5 << 20),
    Measured(LONG, "gpulstm, whole", [1.25], 0, 40 << 20),
    Measured(LONG, "gpulstm, sqrt", [1.75], 0, 7 << 20),
    Measured(LONG, "PyTorch", reason="it is not installed"),
]


def text_of(table: Any) -> str:
    screen = Console(width=140, record=True, file=io.StringIO())
    screen.print(table)
    return screen.export_text()


def test_a_row_a_case_and_a_column_a_contender_that_ran() -> None:
    text = text_of(results_table(RESULTS))
    assert "gpulstm, whole" in text and "PyTorch" not in text
    row = next(line for line in text.splitlines() if "500,8,4,16,1" in line)
    assert "40" in row and "1.25" in row and "7" in row and "1.75" in row


def test_the_command_writes_its_files_and_names_who_was_not_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(cases: Any, who: Any, *, report: Any, **options: Any) -> list[Measured]:
        assert [case.steps for case in cases] == [250]
        for measured in RESULTS:
            report(measured)
        return RESULTS

    monkeypatch.setattr(long_sequences, "run", run)
    arguments = ("bench", "--suite", "long", "--shape", "250,8,4,16,1", "--output", tmp_path / "out")
    shown = call(*arguments)
    assert shown.exit_code == 0, shown.output
    assert "not measured: PyTorch: it is not installed" in shown.stderr
    document = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert [result["mebibytes"] for result in document["results"][:2]] == [20.0, 5.0]
    assert (tmp_path / "out" / "memory.png").stat().st_size > 10_000
    assert call(*arguments).exit_code == 2  # the files are there already
