"""Pictures: they are written, show what they were given, and refuse arrays that do not belong together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from gpulstm.errors import MissingExtraError, ShapeError
from gpulstm.plots import figures, style

DAYS = np.arange("2020-01-01", "2020-03-01", dtype="datetime64[D]")
VALUES = np.sin(np.arange(DAYS.size) / 5)
AHEAD = DAYS[-1] + np.arange(1, 11)
MEDIAN = np.linspace(0, 1, 10)
FAN = figures.Fan(AHEAD, {0.1: MEDIAN - 0.3, 0.25: MEDIAN - 0.1, 0.5: MEDIAN, 0.75: MEDIAN + 0.1, 0.9: MEDIAN + 0.3})


@pytest.fixture
def saved_figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved, to be looked into."""
    saved: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *args: Any, **kwargs: Any) -> None:
        saved.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return saved


def labels(figure: Figure, index: int = 0) -> list[str]:
    """The legend of one of the axes."""
    return figure.axes[index].get_legend_handles_labels()[1]


def is_picture(path: Path) -> bool:
    """Whether the file is a PNG with something on it: more than one color."""
    return len(np.unique(imread(path)[::5, ::5].reshape(-1, 4), axis=0)) > 10


def test_bands_are_pairs_around_one_half_the_widest_first() -> None:
    assert [round(coverage, 6) for coverage, _, _ in FAN.bands] == [0.8, 0.5]
    np.testing.assert_array_equal(FAN.bands[0][1], MEDIAN - 0.3)
    assert figures.Fan(AHEAD, {0.1: MEDIAN, 0.8: MEDIAN}).bands == []
    np.testing.assert_array_equal(figures.Fan(AHEAD, {}, MEDIAN + 2).center, MEDIAN + 2)


def test_forecast(tmp_path: Path, saved_figures: list[Figure]) -> None:
    path = tmp_path / "new folder" / "forecast.png"
    written = figures.forecast(
        path,
        FAN,
        time=DAYS,
        observed=VALUES,
        actual=MEDIAN,
        baselines={"naive": MEDIAN * 0},
        title="Ours",
        label="x (m)",
    )
    assert written == path
    assert is_picture(path)
    assert labels(saved_figures[0]) == ["observed", "80 % interval", "50 % interval", "naive", "what came", "median"]
    lines = {line.get_label(): line.get_ydata() for line in saved_figures[0].axes[0].lines}
    np.testing.assert_array_equal(lines["observed"], VALUES)
    np.testing.assert_array_equal(lines["median"], MEDIAN)
    assert saved_figures[0].axes[0].get_ylabel() == "x (m)"


def test_forecast_without_quantiles_or_dates(tmp_path: Path, saved_figures: list[Figure]) -> None:
    fan = figures.Fan(np.arange(60.0, 70.0), {}, MEDIAN)
    figures.forecast(tmp_path / "a.png", fan, time=np.arange(60.0), observed=VALUES)
    assert labels(saved_figures[0]) == ["observed", "mean"]
    assert saved_figures[0].axes[0].get_xlabel() == "time step"


def test_history_marks_the_best_epoch(tmp_path: Path, saved_figures: list[Figure]) -> None:
    columns = {
        "train_loss": [3.0, 2.0, 1.0, 0.5],
        "validation_loss": [3.0, 1.5, 1.0, 1.2],
        "rate": [0.1, 0.1, 0.1, 0.01],
    }
    figures.history(tmp_path / "a.png", {"epoch": [1, 2, 3, 4], **columns})
    assert is_picture(tmp_path / "a.png")
    assert labels(saved_figures[0]) == ["training", "validation", "best: 1, epoch 3"]
    assert len(saved_figures[0].axes) == 2  # the rate changed, so it is shown


def test_history_of_training_loss_alone(tmp_path: Path, saved_figures: list[Figure]) -> None:
    columns = {"train_loss": [3.0, 2.0], "validation_loss": [np.nan, np.nan], "rate": [0.1, 0.1]}
    figures.history(tmp_path / "a.png", columns)
    assert labels(saved_figures[0]) == ["training", "best: 2, epoch 2"]
    assert len(saved_figures[0].axes) == 1


def test_backtest(tmp_path: Path, saved_figures: list[Figure]) -> None:
    late = figures.Fan(DAYS[-10:], FAN.quantiles)
    early = figures.Fan(DAYS[-20:-10], {}, MEDIAN)
    errors = {"LSTM": np.arange(10.0), "naive": np.arange(10.0) + 1}
    figures.backtest(
        tmp_path / "a.png",
        [early, late],
        time=DAYS,
        observed=VALUES,
        errors=errors,
        scores={"LSTM": 0.5, "naive": 1.5},
        label="x (m)",
    )
    assert is_picture(tmp_path / "a.png")
    upper, left, right = saved_figures[0].axes
    assert labels(saved_figures[0], 0) == [
        "observed", "forecast (2 origins shown)", "80 % interval", "50 % interval",
    ]  # fmt: skip
    assert {line.get_color() for line in upper.lines[1:]} == {style.BLUE}  # every forecast in the model's color
    assert labels(saved_figures[0], 1) == ["LSTM", "naive"]
    assert [text.get_text() for text in right.texts] == ["0.50", "1.50"]
    assert "x (m)" in left.get_ylabel()
    assert upper.get_ylabel() == "x (m)"


def test_timings_are_ratios_to_the_baseline(tmp_path: Path, saved_figures: list[Figure]) -> None:
    figures.timings(tmp_path / "a.png", ["a", "b"], {"ours": [0.5, np.nan], "peer": [1.0, 1.0]}, baseline="peer")
    assert is_picture(tmp_path / "a.png")
    assert [text.get_text() for text in saved_figures[0].axes[0].texts] == ["0.50"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda path: figures.history(path, {}), "train_loss"),
        (lambda path: figures.history(path, {"train_loss": [1.0], "rate": [1.0, 2.0]}), r"rate \(2,\)"),
        (lambda path: figures.forecast(path, FAN, time=DAYS, observed=VALUES[1:]), r"observed \(59,\)"),
        (lambda path: figures.forecast(path, FAN, time=DAYS, observed=VALUES, actual=MEDIAN[1:]), r"actual \(9,\)"),
        (lambda path: figures.timings(path, ["a"], {"x": [1.0, 2.0]}, baseline="x"), r"x \(2,\)"),
    ],
)
def test_arrays_that_do_not_belong_together(call: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match=words):
        call(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match="pip install matplotlib"):
        figures.history(tmp_path / "a.png", {"train_loss": [1.0]})


def test_importing_plots_does_not_import_matplotlib() -> None:
    code = "import sys, gpulstm.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_memory_over_lengths(tmp_path: Path, saved_figures: list[Figure]) -> None:
    path = figures.memory(tmp_path / "m.png", {"whole": [(500, 80.0), (250, 40.0)], "sqrt": [(250, 9.0)]})
    assert is_picture(path) and labels(saved_figures[0]) == ["whole", "sqrt"]
    assert saved_figures[0].axes[0].lines[0].get_xdata().tolist() == [250, 500]  # type: ignore[union-attr]
    with pytest.raises(ShapeError, match="at least one length for each contender"):
        figures.memory(tmp_path / "n.png", {"whole": []})
