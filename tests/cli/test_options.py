"""One field of a dataclass of options is one option of a command, with its text, its default and its spellings."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from gpulstm.cli import app
from gpulstm.cli.options import options_of, with_options
from gpulstm.data.options import TableOptions
from gpulstm.forecast.config import ForecasterConfig
from gpulstm.validate import described, documented


@documented
@dataclass(frozen=True)
class Options:
    """Everything that a field can be."""

    steps: int = described(3, "steps ahead", "First", aliases=("--ahead",))
    rate: float | None = described(0.5, "largest rate; None for no limit", "First")
    season: int | None = described(None, "rows in a season", "First")
    word: str | None = described(None, "a word", "Second")
    flag: bool = described(False, "off unless asked for", "Second")
    choice: bool | None = described(None, "neither by default", "Second")
    levels: Sequence[float] = described((0.1, 0.9), "levels", "Second", aliases=("--level",))
    names: tuple[str, ...] = described((), "names", "Second", many=True)
    amount: int | str = described(7, "an amount", "Second", parse=lambda text: int(text) if text.isdigit() else text)


def made(*line: str) -> Options:
    """The options of a command line."""
    boxes: list[Options] = []
    app = typer.Typer()

    @app.command()
    @with_options
    def command(options: Options, count: int = 1) -> None:
        boxes.append(options)

    shown = CliRunner().invoke(app, list(line))
    assert shown.exit_code == 0, shown.output
    return boxes[0]


def test_without_options_the_defaults_are_those_of_the_class() -> None:
    assert made() == Options()


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        (["--steps", "5"], "steps", 5),
        (["--ahead", "5"], "steps", 5),
        (["--rate", "0.25"], "rate", 0.25),
        (["--rate", "0"], "rate", None),
        (["--season", "12"], "season", 12),
        (["--season", "0"], "season", None),
        (["--word", "a b"], "word", "a b"),
        (["--flag"], "flag", True),
        (["--choice"], "choice", True),
        (["--no-choice"], "choice", False),
        (["--levels", "0.2", "--level", "0.8"], "levels", (0.2, 0.8)),
        (["--names", "a", "--names", "b"], "names", ("a", "b")),
        (["--amount", "9"], "amount", 9),
        (["--amount", "2024-01-01"], "amount", "2024-01-01"),
        (["--count", "4"], "steps", 3),
    ],
)
def test_an_option_reaches_its_field(line: list[str], name: str, value: object) -> None:
    options = made(*line)
    assert getattr(options, name) == value
    assert dataclasses.replace(options, **{name: getattr(Options(), name)}) == Options()


def test_the_text_of_a_field_is_help_and_docstring() -> None:
    (rate,) = [one for one in options_of(Options) if one.name == "rate"]
    asked: Any = rate.annotation.__metadata__[0]
    assert (asked.help, asked.rich_help_panel) == ("Largest rate; 0 for no limit.", "First")
    assert Options.__doc__ is not None
    assert "Args:\n        steps: steps ahead.\n        rate: largest rate; None for no limit.\n" in Options.__doc__


@pytest.mark.parametrize("options", [ForecasterConfig, TableOptions])
def test_train_has_every_option(options: type) -> None:
    shown = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "300", "TERM": "dumb"}).output
    for one in options_of(options):
        asked: Any = one.annotation.__metadata__[0]
        for spelling in asked.param_decls:
            assert spelling.split("/")[0] in shown
        assert asked.help[:60] in shown


def test_spellings_of_scripts_stay() -> None:
    shown = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "300", "TERM": "dumb"}).output
    for spelling in ("--layers", "--quantile", "--delimiter", "--layer-norm", "--reach", "--tensorboard", "--quiet"):
        assert spelling in shown


@pytest.mark.parametrize("text", ["1_000", " 5", "٣", "nan", "0x10", "1.5", ""])
@pytest.mark.parametrize("option", [["train", "co2", "--hidden-size"], ["forecast", "model", "--horizon"]])
def test_a_whole_number_is_spelled_as_people_do(option: list[str], text: str) -> None:
    shown = CliRunner().invoke(app, [*option, text])
    assert shown.exit_code == 2
    assert "is not a whole number" in shown.stderr


@pytest.mark.parametrize("text", ["0_1", "nan", "inf", ""])
def test_a_number_is_spelled_as_people_do(text: str) -> None:
    shown = CliRunner().invoke(app, ["train", "co2", "--dropout", text])
    assert shown.exit_code == 2
    assert "is not a number" in shown.stderr
