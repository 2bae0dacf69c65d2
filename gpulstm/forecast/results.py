"""What a forecaster gives back: a forecast, and a backtest with its metrics beside those of the naive forecasts."""

from __future__ import annotations

import csv
import importlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpulstm import metrics
from gpulstm.arrays.checkpoint import write_atomically
from gpulstm.data.axis import Labels
from gpulstm.errors import ConfigError, MissingExtraError

MODEL, SEASONAL, NAIVE = "model", "seasonal naive", "naive"
METRICS = ("MAE", "RMSE", "MAPE", "sMAPE", "MASE", "pinball", "coverage")
LIBRARIES = ("pandas", "polars", "pyarrow")


@dataclass(frozen=True)
class Forecast:
    """The steps that follow one or many series, in their own units.

    Attributes:
        names: of the series.
        targets: names of the target columns.
        index: `(series, horizon)` times: dates as `datetime64` in UTC (tables show them in their zone), numbers as they
            came; steps from 0 after the first row where the series have no times.
        mean: `(series, horizon, targets)` float64 point forecast: the mean, or the median where the model was fitted to
            quantiles.
        levels: quantile levels, rising.
        quantiles: `(series, horizon, targets, levels)` float64, rising along the last axis, or None.
        labels: what the columns of ids and times are called in tables, and how times are written.
    """

    names: tuple[str, ...]
    targets: tuple[str, ...]
    index: np.ndarray
    mean: np.ndarray
    levels: tuple[float, ...] = ()
    quantiles: np.ndarray | None = None
    labels: Labels = field(default_factory=Labels)

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

        Ids and times stand under the names that they came with, `series` and `time` where they had none.  The column
        `target`, and that of a series without an id, are left out where there is only one.
        """
        count, horizon, width = self.mean.shape
        rows = np.repeat(np.arange(count), horizon * width)
        table = self.labels.id_columns(self.names, rows) if self.labels.shown(count) else {}
        _add(table, self.labels.time_name, np.repeat(self.index.ravel(), width))
        if width > 1:
            _add(table, "target", np.tile(np.array(self.targets), count * horizon))
        _add(table, "mean", self.mean.ravel())
        if self.quantiles is not None:
            for at, level in enumerate(self.levels):
                _add(table, f"q{level!r}", self.quantiles[..., at].ravel())
        return table

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write `columns` as a CSV; the file is replaced in one step.

        Raises:
            CheckpointError: the file cannot be written.
        """
        _write_csv(path, self.columns(), self.labels)

    def plot(self, past: Any = None, *, series: int = 0, target: int = 0, title: str = "", label: str = "") -> Any:
        """One series and target as matplotlib's axes; `plot().figure.savefig(path)` writes them.

        Args:
            past: the `SeriesSet` that the forecast follows, whose end is drawn too.
            series, target: which, by number.
            title: the headline; by default the names and the horizon.
            label: the vertical axis, by default the target's name.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        from gpulstm.forecast.pictures import forecast_axes

        return forecast_axes(self, past, series=series, target=target, title=title, label=label)

    def to_frame(self, library: str = "pandas") -> Any:
        """`columns` as a frame of `"pandas"`, `"polars"` or `"pyarrow"`.

        Raises:
            ConfigError: another library.
            MissingExtraError: the library is not installed.
        """
        return _frame(self.columns(), library, self.labels)


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
        season: rows in the shortest season, by which MASE and the seasonal-naive forecast go.
        scales: `(series, K)` denominators of MASE: the seasonal-naive error over the rows before the first origin.
        seen: whether the model was trained or chosen on some of the rows that it forecasts here, so that the figures
            flatter it.
        seasons: rows in all seasons of the time step.
        labels: as in `Forecast`.
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
    seasons: tuple[int, ...] = ()
    labels: Labels = field(default_factory=Labels)

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
        rows = np.repeat(self.series, horizon * width)
        table = self.labels.id_columns(self.names, rows) if self.labels.shown(len(self.names)) else {}
        _add(table, "origin", np.repeat(self.origins, horizon * width))
        _add(table, "step", np.tile(np.repeat(np.arange(1, horizon + 1), width), count))
        _add(table, self.labels.time_name, np.repeat(self.index.ravel(), width))
        if width > 1:
            _add(table, "target", np.tile(np.array(self.targets), count * horizon))
        _add(table, "actual", self.actual.ravel())
        for name, forecast in self.forecasts.items():
            _add(table, name.replace(" ", "_"), forecast.ravel())
        if self.quantiles is not None:
            for at, level in enumerate(self.levels):
                _add(table, f"q{level!r}", self.quantiles[..., at].ravel())
        return table

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write `columns` as a CSV; the file is replaced in one step.

        Raises:
            CheckpointError: the file cannot be written.
        """
        _write_csv(path, self.columns(), self.labels)

    def to_frame(self, library: str = "pandas") -> Any:
        """`columns` as a frame of `"pandas"`, `"polars"` or `"pyarrow"`; errors as in `Forecast.to_frame`."""
        return _frame(self.columns(), library, self.labels)


def _add(table: dict[str, np.ndarray], name: str, values: np.ndarray) -> None:
    """Put a column into a table, under another name where a column of ids or times has that one."""
    while name in table:
        name += "_"
    table[name] = values


def _write_csv(path: str | os.PathLike[str], columns: Mapping[str, np.ndarray], labels: Labels) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    time = _time_column(columns, labels)
    cells = (labels.form.texts(values) if name == time else _cells(values) for name, values in columns.items())
    writer.writerows(zip(*cells, strict=True))
    write_atomically(path, text.getvalue().encode())


def _time_column(columns: Mapping[str, np.ndarray], labels: Labels) -> str:
    """The name of the column of times, which may have been changed so that it is its own."""
    return next(name for name in (labels.time_name, f"{labels.time_name}_") if name in columns)


def _cells(values: np.ndarray) -> list[Any]:
    if values.dtype.kind == "f":  # shortest text that reads back as the same number; an empty cell where missing
        return ["" if np.isnan(value) else repr(value) for value in values.tolist()]
    return values.tolist()


def _frame(columns: Mapping[str, np.ndarray], library: str, labels: Labels) -> Any:
    if library not in LIBRARIES:
        raise ConfigError(f"library is {library!r}, expected any of {', '.join(map(repr, LIBRARIES))}")
    time = _time_column(columns, labels)
    if library == "pandas":
        import pandas

        return pandas.DataFrame(
            {name: labels.form.column(values) if name == time else _plain(values) for name, values in columns.items()}
        )
    try:
        module = importlib.import_module(library)
    except ImportError as error:
        raise MissingExtraError(
            f"a frame of {library} needs it, and it is not installed; run: pip install {library}"
        ) from error
    if library == "pyarrow":
        return module.table(
            {name: labels.form.column(values) if name == time else _plain(values) for name, values in columns.items()}
        )
    return module.DataFrame(
        {
            name: _polars_times(module, values, labels) if name == time else _plain(values)
            for name, values in columns.items()
        }
    )


def _plain(values: np.ndarray) -> Any:
    """A column for a frame: text as text, whichever type NumPy has for it."""
    return values.tolist() if values.dtype.kind in "UO" else values


def _polars_times(polars: Any, values: np.ndarray, labels: Labels) -> Any:
    form = labels.form
    if values.dtype.kind != "M":
        return values
    if form.kind in ("text", "int"):
        texts = form.texts(values)
        return texts if form.kind == "text" else [int(text) for text in texts]
    column = polars.Series(values)
    if form.zone is not None:
        return column.dt.replace_time_zone("UTC").dt.convert_time_zone(form.zone)
    return column.cast(polars.Date) if form.kind == "date" else column
