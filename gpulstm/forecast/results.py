"""What a forecaster gives back: a forecast, and a backtest with its metrics and those of the naive forecasts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from gpulstm import metrics
from gpulstm.arrays import files
from gpulstm.data.labels import Labels
from gpulstm.errors import ConfigError
from gpulstm.forecast.scores import IN_UNITS, METRICS, Each, owa, together
from gpulstm.forecast.tables import add_column, frame_of, html_table, write_csv

MODEL, SEASONAL, NAIVE, DRIFT = "model", "seasonal naive", "naive", "drift"
SEASONAL_DRIFT = "seasonal naive with drift"


@dataclass(frozen=True)
class Forecast:
    """The steps that follow one or many series, in their own units.

    Attributes:
        names: of the series.
        targets: names of the target columns.
        index: `(series, horizon)` times; steps from 0 after the first row where the series have no times.
        mean: `(series, horizon, targets)` float64: the mean, or what `point` says.
        levels: quantile levels, rising.
        quantiles: `(series, horizon, targets, levels)` float64, rising along the last axis, or None.
        middle: `(series, horizon, targets)` float64, the median where both are known.
        point: "mean", "median" or "q0.9": what `mean` holds; a network fitted to quantiles knows no mean, and fitted to
            quantiles on one side of the median alone it knows only those.
    """

    names: tuple[str, ...]
    targets: tuple[str, ...]
    index: np.ndarray
    mean: np.ndarray
    levels: tuple[float, ...] = ()
    quantiles: np.ndarray | None = None
    middle: np.ndarray | None = None
    point: str = "mean"
    labels: Labels = field(default_factory=Labels)

    @property
    def median(self) -> np.ndarray:
        """`(series, horizon, targets)`: the median where it is known, else `mean`."""
        if self.middle is not None:
            return self.middle
        if self.quantiles is not None and 0.5 in self.levels:
            return self.quantiles[..., self.levels.index(0.5)]
        return self.mean

    def first(self, steps: int) -> Forecast:
        """The first steps alone."""
        return replace(
            self,
            index=self.index[:, :steps],
            mean=self.mean[:, :steps],
            quantiles=None if self.quantiles is None else self.quantiles[:, :steps],
            middle=None if self.middle is None else self.middle[:, :steps],
        )

    def quantile(self, level: float) -> np.ndarray:
        """`(series, horizon, targets)`: one of the `levels`.

        Raises:
            ConfigError: the model was not fitted to that level.
        """
        if self.quantiles is None or level not in self.levels:
            raise ConfigError(f"level is {level!r}, but this forecast has the quantiles {self.levels or 'none'}")
        return self.quantiles[..., self.levels.index(level)]

    def columns(self) -> dict[str, np.ndarray]:
        """The forecast as a table in long format: time, series, target, mean, median and one column a quantile.

        Times and ids stand under the names that they came with, `time` and `series` where they had none.  The columns
        are the same for one series and for many; `mean` and `median` are left out where they are not known.
        """
        count, horizon, width = self.mean.shape
        rows = np.repeat(np.arange(count), horizon * width)
        table = {self.labels.time_name: np.repeat(self.index.ravel(), width)}
        for name, values in self.labels.id_columns(self.names, rows).items():
            add_column(table, name, values)
        add_column(table, "target", np.tile(np.array(self.targets), count * horizon))
        if self.point in ("mean", "median"):
            add_column(table, self.point, self.mean.ravel())
        if self.middle is not None:
            add_column(table, "median", self.middle.ravel())
        if self.quantiles is not None:
            for at, level in enumerate(self.levels):
                add_column(table, f"q{level!r}", self.quantiles[..., at].ravel())
        return table

    def _repr_html_(self) -> str:
        return html_table(self.columns(), self.labels)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write `columns` as a CSV; the file is replaced in one step.

        Raises:
            CheckpointError: the file cannot be written.
        """
        write_csv(path, self.columns(), self.labels)

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
        return frame_of(self.columns(), library, self.labels)


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
        forecasts: `(N, horizon, K)` by forecaster: `"model"` (its median where it knows one), `"seasonal naive"` and
            `"seasonal naive with drift"` (where the season is above 1), `"naive"`, `"drift"`.
        levels: quantile levels of the model, rising.
        quantiles: of the model, `(N, horizon, K, levels)` float64, or None.
        season: rows in the shortest season, by which MASE and the seasonal-naive forecast go.
        scales: `(series, K)` denominators of MASE: the seasonal-naive error over the rows before the first origin.
        seen: whether the model was trained or chosen on some of the rows that it forecasts here, so that the figures
            flatter it.
        mean: `(N, horizon, K)` the model's means, where it knows them in addition to medians.
        second: what gives the `(N, horizon, K)` forecast that OWA compares with (`baselines.naive2`), or None; it takes
            a while where there are many origins.
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
    mean: np.ndarray | None = None
    second: Callable[[], np.ndarray] | None = None
    seasons: tuple[int, ...] = ()
    labels: Labels = field(default_factory=Labels)

    @cached_property
    def _second(self) -> np.ndarray | None:
        return None if self.second is None else self.second()

    @property
    def target_coverage(self) -> float | None:
        """What the band between the outermost quantiles ought to cover, in percent, or None where there is none."""
        return 100 * (self.levels[-1] - self.levels[0]) if self.quantiles is not None and len(self.levels) > 1 else None

    def metrics(self) -> dict[str, dict[str, float]]:
        """The errors over all forecasts, by forecaster and then by name (`METRICS`).

        MAE, RMSE, MAPE and pinball only where there is one target, for a column has one unit, and columns may differ;
        of several series they are those of all rows alike, so `scaled` is what to compare by.  RMSE judges the model's
        mean where it knows one, all others its median.  Pinball and coverage (of the band between the outermost
        quantiles) are those of the model alone.  MASE is the mean of the scaled errors of all series and targets; a
        constant series has no scale and does not count.  OWA is the mean of sMAPE and MASE, each over that of
        `second`.
        """
        return self.errors()

    def scaled(self, step: int | None = None) -> dict[str, dict[str, float]]:
        """The errors over all forecasts, or those of one step (from 1); of several series only those without a unit."""
        left_out = () if len(self.names) == 1 else IN_UNITS
        errors = self.errors(step=step).items()
        return {name: {key: own[key] for key in own if key not in left_out} for name, own in errors}

    def errors(
        self, series: int | None = None, target: int | None = None, step: int | None = None
    ) -> dict[str, dict[str, float]]:
        """`metrics` of one series, target or step (from 1) alone; None takes all."""
        rows = np.ones(len(self.series), bool) if series is None else self.series == series
        steps = slice(None) if step is None else slice(step - 1, step)
        targets = slice(None) if target is None else slice(target, target + 1)
        single = target is not None or len(self.targets) == 1

        def cut(values: np.ndarray) -> np.ndarray:
            return values[rows][:, steps, targets]

        actual, scale = cut(self.actual), self.scales[self.series[rows]][:, None, targets]
        table = {}
        for name, forecast in self.forecasts.items():
            mean = cut(self.mean) if name == MODEL and self.mean is not None else cut(forecast)
            table[name] = together(actual, cut(forecast), mean, scale, single)
        if self._second is not None:
            second = cut(self._second)
            reference = together(actual, second, second, scale, single)
            for own in table.values():
                own["OWA"] = float(owa(own, reference))
        if self.quantiles is not None:
            quantiles = cut(self.quantiles)
            if single:
                table[MODEL]["pinball"] = metrics.pinball(actual, quantiles, self.levels)
            if len(self.levels) > 1:
                table[MODEL]["coverage"] = metrics.coverage(actual, quantiles[..., 0], quantiles[..., -1])
        return table

    def table(self) -> dict[str, np.ndarray]:
        """The errors of every series and target, and of each step of the horizon, in long format.

        The columns are series, target, step (0 for all steps), forecaster, and `METRICS`; the first rows, whose series
        and target are empty, are those of all series together.
        """
        forecasters, steps = list(self.forecasts), np.arange(self.actual.shape[1] + 1)
        shape = (len(self.names), len(self.targets), len(steps), len(forecasters))
        series, target, step, who = np.indices(shape).reshape(4, -1)
        blank = np.full(len(steps) * len(forecasters), "")
        table = {
            "series": np.concatenate([blank, np.array(self.names)[series]]),
            "target": np.concatenate([blank, np.array(self.targets)[target]]),
            "step": np.concatenate([np.repeat(steps, len(forecasters)), step]),
            "forecaster": np.concatenate([np.tile(forecasters, len(steps)), np.array(forecasters)[who]]),
        }
        every = [self.scaled(at or None) for at in steps.tolist()]
        own = self._each()
        for name in METRICS:
            above = [errors[one].get(name, np.nan) for errors in every for one in forecasters]
            cells = np.stack([own[one].get(name, np.full(shape[:3], np.nan)) for one in forecasters], axis=-1)
            table[name] = np.concatenate([above, cells.ravel()])
        return table

    def _each(self) -> dict[str, dict[str, np.ndarray]]:
        """The errors of every series, target and step by forecaster and name, as of `Each`."""
        each = Each(self.actual, self.series, self.scales)
        found = {
            name: each.of(forecast, self.mean if name == MODEL and self.mean is not None else forecast)
            for name, forecast in self.forecasts.items()
        }
        if self._second is not None:
            second = each.of(self._second, self._second)
            for errors in found.values():
                errors["OWA"] = owa(errors, second)
        if self.quantiles is not None:
            found[MODEL] |= each.bands(self.quantiles, self.levels)
        return found

    def metrics_to(self, path: str | os.PathLike[str]) -> None:
        """Write `table` to a file: JSON where its name ends so, else CSV.

        Raises:
            CheckpointError: the file cannot be written.
        """
        columns = self.table()
        if not str(path).endswith(".json"):
            write_csv(path, columns)
            return
        rows = [
            {name: None if isinstance(value, float) and np.isnan(value) else value for name, value in row.items()}
            for row in (
                dict(zip(columns, cells, strict=True))
                for cells in zip(*(values.tolist() for values in columns.values()), strict=True)
            )
        ]
        files.write(path, json.dumps(rows, indent=1).encode())

    def verdict(self) -> str:
        """One sentence: whether the model beats the simple forecasts by MASE, and which not."""
        scores = {name: errors["MASE"] for name, errors in self.metrics().items()}
        own = scores.pop(MODEL)
        better = {name: value for name, value in scores.items() if value < own}
        if np.isnan(own):
            return "the series do not vary, so MASE tells nothing"
        if better:
            lost = ", ".join(
                f"{name} ({value:.3g})" for name, value in sorted(better.items(), key=lambda pair: pair[1])
            )
            return f"the model (MASE {own:.3g}) loses to {lost}: a simple forecast serves better here"
        if level := [name for name, value in scores.items() if value == own]:
            return f"the model (MASE {own:.3g}) is as good as {', '.join(level)}: a simple forecast serves as well here"
        nearest = min(scores, key=lambda name: scores[name])
        gain = 100 * (1 - own / scores[nearest])
        return f"the model (MASE {own:.3g}) beats {', '.join(scores)}; the nearest is {nearest}, by {gain:.0f} %"

    def plot(self, data: Any = None, *, series: int = 0, target: int = 0, axes: Any = None) -> Any:
        """Draw one series and target on matplotlib axes: what came, and forecasts that do not overlap.

        Args:
            data: the `SeriesSet` that was forecast; None draws what came within the forecasts.
            series, target: which, by number.
            axes: to draw on; None makes some.

        Returns:
            the axes.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        from gpulstm.forecast.pictures import plot_backtest

        return plot_backtest(self, data, series=series, target=target, axes=axes)

    def _repr_html_(self) -> str:
        table = self.scaled()
        shown = [name for name in METRICS if any(name in errors for errors in table.values())]
        columns: dict[str, np.ndarray] = {"forecaster": np.array(list(table))}
        columns |= {name: np.array([errors.get(name, np.nan) for errors in table.values()]) for name in shown}
        return html_table(columns)

    def errors_by_step(self, series: int | None = None, target: int | None = None) -> dict[str, np.ndarray]:
        """Mean absolute error at each step ahead, `(horizon,)` by forecaster.

        Args:
            series, target: those of one series and target alone, in its unit; None takes all.  Of several the errors
                are scaled as MASE scales them: units do not mix.
        """
        alone = (target is not None or len(self.targets) == 1) and (series is not None or len(self.names) == 1)
        metric = "MAE" if alone else "MASE"
        steps = [self.errors(series, target, step) for step in range(1, self.actual.shape[1] + 1)]
        return {name: np.array([errors[name][metric] for errors in steps]) for name in self.forecasts}

    def columns(self) -> dict[str, np.ndarray]:
        """All forecasts as a table in long format, one row per forecast, step and target; columns as of `Forecast`."""
        count, horizon, width = self.actual.shape
        rows = np.repeat(self.series, horizon * width)
        table = {self.labels.time_name: np.repeat(self.index.ravel(), width)}
        for name, values in self.labels.id_columns(self.names, rows).items():
            add_column(table, name, values)
        add_column(table, "origin", np.repeat(self.origins, horizon * width))
        add_column(table, "step", np.tile(np.repeat(np.arange(1, horizon + 1), width), count))
        add_column(table, "target", np.tile(np.array(self.targets), count * horizon))
        add_column(table, "actual", self.actual.ravel())
        for name, forecast in self.forecasts.items():
            add_column(table, name.replace(" ", "_"), forecast.ravel())
        if self.mean is not None:
            add_column(table, "model_mean", self.mean.ravel())
        if self.quantiles is not None:
            for at, level in enumerate(self.levels):
                add_column(table, f"q{level!r}", self.quantiles[..., at].ravel())
        return table

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write `columns` as a CSV; the file is replaced in one step.

        Raises:
            CheckpointError: the file cannot be written.
        """
        write_csv(path, self.columns(), self.labels)

    def to_frame(self, library: str = "pandas") -> Any:
        """`columns` as a frame of `"pandas"`, `"polars"` or `"pyarrow"`; errors as in `Forecast.to_frame`."""
        return frame_of(self.columns(), library, self.labels)
