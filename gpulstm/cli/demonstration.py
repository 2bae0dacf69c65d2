"""The demonstration: train on the bundled carbon dioxide series, backtest, forecast a year, draw the pictures.

It is the ordinary use of the library in one function; the sizes are chosen so that two processor cores need about a
minute.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpulstm.data import datasets
from gpulstm.forecast import pictures
from gpulstm.forecast.forecaster import Forecaster
from gpulstm.forecast.results import Backtest, Forecast
from gpulstm.plots import figures
from gpulstm.training.callbacks import Callback

UNIT = "carbon dioxide (ppm)"
YEARS = 6  # what the test part holds
EPOCHS = 20
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


def forecaster(*, device: str = "auto", seed: int = 0, epochs: int = EPOCHS) -> Forecaster:
    """The forecaster of the demonstration, not yet fitted: a year ahead from three years, two layers of 64 units."""
    return Forecaster(
        horizon=52,
        context=156,
        hidden_size=64,
        num_layers=2,
        device=device,
        seed=seed,
        epochs=epochs,
        patience=None,
        validation=3 * 52,
        test=YEARS * 52,
        stride=2,
    )


def run(
    output_folder: str | os.PathLike[str],
    quiet: bool = False,
    *,
    device: str = "auto",
    seed: int = 0,
    epochs: int = EPOCHS,
    callbacks: Sequence[Callback] = (),
) -> DemoResult:
    """Train, backtest, forecast, and write model, tables and pictures into a folder, which is made.

    Args:
        output_folder: where to write; the pictures only with matplotlib (extra `plots`).
        quiet: no progress bar.
        device, seed, epochs: of the forecaster.
        callbacks: of its training.
    """
    began = time.perf_counter()
    folder = Path(output_folder)
    folder.mkdir(parents=True, exist_ok=True)
    series = datasets.co2()
    model = forecaster(device=device, seed=seed, epochs=epochs).fit(series, progress=not quiet, callbacks=callbacks)
    trained = time.perf_counter()
    backtest, forecast = model.backtest(), model.predict()
    files = {kind: folder / name for kind, name in file_names().items()}
    model.save(files["model"])
    forecast.to_csv(files["forecast"])
    backtest.to_csv(files["backtest"])
    model.history.to_csv(files["history"])
    if "forecast picture" in files:
        where = "Weekly carbon dioxide at Mauna Loa"
        figures.history(files["history picture"], model.history.columns(), title=f"{where}: training")
        pictures.draw_forecast(
            files["forecast picture"], forecast, series, title=f"{where}: the 52 weeks after the series", label=UNIT
        )
        title = f"{where}: {len(backtest.origins)} forecasts of 52 weeks"
        pictures.draw_backtest(files["backtest picture"], backtest, series, title=title, label=UNIT)
    seconds = {"training": trained - began, "all": time.perf_counter() - began}
    return DemoResult(model, forecast, backtest, files, seconds)
