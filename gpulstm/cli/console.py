"""How the command line speaks: results on stdout, everything else on stderr, a mistake in one sentence."""

from __future__ import annotations

import contextlib
import csv
import functools
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

import numpy as np
import typer
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from gpulstm.arrays.launch import place
from gpulstm.errors import ConfigError, GpulstmError, one_line, speaking_options
from gpulstm.forecast.results import Backtest
from gpulstm.forecast.scores import METRICS
from gpulstm.training import interrupts
from gpulstm.training.parallel import failed

MISTAKE = 2  # exit status of a wrong command line

Command = TypeVar("Command", bound=Callable[..., None])


def console(most: int = 160) -> Console:
    """Where results go: as wide as the terminal; where there is none, `most` columns, enough for every table."""
    return Console(highlight=False, markup=False, emoji=False, width=None if is_terminal(sys.stdout) else most)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person looks at a standard stream; a service has none of them."""
    return stream is not None and stream.isatty()


def aside() -> Console:
    """Where everything goes that is not a result: stderr."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


def say(text: str) -> None:
    """A line for the person who waits, on stderr, which a service may not have."""
    if sys.stderr is not None:
        print(text, file=sys.stderr, flush=True)


def polite(command: Command) -> Command:
    """Let a command end with one sentence instead of a traceback where the fault is not in the program.

    Mistakes that the package names (`GpulstmError`), files that cannot be read or written and too little memory give
    status 2, a signal n that asks the process to end gives 128 + n: Ctrl-C, SIGTERM, and SIGHUP unless it is ignored.
    Everything else is a fault of the program and keeps its traceback, unless a signal has ended the work before.
    """

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            interrupts.handle(interrupts.interrupt)
            with speaking_options(), all_end():
                command(*args, **kwargs)
            interrupts.handle(interrupts.leave)
        except GpulstmError as error:
            say(f"gpulstm: {error}")
            raise typer.Exit(MISTAKE) from None
        except (BrokenPipeError, typer.Exit):
            raise  # the reader of a pipe has gone, or the command has spoken; the framework ends quietly
        except OSError as error:
            say(one_line(f"gpulstm: {error.filename or 'standard output'}: {error.strerror or error}"))
            raise typer.Exit(MISTAKE) from None
        except MemoryError as error:
            text = str(error) or "there is not enough memory"
            say(f"gpulstm: {text}{'' if 'takes less' in text else '; a smaller batch or --memory takes less'}")
            raise typer.Exit(MISTAKE) from None
        except (KeyboardInterrupt, Exception) as error:
            # compiled code that calls Python makes an error of its own of an interrupt: Matplotlib's, as it draws
            if not (isinstance(error, KeyboardInterrupt) or interrupts.interrupted):
                raise
            say("gpulstm: interrupted")
            raise typer.Exit(interrupts.status()) from None

    return run  # type: ignore[return-value]


@contextlib.contextmanager
def all_end() -> Iterator[None]:
    """Within the block a mistake of one rank alone ends all ranks of an MPI program."""
    try:
        yield
    except typer.Exit:
        raise  # every rank leaves in this way
    except BaseException as error:
        failed(error)
        raise


def hush() -> None:
    """Let the first of the processes that mpiexec started speak for all of them."""
    if place().rank:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - to the end of the process


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "", text: int = 1, wrap: int | None = None
) -> Group:
    """A table whose first `text` columns are words and whose others are numbers; only column `wrap` may be broken."""
    drawn = Table(header_style="bold")
    for index, name in enumerate(columns):
        drawn.add_column(name, justify="left" if index < text else "right", no_wrap=index != wrap, overflow="fold")
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
    existing = [path.name for path in paths if path.exists()]
    if existing and not force:
        raise ConfigError(
            f"{folder} already holds {', '.join(existing)}; name another --output, or overwrite with --force"
        )
    return paths


def written_before(path: Path, columns: Sequence[str]) -> bool:
    """Whether a file is a table of forecasts that a run before wrote, which the next may replace.

    It is where it begins with these columns; quantiles and forecasters, which come after them, may differ.
    """
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        head = next(csv.reader([file.readline(10_000)]), [])
    return head[: len(columns)] == list(columns)


def can_draw() -> bool:
    """Whether matplotlib is there; where it is not, that is said once, and the numbers are written all the same."""
    installed = importlib.util.find_spec("matplotlib") is not None
    if not installed:
        say("no picture: it needs matplotlib; run: pip install matplotlib")
    return installed


def names_of(kind: str, series: Sequence[str], targets: Sequence[str], most: int) -> dict[tuple[int, int], str]:
    """File names by `(series, target)`: `kind.png` where there is one, else with the names of both, at most `most`."""
    if len(series) == len(targets) == 1:
        return {(0, 0): f"{kind}.png"} if most > 0 else {}
    names: dict[tuple[int, int], str] = {}
    for row, one in enumerate(series):
        for column, target in enumerate(targets):
            if len(names) >= most:
                return names
            parts = [kind, *([one] if len(series) > 1 else []), *([target] if len(targets) > 1 else [])]
            name = "-".join(re.sub(r"[^\w.]+", "_", part) for part in parts)
            name = name.encode()[:100].decode(errors="ignore")  # of any length; file systems hold 255 bytes
            taken = f"{name}.png".lower() in {other.lower() for other in names.values()}
            names[row, column] = f"{name}-{row}-{column}.png" if taken else f"{name}.png"
    return names


def members_table(report: Mapping[str, Any]) -> Group:
    """Who forecasts: validation error and weight of each member, and what the mixture would be without the network.

    Args:
        report: as `Forecaster.members` gives it.
    """
    rows = [
        [one["name"], number(np.nan if one["error"] is None else one["error"], 4), f"{100 * one['weight']:.0f} %"]
        for one in sorted(report["members"], key=lambda one: -one["weight"])
        if one["weight"] > 0
    ]
    left = sum(one["weight"] <= 0 for one in report["members"])
    if left:
        rows.append([f"{left} more", "", "0 %"])
    for name, key in (("the mixture", "error"), ("without networks", "without_networks")):
        if report.get(key) is not None:
            rows.append([name, number(report[key], 4), ""])
    head = "error, relative to " + str(report.get("reference", "naive"))
    return table(["member", head, "weight"], rows, title="Members, judged on validation rows")


def metrics_table(result: Backtest) -> Group:
    """The metrics of a backtest, a forecaster a row."""
    heads = {"MAPE": "MAPE %", "sMAPE": "sMAPE %", "coverage": "coverage %"}
    if result.target_coverage is not None:
        heads["coverage"] = f"coverage % (of {result.target_coverage:.0f})"
    metrics = result.scaled()
    shown = [name for name in METRICS if any(name in errors for errors in metrics.values())]
    rows = [
        [forecaster, *(number(errors.get(name, np.nan)) for name in shown)] for forecaster, errors in metrics.items()
    ]
    count, horizon = result.index.shape
    judged = "errors of the median, RMSE of the mean" if result.mean is not None else "errors of the point forecast"
    seasons = " and ".join(str(season) for season in result.seasons or (result.season,))
    title = f"{count} forecasts of {horizon} steps, season {seasons} (MASE below 1: better than repeating it); {judged}"
    return table(["forecaster", *(heads.get(name, name) for name in shown)], rows, title=title)
