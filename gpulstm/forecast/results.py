"""What a forecaster gives back: a forecast, and a backtest with its metrics beside those of the naive forecasts."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpulstm import metrics
from gpulstm.arrays.checkpoint import write_atomically
from gpulstm.data.calendars import format_time
from gpulstm.errors import ConfigError, missing_extra

MODEL, SEASONAL, NAIVE = "model", "seasonal naive", "naive"
METRICS = ("MAE", "RMSE", "MAPE", "sMAPE", "MASE", "pinball", "coverage")
LIBRARIES = ("pandas", "polars", "pyarrow")


@dataclass(frozen=True)
class Forecast:
    """The steps that follow one or many series, in their own units.

    Attributes:
        names: of the series.
        targets: names of the target columns.
        index: `(series, horizon)` times; steps from 0 after the first row where the series have no times.
        mean: `(series, horizon, targets)` float64 point forecast: the mean, or the median where the model was fitted to
            quantiles.
        levels: quantile levels, rising.
        quantiles: `(series, horizon, targets, levels)` float64, rising along the last axis, or None.
    """

    names: tuple[str, ...]
    targets: tuple[str, ...]
    index: np.ndarray
    mean: np.ndarray
    levels: tuple[float, ...] = ()
    quantiles: np.ndarray | None = None

    @property
    def median(self) -> np.ndarray:
        """`(series, horizon, targets)`: the quantile 0.5 where there is one, else `mean`."""
        if self.quantiles is not None and 0.5 in self.levels:
            return self.quantiles[..., self.levels.index(0.5)]
        return self.mean

    def quantile(self, level: float) -> np.ndarray:
        """`(series, horizon, targets)`: one of the `levels`.

        Raises:
            ConfigError: the model was not fitted to that level.
        """
        if self.quantiles is None or level not in self.levels:
            raise ConfigError(f"level is {level!r}, but this forecast has the quantiles {self.levels or 'none'}")
        return self.quantiles[..., self.levels.index(level)]

    def columns(self) -> dict[str, np.ndarray]:
        """The forecast as a table in long format: series, time, target, mean and one column a quantile.

        The columns `series` and `target` are left out where there is only one of them.
        """
        count, horizon, width = self.mean.shape
        table: dict[str, np.ndarray] = {}
        if count > 1:
            table["series"] = np.repeat(np.array(self.names), horizon * width)
        table["time"] = np.repeat(self.index.ravel(), width)
        if width > 1:
            table["target"] = np.tile(np.array(self.targets), count * horizon)
        table["mean"] = self.mean.ravel()
        if self.quantiles is not None:
            table |= {f"q{level:g}": self.quantiles[..., place].ravel() for place, level in enumerate(self.levels)}
        return table

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write `columns` as a CSV; the file is replaced in one step.

        Raises:
            CheckpointError: the file cannot be written.
        """
        _write_csv(path, self.columns())

    def to_frame(self, library: str = "pandas") -> Any:
        """`columns` as a frame of `"pandas"`, `"polars"` or `"pyarrow"`.

        Raises:
            ConfigError: another library.
            MissingExtraError: the library is not installed.
        """
        return _frame(self.columns(), library)


@dataclass(frozen=True)
class Backtest:
    """Forecasts from many origins in the past, what came, and what the naive forecasts would have said.

    N forecasts, each `horizon` steps, of K targets.

    Attributes:
        names, targets: of the series and target columns.
        series: `(N,)` which series each forecast is of.
        origins: `(N,)` the row of that series at which the forecast begins; rows before it are all that it saw.
        index: `(N, horizon)` times.
        actual: `(N, horizon, K)` float64, NaN where missing.
        forecasts: `(N, horizon, K)` by forecaster: `"model"`, `"seasonal naive"` (where the season is above 1),
        `"naive"`. levels, quantiles: of the model, as in `Forecast`; `(N, horizon, K, levels)`.
        season: rows in a season.
        scales: `(series, K)` denominators of MASE: the seasonal-naive error over the rows before the first origin.
        seen: whether the model was trained or chosen on some of the rows that it forecasts here, so that the figures
            flatter it.
    """

    names: tuple[str, ...]
    targets: tuple[str, ...]
    series: np.ndarray
    origins: np.ndarray
    index: np.ndarray
    actual: np.ndarray
    forecasts: Mapping[str, np.ndarray]
    levels: tuple[float, ...]
    quantiles: np.ndarray | None
    season: int
    scales: np.ndarray
    seen: bool = False

    def metrics(self) -> dict[str, dict[str, float]]:
        """The errors over all forecasts, by forecaster and then by name (`METRICS`).

        Pinball and coverage (of the band between the outermost quantiles) are those of the model alone.  MASE is the
        mean of the scaled errors of all series and targets; a constant series has no scale and does not count.
        """
        table = {name: self._errors(forecast) for name, forecast in self.forecasts.items()}
        if self.quantiles is not None:
            table[MODEL]["pinball"] = metrics.pinball(self.actual, self.quantiles, self.levels)
            if len(self.levels) > 1:
                lower, upper = self.quantiles[..., 0], self.quantiles[..., -1]
                table[MODEL]["coverage"] = metrics.coverage(self.actual, lower, upper)
        return table

    def _errors(self, forecast: np.ndarray) -> dict[str, float]:
        scale = self.scales[self.series][:, None, :]
        scaled = (self.actual / np.where(scale > 0, scale, np.nan), forecast / np.where(scale > 0, scale, 1.0))
        return {
            "MAE": metrics.mae(self.actual, forecast),
            "RMSE": metrics.rmse(self.actual, forecast),
            "MAPE": metrics.mape(self.actual, forecast),
            "sMAPE": metrics.smape(self.actual, forecast),
            "MASE": metrics.mae(*scaled),
        }

    def errors_by_step(self) -> dict[str, np.ndarray]:
        """Mean absolute error at each step ahead, `(horizon,)` by forecaster, in the unit of the series."""
        steps = range(self.actual.shape[1])
        return {
            name: np.array([metrics.mae(self.actual[:, step], forecast[:, step]) for step in steps])
            for name, forecast in self.forecasts.items()
        }

    def columns(self) -> dict[str, np.ndarray]:
        """All forecasts as a table in long format, one row per forecast, step and target."""
        count, horizon, width = self.actual.shape
        table: dict[str, np.ndarray] = {}
        if len(self.names) > 1:
            table["series"] = np.repeat(np.array(self.names)[self.series], horizon * width)
        table["origin"] = np.repeat(self.origins, horizon * width)
        table["step"] = np.tile(np.repeat(np.arange(1, horizon + 1), width), count)
        table["time"] = np.repeat(self.index.ravel(), width)
        if width > 1:
            table["target"] = np.tile(np.array(self.targets), count * horizon)
        table["actual"] = self.actual.ravel()
        table |= {name.replace(" ", "_"): forecast.ravel() for name, forecast in self.forecasts.items()}
        if self.quantiles is not None:
            table |= {f"q{level:g}": self.quantiles[..., place].ravel() for place, level in enumerate(self.levels)}
        return table

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write `columns` as a CSV; the file is replaced in one step.

        Raises:
            CheckpointError: the file cannot be written.
        """
        _write_csv(path, self.columns())

    def to_frame(self, library: str = "pandas") -> Any:
        """`columns` as a frame of `"pandas"`, `"polars"` or `"pyarrow"`; errors as in `Forecast.to_frame`."""
        return _frame(self.columns(), library)


def _write_csv(path: str | os.PathLike[str], columns: Mapping[str, np.ndarray]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(_cells(name, values) for name, values in columns.items()), strict=True))
    write_atomically(path, text.getvalue().encode())


def _cells(name: str, values: np.ndarray) -> list[Any]:
    if name == "time":
        return [format_time(value) for value in values]
    if values.dtype.kind == "f":  # shortest text that reads back as the same number; an empty cell where missing
        return ["" if np.isnan(value) else repr(value) for value in values.tolist()]
    return values.tolist()


def _frame(columns: Mapping[str, np.ndarray], library: str) -> Any:
    if library not in LIBRARIES:
        raise ConfigError(f"library is {library!r}, expected any of {', '.join(map(repr, LIBRARIES))}")
    import narwhals

    try:
        table = narwhals.from_dict(dict(columns), backend=library)  # type: ignore[arg-type] # one of LIBRARIES
        return table.to_native()
    except ImportError as error:
        raise missing_extra(library, "tables", "a frame") from error
