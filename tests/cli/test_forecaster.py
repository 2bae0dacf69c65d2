"""`gpulstm train`, `forecast`, `backtest`: files, tables, pictures, mistakes, and a run that is interrupted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import call, read
from matplotlib.image import imread

from gpulstm.arrays import files
from gpulstm.cli import console
from gpulstm.errors import ConfigError
from gpulstm.forecast.forecaster import Forecaster

SMALL = ["--members", "network", "--horizon", "4", "--context", "8", "--hidden-size", "4", "--layers", "1"]
SMALL += ["--device", "cpu", "--quiet"]
ROLES = ["--target", "sales", "--time", "day", "--calendar", "weekly"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 120 days with a weekly pattern."""
    path = tmp_path_factory.mktemp("data") / "shop.csv"
    days = np.arange("2024-01-01", "2024-04-30", dtype="datetime64[D]")
    values = 10 + np.sin(np.arange(days.size) * 2 * np.pi / 7)
    path.write_text("day,sales\n" + "".join(f"{day},{value:.4f}\n" for day, value in zip(days, values, strict=True)))
    return path


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two series with two targets each and no times."""
    path = tmp_path_factory.mktemp("data") / "shops.csv"
    rows = [f"{shop},{np.sin(row / 3):.4f},{row % 5}" for shop in ("north/1", "south") for row in range(60)]
    path.write_text("shop,sales,visits\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def trained(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short training run."""
    folder = tmp_path_factory.mktemp("runs") / "deep" / "shop"
    shown = call("train", shop, *ROLES, *SMALL, "--epochs", "2", "--test", "20", "--output", folder)
    assert shown.exit_code == 0, shown.output
    assert "2 epochs (epochs), best epoch" in shown.stdout
    assert re.match(r"engine: \w+ \(.+\)\n", shown.stderr)  # its first line
    assert f"next: gpulstm forecast {folder / 'model.safetensors'}" in shown.stderr
    return folder


def test_train_leaves_model_history_picture_and_run(trained: Path) -> None:
    names = sorted(path.name for path in trained.iterdir())
    assert names == ["history.csv", "history.png", "model.safetensors", "run.safetensors"]
    rows = read(trained / "history.csv")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(float(row["validation_loss"]) > 0 for row in rows)
    assert imread(trained / "history.png").shape[2] == 4


def test_options_reach_the_forecaster(shop: Path, tmp_path: Path) -> None:
    options = ["--cell", "gru", "--quantile", "0.2", "--quantile", "0.8", "--likelihood", "gaussian", "--seed", "5"]
    options += ["--learning-rate", "0.01", "--clip-norm", "0", "--patience", "0", "--validation", "2024-04-10"]
    options += [
        "--training",
        "truncated",
        "--window-scaling",
        "none",
        "--chunk",
        "2",
        "--reach",
        "4",
        "--borders",
        "carry",
    ]
    options += ["--memory", "64MiB", "--chrono", "50"]
    options += ["--season", "3", "--dtype", "float64", "--layer-norm", "--stride", "2", "--batch-size", "9"]
    shown = call("train", shop, *ROLES, *SMALL, *options, "--epochs", "1", "--output", tmp_path)
    assert shown.exit_code == 0, shown.output
    loaded = Forecaster.load(tmp_path / "model.safetensors", "cpu").config.to_dict()
    expected = {"cell": "gru", "quantiles": [0.2, 0.8], "likelihood": "gaussian", "seed": 5, "learning_rate": 0.01}
    expected |= {"clip_norm": None, "patience": None, "validation": "2024-04-10", "season": 3, "dtype": "float64"}
    expected |= {
        "layer_norm": True,
        "stride": 2,
        "batch_size": 9,
        "memory": "64MiB",
        "training": "truncated",
        "chunk": 2,
        "reach": 4,
        "chrono": 50,
        "horizon": 4,
        "context": 8,
        "hidden_size": 4,
    }
    assert {name: loaded[name] for name in expected} == expected


def test_a_line_an_epoch_where_stderr_is_no_terminal(shop: Path, tmp_path: Path) -> None:
    arguments = ["train", shop, *ROLES, *SMALL[:-1], "--epochs", "2", "--test", "0", "--output", tmp_path]
    lines = [line for line in call(*arguments).stderr.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 2
    assert lines[1].startswith("epoch 2/2: loss ")


def test_forecast_of_the_end_of_the_training_table(trained: Path, tmp_path: Path) -> None:
    shown = call("forecast", trained / "model.safetensors", "--output", tmp_path, "--device", "cpu")
    assert shown.exit_code == 0, shown.output
    rows = read(tmp_path / "forecast.csv")
    assert [row["day"] for row in rows] == ["2024-04-30", "2024-05-01", "2024-05-02", "2024-05-03"]
    assert "2024-05-03" in shown.stdout
    values = Forecaster.load(trained / "model.safetensors", "cpu").predict()
    np.testing.assert_array_equal([float(row["q0.9"]) for row in rows], values.quantile(0.9)[0, :, 0])
    assert imread(tmp_path / "forecast.png").shape[2] == 4


def test_forecast_of_another_table_and_fewer_steps(trained: Path, shop: Path, tmp_path: Path) -> None:
    shorter = tmp_path / "shorter.csv"
    shorter.write_text("".join(shop.read_text().splitlines(keepends=True)[:40]))
    shown = call("forecast", trained / "model.safetensors", shorter, "--horizon", "2", "--output", tmp_path / "out")
    assert shown.exit_code == 0, shown.output
    assert [row["day"] for row in read(tmp_path / "out" / "forecast.csv")] == ["2024-02-09", "2024-02-10"]


def test_forecast_with_rounded_weights(trained: Path, tmp_path: Path) -> None:
    model, values = trained / "model.safetensors", []
    for kind in ("int8", None):
        option = ["--quantize", kind] if kind else []
        shown = call("forecast", model, "--device", "cpu", *option, "--output", tmp_path / str(kind))
        assert shown.exit_code == 0, shown.output
        assert shown.stderr.startswith("engine: ")
        assert ("weights in int8" in shown.stderr.splitlines()[0]) == bool(kind)
        values.append([float(row["q0.9"]) for row in read(tmp_path / str(kind) / "forecast.csv")])
    assert values[0] != values[1]
    np.testing.assert_allclose(*values, rtol=0.02)
    shown = call("forecast", model, "--quantize", "int3", "--output", tmp_path / "none")
    assert shown.exit_code == 2
    assert "quantize is 'int3', expected 'int8', 'bfloat16' or None" in shown.stderr


def test_backtest_on_the_test_part(trained: Path, shop: Path, tmp_path: Path) -> None:
    shown = call("backtest", trained / "model.safetensors", shop, "--stride", "4", "--output", tmp_path)
    assert shown.exit_code == 0, shown.output
    assert "5 forecasts of 4 steps, season 7" in shown.stdout
    for word in ("model", "seasonal naive", "naive", "MASE", "coverage % (of 80)"):
        assert word in shown.stdout
    assert "flatter" not in shown.stderr
    assert len(read(tmp_path / "backtest.csv")) == 20
    assert imread(tmp_path / "backtest.png").shape[2] == 4


def test_backtest_on_rows_of_the_training_says_so(trained: Path, shop: Path, tmp_path: Path) -> None:
    shown = call("backtest", trained / "model.safetensors", shop, "--origins", "20", "--output", tmp_path)
    assert shown.exit_code == 0, shown.output
    assert "the figures flatter it" in shown.stderr


def test_several_series_and_targets_get_a_picture_each(shops: Path, tmp_path: Path) -> None:
    roles = ["--series", "shop", "--target", "sales", "--target", "visits"]
    assert call("train", shops, *roles, *SMALL, "--epochs", "1", "--output", tmp_path / "m").exit_code == 0
    model = tmp_path / "m" / "model.safetensors"
    shown = call("forecast", model, "--output", tmp_path / "f", "--pictures", "3")
    assert shown.exit_code == 0, shown.output
    names = ["forecast-north_1-sales.png", "forecast-north_1-visits.png", "forecast-south-sales.png", "forecast.csv"]
    assert sorted(path.name for path in (tmp_path / "f").iterdir()) == names
    assert {row["shop"] for row in read(tmp_path / "f" / "forecast.csv")} == {"north/1", "south"}
    shown = call("backtest", model, shops, "--origins", "2", "--pictures", "1", "--output", tmp_path / "b")
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["backtest-north_1-sales.png", "backtest.csv"]


def test_without_matplotlib_the_numbers_come_and_the_lack_is_said(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console.importlib.util, "find_spec", lambda name: None)
    shown = call("forecast", trained / "model.safetensors", "--output", tmp_path, "--device", "cpu")
    assert shown.exit_code == 0, shown.output
    assert "pip install matplotlib" in shown.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["forecast.csv"]


def test_two_processes_never_write_into_one_folder(trained: Path, shop: Path, tmp_path: Path) -> None:
    model = trained / "model.safetensors"
    commands: list[list[str | Path]] = [
        ["train", shop, *ROLES, *SMALL, "--force"],
        ["train", shop, "--continue", model, "--force"],
        ["forecast", model, "--force"],
        ["backtest", model, shop, "--force"],
        ["tune", shop, *ROLES, "--force"],
    ]
    with files.locked(tmp_path, ConfigError):
        for command in commands:
            shown = call(*command, "--output", tmp_path)
            assert shown.exit_code == 2 and f"process {os.getpid()} writes into {tmp_path}; wait" in shown.stderr
    assert not list(tmp_path.iterdir())


def test_a_new_run_does_not_go_on_with_what_an_earlier_one_left(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "final.safetensors").write_bytes(b"of a run with other options")
    shown = call("train", shop, *ROLES, *SMALL, "--epochs", "1", "--test", "0", "--force", "--output", tmp_path)
    assert shown.exit_code == 0, shown.output
    assert not (tmp_path / "final.safetensors").exists()


def test_nothing_is_overwritten_without_force(trained: Path, shop: Path, tmp_path: Path) -> None:
    before = (trained / "model.safetensors").read_bytes()
    shown = call("train", shop, *ROLES, *SMALL, "--epochs", "1", "--output", trained)
    assert shown.exit_code == 2
    assert "already holds model.safetensors, history.csv, history.png, run.safetensors" in shown.stderr
    assert (trained / "model.safetensors").read_bytes() == before
    (tmp_path / "forecast.csv").write_text("mine\n")
    assert call("forecast", trained / "model.safetensors", "--output", tmp_path).exit_code == 2
    assert call("forecast", trained / "model.safetensors", "--output", tmp_path, "--force").exit_code == 0


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("forecast", "forecast.csv"),
        ("forecast", "forecast.png"),
        ("backtest", "backtest.csv"),
        ("backtest", "backtest.png"),
        ("backtest", "errors.csv"),
    ],
)
def test_a_file_that_is_there_is_found_before_anything_is_computed(
    command: str, name: str, trained: Path, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Forecaster, "predict", None)
    monkeypatch.setattr(Forecaster, "backtest", None)
    (tmp_path / name).write_text("mine\n")
    options = ["--metrics", tmp_path / "errors.csv"] if command == "backtest" else []
    shown = call(command, trained / "model.safetensors", shop, *options, "--output", tmp_path)
    assert shown.exit_code == 2
    assert f"already holds {name}" in shown.stderr


def mistakes(shop: Path, folder: Path) -> dict[str, tuple[list[str | Path], str]]:
    """Command lines that cannot be carried out, and words of the sentence that says why."""
    text = folder / "text.safetensors"
    train: list[str | Path] = ["train", shop, *ROLES, *SMALL, "--output", folder / "new"]
    return {
        "no file": (["train", folder / "none.csv"], "none.csv"),
        "no column": (["train", shop, "--target", "profit"], "profit"),
        "no time": (["train", shop, "--target", "sales", "--time", "hour"], "hour"),
        "calendar": (["train", shop, "--target", "sales", "--time", "day", "--calendar", "lunar"], "lunar"),
        "missing": (["train", shop, *ROLES, "--missing", "guess"], "guess"),
        "text column": (["train", shop, "--target", "day"], "day"),
        "horizon": ([*train, "--horizon", "0"], "horizon is 0"),
        "too long": ([*train, "--context", "500"], "500"),
        "cell": ([*train, "--cell", "transformer"], "transformer"),
        "quantile": ([*train, "--quantile", "1.5"], "1.5"),
        "rate": ([*train, "--learning-rate", "-1"], "-1"),
        "validation": ([*train, "--validation", "1.5"], "validation is 1.5"),
        "test": ([*train, "--test", "soon"], "soon"),
        "device": ([*train, "--device", "gpu"], "gpu"),
        "engine": ([*train, "--engine", "warp"], "warp"),
        "engine elsewhere": ([*train, "--engine", "cuda"], "the model is on the CPU"),
        "resume": ([*train, "--resume"], "--resume finds no run.safetensors"),
        "no model": (["forecast", folder / "none.safetensors"], "none.safetensors"),
        "not a model": (["forecast", text], "text.safetensors"),
        "a folder": (["forecast", folder], folder.name),
        "not a table": (["train", text, "--target", "sales"], "text.safetensors"),
        "output is a file": (["train", shop, *ROLES, *SMALL, "--output", text], "is a file, expected a folder"),
    }


KINDS = list(mistakes(Path(), Path()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_mistake_is_one_sentence(kind: str, shop: Path, tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("not a checkpoint")
    arguments, words = mistakes(shop, tmp_path)[kind]
    shown = call(*arguments)
    assert shown.exit_code == 2, shown.output
    sentence = shown.stderr.splitlines()[-1]  # after what was said about the table
    assert sentence.startswith("gpulstm: ")
    assert words in sentence
    assert shown.stdout == ""
    assert not (tmp_path / "new").exists()


def test_ctrl_c_keeps_the_best_and_resume_goes_on_as_if_nothing_had_been(shop: Path, tmp_path: Path) -> None:
    options = [*ROLES, *SMALL[:-1], "--epochs", "40", "--patience", "0"]
    assert call("train", shop, *options, "--output", tmp_path / "whole").exit_code == 0
    command = [sys.executable, "-m", "gpulstm", "train", str(shop), *options, "--output", str(tmp_path / "cut")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        assert next(line for line in process.stderr if line.startswith("epoch ")).startswith("epoch 1/40: loss ")
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert "interrupted: the best epoch so far is kept; go on with --resume" in rest
    assert 1 <= len(read(tmp_path / "cut" / "history.csv")) < 40
    assert Forecaster.load(tmp_path / "cut" / "model.safetensors", "cpu").predict().mean.shape == (1, 4, 1)
    shown = call("train", shop, *options, "--resume", "--output", tmp_path / "cut")
    assert shown.exit_code == 0, shown.output
    for row, other in zip(*(read(tmp_path / name / "history.csv") for name in ("whole", "cut")), strict=True):
        assert {**row, "seconds": ""} == {**other, "seconds": ""}
    forecasts = [Forecaster.load(tmp_path / name / "model.safetensors", "cpu").predict() for name in ("whole", "cut")]
    np.testing.assert_array_equal(forecasts[0].mean, forecasts[1].mean)


def test_train_compares_and_then_fits_on_all_rows(shop: Path, tmp_path: Path) -> None:
    shown = call(
        "train",
        shop,
        "--target",
        "sales",
        "--time",
        "day",
        "--device",
        "cpu",
        "--quiet",
        "--members",
        "simple",
        "--members",
        "ridge",
        "--output",
        tmp_path / "m",
        "--metrics",
        tmp_path / "e.csv",
    )
    assert shown.exit_code == 0, shown.output
    assert "coverage % (of 80)" in shown.stdout and "drift" in shown.stdout
    assert "MASE" in shown.stdout and shown.stdout.count("Members, judged") == 2
    assert "fitted again on all rows" in shown.stderr
    assert read(tmp_path / "e.csv")[0]["forecaster"] == "model"
    model = Forecaster.load(tmp_path / "m" / "model.safetensors", "cpu")
    assert model.config.test == 0
    assert str(model.fitted.until[0]).startswith("2024-04-29")


def test_a_short_table_is_not_compared(tmp_path: Path) -> None:
    table = tmp_path / "short.csv"
    table.write_text("y\n" + "\n".join(map(str, range(9))) + "\n")
    shown = call("train", table, "--device", "cpu", "--quiet", "--output", tmp_path / "m")
    assert shown.exit_code == 0, shown.output
    assert "too short to keep rows" in shown.stderr


@pytest.mark.cuda
def test_trained_on_cuda_and_forecast_on_the_cpu(shop: Path, tmp_path: Path) -> None:
    options = [*ROLES, *SMALL[:6], "--layers", "1", "--epochs", "1", "--stride", "4", "--quiet", "--dtype", "float64"]
    shown = call("train", shop, *options, "--device", "cuda", "--output", tmp_path / "model")
    assert shown.exit_code == 0, shown.output
    tables = []
    for device in ("cuda", "cpu"):
        model = tmp_path / "model" / "model.safetensors"
        assert call("forecast", model, "--device", device, "--output", tmp_path / device).exit_code == 0
        tables.append([float(row["q0.5"]) for row in read(tmp_path / device / "forecast.csv")])
    np.testing.assert_allclose(tables[0], tables[1], rtol=1e-12)
