"""What a person meets in the first hour: examples to copy, guesses that are said, help, files that may be replaced."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import typer
from command_line import call, spawn

from gpulstm import datasets
from gpulstm.cli import START, app
from gpulstm.cli.summary import guessed
from gpulstm.data.loading import load_series
from gpulstm.data.options import TableOptions
from gpulstm.forecast import Forecaster
from gpulstm.forecast.results import MODEL

EXAMPLES = re.findall(r"^  (gpulstm .*?)(?:   .*)?$", START, flags=re.MULTILINE)
COMMANDS = [one.callback.__name__ for one in app.registered_commands if one.callback]


def panel(path: Path) -> Path:
    """A table of two shops, whose times come twice."""
    days = np.arange("2024-01-01", "2024-05-01", dtype="datetime64[D]")
    rows = [f"{day},{shop},{10 + 3 * (row % 7) + at}" for at, shop in enumerate("ab") for row, day in enumerate(days)]
    path.write_text("\n".join(["day,shop,units", *rows]) + "\n")
    return path


def head(path: Path) -> list[str]:
    """The names of a CSV's columns."""
    with path.open(newline="") as file:
        return next(csv.reader(file))


def test_the_program_alone_shows_three_examples() -> None:
    shown = call()
    assert shown.exit_code == 0 and shown.stdout == START + "\n"
    assert [line.split()[1] for line in EXAMPLES] == ["demo", "train", "forecast"]
    assert max(map(len, START.splitlines())) <= 108


@pytest.mark.slow
def test_the_examples_work_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for line in EXAMPLES:
        shown = call(*line.split()[1:])
        assert shown.exit_code == 0, shown.output


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_shows_no_type_behind_a_flag(command: str) -> None:
    assert "bool" not in call(*command.split(), "--help").output


def test_the_paragraphs_of_help_are_broken_where_the_terminal_ends() -> None:
    for command in typer.main.get_command(app).commands.values():  # type: ignore[attr-defined]
        assert not any("\n" in paragraph for paragraph in command.help.split("\n\n")), command.name


def test_the_shell_can_complete() -> None:
    named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # else it is the one that started the tests
    script = spawn("--show-completion", "bash", **named)
    assert "_GPULSTM_COMPLETE=complete_bash" in script.stdout, script.stderr
    words = spawn(_GPULSTM_COMPLETE="complete_bash", COMP_WORDS="gpulstm tr", COMP_CWORD="1").stdout
    assert words.split() == ["train"]


def test_info_fits_into_a_hundred_columns() -> None:
    shown = call("info", "--shape", "100,32,8,64,2", "--device", "cpu")
    assert max(map(len, shown.output.splitlines())) <= 100


def test_train_says_what_it_guessed_and_how_to_say_otherwise(tmp_path: Path) -> None:
    arguments = ["train", panel(tmp_path / "shops.csv"), "--output", tmp_path / "out", "--horizon", "5"]
    small = ["--strategy", "direct", "--context", "8", "--hidden-size", "2", "--epochs", "1"]
    shown = call(*arguments, *small)
    assert shown.exit_code == 0, shown.output
    lines = shown.stderr.splitlines()
    at = next(at for at, line in enumerate(lines) if line.startswith("guessed"))
    first, second = lines[at : at + 2]
    assert first == "guessed: --time day --target units --series shop"
    assert "say so with --time, --target, --series" in second
    again = call(*arguments, *first.split()[1:], *small, "--force")
    assert again.exit_code == 0 and "guessed" not in again.stderr, again.output


def test_nothing_to_guess_is_said_too() -> None:
    lines = guessed(load_series({"a b": np.arange(30.0)}), TableOptions())
    assert lines[0] == "guessed: --target 'a b'; no column of times; no column of series"
    named = TableOptions(target="temp_max", time="date", series="station")
    assert guessed(load_series({"temp_max": np.arange(30.0)}), named) == []


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one series, fitted for a moment."""
    path = tmp_path_factory.mktemp("first") / "co2.safetensors"
    forecaster = Forecaster(4, members=("network",), context=8, hidden_size=2, epochs=1, stride=40, device="cpu")
    forecaster.fit(datasets.co2(), progress=False).save(path)
    return path


def test_a_forecast_of_its_own_is_replaced_and_a_file_of_others_is_not(trained: Path, tmp_path: Path) -> None:
    arguments = ["forecast", trained, "--output", tmp_path, "--device", "cpu"]
    assert call(*arguments).exit_code == 0
    assert call(*arguments, "--horizon", "2").exit_code == 0
    assert len((tmp_path / "forecast.csv").read_text().splitlines()) == 3
    (tmp_path / "forecast.csv").write_bytes(b"date,units\n\xff,3\n")
    refused = call(*arguments)
    assert refused.exit_code == 2 and "overwrite with --force" in refused.stderr


def test_columns_begin_with_the_time_and_do_not_depend_on_the_number_of_series(trained: Path, tmp_path: Path) -> None:
    one = Forecaster.load(trained, "cpu").predict()
    one.to_csv(tmp_path / "one.csv")
    assert head(tmp_path / "one.csv")[1:3] == ["series", "target"]
    forecaster = Forecaster(4, members=("network",), context=8, hidden_size=2, epochs=1, device="cpu")
    many = forecaster.fit(panel(tmp_path / "shops.csv"), series="shop", progress=False).predict()
    assert list(many.columns())[:3] == ["day", "shop", "target"]
    assert list(many.columns())[3:] == list(one.columns())[3:]
    assert list(many.to_frame("pandas").columns) == list(many.columns())


def test_coverage_is_in_percent_everywhere(trained: Path) -> None:
    result = Forecaster.load(trained, "cpu").backtest(datasets.co2(), origins=40)
    covered, table = result.metrics()[MODEL]["coverage"], result.table()
    assert result.target_coverage == pytest.approx(80)
    assert 1 < covered <= 100
    assert table["coverage"][0] == covered
    assert f"{covered:.5g}" in result._repr_html_()
