"""Pictures: how training went, a forecast with its bands, a backtest with its baselines, a comparison of timings.

Everything comes as plain arrays and mappings, so that the pictures also serve for numbers that were not made here.
matplotlib (the extra `plots`) draws them without a display and without its global state.  Colors are those of Okabe
and Ito (2008, "Color Universal Design"), which stay apart for color-blind readers; lines differ in style as well.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.arrays import files
from gpulstm.errors import DataError, ShapeError, missing_extra

BLACK, GRAY = "#202020", "#767676"
BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"
COLORS = {  # of what is drawn in more than one panel or picture
    "model": BLUE,
    "seasonal naive": VERMILION,
    "naive": GREEN,
    "drift": PURPLE,
    "seasonal naive with drift": ORANGE,
}
CYCLE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (1, 1)))

PLAIN: Any = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # behind numbers, so that no line crosses them

STYLE: Any = {
    "text.parse_math": False,  # names are plain text: $, _, ^ and % mean themselves
    "text.usetex": False,
    "axes.axisbelow": True,
    "axes.edgecolor": GRAY,
    "axes.grid": True,
    "axes.labelcolor": BLACK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "figure.dpi": 130,
    "figure.titlesize": "large",
    "figure.titleweight": "bold",
    "font.size": 10,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "savefig.dpi": 130,
    "xtick.color": GRAY,
    "xtick.labelcolor": BLACK,
    "ytick.color": GRAY,
    "ytick.labelcolor": BLACK,
}


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
    with _figure(path, (8, 5.6 if varied else 4.4)) as figure:
        figure.suptitle(title, x=0.01, ha="left")
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
            _plain_log(upper)
        upper.set_ylabel("loss (scaled units)")
        legend_above(upper)
        if lower and rate is not None:
            lower[0].plot(epoch, rate, color=GREEN, marker=marker, markersize=3.5)
            lower[0].set_ylabel("learning rate")
            lower[0].set_ylim(bottom=0)
        _whole_numbers((lower or [upper])[0])
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
    with _figure(path, (10, 4.8)) as figure:
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
    figure.suptitle(words[0], x=0.01, ha="left")
    axes.plot(*past, color=BLACK, linewidth=1.2, label="observed")
    _bands(axes, fan, labeled=True)
    colors = _colors(list(baselines or {}))
    for (name, values), dash in zip((baselines or {}).items(), DASHES[1:], strict=False):
        axes.plot(fan.time, values, linestyle=dash, color=colors[name], linewidth=1.2, label=name)
    if actual is not None:
        axes.plot(fan.time, actual, color=BLACK, linewidth=1.2, linestyle=(0, (1, 1)), label="what came")
    if fan.center is not None:
        axes.plot(fan.time, fan.center, color=BLUE, linewidth=1.8, label="median" if 0.5 in fan.quantiles else "mean")
    if len(past[0]):
        axes.axvline(past[0][-1], color=GRAY, linewidth=1, linestyle=":")
    axes.set_ylabel(words[1])
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
    with _figure(path, (10, 7)) as figure:
        figure.suptitle(title, x=0.01, ha="left")
        grid = figure.add_gridspec(2, 2, height_ratios=[1.25, 1], width_ratios=[1.6, 1])
        draw_fans(figure.add_subplot(grid[0, :]), fans, time, observed, label)
        colors = _colors([*errors, *scores])

        left = figure.add_subplot(grid[1, 0])
        for (name, values), dash in zip(errors.items(), DASHES, strict=False):
            steps = np.arange(1, len(values) + 1)
            left.plot(steps, values, linestyle=dash, color=colors[name], linewidth=1.8, label=name)
        left.set(xlabel="steps ahead", ylabel=f"mean absolute error\n{label}", title="Error by forecast step")
        rows = -(-len(errors) // 2)  # of the legend, which needs room
        left.set_ylim(0, (1.05 + 0.15 * rows) * max(float(np.nanmax(values)) for values in errors.values()))
        _whole_numbers(left)
        left.legend(loc="upper left", ncols=2)

        right = figure.add_subplot(grid[1, 1])
        _bars(right, list(scores), list(scores.values()), [colors[name] for name in scores])
        right.axvline(1.0, color=BLACK, linewidth=1, linestyle=":")
        right.set(title="MASE (smaller is better)", xlabel="1 is repeating the last season, before the test")
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
    with _figure(path, (9, 1.6 + len(cases) * (0.2 + 0.24 * len(ratios)))) as figure:
        axes = figure.subplots()
        figure.suptitle(title, x=0.01, ha="left")
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
    with _figure(path, (8, 4.5)) as figure:
        axes = figure.subplots()
        figure.suptitle(title, x=0.01, ha="left")
        for (name, pairs), color, dash in zip(lines.items(), CYCLE, DASHES, strict=False):
            steps, size = zip(*sorted(pairs), strict=True)
            axes.plot(steps, size, color=color, linestyle=dash, marker="o", markersize=4, label=name)
        ticks = sorted({steps for pairs in lines.values() for steps, _ in pairs})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        _plain_log(axes)
        axes.set_xlabel("T, steps of the sequence")
        axes.set_ylabel("peak over the start (MiB)")
        legend_above(axes)
    return Path(path)


_LOSSES = {"train_loss": "training", "validation_loss": "validation"}


@contextmanager
def style() -> Iterator[Any]:
    """matplotlib, in this module's style while the block runs."""
    try:
        import matplotlib
        import matplotlib.figure
    except ImportError as error:
        raise missing_extra("matplotlib", "drawing a picture") from error
    with matplotlib.rc_context(STYLE):
        yield matplotlib


@contextmanager
def _figure(path: str | Path, size: tuple[float, float]) -> Iterator[Any]:
    """A figure in this module's style, written to `path` (folders made) when the block ends without an error."""
    with style() as matplotlib:
        figure = matplotlib.figure.Figure(figsize=size)
        yield figure
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        files.write(path, picture.getvalue(), DataError)


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
    axes.set_ylabel(label, parse_math=False)  # names are plain text: $, _, ^ and % mean themselves
    time_axis(axes, time if len(time) else fans[0].time)
    legend_above(axes)


def _colors(names: Sequence[str]) -> dict[str, str]:
    """A color for each name: its own where it has one, else the next that is free."""
    taken = {COLORS.get(name) for name in names}
    free = itertools.cycle([color for color in CYCLE if color not in taken] or CYCLE)
    return {name: COLORS[name] if name in COLORS else next(free) for name in dict.fromkeys(names)}


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


def time_axis(axes: Any, time: np.ndarray) -> None:
    """Short dates for times, plain numbers else; no empty margin on either side."""
    axes.margins(x=0.01)
    if np.issubdtype(np.asarray(time).dtype, np.datetime64):
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator(minticks=4, maxticks=9)
        axes.xaxis.set_major_locator(locator)
        words = {  # by the width of a tick: year, month, day, hour, minute, second
            "formats": ["%Y", "%b", "%d %b", "%H:%M", "%H:%M", "%S.%f"],
            "zero_formats": ["", "%b\n%Y", "%d %b", "%H:%M\n%d %b", "%H:%M", "%H:%M"],
            "offset_formats": ["", "", "%Y", "%Y", "%d %b %Y", "%d %b %Y %H:%M"],
        }
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, **words))
    else:
        axes.set_xlabel("time step")


def _whole_numbers(axes: Any) -> None:
    """Ticks at integers only: epochs and steps have no halves."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _plain_log(axes: Any) -> None:
    """A logarithmic vertical axis with ticks at 1, 2 and 5 of each decade, written as plain numbers."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def legend_above(axes: Any) -> None:
    """The legend in a row above the axes, where it hides no data."""
    shape: Any = {"columnspacing": 1.4, "handlelength": 1.8, "borderaxespad": 0.2, "frameon": False}
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=6, **shape)


def _named(fan: Fan) -> dict[str, np.ndarray]:
    named = {f"the quantile {level:g}": values for level, values in fan.quantiles.items()}
    return named if fan.mean is None else {**named, "the mean": fan.mean}


def _lengths(arrays: Mapping[str, np.ndarray]) -> str:
    return ", ".join(f"{name} {np.shape(values)}" for name, values in arrays.items()) or "none"


def _same_length(arrays: Mapping[str, Any]) -> None:
    shapes = {np.shape(values) for values in arrays.values()}
    if len(shapes) > 1 or any(len(shape) != 1 or shape[0] == 0 for shape in shapes):
        raise ShapeError(f"a picture needs one-dimensional arrays of one length, got {_lengths(arrays)}")
