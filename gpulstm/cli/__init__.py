"""The command line: `gpulstm demo | train | forecast | backtest | tune | convert | info | bench | warmup`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer

from gpulstm.cli import bench, console, convert, demo, forecaster, info, tune, warmup

HELP = """Stacked LSTMs for time series, on the CPU and on NVIDIA GPUs.

First result: gpulstm demo.  Own data: gpulstm train DATA.csv --target COLUMN --time COLUMN, then gpulstm forecast.
"""

app = typer.Typer(name="gpulstm", help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _version(asked: bool) -> None:
    if asked:
        print(f"gpulstm {version('gpulstm')}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    pass


app.command()(demo.demo)
app.command()(forecaster.train)
app.command()(forecaster.forecast)
app.command()(forecaster.backtest)
app.command()(tune.tune)
app.command()(convert.convert)
app.command()(info.info)
app.command()(bench.bench)
app.command()(warmup.warmup)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its status: 0, 2 for a mistake of the user, 128 + n for signal n.

    Args:
        arguments: without the program's name; those of the process if None.
    """
    console.hush()
    app(args=None if arguments is None else list(arguments), prog_name="gpulstm")
