"""Pictures on axes that a caller goes on with: what is drawn, and that nothing is written."""

from __future__ import annotations

import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from gpulstm.errors import MissingExtraError
from gpulstm.plots.axes import fans_on, history_on, own_axes
from gpulstm.plots.figures import Fan

mpl.use("Agg")
STEPS = np.arange(5)
FAN = Fan(STEPS, {0.1: STEPS - 1.0, 0.5: STEPS + 0.0, 0.9: STEPS + 1.0})


def test_given_axes_are_drawn_on_and_returned() -> None:
    axes = Figure().subplots()
    assert fans_on(axes, [FAN], time=STEPS[::-1] * -1.0 - 1, observed=STEPS, label="$5_^%") is axes
    assert axes.get_ylabel() == "$5_^%" and not axes.yaxis.label.get_parse_math()
    assert axes.get_legend_handles_labels()[1] == ["observed", "80 % interval", "forecast (1 origin shown)"]
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), STEPS)


def test_forecasts_of_several_origins_are_named_once() -> None:
    axes = Figure().subplots()
    later = Fan(STEPS + 5, {}, STEPS * 2.0)
    fans_on(axes, [FAN, later], time=STEPS[:0], observed=STEPS[:0], label="y")
    assert axes.get_legend_handles_labels()[1] == ["80 % interval", "forecast (2 origins shown)"]
    assert len({line.get_color() for line in axes.lines}) == 1


def test_losses_that_no_epoch_has_are_left_out() -> None:
    axes = Figure().subplots()
    columns = {"epoch": [1, 2], "train_loss": [2.0, 1.0], "validation_loss": [float("nan")] * 2}
    assert history_on(axes, columns) is axes
    assert axes.get_legend_handles_labels()[1] == ["train loss"]
    assert axes.get_xlabel() == "epoch" and axes.get_ylabel().startswith("loss")


def test_new_axes_where_none_are_given() -> None:
    import matplotlib.pyplot as plt

    axes = own_axes(None)
    assert axes.figure.number in plt.get_fignums()
    plt.close(axes.figure)


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match="drawing a picture needs matplotlib"):
        own_axes(None)
