"""The demonstration: train on the bundled carbon dioxide series, backtest, forecast a year, draw the pictures.

It is the ordinary use of the library in one function; the sizes are chosen so that two processor cores need about a
minute.
"""

from __future__ import annotations

import importlib.util
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpulstm import datasets, plots
from gpulstm.forecast import Forecaster
from gpulstm.results import MODEL, Backtest, Forecast
from gpulstm.table import SeriesSet

UNIT = "carbon dioxide (ppm)"
YEARS = 6  # what the test part holds
SHOWN = 3  # forecasts in the picture of the backtest


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


def forecaster(*, device: str = "auto", seed: int = 0) -> Forecaster:
    """The forecaster of the demonstration, not yet fitted: a year ahead from three years, two layers of 64 units."""
    return Forecaster(
        horizon=52,
        context=156,
        hidden_size=64,
        num_layers=2,
        device=device,
        seed=seed,
        epochs=20,
        patience=None,
        validation=3 * 52,
        test=YEARS * 52,
        stride=2,
    )


def run(
    output_folder: str | os.PathLike[str], quiet: bool = False, *, device: str = "auto", seed: int = 0
) -> DemoResult:
    """Train, backtest, forecast, and write model, tables and pictures into a folder, which is made.

    Args:
        output_folder: where to write; the pictures only with matplotlib (extra `plots`).
        quiet: no progress bar.
        device, seed: of the forecaster.
    """
    began = time.perf_counter()
    folder = Path(output_folder)
    folder.mkdir(parents=True, exist_ok=True)
    series = datasets.co2()
    model = forecaster(device=device, seed=seed).fit(series, progress=not quiet)
    trained = time.perf_counter()
    backtest, forecast = model.backtest(), model.predict()
    files = {
        "model": folder / "co2.safetensors",
        "forecast": folder / "forecast.csv",
        "backtest": folder / "backtest.csv",
        "history": folder / "history.csv",
    }
    model.save(files["model"])
    forecast.to_csv(files["forecast"])
    backtest.to_csv(files["backtest"])
    model.history.to_csv(files["history"])
    if importlib.util.find_spec("matplotlib") is not None:
        files |= _pictures(folder, series, model, forecast, backtest)
    seconds = {"training": trained - began, "all": time.perf_counter() - began}
    return DemoResult(model, forecast, backtest, files, seconds)


def _pictures(
    folder: Path, series: SeriesSet, model: Forecaster, forecast: Forecast, backtest: Backtest
) -> dict[str, Path]:
    """Draw training, forecast and backtest."""
    files = {f"{name} picture": folder / f"{name}.png" for name in ("history", "forecast", "backtest")}
    plots.history(files["history picture"], model.history.columns())
    time_index, observed = series.time_of(0), series.values[:, 0]
    recent = slice(-3 * 52, None)
    plots.forecast(
        files["forecast picture"],
        _fan(forecast.index[0], forecast.mean[0, :, 0], forecast.levels, forecast.quantiles, 0),
        time=time_index[recent],
        observed=observed[recent],
        title="Weekly carbon dioxide at Mauna Loa: the 52 weeks after the series",
        label=UNIT,
    )
    shown = np.arange(0, len(backtest.origins), max(1, len(backtest.origins) // SHOWN))[:SHOWN]
    part = slice(int(backtest.origins[shown[0]]) - 52, None)
    scores = backtest.metrics()
    plots.backtest(
        files["backtest picture"],
        [
            _fan(backtest.index[n], backtest.forecasts[MODEL][n, :, 0], backtest.levels, backtest.quantiles, n)
            for n in shown
        ],
        time=time_index[part],
        observed=observed[part],
        errors=backtest.errors_by_step(),
        scores={name: values["MASE"] for name, values in scores.items()},
        title=f"Weekly carbon dioxide at Mauna Loa: {len(backtest.origins)} forecasts of 52 weeks",
        label=UNIT,
    )
    return files


def _fan(
    index: np.ndarray, mean: np.ndarray, levels: tuple[float, ...], quantiles: np.ndarray | None, row: int
) -> plots.Fan:
    bands = {} if quantiles is None else {level: quantiles[row, :, 0, place] for place, level in enumerate(levels)}
    return plots.Fan(index, bands, mean)
