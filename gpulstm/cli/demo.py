"""The command `demo`: from a bundled real series to a forecast and a picture, in one go."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gpulstm.cli import demonstration
from gpulstm.cli.console import INTERRUPTED, can_draw, console, metrics_table, new_files, polite, say
from gpulstm.cli.forecaster import EpochLines


@polite
def demo(
    epochs: Annotated[int, typer.Option(help="Passes over the training windows.")] = demonstration.EPOCHS,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of weights and order of the data.")] = 0,
    output: Annotated[Path, typer.Option(help="Folder for the model, tables and pictures.")] = Path("runs/demo"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files of an earlier run there.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Train on weekly CO2 at Mauna Loa, backtest on years that training never saw, forecast the year after.

    Example: gpulstm demo --output runs/demo
    """
    can_draw()
    new_files(output, list(demonstration.file_names().values()), force)
    bar = not quiet and sys.stderr.isatty()
    lines = [] if quiet or bar else [EpochLines()]
    made = demonstration.run(output, quiet=not bar, device=device, seed=seed, epochs=epochs, callbacks=lines)
    console().print(metrics_table(made.backtest))
    say(f"trained in {made.seconds['training']:.0f} s, {made.seconds['all']:.0f} s in all")
    say(f"written to {output}: {', '.join(path.name for path in made.files.values())}")
    if "forecast picture" in made.files:
        say(f"the forecast: {made.files['forecast picture'].resolve()}")
    if made.forecaster.history.stopped == "interrupted":
        say("interrupted: these are the results of the training until then")
        raise typer.Exit(INTERRUPTED)
