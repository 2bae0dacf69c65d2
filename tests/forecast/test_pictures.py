"""Pictures of results: the right part of the series, forecasts that do not overlap, names in the headline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpulstm.data.labels import Labels
from gpulstm.data.loading import load_series
from gpulstm.data.times import TimeForm
from gpulstm.forecast import pictures
from gpulstm.forecast.results import Backtest, Forecast
from gpulstm.plots import figures

VALUES = np.stack([np.arange(60.0), np.arange(60.0) + 100])[:, :, None]  # (series, time, 1)
SERIES = load_series(VALUES)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What reaches `plots`, in place of a picture."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(figures, "forecast", lambda path, fan, **rest: calls.append({"fan": fan, **rest}))
    monkeypatch.setattr(figures, "backtest", lambda path, fans, **rest: calls.append({"fans": fans, **rest}))
    return calls


def test_a_forecast_follows_the_end_of_its_series(drawn: list[dict[str, Any]]) -> None:
    mean = VALUES[:, :4] + 60
    quantiles = mean[..., None] + np.array([-1.0, 0.0, 1.0])
    index = np.tile(np.arange(60.0, 64.0), (2, 1))
    forecast = Forecast(SERIES.names, SERIES.target_names, index, mean, (0.1, 0.5, 0.9), quantiles)
    pictures.draw_forecast("x.png", forecast, SERIES, series=1)
    (call,) = drawn
    np.testing.assert_array_equal(call["observed"], VALUES[1, -30:, 0])
    np.testing.assert_array_equal(call["time"], np.arange(30.0, 60.0))
    np.testing.assert_array_equal(call["fan"].quantiles[0.9], mean[1, :, 0] + 1)
    assert call["title"] == f"{SERIES.target_names[0]} of {SERIES.names[1]}: 4 steps ahead"
    pictures.draw_forecast("x.png", forecast, SERIES, title="Ours", label="metres")
    assert (drawn[1]["title"], drawn[1]["label"]) == ("Ours", "metres")


def test_a_forecast_from_an_end_alone_counts_on_from_the_whole_series(drawn: list[dict[str, Any]]) -> None:
    end = load_series(VALUES[:, -8:])
    index = np.tile(np.arange(60.0, 64.0), (2, 1))
    pictures.draw_forecast("x.png", Forecast(end.names, end.target_names, index, VALUES[:, :4]), end)
    np.testing.assert_array_equal(drawn[0]["time"], np.arange(52.0, 60.0))


@pytest.mark.parametrize(
    ("form", "index"),
    [
        (TimeForm(zone="Europe/Berlin"), np.datetime64("2024-03-31T00", "us") + np.arange(4) * np.timedelta64(1, "h")),
        (TimeForm(zone="Europe/Berlin", epoch="s"), 1711843200 + 3600 * np.arange(4)),
    ],
)
def test_times_are_drawn_on_the_clock_of_their_zone(form: TimeForm, index: np.ndarray) -> None:
    forecast = Forecast(SERIES.names[:1], SERIES.target_names, index[None], VALUES[:1, :4], labels=Labels(form=form))
    fan, *_ = pictures._shown(forecast, None, 0, 0, "")
    assert [str(time)[11:13] for time in fan.time] == ["01", "03", "04", "05"]  # summer began at 2


def backtest_of(origins: list[int], series: list[int], horizon: int = 10) -> Backtest:
    """A backtest whose forecasts are right."""
    rows = np.array(origins)[:, None] + np.arange(horizon)
    actual = VALUES[np.array(series)[:, None], rows]
    return Backtest(
        names=SERIES.names,
        targets=SERIES.target_names,
        series=np.array(series),
        origins=np.array(origins),
        index=rows.astype(np.float64),
        actual=actual,
        forecasts={"model": actual, "naive": actual - 2.0},
        levels=(),
        quantiles=None,
        season=1,
        scales=np.ones((2, 1)),
    )


def test_a_backtest_shows_forecasts_that_do_not_overlap(drawn: list[dict[str, Any]]) -> None:
    result = backtest_of([15, 20, 25, 30, 35, 40, 20], [0, 0, 0, 0, 0, 0, 1])
    pictures.draw_backtest("x.png", result, SERIES)
    (call,) = drawn
    assert [fan.time[0] for fan in call["fans"]] == [20, 30, 40]
    np.testing.assert_array_equal(call["observed"], VALUES[0, 10:50, 0])
    assert call["scores"] == {"model": 0.0, "naive": 2.0}
    pictures.draw_backtest("x.png", result, SERIES, series=1)
    assert [fan.time[0] for fan in drawn[1]["fans"]] == [20]


def test_at_most_so_many_forecasts_the_latest_ones() -> None:
    result = backtest_of(list(range(2, 58, 2)), [0] * 28, horizon=2)
    assert [result.origins[number] for number in pictures._apart(result, 0)] == list(range(42, 58, 2))


def test_the_pictures_are_written(tmp_path: Path) -> None:
    result = backtest_of([20, 30], [0, 0])
    assert pictures.draw_backtest(tmp_path / "a.png", result, SERIES).stat().st_size > 10_000
