"""The command `demo`: from a bundled real series to a model, a backtest, a forecast of a year and pictures.

`run` is the ordinary use of the library in one function, with its defaults.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from gpulstm.arrays import files
from gpulstm.cli.console import can_draw, console, is_terminal, members_table, metrics_table, new_files, polite, say
from gpulstm.cli.forecaster import EpochLines
from gpulstm.data import datasets
from gpulstm.errors import ConfigError
from gpulstm.forecast import pictures
from gpulstm.forecast.config import AUTO
from gpulstm.forecast.forecaster import Forecaster
from gpulstm.forecast.results import Backtest, Forecast
from gpulstm.plots import figures
from gpulstm.training import interrupts
from gpulstm.training.callbacks import Callback

UNIT = "carbon dioxide (ppm)"
YEARS = 6  # what the test part holds
TABLES = {
    "model": "co2.safetensors",
    "forecast": "forecast.csv",
    "backtest": "backtest.csv",
    "history": "history.csv",
}
PICTURES = {f"{name} picture": f"{name}.png" for name in ("history", "forecast", "backtest")}


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration made.

    Attributes:
        forecaster: fitted.
        forecast: of the 52 weeks after the series.
        backtest: over the last six years, which training never saw.
        files: what was written, by kind: model, forecast, backtest, history and the pictures.
        seconds: time of training and in all.
    """

    forecaster: Forecaster
    forecast: Forecast
    backtest: Backtest
    files: dict[str, Path]
    seconds: dict[str, float]


def file_names() -> dict[str, str]:
    """What `run` writes into its folder, by kind: tables, and pictures where matplotlib is there."""
    return TABLES | (PICTURES if importlib.util.find_spec("matplotlib") is not None else {})


def forecaster(*, device: str = "auto", seed: int = 0, epochs: int | str = AUTO) -> Forecaster:
    """The forecaster of the demonstration, not yet fitted: the defaults, a year ahead."""
    return Forecaster(52, device=device, seed=seed, epochs=epochs, test=YEARS * 52)


def run(
    output_folder: str | os.PathLike[str],
    quiet: bool = False,
    *,
    device: str = "auto",
    seed: int = 0,
    epochs: int | str = AUTO,
    callbacks: Sequence[Callback] = (),
    tell: Callable[[str], None] = lambda text: None,
) -> DemoResult:
    """Train, backtest, forecast, and write model, tables and pictures into a folder, which is made.

    Args:
        output_folder: where to write; the pictures only with matplotlib (extra `plots`).
        quiet: no progress bar.
        device, seed, epochs: of the forecaster.
        callbacks: of its training.
        tell: is told what begins, in a sentence.
    """
    began = time.perf_counter()
    folder = Path(output_folder)
    folder.mkdir(parents=True, exist_ok=True)
    series = datasets.co2()
    tell(f"fitting on {series.rows - YEARS * 52} weeks of carbon dioxide: simple forecasts, a ridge, small networks")
    model = forecaster(device=device, seed=seed, epochs=epochs).fit(series, progress=not quiet, callbacks=callbacks)
    trained = time.perf_counter()
    tell(f"checking forecasts on the {YEARS} years that were kept, and forecasting the next")
    backtest, forecast = model.backtest(), model.predict()
    files = {kind: folder / name for kind, name in file_names().items()}
    model.save(files["model"])
    forecast.to_csv(files["forecast"])
    backtest.to_csv(files["backtest"])
    model.history.to_csv(files["history"])
    if "forecast picture" in files:
        tell("drawing the pictures")
        where = "Weekly carbon dioxide at Mauna Loa"
        figures.history(files["history picture"], model.history.columns(), title=f"{where}: training")
        pictures.draw_forecast(
            files["forecast picture"], forecast, series, title=f"{where}: the 52 weeks after the series", label=UNIT
        )
        title = f"{where}: {len(backtest.origins)} forecasts of 52 weeks"
        pictures.draw_backtest(files["backtest picture"], backtest, series, title=title, label=UNIT)
    seconds = {"training": trained - began, "all": time.perf_counter() - began}
    return DemoResult(model, forecast, backtest, files, seconds)


@polite
def demo(
    epochs: Annotated[int, typer.Option(help="Epochs of each network, at most; 0 lets the data decide.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of weights and order of the data.")] = 0,
    output: Annotated[Path, typer.Option(help="Folder for the model, tables and pictures.")] = Path("runs/demo"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files of an earlier run there.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Fit on weekly CO2 at Mauna Loa, backtest on years that the fit never saw, forecast the year after.

    Example: gpulstm demo --output runs/demo
    """
    can_draw()
    new_files(output, list(file_names().values()), force)
    bar = not quiet and is_terminal(sys.stderr)
    lines = [] if quiet or bar else [EpochLines()]
    with files.locked(output, ConfigError):
        tell = (lambda text: None) if quiet else say
        result = run(output, quiet=not bar, device=device, seed=seed, epochs=epochs or AUTO, callbacks=lines, tell=tell)
    members = result.forecaster.members
    if members is not None:
        console().print(members_table(members))
    console().print(metrics_table(result.backtest))
    console().print(result.backtest.verdict())
    say(f"trained in {result.seconds['training']:.0f} s, {result.seconds['all']:.0f} s in all")
    say(f"written to {output}: {', '.join(path.name for path in result.files.values())}")
    if "forecast picture" in result.files:
        say(f"the forecast: {result.files['forecast picture'].resolve()}")
    if result.forecaster.history.stopped == "interrupted":
        say("interrupted: these are the results of the training until then")
        raise typer.Exit(interrupts.status())
