"""How the command line speaks: figures, files that are not overwritten, and faults that keep their traceback."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import typer
from command_line import call

from gpulstm.cli import console, info
from gpulstm.errors import ConfigError
from gpulstm.training import interrupts


def test_faults_of_the_program_keep_their_traceback() -> None:
    @console.polite
    def broken() -> None:
        raise KeyError("a fault")

    with pytest.raises(KeyError, match="a fault"):
        broken()


def test_an_error_that_a_library_made_of_an_interrupt_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Compiled code that calls Python answers with its own error where a signal's handler raised."""

    @console.polite
    def draws() -> None:
        with pytest.raises(KeyboardInterrupt):
            interrupts.interrupt(signal.SIGTERM, None)
        raise ValueError("Invalid bounding box")

    handlers = {number: signal.getsignal(number) for number in interrupts.ENDING}
    monkeypatch.setattr(interrupts, "interrupted", False)
    monkeypatch.setattr(interrupts, "received", None)
    try:
        with pytest.raises(typer.Exit) as ended:
            draws()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert ended.value.exit_code == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "gpulstm: interrupted\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123456, "0.0123"),
        (123456.0, "123000"),
        (12.0, "12"),
        (float("nan"), "-"),
        (0.00001234, "0.0000123"),
        (0.0, "0"),
    ],
)
def test_figures_for_tables(value: float, text: str) -> None:
    assert console.number(value) == text


def test_output_must_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file, expected a folder"):
        console.new_files(tmp_path / "file", ["a"], force=True)


def test_what_stands_in_brackets_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal library would take `[cuda12]` for a style and leave it out."""
    monkeypatch.setattr(info, "cuda_missing", lambda: "run: pip install 'cupy-cuda12x[ctk]'")
    monkeypatch.setattr(info, "device_count", lambda: 0)
    assert call("info").stdout.count("pip install 'cupy-cuda12x[ctk]'") == 2


def test_names_of_pictures_are_never_the_same() -> None:
    names = console.names_of("forecast", ["a b", "a/b"], ["x"], 9)
    assert names == {(0, 0): "forecast-a_b.png", (1, 0): "forecast-a_b-1-0.png"}
    assert console.names_of("forecast", ["a"], ["x"], 0) == {}
