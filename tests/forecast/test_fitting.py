"""Members are fitted, judged and mixed: who forecasts, and whether it pays."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from forecasters import fitted_to, months

from gpulstm.errors import DataError
from gpulstm.forecast.forecaster import Forecaster
from gpulstm.forecast.results import MODEL, NAIVE, SEASONAL


def test_the_mixture_beats_simple_forecasts_where_there_is_something_to_learn(mixture: Forecaster) -> None:
    result = mixture.backtest(stride=1)
    scores = {name: errors["MASE"] for name, errors in result.metrics().items()}
    assert scores[MODEL] < 0.7 * min(scores[SEASONAL], scores[NAIVE])
    assert "beats" in result.verdict()
    assert 60 < result.metrics()[MODEL]["coverage"] <= 100
    assert not result.seen


def test_it_says_who_forecasts(mixture: Forecaster) -> None:
    report = mixture.members
    assert report is not None
    weights = [one["weight"] for one in report["members"]]
    assert sum(weights) == pytest.approx(1.0) and min(weights) >= 0
    names = [one["name"] for one in report["members"]]
    assert {"naive", "seasonal naive", "theta", "ridge on theta"} <= set(names)
    assert report["reference"] == "seasonal naive"
    assert report["error"] < 1 and report["without_networks"] > 0
    json.dumps(report)
    summary = mixture.summary()
    assert "ridge on theta" in summary and "the mixture without networks" in summary


def test_known_covariates_help() -> None:
    rng = np.random.default_rng(0)
    known, past = rng.normal(size=400), rng.normal(size=400)
    table = {"y": 50 + 5 * known + rng.normal(0, 0.5, 400), "k": known, "p": past}
    model = Forecaster(4, device="cpu", test=60, season=1)
    model.fit(table, target="y", future="k", past="p", progress=False)
    result = model.backtest(stride=1).metrics()
    assert result[MODEL]["MASE"] < 0.3 * result[NAIVE]["MASE"]
    with pytest.raises(DataError):
        model.predict()
    assert model.predict(future=np.zeros((4, 1))).mean.shape == (1, 4, 1)


def test_members_may_be_chosen() -> None:
    simple = fitted_to(months(), members="simple")
    report = simple.members
    assert report is not None and not any("ridge" in one["name"] for one in report["members"])
    linear = fitted_to(months(), members=("simple", "ridge"))
    assert linear.members is not None
    names = [one["name"] for one in linear.members["members"]]
    assert any("ridge" in name for name in names) and not any("LSTM" in name for name in names)
    assert not linear.history.rows
    gru = fitted_to(months(), cell="gru", hidden_size=8, epochs=2)
    assert gru.history.rows and len(gru.history.rows) <= 2


@pytest.mark.parametrize("value", [0.0, 5.0, -2.0])
def test_a_constant_series_stays(value: float) -> None:
    forecast = fitted_to(np.full(80, value)).predict()
    np.testing.assert_allclose(forecast.mean, value, atol=1e-9)
    np.testing.assert_allclose(forecast.quantiles, value, atol=1e-9)


def test_hours_know_their_calendar() -> None:
    hours = np.arange(24 * 7 * 8)
    time = np.datetime64("2024-01-01T00", "h") + hours
    weekend = ((hours // 24) % 7 >= 5).astype(float)
    noise = np.random.default_rng(0).normal(0, 1, len(hours))
    table = {"t": time, "y": 100 + 10 * np.sin(2 * np.pi * hours / 24) - 30 * weekend + noise}
    model = Forecaster(device="cpu", members=("simple", "ridge"), test=24 * 7)
    model.fit(table, time="t", progress=False)
    assert model.fitted.horizon == 24
    result = model.backtest(stride=1).metrics()
    assert result[MODEL]["MASE"] < 0.5 * result[SEASONAL]["MASE"]


def test_past_covariates_are_read_where_they_help_and_change_nothing_else() -> None:
    rng = np.random.default_rng(0)
    y = np.sin(np.arange(200) * 2 * np.pi / 7) + 0.3 * rng.normal(size=200)
    days = np.datetime64("2024-01-01") + np.arange(200)

    def fitted(**columns: np.ndarray) -> Forecaster:
        options: dict[str, Any] = {"horizon": 3, "members": ("simple", "ridge"), "device": "cpu"}
        roles: dict[str, Any] = {"target": "y", "past": [*columns], "time": "day", "progress": False}
        return Forecaster(**options).fit({"day": days, "y": y, **columns}, **roles)

    alone, noise = fitted(), fitted(x=rng.normal(size=200))
    np.testing.assert_array_equal(noise.predict().mean, alone.predict().mean)
    leading = fitted(x=np.roll(y, -3) + 0.05 * rng.normal(size=200))
    assert leading.members["error"] < 0.7 * alone.members["error"]
