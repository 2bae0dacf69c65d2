"""The default fit: takes what comes, and says what it did."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forecasters import fitted_to, months

from gpulstm.errors import ConfigError
from gpulstm.forecast.config import ForecasterConfig
from gpulstm.forecast.forecaster import Forecaster
from gpulstm.forecast.results import MODEL, NAIVE, SEASONAL


def test_horizon_and_season_come_from_the_data(mixture: Forecaster) -> None:
    assert mixture.fitted.horizon == 12 and mixture.fitted.seasons == (12,)
    assert mixture.predict().mean.shape == (1, 12, 1)
    assert fitted_to(np.arange(20.0)).fitted.horizon == 3


@pytest.mark.parametrize("rows", [2, 3, 5, 8, 12, 20, 30])
def test_short_series_get_a_forecast_and_a_sentence(rows: int) -> None:
    model = fitted_to(months(rows))
    forecast = model.predict()
    assert forecast.quantiles is not None and np.isfinite(forecast.quantiles).all() and np.isfinite(forecast.mean).all()
    assert (np.diff(forecast.quantiles, axis=-1) >= 0).all()
    if rows < 20:
        assert any("rows" in note or "season" in note for note in model.notes)


def test_counts_stay_at_zero_or_above_and_temperatures_do_not() -> None:
    rng = np.random.default_rng(0)
    counts = fitted_to(rng.poisson(0.4, 90).astype(float))
    forecast = counts.predict()
    assert forecast.quantiles is not None and forecast.quantiles.min() == 0 and forecast.mean.min() >= 0
    assert any("nonnegative" in note for note in counts.notes)
    summer = fitted_to(25 + rng.normal(0, 2, 90))
    assert not any("nonnegative" in note for note in summer.notes)
    assert summer.fitted.mixed.nonnegative == (False,)
    assert fitted_to(25 + rng.normal(0, 2, 90), nonnegative=True).fitted.mixed.nonnegative == (True,)
    free = fitted_to(rng.poisson(0.4, 90).astype(float), nonnegative=False).predict()
    assert free.quantiles is not None and free.quantiles.min() < 0


def test_each_target_says_whether_it_is_a_count() -> None:
    rng = np.random.default_rng(0)
    table = {"rain": np.maximum(rng.normal(0, 3, 90), 0), "degrees": rng.normal(1, 3, 90), "sold": rng.poisson(3, 90)}
    model = Forecaster(4, season=7, members="simple", device="cpu")
    model.fit(table, target=list(table), progress=False)
    assert model.fitted.mixed.nonnegative == (True, False, True)
    quantiles = model.predict().quantiles
    assert quantiles is not None
    lowest = quantiles.min(axis=(0, 1, 3))
    assert lowest[0] >= 0 and lowest[1] < 0 and lowest[2] >= 0
    assert any("forecasts of rain, sold are kept" in note for note in model.notes)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"members": "ridge"}, "expected 'simple' among them"),
        ({"members": ("simple", "network")}, "networks learn what the ridge leaves"),
        ({"members": "best"}, "members holds 'best'"),
        ({"members": ("simple",), "likelihood": "gaussian"}, "of a single network"),
        ({"nonnegative": 1}, "nonnegative is 1"),
        ({"horizon": 0}, "horizon is 0"),
    ],
)
def test_a_wrong_choice_is_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Forecaster(**options)


def test_what_only_a_network_can_do_takes_a_single_one_and_says_so() -> None:
    model = fitted_to(months(), strategy="recursive", epochs=1, hidden_size=4)
    assert model.members is None
    assert any("members=('network',)" in note for note in model.notes)
    assert not ForecasterConfig().single and ForecasterConfig(members="network").single


def test_a_single_network_takes_what_comes_too() -> None:
    model = fitted_to(months(60), members="network", epochs=1, hidden_size=4)
    assert model.fitted.horizon == 10
    assert model.predict().mean.shape == (1, 10, 1)


def test_bands_of_a_stream_adapt() -> None:
    table = months(200)
    model = fitted_to({name: values[:120] for name, values in table.items()})
    stream = model.stream()
    assert (stream.spread == 1).all()
    rng = np.random.default_rng(0)
    for row in range(120, 190):  # wilder than anything before
        stream.update(np.array([table["y"][row] * np.exp(rng.normal(0, 0.5))]))
    assert stream.spread[0] > 1.2 and stream.spread[-1] > 1.2
    quiet = model.stream()
    for _ in range(40):
        quiet.update(quiet.forecast.median[0, :1])
    assert quiet.spread[0] < 0.9


def test_metrics_by_series_target_and_step(mixture: Forecaster, tmp_path: Path) -> None:
    result = mixture.backtest()
    table = result.table()
    horizon, forecasters = result.actual.shape[1], len(result.forecasts)
    assert len(table["step"]) == forecasters * (2 * horizon + 2)
    row = np.flatnonzero((table["series"] == "") & (table["step"] == 0) & (table["forecaster"] == MODEL))
    assert table["MASE"][row[0]] == pytest.approx(result.metrics()[MODEL]["MASE"])
    first = np.abs(result.actual - result.forecasts[MODEL])[:, 0].mean()
    row = np.flatnonzero((table["series"] != "") & (table["step"] == 1) & (table["forecaster"] == MODEL))
    assert table["MAE"][row[0]] == pytest.approx(first)
    result.metrics_to(tmp_path / "m.json")
    result.metrics_to(tmp_path / "m.csv")
    rows = json.loads((tmp_path / "m.json").read_text())
    assert rows[0]["forecaster"] == MODEL and rows[0]["series"] == ""
    assert (tmp_path / "m.csv").read_text().startswith("series,target,step,forecaster,MAE,RMSE")


def test_a_model_that_loses_says_to_what(mixture: Forecaster) -> None:
    result = mixture.backtest()
    forecasts = {**result.forecasts, MODEL: result.forecasts[NAIVE] + 1000}
    sentence = replace(result, forecasts=forecasts).verdict()
    assert " loses to seasonal naive with drift (" in sentence and "naive (" in sentence
    forecasts = {**result.forecasts, MODEL: result.forecasts[SEASONAL]}
    assert " loses to " in replace(result, forecasts=forecasts).verdict()
    forecasts = {MODEL: result.forecasts[NAIVE], NAIVE: result.forecasts[NAIVE]}
    assert "is as good as naive" in replace(result, forecasts=forecasts).verdict()
