"""The default fit: takes what comes, says what it did, and is kept whole by files, streams and interruptions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpulstm.errors import CheckpointError, ConfigError, DataError
from gpulstm.forecast.config import ForecasterConfig
from gpulstm.forecast.forecaster import Forecaster
from gpulstm.forecast.results import MODEL, NAIVE, SEASONAL
from gpulstm.training.callbacks import Callback, Run


def months(rows: int = 144, seed: int = 0) -> dict[str, np.ndarray]:
    """A trend and a season that grows with it."""
    steps = np.arange(rows)
    noise = np.random.default_rng(seed).normal(0, 0.03, rows)
    values = (100 + steps) * (1 + 0.3 * np.sin(2 * np.pi * steps / 12)) * np.exp(noise)
    return {"month": np.datetime64("2010-01", "M") + steps, "y": values}


def fit(table: Any, **options: Any) -> Forecaster:
    roles = {"time": "month"} if isinstance(table, dict) and "month" in table else {}
    return Forecaster(**{"device": "cpu", **options}).fit(table, progress=False, **roles)


@pytest.fixture(scope="module")
def fitted() -> Forecaster:
    return fit(months(), test=30)


def test_the_mixture_beats_simple_forecasts_where_there_is_something_to_learn(fitted: Forecaster) -> None:
    result = fitted.backtest(stride=1)
    scores = {name: errors["MASE"] for name, errors in result.metrics().items()}
    assert scores[MODEL] < 0.7 * min(scores[SEASONAL], scores[NAIVE])
    assert "beats" in result.verdict()
    assert 60 < result.metrics()[MODEL]["coverage"] <= 100
    assert not result.seen


def test_horizon_and_season_come_from_the_data(fitted: Forecaster) -> None:
    assert fitted.fitted.horizon == 12 and fitted.fitted.seasons == (12,)
    assert fitted.predict().mean.shape == (1, 12, 1)
    assert fit(np.arange(20.0)).fitted.horizon == 3


def test_it_says_who_forecasts(fitted: Forecaster) -> None:
    report = fitted.members
    assert report is not None
    weights = [one["weight"] for one in report["members"]]
    assert sum(weights) == pytest.approx(1.0) and min(weights) >= 0
    names = [one["name"] for one in report["members"]]
    assert {"naive", "seasonal naive", "theta", "ridge on theta"} <= set(names)
    assert report["reference"] == "seasonal naive"
    assert report["error"] < 1 and report["without_networks"] > 0
    json.dumps(report)
    summary = fitted.summary()
    assert "ridge on theta" in summary and "the mixture without networks" in summary


def test_a_file_gives_the_same_back(fitted: Forecaster, tmp_path: Path) -> None:
    fitted.save(tmp_path / "m.safetensors")
    loaded = Forecaster.load(tmp_path / "m.safetensors", "cpu")
    assert loaded.members == fitted.members and loaded.notes == fitted.notes
    np.testing.assert_array_equal(loaded.predict().quantiles, fitted.predict().quantiles)
    assert loaded.config.horizon == "auto" and loaded.fitted.horizon == 12
    assert loaded.history.rows == fitted.history.rows


@pytest.mark.parametrize("rows", [2, 3, 5, 8, 12, 20, 30])
def test_short_series_get_a_forecast_and_a_sentence(rows: int) -> None:
    model = fit(months(rows))
    forecast = model.predict()
    assert forecast.quantiles is not None and np.isfinite(forecast.quantiles).all() and np.isfinite(forecast.mean).all()
    assert (np.diff(forecast.quantiles, axis=-1) >= 0).all()
    if rows < 20:
        assert any("rows" in note or "season" in note for note in model.notes)


@pytest.mark.parametrize("value", [0.0, 5.0, -2.0])
def test_a_constant_series_stays(value: float) -> None:
    forecast = fit(np.full(80, value)).predict()
    np.testing.assert_allclose(forecast.mean, value, atol=1e-9)
    np.testing.assert_allclose(forecast.quantiles, value, atol=1e-9)


def test_more_steps_than_it_was_made_for(fitted: Forecaster) -> None:
    near, far = fitted.predict(), fitted.predict(40)
    assert far.quantiles is not None and near.quantiles is not None
    np.testing.assert_allclose(far.median[:, :12], near.median, rtol=1e-12)
    width = far.quantiles[0, :, 0, -1] - far.quantiles[0, :, 0, 0]
    assert np.isfinite(width).all() and width[-1] > width[11]
    np.testing.assert_array_equal(fitted.predict(5).median, near.median[:, :5])


def test_levels_mean_and_median_are_named() -> None:
    model = fit(months(), quantiles=(0.05, 0.25, 0.75, 0.95))
    forecast = model.predict()
    assert list(forecast.columns()) == ["time", "series", "target", "mean", "median"] + [
        "q0.05", "q0.25", "q0.75", "q0.95",
    ]  # fmt: skip
    assert forecast.quantiles is not None
    assert (np.diff(forecast.quantiles, axis=-1) > 0).all()
    low, high = forecast.quantiles[..., 1], forecast.quantiles[..., 2]
    assert ((low < forecast.median) & (forecast.median < high)).all()


def test_several_targets_and_series() -> None:
    rng = np.random.default_rng(0)
    steps = np.tile(np.arange(90), 9)
    series = np.repeat([f"s{k}" for k in range(9)], 90)
    table = {
        "s": series,
        "t": steps.astype(float),
        "a": 10 + np.sin(2 * np.pi * steps / 6) + rng.normal(0, 0.1, 810),
        "b": 1000 + steps + rng.normal(0, 1, 810),
    }
    model = Forecaster(6, device="cpu", season=6, test=12)
    model.fit(table, target=["a", "b"], series="s", time="t", progress=False)
    result = model.backtest(stride=6)
    assert "MAE" not in result.scaled()[MODEL] and "MAE" not in result._repr_html_()  # units do not mix
    assert result.metrics()[MODEL]["MASE"] < 1
    assert result.errors(0, 1)[MODEL]["MAE"] < 5
    assert model.predict().mean.shape == (9, 6, 2)
    one = {name: values[:90] for name, values in table.items()}
    np.testing.assert_allclose(model.predict(data=one).median[0], model.predict().median[0], rtol=1e-12)
    stranger = {**one, "s": np.repeat("new", 90)}
    assert np.isfinite(model.predict(data=stranger).mean).all()


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


def test_counts_stay_at_zero_or_above_and_temperatures_do_not() -> None:
    rng = np.random.default_rng(0)
    counts = fit(rng.poisson(0.4, 90).astype(float))
    forecast = counts.predict()
    assert forecast.quantiles is not None and forecast.quantiles.min() == 0 and forecast.mean.min() >= 0
    assert any("nonnegative" in note for note in counts.notes)
    summer = fit(25 + rng.normal(0, 2, 90))
    assert not any("nonnegative" in note for note in summer.notes)
    assert not summer.fitted.mixed.nonnegative
    assert fit(25 + rng.normal(0, 2, 90), nonnegative=True).fitted.mixed.nonnegative
    free = fit(rng.poisson(0.4, 90).astype(float), nonnegative=False).predict()
    assert free.quantiles is not None and free.quantiles.min() < 0


def test_members_may_be_chosen() -> None:
    simple = fit(months(), members="simple")
    report = simple.members
    assert report is not None and not any("ridge" in one["name"] for one in report["members"])
    linear = fit(months(), members=("simple", "ridge"))
    assert linear.members is not None
    names = [one["name"] for one in linear.members["members"]]
    assert any("ridge" in name for name in names) and not any("LSTM" in name for name in names)
    assert not linear.history.rows
    gru = fit(months(), cell="gru", hidden_size=8, epochs=2)
    assert gru.history.rows and len(gru.history.rows) <= 2


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
    model = fit(months(), strategy="recursive", epochs=1, hidden_size=4)
    assert model.members is None
    assert any("members=('network',)" in note for note in model.notes)
    assert not ForecasterConfig().single and ForecasterConfig(members="network").single


def test_a_single_network_takes_what_comes_too() -> None:
    model = fit(months(60), members="network", epochs=1, hidden_size=4)
    assert model.fitted.horizon == 10
    assert model.predict().mean.shape == (1, 10, 1)


class StopAfter(Callback):
    """Ends a run after some epochs, as Ctrl-C would."""

    name = "stop_after"

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_epoch(self, run: Run, row: Any) -> None:
        if run.epoch == self.epochs:
            run.stop("interrupted")


def test_a_fit_goes_on_from_its_checkpoint_to_the_same_bits(tmp_path: Path) -> None:
    options: dict[str, Any] = {"device": "cpu", "hidden_size": 8}
    whole = Forecaster(**options).fit(months(), time="month", progress=False)
    path = tmp_path / "run.safetensors"
    stopped = Forecaster(**options)
    stopped.fit(months(), time="month", progress=False, checkpoint=path, callbacks=[StopAfter(2)])
    assert stopped.history.stopped == "interrupted" and len(stopped.history.rows) == 2
    assert np.isfinite(stopped.predict().mean).all()  # what was reached forecasts
    resumed = Forecaster(**options).fit(months(), time="month", progress=False, resume=path)
    np.testing.assert_array_equal(resumed.predict().quantiles, whole.predict().quantiles)
    assert resumed.members == whole.members
    again = tmp_path / "again.safetensors"
    Forecaster(**options).fit(months(), time="month", progress=False, checkpoint=again)  # left by the last run
    late = Forecaster(**options).fit(months(), time="month", progress=False, resume=again)
    np.testing.assert_array_equal(late.predict().quantiles, whole.predict().quantiles)


def test_a_checkpoint_of_a_single_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    fit_single = Forecaster(members="network", epochs=1, hidden_size=4, device="cpu")
    fit_single.fit(months(), time="month", progress=False, checkpoint=path)
    with pytest.raises(CheckpointError, match="holds no run of a mixture's network"):
        Forecaster(device="cpu").fit(months(), time="month", progress=False, resume=path)


def test_bands_of_a_stream_adapt() -> None:
    table = months(200)
    model = fit({name: values[:120] for name, values in table.items()})
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


def test_metrics_by_series_target_and_step(fitted: Forecaster, tmp_path: Path) -> None:
    result = fitted.backtest()
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


def test_a_model_that_loses_says_to_what(fitted: Forecaster) -> None:
    result = fitted.backtest()
    forecasts = {**result.forecasts, MODEL: result.forecasts[NAIVE] + 1000}
    sentence = replace(result, forecasts=forecasts).verdict()
    assert " loses to seasonal naive with drift (" in sentence and "naive (" in sentence
    forecasts = {**result.forecasts, MODEL: result.forecasts[SEASONAL]}
    assert " loses to " in replace(result, forecasts=forecasts).verdict()
    forecasts = {MODEL: result.forecasts[NAIVE], NAIVE: result.forecasts[NAIVE]}
    assert "is as good as naive" in replace(result, forecasts=forecasts).verdict()


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
