"""How the command line speaks: results on stdout, everything else on stderr, a mistake in one sentence."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import typer
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from gpulstm.errors import ConfigError, GpulstmError

MISTAKE, INTERRUPTED = 2, 130  # exit codes: of a wrong command line, and of Ctrl-C in a shell

Command = TypeVar("Command", bound=Callable[..., None])


def console() -> Console:
    """Where results go: as wide as the terminal, or wide enough for every table where it is none."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def aside() -> Console:
    """Where everything goes that is not a result: stderr."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """A line for the person who waits, on stderr."""
    aside().print(text, markup=False)


def polite(command: Command) -> Command:
    """Let a command end with one sentence instead of a traceback where the fault is not in the program.

    Mistakes that the package names (`GpulstmError`) and files that cannot be read or written give status 2, Ctrl-C
    gives 130.  Everything else is a fault of the program and keeps its traceback.
    """

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except GpulstmError as error:
            say(f"gpulstm: {error}")
            raise typer.Exit(MISTAKE) from None
        except BrokenPipeError:
            raise  # the reader of a pipe has gone; the framework ends quietly
        except OSError as error:
            say(f"gpulstm: {error.filename or 'file'}: {error.strerror or error}")
            raise typer.Exit(MISTAKE) from None
        except KeyboardInterrupt:
            say("gpulstm: interrupted")
            raise typer.Exit(INTERRUPTED) from None

    return run  # type: ignore[return-value]


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "", text: int = 1, wrap: int | None = None
) -> Group:
    """A table whose first `text` columns are words and whose others are numbers; only column `wrap` may be broken."""
    drawn = Table(header_style="bold")
    for place, name in enumerate(columns):
        drawn.add_column(name, justify="left" if place < text else "right", no_wrap=place != wrap, overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    return Group(Text(title, style="bold"), drawn) if title else Group(drawn)  # a table's own title would be broken


def number(value: float, digits: int = 3) -> str:
    """A figure for a table: `digits` significant ones, without an exponent; a dash where there is none."""
    if np.isnan(value):
        return "-"
    return np.format_float_positional(float(f"{value:.{digits}g}"), trim="-")


def new_files(folder: Path, names: Sequence[str], force: bool) -> list[Path]:
    """The paths of files that a command is about to write, refused before any work where one is there already.

    Raises:
        ConfigError: a file is there and `force` is not set, or `folder` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output {folder} is a file, expected a folder")
    paths = [folder / name for name in names]
    there = [path.name for path in paths if path.exists()]
    if there and not force:
        raise ConfigError(
            f"{folder} already holds {', '.join(there)}; name another --output, or overwrite with --force"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return paths
