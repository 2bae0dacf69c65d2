"""`gpulstm train` and `forecast` on a table in parts."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from command_line import call
from part_tables import written

from gpulstm.cli.parts import workers
from gpulstm.errors import ConfigError


def test_parts_are_trained_on_and_forecast(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    parts = written(tmp_path / "parts", 2)
    options = ["--target", "y", "--time", "t", "--series", "id", "--horizon", "3", "--context", "12"]
    options += ["--hidden-size", "8", "--layers", "1", "--epochs", "1", "--device", "cpu"]
    done = call("train", parts, *options, "--output", tmp_path / "model", "--quiet")
    assert done.exit_code == 0, done.output
    done = call("forecast", tmp_path / "model" / "model.safetensors", parts, "--output", tmp_path / "out")
    assert done.exit_code == 0, done.output
    result = pd.read_parquet(tmp_path / "out" / "forecast.parquet")
    assert len(result) == 6 * 3 and result["id"].nunique() == 6
    done = call("forecast", tmp_path / "model" / "model.safetensors", "--scheduler", "tcp://127.0.0.1:1")
    assert done.exit_code == 2 and "--scheduler is for a table in parts" in done.output


def test_a_scheduler_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    import distributed

    def refused(address: str, **options: object) -> None:
        raise OSError(f"no answer from {address}")

    monkeypatch.setattr(distributed, "Client", refused)
    sentence = r"--scheduler tcp://127\.0\.0\.1:1 does not answer: no answer"
    with pytest.raises(ConfigError, match=sentence), workers("tcp://127.0.0.1:1"):
        pass
