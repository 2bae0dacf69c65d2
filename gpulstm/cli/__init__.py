"""The command line: `gpulstm demo | train | forecast | backtest | tune | convert | info | bench | warmup`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from gpulstm.arrays.checkpoint import package_version
from gpulstm.cli import bench, console, convert, demo, forecaster, info, tune, warmup
from gpulstm.cli.options import PlainCommand, PlainGroup, exact

HELP = "Forecast the series of a table, with small LSTMs and simple methods together, on CPUs and NVIDIA GPUs."

START = """\
gpulstm forecasts the series of a table, and says how much better that is than simple forecasts.

  gpulstm demo                                     bundled weekly CO2: tables and pictures
  gpulstm train seattle_weather                    bundled daily weather, or your own CSV
  gpulstm forecast runs/model/model.safetensors    what comes next, as CSV and picture

gpulstm --help lists all commands (info, backtest, convert ...), gpulstm train --help the options of one,
and gpulstm --install-completion teaches them to your shell.\
"""

app = typer.Typer(
    name="gpulstm", help=HELP, cls=PlainGroup, invoke_without_command=True, pretty_exceptions_enable=False
)


def _version(asked: bool) -> None:
    if asked:
        print(f"gpulstm {package_version()}")
        raise typer.Exit


@app.callback()
def _common(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(START)


for _command in (
    demo.demo,
    forecaster.train,
    forecaster.forecast,
    forecaster.backtest,
    tune.tune,
    convert.convert,
    info.info,
    bench.bench,
    warmup.warmup,
):
    app.command(cls=PlainCommand)(exact(_command))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its status: 0, 2 for a mistake of the user, 128 + n for signal n.

    Args:
        arguments: without the program's name; those of the process if None.
    """
    console.hush()
    app(args=None if arguments is None else list(arguments), prog_name="gpulstm")
