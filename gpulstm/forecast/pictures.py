"""Pictures of what a forecaster gave back: which part of the series is shown, which origins, and under which names.

`plots` draws arrays; this picks the arrays out of a `Forecast` or `Backtest`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gpulstm.data.series import SeriesSet
from gpulstm.plots import axes as drawing
from gpulstm.plots import figures
from gpulstm.plots.figures import Fan

MODEL = "model"  # whose forecasts of a backtest are drawn
SHOWN = 3  # horizons of the past that a forecast is shown with
ORIGINS = 8  # at most so many forecasts are drawn over one series


class Forecast(Protocol):
    """What is drawn of a `results.Forecast`."""

    names: tuple[str, ...]
    targets: tuple[str, ...]
    index: np.ndarray
    levels: tuple[float, ...]
    quantiles: np.ndarray | None
    middle: np.ndarray | None

    @property
    def median(self) -> np.ndarray:
        """`(series, horizon, targets)`."""


class Backtest(Protocol):
    """What is drawn of a `results.Backtest`."""

    names: tuple[str, ...]
    targets: tuple[str, ...]
    series: np.ndarray
    origins: np.ndarray
    index: np.ndarray
    actual: np.ndarray
    forecasts: Mapping[str, np.ndarray]
    levels: tuple[float, ...]
    quantiles: np.ndarray | None

    @property
    def target_coverage(self) -> float | None:
        """What the outermost band ought to cover."""

    def errors(self, series: int | None = None, target: int | None = None) -> dict[str, dict[str, float]]:
        """Errors by forecaster and name."""

    def errors_by_step(self, series: int | None = None, target: int | None = None) -> dict[str, np.ndarray]:
        """Errors of each step by forecaster."""


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
    horizon = forecast.index.shape[1]
    rows = slice(-max(SHOWN * horizon, 30), None)
    fan = _fan(forecast, forecast.index, forecast.median, series, target)
    time, observed = past.time_of(series)[rows], past.series(series)[rows, target]
    if past.time is None:  # a forecast without times counts its steps from the first row
        time = time + fan.time[0] - past.lengths[series]
    title = title or f"{_name(forecast, series, target)}: {horizon} steps ahead"
    return figures.forecast(
        path, fan, time=time, observed=observed, title=title, label=label or forecast.targets[target]
    )


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
    fans = [_fan(result, result.index, result.forecasts[MODEL], place, target) for place in chosen]
    rows = slice(max(0, int(result.origins[chosen[0]]) - horizon), int(result.origins[chosen[-1]]) + horizon)
    return figures.backtest(
        path,
        fans,
        time=data.time_of(series)[rows],
        observed=data.series(series)[rows, target],
        errors=result.errors_by_step(series, target),
        scores={name: errors["MASE"] for name, errors in result.errors(series, target).items()},
        title=title or f"{_name(result, series, target)}: {count} forecasts of {horizon} steps from rolling origins",
        label=label or result.targets[target],
    )


def plot_forecast(forecast: Forecast, past: SeriesSet | None, *, series: int, target: int, axes: Any) -> Any:
    """One series and target on matplotlib axes, which are returned; see `Forecast.plot`."""
    fan = _fan(forecast, forecast.index, forecast.median, series, target)
    time, observed = fan.time[:0], np.zeros(0)
    if past is not None:
        rows = slice(-max(SHOWN * len(fan.time), 30), None)
        time, observed = past.time_of(series)[rows], past.series(series)[rows, target]
        if past.time is None:
            time = time + fan.time[0] - past.lengths[series]
    return drawing.fans_on(axes, [fan], time=time, observed=observed, label=_name(forecast, series, target))


def plot_backtest(result: Backtest, data: SeriesSet | None, *, series: int, target: int, axes: Any) -> Any:
    """One series and target on matplotlib axes, which are returned; see `Backtest.plot`."""
    chosen = _apart(result, series)
    fans = [_fan(result, result.index, result.forecasts[MODEL], row, target) for row in chosen]
    if data is None:
        time = np.concatenate([result.index[row] for row in chosen])
        observed = np.concatenate([result.actual[row, :, target] for row in chosen])
    else:
        horizon = result.index.shape[1]
        rows = slice(max(0, int(result.origins[chosen[0]]) - horizon), int(result.origins[chosen[-1]]) + horizon)
        time, observed = data.time_of(series)[rows], data.series(series)[rows, target]
    axes = drawing.fans_on(axes, fans, time=time, observed=observed, label=_name(result, series, target))
    covered = result.errors(series, target)[MODEL].get("coverage")
    if covered is not None and result.target_coverage is not None:
        axes.set_title(f"the band of {100 * result.target_coverage:.0f} % covers {100 * covered:.0f} %")
    return axes


def _apart(result: Backtest, series: int) -> list[int]:
    """The latest forecasts of a series of which none lies over another, in the order of time."""
    horizon = result.index.shape[1]
    chosen: list[int] = []
    for place in reversed(np.flatnonzero(result.series == series)):
        if len(chosen) < ORIGINS and (not chosen or result.origins[place] + horizon <= result.origins[chosen[-1]]):
            chosen.append(int(place))
    return chosen[::-1]


def _fan(result: Forecast | Backtest, index: np.ndarray, mean: np.ndarray, row: int, target: int) -> Fan:
    levels: Sequence[float] = () if result.quantiles is None else result.levels
    bands = {level: result.quantiles[row, :, target, at] for at, level in enumerate(levels)}  # type: ignore[index]
    middle = getattr(result, "middle", None)
    if middle is not None:
        bands.setdefault(0.5, middle[row, :, target])
    return Fan(index[row], bands, mean[row, :, target])


def _name(result: Forecast | Backtest, series: int, target: int) -> str:
    of = f" of {result.names[series]}" if len(result.names) > 1 else ""
    return f"{result.targets[target]}{of}"
