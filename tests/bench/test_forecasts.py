"""The suite `forecast`: tasks, measures, and its command on a series as short as can be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from gpulstm.bench import forecasts
from gpulstm.bench.forecasts import Case, Task
from gpulstm.cli import app
from gpulstm.errors import ConfigError, DataError


def case(rows: int = 96) -> Case:
    steps = np.arange(rows)
    noise = np.random.default_rng(0).normal(0, 1, rows)
    months = np.datetime64("2000-01", "M") + steps
    return Case({"time": months.astype("datetime64[D]"), "value": 50 + 9 * np.sin(steps * np.pi / 6) + noise}, 24, 12)


TASK = Task("waves", "", lambda path: case(), 12, 6, "OWA")


def test_tasks_are_those_whose_files_are_there(tmp_path: Path) -> None:
    assert [task.name for task in forecasts.tasks(None)] == ["co2", "seattle_weather"]
    (tmp_path / "air_passengers.csv").write_text("month,passengers\n1949-01-01,112\n1949-02-01,118\n")
    assert [task.name for task in forecasts.tasks(tmp_path)][2:] == ["air_passengers"]
    read = forecasts.read(forecasts.tasks(tmp_path, ["air_passengers"])[0], tmp_path)
    assert read.table["value"].tolist() == [112, 118] and read.season == 12
    with pytest.raises(ConfigError, match="task is 'rain'"):
        forecasts.tasks(None, ["rain"])
    with pytest.raises(DataError, match="needs etth2"):
        forecasts.tasks(tmp_path, ["etth2_24"])


def test_measures_are_those_of_a_loop() -> None:
    known = forecasts.truth(case(), 12, 6)
    assert known.origins.tolist() == [72, 78, 84]
    value = case().table["value"]
    scale = np.abs(value[12:72] - value[:60]).mean()
    forecast = known.actual + 2.0
    assert forecasts.score(case(), known, forecast, "MASE") == pytest.approx(2 / scale)
    assert forecasts.score(case(), known, forecast, "MSE") == pytest.approx(4.0)
    again, naive = (score.value for score in forecasts.baselines(TASK, case(), known))
    assert again < naive


def test_ours_and_a_linear_network_are_better_than_the_last_value() -> None:
    known = forecasts.truth(case(), 12, 6)
    ours = forecasts.ours(TASK, case(), known, 0, members=("simple", "ridge"))
    assert ours.coverage is not None and 1 < ours.coverage <= 100 and ours.seconds > 0
    assert ours.value < forecasts.baselines(TASK, case(), known)[1].value
    linear = forecasts.dlinear(TASK, case(), known, context=24)
    assert linear.value < forecasts.baselines(TASK, case(), known)[1].value


def test_the_command_prints_a_table_and_writes_json(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(forecasts, "tasks", lambda folder, names=(): [TASK])
    monkeypatch.setattr(forecasts, "read", lambda task, folder: case())
    usual = forecasts.ours
    monkeypatch.setattr(forecasts, "ours", lambda *rest: usual(*rest, members="simple"))
    shown = CliRunner().invoke(app, ["bench", "--suite", "forecast", "--rounds", "1", "--output", str(tmp_path / "o")])
    assert shown.exit_code == 0, shown.output
    assert "seasonal naive" in shown.stdout and "OWA" in shown.stdout
    scores = json.loads((tmp_path / "o" / "forecast.json").read_text())
    assert {score["contender"] for score in scores} == {"gpulstm", "seasonal naive", "naive"}
