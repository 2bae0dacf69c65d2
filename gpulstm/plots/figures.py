"""Pictures: how training went, a forecast with its bands, a backtest with its baselines, a comparison of timings.

Everything comes as plain arrays and mappings, so that the pictures also serve for numbers that were not made here.
matplotlib (the extra `plots`) draws them without a display and without its global state, in the look of `style`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.errors import ShapeError
from gpulstm.plots.style import (
    BLACK,
    BLUE,
    CYCLE,
    DASHES,
    GRAY,
    GREEN,
    PLAIN,
    VERMILION,
    colors_of,
    figure_file,
    headline,
    label_of,
    legend_above,
    plain_log,
    style,
    time_axis,
    whole_numbers,
)


@dataclass(frozen=True)
class Fan:
    """A forecast from one origin.

    Attributes:
        time: `(horizon,)` datetime64 or numbers.
        quantiles: `(horizon,)` values by level, for example `{0.1: ..., 0.5: ..., 0.9: ...}`; may be empty.
        mean: `(horizon,)` point forecast, drawn where there is no median.
    """

    time: np.ndarray
    quantiles: Mapping[float, np.ndarray]
    mean: np.ndarray | None = None

    @property
    def center(self) -> np.ndarray | None:
        """The median where there is one, else the mean."""
        return self.quantiles.get(0.5, self.mean)

    @property
    def bands(self) -> list[tuple[float, np.ndarray, np.ndarray]]:
        """`(coverage, low, high)` for each pair of levels that lie evenly around one half, the widest first."""
        levels = {round(level, 6): values for level, values in self.quantiles.items()}
        pairs = [(level, round(1 - level, 6)) for level in sorted(levels) if level < 0.5]
        return [(high - low, levels[low], levels[high]) for low, high in pairs if high in levels]


def history(path: str | Path, columns: Mapping[str, Sequence[float]], *, title: str = "Training") -> Path:
    """Losses over epochs, the best epoch marked, and the learning rate below where it changed.

    Args:
        path: the PNG to write.
        columns: `train_loss` and, where there are any, `epoch`, `validation_loss` and `rate`, all of one length; NaN
            where an epoch has no value.
        title: the headline.

    Raises:
        ShapeError: the columns differ in length, or none holds a loss.
        MissingExtraError: matplotlib is not installed.
    """
    values = {name: np.asarray(column, dtype=np.float64) for name, column in columns.items()}
    losses = {
        label: values[name] for name, label in _LOSSES.items() if name in values and np.isfinite(values[name]).any()
    }
    lengths = {column.shape for column in values.values()}
    if not losses or len(lengths) != 1:
        raise ShapeError(f"history needs a column train_loss and columns of one length, got {_lengths(values)}")
    epoch = values.get("epoch", np.arange(1.0, 1 + lengths.pop()[0]))
    rate = values.get("rate")
    varied = rate is not None and np.ptp(rate) > 0
    with figure_file(path, (8, 5.6 if varied else 4.4)) as figure:
        headline(figure, title)
        upper, *lower = figure.subplots(1 + varied, 1, sharex=True, squeeze=False, height_ratios=[3, 1][: 1 + varied])[
            :, 0
        ]
        marker = "o" if epoch.size < 25 else None
        for (label, loss), color, dash in zip(losses.items(), (BLUE, VERMILION), DASHES, strict=False):
            upper.plot(epoch, loss, dash, color=color, marker=marker, markersize=3.5, label=label)
        judged = list(losses.values())[-1]
        best = int(np.nanargmin(judged))
        upper.axvline(epoch[best], color=GRAY, linewidth=1, linestyle=":")
        upper.plot(
            epoch[best],
            judged[best],
            "o",
            color=BLACK,
            markersize=6,
            label=f"best: {judged[best]:.4g}, epoch {epoch[best]:.0f}",
        )
        finite = np.concatenate([loss[np.isfinite(loss)] for loss in losses.values()])
        if finite.min() > 0 and finite.max() > 8 * finite.min():
            plain_log(upper)
        upper.set_ylabel("loss (scaled units)")
        legend_above(upper)
        if lower and rate is not None:
            lower[0].plot(epoch, rate, color=GREEN, marker=marker, markersize=3.5)
            lower[0].set_ylabel("learning rate")
            lower[0].set_ylim(bottom=0)
        whole_numbers((lower or [upper])[0])
        (lower or [upper])[0].set_xlabel("epoch")
    return Path(path)


def forecast(
    path: str | Path,
    fan: Fan,
    *,
    time: np.ndarray,
    observed: np.ndarray,
    actual: np.ndarray | None = None,
    baselines: Mapping[str, np.ndarray] | None = None,
    title: str = "Forecast",
    label: str = "value",
) -> Path:
    """The end of a series and its forecast, with a shaded band for each pair of quantiles.

    Args:
        path: the PNG to write.
        fan: the forecast.
        time: `(n,)` datetime64 or numbers, of the observed part that is to be shown.
        observed: `(n,)` values, NaN where missing.
        actual: `(horizon,)` what came afterwards, where it is known.
        baselines: `(horizon,)` forecasts to compare with, by name.
        title: the headline.
        label: the vertical axis: the quantity and its unit.

    Raises:
        ShapeError: arrays that belong together differ in length.
        MissingExtraError: matplotlib is not installed.
    """
    _same_length({"time": time, "observed": observed})
    _same_length(
        {"the times of the forecast": fan.time, **_named(fan), **({} if actual is None else {"actual": actual})}
    )
    with figure_file(path, (10, 4.8)) as figure:
        _draw_forecast(figure, fan, (time, observed), actual=actual, baselines=baselines, words=(title, label))
    return Path(path)


def forecast_axes(fan: Fan, time: np.ndarray, observed: np.ndarray, *, title: str, label: str) -> Any:
    """The picture of `forecast` as matplotlib's axes, to be changed and written by the caller.

    Args: as of `forecast`; `time` and `observed` may be empty.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with style() as matplotlib:
        figure = matplotlib.figure.Figure(figsize=(10, 4.8))
        return _draw_forecast(figure, fan, (time, observed), words=(title, label))


def _draw_forecast(
    figure: Any,
    fan: Fan,
    past: tuple[np.ndarray, np.ndarray],
    *,
    words: tuple[str, str],
    actual: np.ndarray | None = None,
    baselines: Mapping[str, np.ndarray] | None = None,
) -> Any:
    """Draw what was observed, the forecast and what it is compared with; `words` are the title and the label."""
    axes = figure.subplots()
    headline(figure, words[0])
    axes.plot(*past, color=BLACK, linewidth=1.2, label="observed")
    _bands(axes, fan, labeled=True)
    colors = colors_of(list(baselines or {}))
    for (name, values), dash in zip((baselines or {}).items(), DASHES[1:], strict=False):
        axes.plot(fan.time, values, linestyle=dash, color=colors[name], linewidth=1.2, label=name)
    if actual is not None:
        axes.plot(fan.time, actual, color=BLACK, linewidth=1.2, linestyle=(0, (1, 1)), label="what came")
    if fan.center is not None:
        axes.plot(fan.time, fan.center, color=BLUE, linewidth=1.8, label="median" if 0.5 in fan.quantiles else "mean")
    if len(past[0]):
        axes.axvline(past[0][-1], color=GRAY, linewidth=1, linestyle=":")
    axes.set_ylabel(label_of(words[1], 4))
    time_axis(axes, fan.time)
    legend_above(axes)
    return axes


def backtest(
    path: str | Path,
    fans: Sequence[Fan],
    *,
    time: np.ndarray,
    observed: np.ndarray,
    errors: Mapping[str, np.ndarray],
    scores: Mapping[str, float],
    title: str = "Backtest",
    label: str = "value",
) -> Path:
    """Forecasts from rolling origins over what came, the error by forecast step, and the scores of all methods.

    Args:
        path: the PNG to write.
        fans: one forecast for each origin that is to be shown.
        time, observed: `(n,)` the part of the series that is to be shown.
        errors: `(horizon,)` mean absolute error by forecast step, in the unit of the series, by method; ours first.
        scores: MASE of each method, by the same names.
        title: the headline.
        label: the quantity and its unit.

    Raises:
        ShapeError: arrays that belong together differ in length.
        MissingExtraError: matplotlib is not installed.
    """
    _same_length({"time": time, "observed": observed})
    for fan in fans:
        _same_length({"the times of a forecast": fan.time, **_named(fan)})
    _same_length({f"errors[{name!r}]": values for name, values in errors.items()})
    with figure_file(path, (10, 7)) as figure:
        headline(figure, title)
        grid = figure.add_gridspec(2, 2, height_ratios=[1.25, 1], width_ratios=[1.6, 1])
        draw_fans(figure.add_subplot(grid[0, :]), fans, time, observed, label)
        colors = colors_of([*errors, *scores])

        left = figure.add_subplot(grid[1, 0])
        for (name, values), dash in zip(errors.items(), DASHES, strict=False):
            steps = np.arange(1, len(values) + 1)
            left.plot(steps, values, linestyle=dash, color=colors[name], linewidth=1.8, label=name)
        error = label_of(f"mean absolute error\n{label}", 2.5)
        left.set(xlabel="steps ahead", ylabel=error, title="Error by forecast step")
        rows = -(-len(errors) // 2)  # of the legend, which needs room
        left.set_ylim(0, (1.05 + 0.15 * rows) * max(float(np.nanmax(values)) for values in errors.values()))
        whole_numbers(left)
        left.legend(loc="upper left", ncols=2)

        right = figure.add_subplot(grid[1, 1])
        _bars(right, list(scores), list(scores.values()), [colors[name] for name in scores])
        right.axvline(1.0, color=BLACK, linewidth=1, linestyle=":")
        right.set(title="MASE (smaller is better)", xlabel="1: repeating a season, in training")
    return Path(path)


def timings(
    path: str | Path,
    cases: Sequence[str],
    ratios: Mapping[str, Sequence[float]],
    *,
    baseline: str,
    title: str = "Timings",
) -> Path:
    """Time relative to one contender, a group of bars a case, on a logarithmic axis.

    Args:
        path: the PNG to write.
        cases: names of the cases.
        ratios: `(cases,)` median time over the baseline's, by contender; NaN where it was not run.
        baseline: the contender that all are divided by.
        title: the headline.

    Raises:
        ShapeError: a contender has not one ratio for each case.
        MissingExtraError: matplotlib is not installed.
    """
    _same_length({"cases": np.empty(len(cases)), **{name: np.asarray(values) for name, values in ratios.items()}})
    ratios = {name: values for name, values in ratios.items() if name != baseline}  # the baseline is the line at 1
    from_top = np.arange(len(cases), dtype=np.float64)
    thickness = 0.8 / max(1, len(ratios))
    with figure_file(path, (9, 1.6 + len(cases) * (0.2 + 0.24 * len(ratios)))) as figure:
        axes = figure.subplots()
        headline(figure, title)
        for index, ((name, values), color) in enumerate(zip(ratios.items(), CYCLE, strict=False)):
            heights = from_top + (index - (len(ratios) - 1) / 2) * thickness
            # on a logarithmic axis bars start at 1, the baseline: to the left is faster, to the right slower
            bars = axes.barh(
                heights, np.asarray(values, dtype=np.float64) - 1, thickness * 0.92, left=1, color=color, label=name
            )
            for bar, ratio in zip(bars, values, strict=True):
                if np.isfinite(ratio):
                    place_of_text = (
                        {"ha": "left", "xytext": (4, 0)} if ratio >= 1 else {"ha": "right", "xytext": (-4, 0)}
                    )
                    middle = (ratio, bar.get_y() + bar.get_height() / 2)
                    axes.annotate(
                        f"{ratio:.2f}", middle, textcoords="offset points", va="center", size=8, **place_of_text
                    )
        axes.set_xscale("log")
        finite = np.array([value for values in ratios.values() for value in values if np.isfinite(value)] or [1.0])
        axes.set_xlim(min(0.5, finite.min() / 1.6), max(2.0, finite.max() * 1.6))
        ticks = [
            tick
            for tick in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
            if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]
        ]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.axvline(1.0, color=BLACK, linewidth=1, label=baseline)
        axes.set_yticks(from_top, list(cases))
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"time relative to {baseline} (below 1 is faster)")
        legend_above(axes)
    return Path(path)


def memory(
    path: str | Path, lines: Mapping[str, Sequence[tuple[float, float]]], *, title: str = "Memory of a training step"
) -> Path:
    """Memory over the length of the sequence, both on logarithmic axes, a line a contender.

    Args:
        path: the PNG to write.
        lines: `(steps, MiB)` pairs by contender.
        title: the headline.

    Raises:
        ShapeError: a contender has no pair.
        MissingExtraError: matplotlib is not installed.
    """
    if not lines or not all(lines.values()):
        raise ShapeError("a picture of memory needs at least one length for each contender")
    with figure_file(path, (8, 4.5)) as figure:
        axes = figure.subplots()
        headline(figure, title)
        for (name, pairs), color, dash in zip(lines.items(), CYCLE, DASHES, strict=False):
            steps, size = zip(*sorted(pairs), strict=True)
            axes.plot(steps, size, color=color, linestyle=dash, marker="o", markersize=4, label=name)
        ticks = sorted({steps for pairs in lines.values() for steps, _ in pairs})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        plain_log(axes)
        axes.set_xlabel("T, steps of the sequence")
        axes.set_ylabel("peak over the start (MiB)")
        legend_above(axes)
    return Path(path)


_LOSSES = {"train_loss": "training", "validation_loss": "validation"}


def draw_fans(axes: Any, fans: Sequence[Fan], time: np.ndarray, observed: np.ndarray, label: str) -> None:
    """Forecasts of several origins over what was observed, all in the color of the model; a dot begins each.

    Args: as of `backtest`; `axes` are matplotlib's.
    """
    if len(time):
        axes.plot(time, observed, color=BLACK, linewidth=1.1, label="observed")
    banded = next((number for number, fan in enumerate(fans) if fan.bands), None)
    for number, fan in enumerate(fans):
        _bands(axes, fan, labeled=number == banded)
        if fan.center is not None:
            name = f"forecast ({len(fans)} origin{'s' if len(fans) > 1 else ''} shown)" if number == 0 else None
            axes.plot(fan.time, fan.center, color=BLUE, linewidth=1.5, label=name)
            axes.plot(fan.time[0], fan.center[0], "o", color=BLUE, markersize=4)
    axes.set_ylabel(label_of(label, 3), parse_math=False)  # names are plain text: $, _, ^ and % mean themselves
    time_axis(axes, time if len(time) else fans[0].time)
    legend_above(axes)


def _bands(axes: Any, fan: Fan, *, labeled: bool) -> None:
    """Shaded areas between pairs of quantiles, the narrower the darker."""
    for at, (coverage, low, high) in enumerate(fan.bands):
        text = f"{100 * coverage:.0f} % interval" if labeled else None
        axes.fill_between(fan.time, low, high, color=BLUE, alpha=0.18 + 0.12 * at, linewidth=0, label=text)


def _bars(axes: Any, names: Sequence[str], values: Sequence[float], colors: Sequence[str]) -> None:
    """Horizontal bars from top to bottom, each with its value."""
    heights = np.arange(len(names))
    axes.barh(heights, values, 0.62, color=colors)
    for height, value in zip(heights, values, strict=True):
        text = f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"
        axes.annotate(text, (value, height), (4, 0), textcoords="offset points", va="center", bbox=PLAIN)
    axes.set_yticks(heights, names)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, 1.18 * max([1.0, *(value for value in values if np.isfinite(value))]))


def _named(fan: Fan) -> dict[str, np.ndarray]:
    named = {f"the quantile {level:g}": values for level, values in fan.quantiles.items()}
    return named if fan.mean is None else {**named, "the mean": fan.mean}


def _lengths(arrays: Mapping[str, np.ndarray]) -> str:
    return ", ".join(f"{name} {np.shape(values)}" for name, values in arrays.items()) or "none"


def _same_length(arrays: Mapping[str, Any]) -> None:
    shapes = {np.shape(values) for values in arrays.values()}
    if len(shapes) > 1 or any(len(shape) != 1 or shape[0] == 0 for shape in shapes):
        raise ShapeError(f"a picture needs one-dimensional arrays of one length, got {_lengths(arrays)}")
