"""`gpulstm tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner

from gpulstm.cli import app
from gpulstm.forecast.forecaster import Forecaster


def call(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_search_is_kept_gone_on_with_and_ends_in_a_model(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    values = np.sin(np.arange(90) / 3) + np.random.default_rng(0).normal(0, 0.1, 90)
    table.write_text("y\n" + "\n".join(f"{value:.4f}" for value in values) + "\n")
    options = ["--members", "network", "--horizon", "3", "--epochs", "1", "--device", "cpu", "--output", tmp_path / "o"]
    shown = call("tune", table, *options, "--trials", "2")
    assert shown.exit_code == 0, shown.output
    assert "hidden_size" in shown.stdout and "2 trials so far" in shown.stderr
    assert Forecaster.load(tmp_path / "o" / "model.safetensors", "cpu").predict().mean.shape == (1, 3, 1)
    assert call("tune", table, *options, "--trials", "1").exit_code == 2  # nothing is overwritten
    again = call("tune", table, *options, "--trials", "1", "--resume")
    assert again.exit_code == 0 and "3 trials so far" in again.stderr
