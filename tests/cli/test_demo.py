"""The demonstration writes what it says; its accuracy is that of tests/forecast/test_forecaster.py, at full size."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from command_line import call

import gpulstm.cli.demo
from gpulstm.cli import demo
from gpulstm.data.loading import load_series
from gpulstm.forecast.forecaster import Forecaster


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demonstration with one network that trains in a moment."""

    def forecaster(*, device: str, seed: int, epochs: int | str) -> Forecaster:
        assert epochs == "auto"
        size = {"context": 52, "hidden_size": 8, "stride": 8}
        return Forecaster(52, members=("network",), device=device, seed=seed, epochs=1, test=156, **size)

    monkeypatch.setattr(gpulstm.cli.demo, "forecaster", forecaster)


def test_everything_is_written(small: None, tmp_path: Path) -> None:
    result = gpulstm.cli.demo.run(tmp_path / "out" / "demo", quiet=True, device="cpu")
    assert set(result.files) == {
        "model", "forecast", "backtest", "history", "history picture", "forecast picture", "backtest picture",
    }  # fmt: skip
    for name, path in result.files.items():
        assert path.stat().st_size > 100
        if name.endswith("picture"):
            assert path.read_bytes().startswith(b"\x89PNG")
    table = load_series(result.files["forecast"], time="date")
    assert (str(table.time[0])[:10], len(table.values)) == ("2002-01-05", 52)
    again = Forecaster.load(result.files["model"], device="cpu").predict()
    np.testing.assert_array_equal(again.quantiles, result.forecast.quantiles)
    assert 0 < result.seconds["training"] <= result.seconds["all"]
    assert not result.backtest.seen


def test_without_matplotlib_only_the_pictures_are_missing(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "matplotlib" else find(name, *rest)
    )
    result = gpulstm.cli.demo.run(tmp_path, quiet=True, device="cpu")
    assert set(result.files) == {"model", "forecast", "backtest", "history"}


def test_the_full_size_is_what_the_documentation_says() -> None:
    model = gpulstm.cli.demo.forecaster(device="cpu").config
    assert (model.horizon, model.members, model.test) == (52, "auto", 312)


def test_demo(tmp_path: Path) -> None:
    shown = call("demo", "--epochs", "1", "--output", tmp_path, "--device", "cpu")
    assert shown.exit_code == 0, shown.output
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(demo.file_names().values())
    assert "forecasts of 52 steps, season 52" in shown.stdout
    assert f"the forecast: {tmp_path / 'forecast.png'}" in shown.stderr.replace("\n", "")
    assert call("demo", "--epochs", "1", "--output", tmp_path, "--device", "cpu").exit_code == 2
