"""The look of pictures: dates that read well, names of any length that stay within the picture."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from matplotlib.figure import Figure

from gpulstm.plots import style


@pytest.mark.parametrize(
    ("first", "last", "step", "shown"),
    [
        ("2015-11-06", "2015-12-30", "D", "15 Nov"),
        ("2013-01-01", "2015-12-30", "D", "Jan\n2014"),
        ("2015-01-01", "2015-11-30", "D", "Mar"),
        ("2024-12-31T20", "2025-01-01T05", "m", "00:00\n01 Jan"),
    ],
)
def test_dates_read_well(first: str, last: str, step: str, shown: str) -> None:
    axes = Figure().subplots()
    time = np.arange(first, last, dtype=f"datetime64[{step}]")
    axes.plot(time, np.arange(len(time)))
    style.time_axis(axes, time)
    axes.figure.canvas.draw()
    assert shown in [label.get_text() for label in axes.get_xticklabels()]


def test_a_long_title_stays_within_the_picture() -> None:
    with style.style() as matplotlib:
        figure = matplotlib.figure.Figure(figsize=(10, 4))
        figure.subplots()
        style.headline(figure, "load (kW) of " + "a substation with a long name, " * 5)
        figure.canvas.draw()
        title = figure._suptitle.get_window_extent()
        assert title.height > 30 and title.x1 < figure.bbox.width
        assert title.y0 > figure.axes[0].get_window_extent().y1 - 5


def test_dollars_of_a_long_title_are_no_formula_also_where_it_is_drawn_later() -> None:
    with style.style() as matplotlib:
        figure = matplotlib.figure.Figure(figsize=(4, 3))
        style.headline(figure, "net_$_a_$ and Ba$$in yield of a substation with a long name")
    figure.canvas.draw()
    assert "\n" in figure._suptitle.get_text()


def test_of_fonts_only_what_a_user_asked_for_is_said() -> None:
    with style.style():
        log = logging.getLogger("matplotlib.font_manager")
        words = "findfont: Failed to find font weight bold for %s, now using 500."
        shown = [log.filter(log.makeRecord("", 30, "", 0, words, (name,), None)) for name in (style.FONTS[0], "Arial")]
    assert [bool(one) for one in shown] == [False, True]


def test_a_long_label_is_broken_and_its_own_lines_are_kept() -> None:
    assert style.label_of("mean absolute error\ntemperature (°C)", 2.5) == "mean absolute error\ntemperature (°C)"
    assert style.label_of("load of everything that is connected there", 2.5).count("\n") == 1


def test_a_thing_has_its_color_and_others_have_what_is_left() -> None:
    chosen = style.colors_of(["model", "theta", "naive", "Holt"])
    assert chosen["model"] == style.BLUE and chosen["naive"] == style.COLORS["naive"]
    assert len(set(chosen.values())) == 4
