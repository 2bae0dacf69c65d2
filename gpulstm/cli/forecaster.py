"""The commands for time series: `train`, `forecast`, `backtest`."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from gpulstm.arrays import files
from gpulstm.arrays.devices import resolve
from gpulstm.arrays.launch import place
from gpulstm.cli.console import (
    can_draw,
    console,
    is_terminal,
    members_table,
    metrics_table,
    names_of,
    new_files,
    number,
    polite,
    say,
    written_before,
)
from gpulstm.cli.console import table as words
from gpulstm.cli.options import with_options
from gpulstm.cli.summary import guessed, summary
from gpulstm.data import datasets
from gpulstm.data.options import TableOptions
from gpulstm.data.parts import Parts, is_in_parts, read_table
from gpulstm.data.series import SeriesSet
from gpulstm.data.times import TimeForm
from gpulstm.engines.dispatch import choose
from gpulstm.engines.spec import Call
from gpulstm.errors import ConfigError
from gpulstm.forecast.config import AUTO, NETWORK, ForecasterConfig
from gpulstm.forecast.decisions import planned, test_rows
from gpulstm.forecast.forecaster import Forecaster
from gpulstm.forecast.pictures import draw_backtest, draw_forecast
from gpulstm.forecast.tables import first_columns
from gpulstm.plots import figures
from gpulstm.training import interrupts
from gpulstm.training.callbacks import Callback, HistoryCSV, Run, TensorBoard
from gpulstm.training.history import Row

MODEL, RUN, HISTORY = "model.safetensors", "run.safetensors", "history.csv"
FINAL = "final.safetensors"  # the run on all rows, after the comparison

FILES = "Files and output"

Table = Annotated[
    Path,
    typer.Argument(help="CSV or Parquet file, a folder with parts of one, or a bundled series: co2, seattle_weather."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=NETWORK)]
Output = Annotated[Path, typer.Option(help="Folder for everything that is written.", rich_help_panel=FILES)]
Force = Annotated[
    bool, typer.Option("--force", help="Overwrite the files of an earlier run there.", rich_help_panel=FILES)
]
Metrics = Annotated[
    Path | None,
    typer.Option(help="File for the errors of each series, target and step: .csv or .json.", rich_help_panel=FILES),
]
Pictures = Annotated[int, typer.Option(help="Draw at most so many series and targets.", rich_help_panel=FILES)]
Unit = Annotated[
    str, typer.Option(help="Label of the pictures' vertical axis, such as 'CO2 (ppm)'.", rich_help_panel=FILES)
]


@polite
@partial(with_options, defaults={"test": AUTO})
def train(
    data: Table,
    table: TableOptions,
    config: ForecasterConfig,
    output: Output = Path("runs/model"),
    metrics: Metrics = None,
    force: Force = False,
    resume: Annotated[
        bool, typer.Option(help="Go on with the run in --output that was interrupted.", rich_help_panel=FILES)
    ] = False,
    go_on: Annotated[
        Path | None,
        typer.Option(
            "--continue",
            help="A model to start from: its options and weights, this table's rows.",
            rich_help_panel=FILES,
        ),
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Folder for TensorBoard's event files.", rich_help_panel=FILES)
    ] = None,
    quiet: Annotated[bool, typer.Option(help="No progress bar.", rich_help_panel=FILES)] = False,
) -> None:
    """Fit a forecaster on a table, and compare it with the simple forecasts.

    Example: gpulstm train sales.csv --target units --time date --horizon 28

    The last rows (--test) are kept to compare forecasts with what came; by default the model is then fitted again on
    all rows.  Writes model.safetensors (what forecast and backtest take), and for networks history.csv, history.png
    and run.safetensors, from which an interrupted run goes on with --resume.  Ctrl-C stops after the present step.
    """
    if go_on is not None:
        started = Forecaster.load(go_on, config.device)
        series = started.read(table_path(data))
        say(engine_line(started.config, training=True))
        with files.locked(output, ConfigError):
            Job(output, force, quiet, tensorboard).fit(started, series, RUN, False, warm_start=True)
        say(f"next: gpulstm forecast {output / MODEL}")
        return
    source = read_table(table_path(data), table, guess=True, embedding=config.embedding)
    if resume and not any((output / name).is_file() for name in (RUN, FINAL)):
        raise ConfigError(f"--resume finds no {RUN} in {output}; name the --output of the interrupted run")
    if metrics is not None:
        new_files(metrics.parent, [metrics.name], force or resume)
    say(engine_line(config, training=True))
    if isinstance(source, Parts):
        if metrics is not None:
            raise ConfigError("--metrics is for a table of one file; a table in parts is not compared")
        test = 0 if config.test == AUTO else config.test
        Job(output, force or resume, quiet, tensorboard).fit(
            Forecaster.of(replace(config, test=test)), source, RUN, resume
        )
        say(f"next: gpulstm forecast {output / MODEL} {data}")
        return
    series = source
    for line in [*guessed(series, table), *summary(series, planned(config, series))]:
        say(line)
    job = Job(output, force or resume, quiet, tensorboard)
    forecaster = Forecaster.of(config)
    going_on = resume and (output / FINAL).is_file()  # the comparison was over
    with files.locked(output, ConfigError) if first_rank() else contextlib.nullcontext():
        if not going_on:
            (output / FINAL).unlink(missing_ok=True)  # of an earlier run, which --resume would take for this one's
            job.fit(forecaster, series, RUN, resume)
        whole = Forecaster.of(replace(config, test=0))
        if not going_on and compare(forecaster, series, metrics) and config.test == AUTO:
            say("fitted again on all rows, the newest included")
            job.fit(whole, series, FINAL, False)
        elif going_on:
            job.fit(whole, series, FINAL, True)
    say(f"next: gpulstm forecast {output / MODEL}")


def engine_line(config: ForecasterConfig, training: bool = False, quantize: str | None = None) -> str:
    """Who computes the networks of a run, its first line.

    Raises:
        EngineError: the engine that is forced cannot serve them; nothing has been written then.
    """
    task = Call(config.stack(1), resolve(config.device).device, 8, 32, training, False, quantize)
    plan = choose(task, config.engine)
    return f"engine: {plan.engine.name} ({plan.path})"


def compare(forecaster: Forecaster, series: SeriesSet, metrics: Path | None) -> bool:
    """Print the table of a backtest on the test part, and whether the model wins; False where there is no test part."""
    if test_rows(forecaster.config, series) is None:
        if forecaster.config.test == AUTO:
            say("the series are too short to keep rows for a comparison with the simple forecasts")
        return False
    result = forecaster.backtest(series, automatic=True)
    console().print(metrics_table(result))
    console().print(result.verdict())
    if metrics is not None and first_rank():
        result.metrics_to(metrics)
        say(f"written: {metrics}")
    return True


def first_rank() -> bool:
    """Whether this process is the one that writes, among those that mpiexec started."""
    return place().rank == 0


@dataclass(frozen=True)
class Job:
    """Where a fit leaves what it made, and how it shows that it works.

    Args:
        output: the folder.
        force: overwrite the files of an earlier run there.
        quiet: no progress bar.
        tensorboard: folder for event files, or None.
    """

    output: Path
    force: bool
    quiet: bool = False
    tensorboard: Path | None = None

    def fit(
        self, forecaster: Forecaster, series: SeriesSet | Parts, checkpoint: str, resume: bool, warm_start: bool = False
    ) -> None:
        """Train, and leave behind the model, the history, its picture, and the run to go on from.

        Raises:
            typer.Exit: 128 + n, where signal n stopped the training; what was reached is written.
        """
        names = [MODEL, HISTORY, *(["history.png"] if can_draw() else []), checkpoint]
        force = self.force or checkpoint == FINAL or not first_rank()
        model, history, *picture, run = new_files(self.output, names, force)
        bar = not self.quiet and is_terminal(sys.stderr)
        watchers: list[Callback] = [_Folder(self.output), HistoryCSV(history)]
        if not self.quiet and not bar:
            watchers.append(EpochLines())
        if self.tensorboard is not None:
            watchers.append(TensorBoard(self.tensorboard))
        forecaster.fit(
            series,
            progress=bar,
            callbacks=watchers,
            checkpoint=run,
            resume=run if resume else None,
            warm_start=warm_start,
        )
        for note in forecaster.notes:
            if isinstance(series, Parts) or note not in series.notes:  # those were said before the fit
                say(note)
        trained, members = forecaster.history, forecaster.members
        interrupted = trained.stopped == "interrupted"
        if not first_rank():
            if interrupted:
                raise typer.Exit(interrupts.status())
            return
        self.output.mkdir(parents=True, exist_ok=True)
        if interrupted and not trained.rows:
            say(f"interrupted before the first epoch was over; go on with --resume, from {run}")
            raise typer.Exit(interrupts.status())
        forecaster.save(model)
        written = [model]
        if trained.rows:
            written += [history, *picture, run]
            for path in picture:
                figures.history(path, trained.columns(), title=f"Training: {', '.join(forecaster.tail.target_names)}")
        if members is not None:
            console().print(members_table(members))
        else:
            seconds = sum(row["seconds"] or 0 for row in trained.rows)
            console().print(
                f"{len(trained.rows)} epochs ({trained.stopped}), best epoch {trained.best_epoch} "
                f"with loss {number(trained.best_loss or 0.0, 4)}, {seconds:.0f} s"
            )
        say(f"written: {', '.join(str(path) for path in written)}")
        if interrupted:
            say("interrupted: the best epoch so far is kept; go on with --resume")
            raise typer.Exit(interrupts.status())


class _Folder(Callback):
    """Makes the folder of a run once everything about the run is known to be right."""

    name = "folder"

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_start(self, run: Run) -> None:
        self.path.mkdir(parents=True, exist_ok=True)


class EpochLines(Callback):
    """A line an epoch on stderr, where that is a file or a pipe and a bar would fill it."""

    name = "epoch_lines"

    def on_epoch(self, run: Run, row: Row) -> None:
        judged = "" if row["validation_loss"] is None else f", validation {row['validation_loss']:.4g}"
        say(f"epoch {run.epoch}/{run.epochs}: loss {row['train_loss']:.4g}{judged}, {row['seconds']:.1f} s")


@polite
def forecast(
    model: Annotated[Path, typer.Argument(help="model.safetensors of gpulstm train.")],
    data: Annotated[
        Path | None, typer.Argument(help="Table to forecast from; default: the end of the training table.")
    ] = None,
    horizon: Annotated[int, typer.Option(help="Steps; 0 for those of the model.")] = 0,
    future: Annotated[Path | None, typer.Option(help="Table of the future covariates of the steps ahead.")] = None,
    device: Device = "auto",
    quantize: Annotated[
        str | None, typer.Option(help="Weights of fewer bits: int8 or bfloat16.", rich_help_panel=NETWORK)
    ] = None,
    output: Output = Path("runs/forecast"),
    force: Force = False,
    pictures: Pictures = 6,
    unit: Unit = "",
    scheduler: Annotated[
        str, typer.Option(help="For a table in parts: Dask's scheduler, such as tcp://10.0.0.1:8786.")
    ] = "",
) -> None:
    """Forecast what follows a table: a CSV, and a picture with the bands between the quantiles.

    Of a folder with parts of a table, each with whole series, it writes forecast.parquet, a folder with a file a part.

    Example: gpulstm forecast runs/model/model.safetensors sales.csv --output runs/forecast
    """
    with files.locked(output, ConfigError):
        forecaster = Forecaster.load(model, device).quantize(quantize)
        say(engine_line(replace(forecaster.config, device=device), quantize=quantize))
        if is_in_parts(data):
            from gpulstm.cli.parts import forecast_parts

            if future is not None:
                raise ConfigError("--future cannot be given for a table in parts; forecast its parts one by one")
            return forecast_parts(forecaster, str(data), horizon or None, scheduler, output, force)
        if scheduler:
            raise ConfigError("--scheduler is for a table in parts, a folder of files")
        past = forecaster.tail if data is None else forecaster.read(table_path(data))
        drawn = names_of("forecast", past.names, past.target_names, pictures) if can_draw() else {}
        again = force or written_before(output / "forecast.csv", first_columns(past.labels))
        table, *paths = new_files(output, ["forecast.csv", *drawn.values()], again)
        result = forecaster.predict(None if data is None else past, horizon or None, future)
        columns = result.columns()
        result.to_csv(table)
        for (series, target), path in zip(drawn, paths, strict=True):
            draw_forecast(path, result, past, series=series, target=target, label=unit)
    out = console()
    rows = next(iter(columns.values())).size
    shown = [[cell(values[row], result.labels.form) for values in columns.values()] for row in range(min(10, rows))]
    out.print(words(list(columns), shown))
    if rows > 10:
        out.print(f"... {rows} rows in all")
    for note in forecaster.notes:
        if note.startswith("simple forecasts"):
            say(note)
    say(f"written: {', '.join(str(path) for path in (table, *paths))}")


@polite
def backtest(
    model: Annotated[Path, typer.Argument(help="model.safetensors of gpulstm train.")],
    data: Annotated[Path, typer.Argument(help="Table with the whole series, or a bundled series.")],
    origins: Annotated[
        int, typer.Option(help="Forecasts a series, the last a horizon before its end; 0: the test part.")
    ] = 0,
    stride: Annotated[int, typer.Option(help="Rows between origins; 0 for a quarter of the horizon.")] = 0,
    device: Device = "auto",
    output: Output = Path("runs/backtest"),
    metrics: Metrics = None,
    force: Force = False,
    pictures: Pictures = 6,
    unit: Unit = "",
) -> None:
    """Forecast from many origins in the past and compare with what came and with the naive forecasts.

    Example: gpulstm backtest runs/model/model.safetensors sales.csv --origins 12
    """
    with files.locked(output, ConfigError):
        forecaster = Forecaster.load(model, device)
        say(engine_line(replace(forecaster.config, device=device)))
        series = forecaster.read(table_path(data))
        drawn = names_of("backtest", series.names, series.target_names, pictures) if can_draw() else {}
        again = force or written_before(output / "backtest.csv", first_columns(series.labels, "origin", "step"))
        table, *paths = new_files(output, ["backtest.csv", *drawn.values()], again)
        errors = [] if metrics is None else new_files(metrics.parent, [metrics.name], force)
        result = forecaster.backtest(series, origins=origins or None, stride=stride or None, automatic=True)
        result.to_csv(table)
        for (row, target), path in zip(drawn, paths, strict=True):
            draw_backtest(path, result, series, series=row, target=target, label=unit)
        console().print(metrics_table(result))
        console().print(result.verdict())
        for written in errors:
            result.metrics_to(written)
            say(f"written: {written}")
    if result.seen:
        say("the model was trained or chosen on some of these rows, so that the figures flatter it; see train --test")
    say(f"written: {', '.join(str(path) for path in (table, *paths))}")


def table_path(data: Path) -> Path:
    """A file, or that of the bundled series of this name."""
    return datasets.path(str(data)) if str(data) in datasets.NAMES and not data.exists() else data


def cell(value: Any, form: TimeForm) -> str:
    """A value of a result's column for a table."""
    if not isinstance(value, np.generic):
        return str(value)
    if value.dtype.kind == "M":
        return form.texts(np.array([value]))[0]
    return number(float(value), 6) if value.dtype.kind == "f" else str(value)
