"""Pictures of what a forecaster gave back: which part of the series is shown, which origins, and under which names.

`plots` draws arrays; this picks the arrays out of a `Forecast` or `Backtest`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.data.labels import Labels
from gpulstm.data.series import SeriesSet
from gpulstm.data.times import localize
from gpulstm.plots import axes as drawing
from gpulstm.plots import figures
from gpulstm.plots.figures import Fan

Forecast = Any  # `results.Forecast` and `results.Backtest`, whose methods draw with this module
Backtest = Any
MODEL = "model"  # whose forecasts of a backtest are drawn
SHOWN = 3  # horizons of the past that a forecast is shown with
ORIGINS = 8  # at most so many forecasts are drawn over one series


def draw_forecast(
    path: str | Path,
    forecast: Forecast,
    past: SeriesSet,
    *,
    series: int = 0,
    target: int = 0,
    title: str = "",
    label: str = "",
) -> Path:
    """One series and target: the end of what was observed, then the forecast.

    Args:
        path: the PNG to write.
        forecast: what was forecast.
        past: the series that it follows.
        series, target: which, by number.
        title: the headline; by default the names and the horizon.
        label: the vertical axis, by default the target's name.
    """
    fan, time, observed, title = _shown(forecast, past, series, target, title)
    return figures.forecast(
        path, fan, time=time, observed=observed, title=title, label=label or forecast.targets[target]
    )


def forecast_axes(
    forecast: Forecast, past: SeriesSet | None, *, series: int = 0, target: int = 0, title: str = "", label: str = ""
) -> Any:
    """As `draw_forecast`, as matplotlib's axes; without `past` the forecast alone."""
    fan, time, observed, title = _shown(forecast, past, series, target, title)
    return figures.forecast_axes(fan, time, observed, title=title, label=label or forecast.targets[target])


def _shown(
    forecast: Forecast, past: SeriesSet | None, series: int, target: int, title: str
) -> tuple[Fan, np.ndarray, np.ndarray, str]:
    """The forecast, times and values of the end of the series, and the headline."""
    horizon = forecast.index.shape[1]
    fan = _fan(forecast, forecast.median, series, target)
    title = title or f"{_name(forecast, series, target)}: {horizon} steps ahead"
    if past is None:
        return fan, fan.time[:0], np.zeros(0), title
    rows = slice(-max(SHOWN * horizon, 30), None)
    time, observed = _wall(forecast.labels, past.time_of(series)[rows]), past.series(series)[rows, target]
    if past.time is None:  # a forecast without times counts its steps from the first row
        time = time + fan.time[0] - past.lengths[series]
    return fan, time, observed, title


def draw_backtest(
    path: str | Path,
    result: Backtest,
    data: SeriesSet,
    *,
    series: int = 0,
    target: int = 0,
    title: str = "",
    label: str = "",
) -> Path:
    """One series and target: forecasts that do not overlap over what came, then the errors and scores of all of them.

    Args: as of `draw_forecast`; `data` are the series that the backtest was run on.
    """
    count, horizon = int((result.series == series).sum()), result.index.shape[1]
    chosen = _apart(result, series)
    fans = [_fan(result, result.forecasts[MODEL], row, target) for row in chosen]
    rows = slice(max(0, int(result.origins[chosen[0]]) - horizon), int(result.origins[chosen[-1]]) + horizon)
    return figures.backtest(
        path,
        fans,
        time=_wall(result.labels, data.time_of(series)[rows]),
        observed=data.series(series)[rows, target],
        errors=result.errors_by_step(series, target),
        scores={name: errors["MASE"] for name, errors in result.errors(series, target).items()},
        title=(title or f"{_name(result, series, target)}: {count} forecasts of {horizon} steps from rolling origins")
        + _covered(result, series, target),
        label=label or result.targets[target],
    )


def plot_backtest(result: Backtest, data: SeriesSet | None, *, series: int, target: int, axes: Any) -> Any:
    """One series and target on matplotlib axes, which are returned; see `Backtest.plot`."""
    chosen = _apart(result, series)
    fans = [_fan(result, result.forecasts[MODEL], row, target) for row in chosen]
    if data is None:
        time = np.concatenate([_wall(result.labels, result.index[row]) for row in chosen])
        observed = np.concatenate([result.actual[row, :, target] for row in chosen])
    else:
        horizon = result.index.shape[1]
        rows = slice(max(0, int(result.origins[chosen[0]]) - horizon), int(result.origins[chosen[-1]]) + horizon)
        time, observed = _wall(result.labels, data.time_of(series)[rows]), data.series(series)[rows, target]
    axes = drawing.fans_on(axes, fans, time=time, observed=observed, label=_name(result, series, target))
    axes.set_title(_covered(result, series, target).lstrip("; "))
    return axes


def _covered(result: Backtest, series: int, target: int) -> str:
    """What the outermost band covers next to what it ought to; nothing without a band."""
    covered = result.errors(series, target)[MODEL].get("coverage")
    if covered is None or result.target_coverage is None:
        return ""
    return f"; the band of {result.target_coverage:.0f}\u00a0% covers {covered:.0f}\u00a0%"


def _apart(result: Backtest, series: int) -> list[int]:
    """The latest forecasts of a series of which none lies over another, in the order of time."""
    horizon = result.index.shape[1]
    chosen: list[int] = []
    for row in reversed(np.flatnonzero(result.series == series)):
        if len(chosen) < ORIGINS and (not chosen or result.origins[row] + horizon <= result.origins[chosen[-1]]):
            chosen.append(int(row))
    return chosen[::-1]


def _wall(labels: Labels, time: np.ndarray) -> np.ndarray:
    """The times on the clock of their zone, those that count since 1970 as dates; row numbers as they are."""
    dates = labels.form.clock(time)
    return time if dates is None else localize(dates, labels.form.zone)[0]


def _fan(result: Forecast | Backtest, mean: np.ndarray, row: int, target: int) -> Fan:
    levels: Sequence[float] = () if result.quantiles is None else result.levels
    bands = {level: result.quantiles[row, :, target, at] for at, level in enumerate(levels)}
    middle = getattr(result, "middle", None)
    if middle is not None:
        bands.setdefault(0.5, middle[row, :, target])
    return Fan(_wall(result.labels, result.index[row]), bands, mean[row, :, target])


def _name(result: Forecast | Backtest, series: int, target: int) -> str:
    of = f" of {result.names[series]}" if len(result.names) > 1 else ""
    return f"{result.targets[target]}{of}"
