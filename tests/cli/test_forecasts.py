"""The suite `forecast` of the command `bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench_cases import WAVES, monthly
from typer.testing import CliRunner

from gpulstm.bench import forecasts
from gpulstm.cli import app


def test_the_command_prints_a_table_and_writes_json(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(forecasts, "tasks", lambda folder, names=(): [WAVES])
    monkeypatch.setattr(forecasts, "read", lambda task, folder: monthly())
    usual = forecasts.ours
    monkeypatch.setattr(forecasts, "ours", lambda *rest: usual(*rest, members="simple"))
    shown = CliRunner().invoke(app, ["bench", "--suite", "forecast", "--rounds", "1", "--output", str(tmp_path / "o")])
    assert shown.exit_code == 0, shown.output
    assert "seasonal naive" in shown.stdout and "OWA" in shown.stdout
    scores = json.loads((tmp_path / "o" / "forecast.json").read_text())
    assert {score["contender"] for score in scores} == {"gpulstm", "seasonal naive", "naive"}
