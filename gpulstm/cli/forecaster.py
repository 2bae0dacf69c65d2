"""The commands for time series: `train`, `forecast`, `backtest`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from gpulstm.arrays.devices import resolve
from gpulstm.cli.console import INTERRUPTED, can_draw, console, metrics_table, names_of, new_files, number, polite, say
from gpulstm.cli.console import table as words
from gpulstm.data import datasets
from gpulstm.data.calendars import format_time
from gpulstm.data.loading import load_series
from gpulstm.data.series import SeriesSet
from gpulstm.engines.dispatch import choose
from gpulstm.engines.spec import Call
from gpulstm.errors import ConfigError
from gpulstm.forecast.config import Settings
from gpulstm.forecast.forecaster import Forecaster
from gpulstm.forecast.pictures import draw_backtest, draw_forecast
from gpulstm.plots import figures
from gpulstm.training.callbacks import Callback, HistoryCSV, Run, TensorBoard
from gpulstm.training.history import Row

MODEL, RUN, HISTORY = "model.safetensors", "run.safetensors", "history.csv"

DATA, WINDOWS, NETWORK, TRAINING, FILES = "The table", "The task", "The network", "Training", "Files and output"

Table = Annotated[Path, typer.Argument(help="CSV or Parquet file, or a bundled series: co2, seattle_weather.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=NETWORK)]
Output = Annotated[Path, typer.Option(help="Folder for everything that is written.", rich_help_panel=FILES)]
Force = Annotated[
    bool, typer.Option("--force", help="Overwrite the files of an earlier run there.", rich_help_panel=FILES)
]
Pictures = Annotated[int, typer.Option(help="Draw at most so many series and targets.", rich_help_panel=FILES)]
Unit = Annotated[
    str, typer.Option(help="Label of the pictures' vertical axis, such as 'CO2 (ppm)'.", rich_help_panel=FILES)
]


def _option(panel: str, text: str, **more: Any) -> Any:
    return typer.Option(help=text, rich_help_panel=panel, **more)


@polite
def train(
    data: Table,
    target: Annotated[
        list[str] | None, _option(DATA, "Column to forecast (may be repeated); default: all without another role.")
    ] = None,
    past: Annotated[list[str] | None, _option(DATA, "Covariate known up to now (may be repeated).")] = None,
    future: Annotated[list[str] | None, _option(DATA, "Covariate known ahead (may be repeated).")] = None,
    time: Annotated[str | None, _option(DATA, "Column of times: ISO dates or numbers.")] = None,
    series: Annotated[str | None, _option(DATA, "Column that names each row's series.")] = None,
    calendar: Annotated[
        list[str] | None, _option(DATA, "Covariate made from dates: yearly, monthly, weekly, daily (may be repeated).")
    ] = None,
    missing: Annotated[str, _option(DATA, "Missing cells: refuse, interpolate, forward or mask.")] = "refuse",
    delimiter: Annotated[str | None, _option(DATA, "Of a CSV; default: the most frequent in its first row.")] = None,
    horizon: Annotated[int, _option(WINDOWS, "Steps ahead.")] = Settings.horizon,
    context: Annotated[int, _option(WINDOWS, "Rows that a forecast sees.")] = Settings.context,
    quantile: Annotated[
        list[float] | None, _option(WINDOWS, "Level (may be repeated).", show_default="0.1 0.5 0.9")
    ] = None,
    likelihood: Annotated[str, _option(WINDOWS, "quantile, gaussian or point.")] = Settings.likelihood,
    strategy: Annotated[
        str, _option(WINDOWS, "direct (whole horizon at once) or recursive (step by step).")
    ] = Settings.strategy,
    scaling: Annotated[
        str, _option(WINDOWS, "By the training rows: standard, minmax, robust or none.")
    ] = Settings.scaling,
    window_scaling: Annotated[
        str, _option(WINDOWS, "By each window's context: last, mean, standard or none.")
    ] = Settings.window_scaling,
    season: Annotated[int, _option(WINDOWS, "Rows in a season; 0 takes that of the time step.")] = 0,
    cell: Annotated[str, _option(NETWORK, "lstm, gru or rnn.")] = Settings.cell,
    hidden_size: Annotated[int, _option(NETWORK, "Units per layer.")] = Settings.hidden_size,
    layers: Annotated[int, _option(NETWORK, "Recurrent layers.")] = Settings.num_layers,
    dropout: Annotated[float, _option(NETWORK, "Rate between layers.")] = Settings.dropout,
    recurrent_dropout: Annotated[float, _option(NETWORK, "Rate within the recurrence.")] = Settings.recurrent_dropout,
    layer_norm: Annotated[bool, _option(NETWORK, "Layer normalisation.")] = Settings.layer_norm,
    chrono: Annotated[
        int, _option(NETWORK, "Rows that memory may have to reach (chrono initialisation); 0 for the usual start.")
    ] = 0,
    dtype: Annotated[str, _option(NETWORK, "float32, float64 or, on CUDA, float16.")] = Settings.dtype,
    device: Device = Settings.device,
    engine: Annotated[str | None, _option(NETWORK, "Force an engine; see gpulstm info.")] = None,
    epochs: Annotated[int, _option(TRAINING, "Passes over the training windows, at most.")] = Settings.epochs,
    batch_size: Annotated[int, _option(TRAINING, "Windows in a step.")] = Settings.batch_size,
    learning_rate: Annotated[float, _option(TRAINING, "First rate of AdamW.")] = Settings.learning_rate,
    schedule: Annotated[str, _option(TRAINING, "Of the rate: cosine or constant.")] = Settings.schedule,
    weight_decay: Annotated[float, _option(TRAINING, "Of AdamW.")] = Settings.weight_decay,
    clip_norm: Annotated[float, _option(TRAINING, "Largest norm of the gradients; 0 for no limit.")] = 1.0,
    patience: Annotated[int, _option(TRAINING, "Epochs without progress after which to stop; 0 for never.")] = 10,
    validation: Annotated[
        str, _option(TRAINING, "Kept to choose the best epoch: a fraction, a number of rows, or a date.")
    ] = "0.1",
    test: Annotated[str, _option(TRAINING, "Kept for gpulstm backtest, likewise.")] = "0",
    training: Annotated[
        str, _option(TRAINING, "windows, or truncated: long series in lanes, with the state carried on.")
    ] = Settings.training,
    chunk: Annotated[int, _option(TRAINING, "Rows that a step of truncated training moves on.")] = Settings.chunk,
    reach: Annotated[
        int, _option(TRAINING, "Rows that its gradients flow back through, a multiple of --chunk; 0 for the chunk.")
    ] = 0,
    borders: Annotated[
        str, _option(TRAINING, "State at the border of two series of truncated training: reset or carry.")
    ] = Settings.borders,
    memory: Annotated[
        str | None, _option(TRAINING, "Bound on a step's working memory: 256MiB or the like, or sqrt; same results.")
    ] = None,
    stride: Annotated[int, _option(TRAINING, "Rows between training windows.")] = Settings.stride,
    draws: Annotated[int, _option(WINDOWS, "Draws of the recursive strategy.")] = Settings.draws,
    seed: Annotated[int, _option(TRAINING, "Of weights, order of the data, dropout and draws.")] = Settings.seed,
    output: Output = Path("runs/model"),
    force: Force = False,
    resume: Annotated[bool, _option(FILES, "Go on with the run in --output that was interrupted.")] = False,
    tensorboard: Annotated[Path | None, _option(FILES, "Folder for TensorBoard's event files.")] = None,
    quiet: Annotated[bool, _option(FILES, "No progress bar.")] = False,
) -> None:
    """Fit a forecaster on a table.

    Example: gpulstm train sales.csv --target units --time date --calendar weekly --horizon 28 --context 112

    Writes model.safetensors (what forecast and backtest take), history.csv, history.png and run.safetensors, from
    which an interrupted run goes on with --resume.  Ctrl-C stops after the present step and keeps the best epoch.
    """
    forecaster = Forecaster(
        horizon=horizon,
        context=context,
        hidden_size=hidden_size,
        num_layers=layers,
        quantiles=tuple(quantile) if quantile else Settings.quantiles,
        device=device,
        seed=seed,
        cell=cell,
        likelihood=likelihood,
        strategy=strategy,
        scaling=scaling,
        window_scaling=window_scaling,
        season=season or None,
        dropout=dropout,
        recurrent_dropout=recurrent_dropout,
        layer_norm=layer_norm,
        chrono=chrono or None,
        dtype=dtype,
        engine=engine,
        learning_rate=learning_rate,
        schedule=schedule,
        weight_decay=weight_decay,
        clip_norm=clip_norm or None,
        batch_size=batch_size,
        epochs=epochs,
        patience=patience or None,
        validation=amount(validation),
        test=amount(test),
        stride=stride,
        draws=draws,
        memory=memory,
        training=training,
        chunk=chunk,
        reach=reach or None,
        borders=borders,
    )
    read = load_series(
        table_path(data),
        target=target or None,
        past=past or (),
        future=future or (),
        time=time,
        series=series,
        calendar=calendar or (),
        missing=missing,
        delimiter=delimiter,
    )
    if resume and not (output / RUN).is_file():
        raise ConfigError(f"--resume finds no {RUN} in {output}; name the --output of the interrupted run")
    fit(forecaster, read, output, force=force, resume=resume, quiet=quiet, tensorboard=tensorboard)
    say(f"next: gpulstm forecast {output / MODEL}")


def fit(
    forecaster: Forecaster,
    series: SeriesSet,
    output: Path,
    *,
    force: bool,
    resume: bool = False,
    quiet: bool = False,
    tensorboard: Path | None = None,
) -> None:
    """Train, and leave behind the model, the history, its picture, and the run to go on from.

    Raises:
        typer.Exit: 130, where Ctrl-C stopped the training; what was reached is written.
    """
    draws = can_draw()
    names = [MODEL, HISTORY, *(["history.png"] if draws else []), RUN]
    model, history, *picture, run = new_files(output, names, force or resume)
    where = resolve(forecaster.device).device
    task = Call(forecaster.stack(1), where, forecaster.context, forecaster.batch_size, True, False)
    choose(task, forecaster.engine)  # an engine that is forced and cannot serve is found before anything is written
    bar = not quiet and sys.stderr.isatty()
    watchers: list[Callback] = [_Folder(output), HistoryCSV(history)]
    if not quiet and not bar:
        watchers.append(EpochLines())
    if tensorboard is not None:
        watchers.append(TensorBoard(tensorboard))
    forecaster.fit(series, progress=bar, callbacks=watchers, checkpoint=run, resume=run if resume else None)
    for note in forecaster.notes:
        say(note)
    trained = forecaster.history
    interrupted = trained.stopped == "interrupted"
    if not trained.rows:
        say(f"interrupted before the first epoch was over; go on with --resume, from {run}")
        raise typer.Exit(INTERRUPTED)
    forecaster.save(model)
    for path in picture:
        figures.history(path, trained.columns(), title=f"Training: {', '.join(series.target_names)}")
    console().print(
        f"{len(trained.rows)} epochs ({trained.stopped}), best epoch {trained.best_epoch} "
        f"with loss {number(trained.best_loss or 0.0, 4)}, {sum(row['seconds'] or 0 for row in trained.rows):.0f} s"
    )
    say(f"written: {', '.join(str(path) for path in (model, history, *picture, run))}")
    if interrupted:
        say("interrupted: the best epoch so far is kept; go on with --resume")
        raise typer.Exit(INTERRUPTED)


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
    output: Output = Path("runs/forecast"),
    force: Force = False,
    pictures: Pictures = 6,
    unit: Unit = "",
) -> None:
    """Forecast what follows a table: a CSV, and a picture with the bands between the quantiles.

    Example: gpulstm forecast runs/model/model.safetensors sales.csv --output runs/forecast
    """
    forecaster = Forecaster.load(model, device)
    past = forecaster.tail if data is None else forecaster.read(table_path(data))
    result = forecaster.predict(horizon or None, future, data=None if data is None else past)
    drawn = names_of("forecast", result.names, result.targets, pictures) if can_draw() else {}
    table, *paths = new_files(output, ["forecast.csv", *drawn.values()], force)
    output.mkdir(parents=True, exist_ok=True)
    result.to_csv(table)
    for (series, target), path in zip(drawn, paths, strict=True):
        draw_forecast(path, result, past, series=series, target=target, label=unit)
    out = console()
    columns = result.columns()
    shown = [[cell(values[row]) for values in columns.values()] for row in range(min(10, len(columns["time"])))]
    out.print(words(list(columns), shown))
    if len(columns["time"]) > 10:
        out.print(f"... {len(columns['time'])} rows in all")
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
    force: Force = False,
    pictures: Pictures = 6,
    unit: Unit = "",
) -> None:
    """Forecast from many origins in the past and compare with what came and with the naive forecasts.

    Example: gpulstm backtest runs/model/model.safetensors sales.csv --origins 12
    """
    forecaster = Forecaster.load(model, device)
    series = forecaster.read(table_path(data))
    result = forecaster.backtest(series, origins=origins or None, stride=stride or None)
    drawn = names_of("backtest", result.names, result.targets, pictures) if can_draw() else {}
    table, *paths = new_files(output, ["backtest.csv", *drawn.values()], force)
    output.mkdir(parents=True, exist_ok=True)
    result.to_csv(table)
    for (row, target), path in zip(drawn, paths, strict=True):
        draw_backtest(path, result, series, series=row, target=target, label=unit)
    console().print(metrics_table(result))
    if result.seen:
        say("the model was trained or chosen on some of these rows, so that the figures flatter it; see train --test")
    say(f"written: {', '.join(str(path) for path in (table, *paths))}")


def table_path(data: Path) -> Path:
    """A file, or that of the bundled series of this name."""
    return datasets.path(str(data)) if str(data) in datasets.NAMES and not data.exists() else data


def amount(text: str) -> float | int | str:
    """`"0.1"` as a fraction, `"52"` as a number of rows, anything else as a date for the library to judge."""
    if text.isdecimal():
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text


def cell(value: np.generic) -> str:
    """A value of a result's column for a table."""
    if value.dtype.kind == "M":
        return format_time(value)
    return number(float(value), 6) if value.dtype.kind == "f" else str(value)
