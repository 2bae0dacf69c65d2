"""One look for all pictures: colors, fonts, lines, axes of dates, legends; how a figure becomes a file.

Colors are those of Okabe and Ito (2008, "Color Universal Design"), which stay apart for color-blind readers; lines
differ in style as well.
"""

from __future__ import annotations

import io
import itertools
import logging
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.arrays import files
from gpulstm.errors import DataError, missing_extra

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

FONTS = (  # for names in scripts that matplotlib's own font does not have; those that are installed are used
    "Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Microsoft YaHei", "SimHei",
    "PingFang SC", "Hiragino Sans", "Malgun Gothic", "Arial Unicode MS",
)  # fmt: skip

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


@contextmanager
def style() -> Iterator[Any]:
    """matplotlib, in this module's style while the block runs."""
    try:
        import matplotlib
        import matplotlib.figure
        import matplotlib.font_manager
    except ImportError as error:
        raise missing_extra("matplotlib", "drawing a picture") from error
    present = set(matplotlib.font_manager.get_font_names())
    logging.getLogger("matplotlib.font_manager").addFilter(_says_more)  # also of what is drawn later: `forecast.plot()`
    with matplotlib.rc_context(STYLE | {"font.family": ["DejaVu Sans", *(name for name in FONTS if name in present)]}):
        yield matplotlib


def _says_more(record: logging.LogRecord) -> bool:
    """Whether a message of matplotlib's says more than that one of `FONTS` has no bold, which no user asked for."""
    message = record.getMessage()
    return not ("Failed to find font weight" in message and any(name in message for name in FONTS))


@contextmanager
def figure_file(path: str | Path, size: tuple[float, float]) -> Iterator[Any]:
    """A figure in this module's style, written to `path` (folders made) when the block ends without an error."""
    with style() as matplotlib:
        figure = matplotlib.figure.Figure(figsize=size)
        yield figure
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        files.write(path, picture.getvalue(), DataError)


def colors_of(names: Sequence[str]) -> dict[str, str]:
    """A color for each name: its own where it has one, else the next that is free."""
    taken = {COLORS.get(name) for name in names}
    free = itertools.cycle([color for color in CYCLE if color not in taken] or CYCLE)
    return {name: COLORS[name] if name in COLORS else next(free) for name in dict.fromkeys(names)}


def headline(figure: Any, text: str) -> None:
    """The title of a picture, in as many lines as its width asks for."""
    figure.suptitle(_broken(text, int(9 * figure.get_figwidth())), x=0.01, ha="left")


def label_of(text: str, inches: float) -> str:
    """The text of a vertical axis that is so high, in as many lines as that asks for."""
    return _broken(text, int(11 * inches))


def _broken(text: str, width: int) -> str:
    """Lines of at most so many characters; matplotlib's own `wrap` takes what stands between dollars for a formula."""
    return "\n".join(textwrap.fill(line, width) for line in text.splitlines())


def time_axis(axes: Any, time: np.ndarray) -> None:
    """Short dates for times, plain numbers else; no empty margin on either side."""
    axes.margins(x=0.01)
    if np.issubdtype(np.asarray(time).dtype, np.datetime64):
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator(minticks=4, maxticks=9)
        axes.xaxis.set_major_locator(locator)
        words = {  # by the width of a tick: year, month, day, hour, minute, second
            "formats": ["%Y", "%b", "%d %b", "%H:%M", "%H:%M", "%H:%M:%S.%f"],
            "zero_formats": ["", "%b\n%Y", "%d %b", "%H:%M\n%d %b", "%H:%M", "%H:%M"],
            "offset_formats": ["", "", "%Y", "%Y", "%d %b %Y", "%d %b %Y"],
        }
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, **words))
    else:
        axes.set_xlabel("time step")


def whole_numbers(axes: Any) -> None:
    """Ticks at integers only: epochs and steps have no halves."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def plain_log(axes: Any) -> None:
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
