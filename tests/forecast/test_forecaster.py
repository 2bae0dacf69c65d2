"""The forecaster: it learns from tables and forecasts what follows them, on either device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from forecasters import SMALL, dated, many, small, wave

from gpulstm.data import datasets
from gpulstm.data.loading import load_series
from gpulstm.errors import CheckpointError, ConfigError, DataError, EngineError, NotFittedError
from gpulstm.forecast.forecaster import Forecaster
from gpulstm.forecast.results import MODEL, NAIVE, SEASONAL


def test_it_beats_both_naive_forecasts_on_carbon_dioxide() -> None:
    model = Forecaster(
        horizon=52, context=104, hidden_size=24, num_layers=1, device="cpu", epochs=8, stride=4, batch_size=32,
        validation=156, test=312, patience=None,
    ).fit(datasets.co2(), progress=False)  # fmt: skip
    result = model.backtest()
    assert not result.seen
    assert result.season == 52
    scores = {name: values["MASE"] for name, values in result.metrics().items()}
    assert scores[MODEL] < 0.7
    assert scores[MODEL] < 0.6 * scores[SEASONAL] < scores[NAIVE]
    assert 50 < result.metrics()[MODEL]["coverage"] <= 100


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    first, second, other = (
        small(recurrent_dropout=0.1),
        small(recurrent_dropout=0.1),
        small(recurrent_dropout=0.1, seed=1),
    )
    np.testing.assert_array_equal(first.predict().quantiles, second.predict().quantiles)
    assert not np.array_equal(first.predict().quantiles, other.predict().quantiles)


@pytest.mark.parametrize("rule", ["refuse", "interpolate"])
def test_the_test_part_takes_no_part_in_training(rule: str) -> None:
    values = wave()
    if rule == "interpolate":
        values[95:100] = values[117:123] = np.nan  # two gaps, the second one across the cut at row 120
    changed = values.copy()
    changed[123:] = 1e3 * np.random.default_rng(5).normal(size=27)
    first, second = (small(array, test=30, roles={"missing": rule}) for array in (values, changed))
    np.testing.assert_array_equal(first.fitted.network.params.flat, second.fitted.network.params.flat)
    np.testing.assert_array_equal(first.fitted.scaler.location, second.fitted.scaler.location)
    assert first.history.columns()["validation_loss"] == second.history.columns()["validation_loss"]


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("likelihood", ["quantile", "gaussian", "point"])
def test_every_cell_and_likelihood(cell: str, likelihood: str) -> None:
    forecast = small(cell=cell, likelihood=likelihood).predict()
    assert forecast.mean.shape == (1, 4, 1)
    assert np.isfinite(forecast.mean).all()
    if likelihood == "point":
        assert forecast.quantiles is None
        return
    assert forecast.quantiles.shape == (1, 4, 1, 3)
    assert (np.diff(forecast.quantiles, axis=-1) >= 0).all()
    np.testing.assert_allclose(forecast.median, forecast.quantile(0.5))


def test_training_on_a_device_gives_nearly_the_same(device: str) -> None:
    on_cpu, on_device = small(dtype="float64", epochs=1), small(dtype="float64", epochs=1, device=device)
    np.testing.assert_allclose(on_device.predict().quantiles, on_cpu.predict().quantiles, rtol=1e-9)


def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = small(epochs=4, recurrent_dropout=0.1)
    run = tmp_path / "run.safetensors"

    from gpulstm.training.callbacks import Callback

    class AfterTwo(Callback):
        def on_epoch(self, run: Any, row: Any) -> None:
            if row["epoch"] == 2:
                run.stop("pause")

    model = Forecaster(**{**SMALL, "epochs": 4, "recurrent_dropout": 0.1})
    model.fit(wave(), progress=False, callbacks=[AfterTwo()], checkpoint=run)
    assert len(model.history) == 2
    again = Forecaster(**{**SMALL, "epochs": 4, "recurrent_dropout": 0.1}).fit(wave(), progress=False, resume=run)
    assert len(again.history) == 4
    np.testing.assert_array_equal(again.predict().quantiles, whole.predict().quantiles)
    with pytest.raises(CheckpointError, match="belongs to another run"):
        small(hidden_size=6, epochs=4, roles={"resume": run})


def test_without_validation_the_last_weights_stay() -> None:
    model = small(validation=0, epochs=3)
    assert all(row["validation_loss"] is None for row in model.history.rows)
    assert np.isfinite(model.predict().mean).all()


def test_missing_rows_are_put_in_and_said() -> None:
    data = {name: np.delete(column, 70) for name, column in dated().items()}
    model = small(data, roles={"target": "y", "time": "day"})
    assert model.notes == [
        "1 row was missing and put in (1 gap at 2024-03-11; the longest has 1 from 2024-03-11)",
        "missing rows: carried forward in the input, masked in the loss",
    ]
    np.testing.assert_array_equal(np.diff(model.predict().index[0]), np.timedelta64(1, "D"))


@pytest.mark.parametrize(("shape", "series", "targets"), [((150,), 1, 1), ((150, 2), 1, 2), ((3, 60, 2), 3, 2)])
def test_arrays_of_every_shape(rng, shape: tuple[int, ...], series: int, targets: int) -> None:
    forecast = small(rng.normal(size=shape), validation=8).predict()
    assert forecast.mean.shape == (series, 4, targets)
    rows = shape[-2] if len(shape) > 1 else shape[0]
    np.testing.assert_array_equal(forecast.index, np.broadcast_to(np.arange(rows, rows + 4.0), (series, 4)))


def test_a_shorter_horizon_is_the_beginning_of_the_forecast(fitted: Forecaster) -> None:
    np.testing.assert_array_equal(fitted.predict(2).quantiles, fitted.predict().quantiles[:, :2])
    with pytest.raises(ConfigError, match="made for 4 steps; a mixture or a recursive one"):
        fitted.predict(5)
    with pytest.raises(ConfigError, match="horizon is 0"):
        fitted.predict(0)


def test_times_go_on_and_calendars_with_them() -> None:
    data = dated()
    model = small(data, roles={"target": "y", "past": "z", "time": "day", "calendar": ("weekly", "yearly")})
    forecast = model.predict()
    np.testing.assert_array_equal(forecast.index[0], data["day"][-1] + np.arange(1, 5))
    assert model.fitted.seasons == (7,)


def test_future_covariates_are_asked_for_and_used() -> None:
    data, ahead = dated(154), {}
    past = {name: column[:150] for name, column in data.items()}
    ahead = {"day": data["day"][150:], "k": data["k"][150:]}
    model = small(past, roles={"target": ["y", "z"], "future": "k", "time": "day"}, epochs=4)
    forecast = model.predict(future=pd.DataFrame(ahead))
    assert forecast.mean.shape == (1, 4, 2)
    np.testing.assert_array_equal(forecast.mean, model.predict(future=ahead["k"]).mean)
    assert not np.array_equal(forecast.mean, model.predict(future=-ahead["k"]).mean)
    with pytest.raises(DataError, match="next 4 rows of the future covariates k"):
        model.predict()
    whole = {"day": data["day"], "k": data["k"]}  # rows of the past are left out
    np.testing.assert_array_equal(model.predict(future=whole).mean, forecast.mean)
    with pytest.raises(DataError, match="has 3 rows for series 'series' after its last time, the forecast needs 4"):
        model.predict(future={"day": data["day"][149:153], "k": ahead["k"]})
    late = {"day": data["day"][150:] + np.timedelta64(1, "D"), "k": ahead["k"]}
    with pytest.raises(DataError, match="is at 2024-05-31, expected 2024-05-30, the time that follows"):
        model.predict(future=late)


def test_many_series_each_with_its_own_scale() -> None:
    model = Forecaster(**{**SMALL, "validation": 8, "epochs": 6})
    model.fit(many(), target="y", time="t", series="id", progress=False)
    assert model.notes == ["shorter than a window, and padded on the left: s2"]
    forecast = model.predict()
    assert forecast.names == ("s0", "s1", "s2")
    np.testing.assert_array_equal(forecast.index[:, 0], [80, 120, 14])
    ones = many((80,))
    np.testing.assert_allclose(model.predict(data=ones).mean[0], forecast.mean[0], rtol=1e-5)
    new = pd.DataFrame({"id": "new", "t": np.arange(30), "y": 1e4 + 100 * wave(30)})
    assert 9e3 < model.predict(data=new).mean.min() < 2e4
    assert 9e3 < model.predict(data=new[:11]).mean.min() < 2e4  # padded on the left
    short = model.predict(data=new[:2])
    assert model.notes[-1] == "simple forecasts, for fewer than 3 rows: new"
    np.testing.assert_array_equal(short.mean[0, :, 0], np.repeat(new["y"][1], 4))
    assert (np.diff(short.quantiles, axis=-1) > 0).all()


def test_masked_gaps() -> None:
    values = wave()
    values[[20, 50, 51, 149]] = np.nan
    forecast = small(values, roles={"missing": "mask"}).predict()
    assert np.isfinite(forecast.quantiles).all()
    whole = small(roles={"missing": "mask"})  # no gap when fitted, one when asked
    assert np.isfinite(whole.predict(data=values).quantiles).all()


def test_nothing_can_be_asked_of_it_before_it_is_fitted(tmp_path: Path) -> None:
    model = Forecaster(**SMALL)
    for call in (
        model.predict,
        model.stream,
        lambda: model.backtest(wave(), origins=1),
        lambda: model.save(tmp_path / "m"),
        lambda: model.tail,
    ):
        with pytest.raises(NotFittedError, match="call fit first"):
            call()


def test_mistakes_in_the_data(fitted: Forecaster) -> None:
    with pytest.raises(ConfigError, match="validation=3 keeps 3 rows, fewer than the horizon of 4"):
        small(validation=3)
    with pytest.raises(ConfigError, match="leave no training rows"):
        small(validation=100, test=60)
    with pytest.raises(DataError, match="a window needs 7: 3 of the context of 12"):
        small(wave(6), validation=0)
    with pytest.raises(DataError, match="longest training part has 10 rows"):
        small(wave(30))
    with pytest.raises(ConfigError, match="the series were read already"):
        small(load_series(wave()), roles={"target": "0"})
    with pytest.raises(DataError, match="other roles or order"):
        fitted.predict(data=load_series(np.stack([wave(), wave()], axis=1)))
    with pytest.raises(DataError, match="has no column '0'"):
        fitted.predict(data={"y": wave()})
    with pytest.raises(EngineError):
        small(engine="cuda")


def test_a_bound_on_memory_changes_no_bit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("gpulstm.engines.reference.BLOCK_ROWS", 32)  # a step is a block
    whole, bounded = (small(test=30, engine="reference", memory=memory) for memory in (None, "100KiB"))
    assert np.array_equal(bounded.predict().quantiles, whole.predict().quantiles)
    assert bounded.history.columns()["train_loss"] == whole.history.columns()["train_loss"]
    assert np.isclose(bounded.backtest().metrics()[MODEL]["MAE"], whole.backtest().metrics()[MODEL]["MAE"], rtol=1e-6)
    bounded.save(tmp_path / "f.safetensors")
    assert Forecaster.load(tmp_path / "f.safetensors").config.memory == "100KiB"
    with pytest.raises(ConfigError, match="memory is 0, expected a number of bytes"):
        Forecaster(memory=0)


@pytest.mark.parametrize("members", [("network",), ("simple",)])
def test_outputs_carry_ids_and_times_as_they_came(members: tuple[str, ...], tmp_path: Path) -> None:
    days = np.arange("2024-01-01", "2024-03-01", dtype="datetime64[D]")
    table = tmp_path / "t.csv"
    lines = [f"{shop},{day.item():%d/%m/%Y},{row}" for shop in (7, 8) for row, day in enumerate(days)]
    table.write_text("\n".join(["store,when,y", *lines]) + "\n")
    model = Forecaster(
        horizon=2, context=8, hidden_size=4, num_layers=1, epochs=1, members=members, device="cpu", test=6
    )
    model.fit(table, series="store", progress=False)
    model.save(tmp_path / "m.safetensors")
    for one in (model, Forecaster.load(tmp_path / "m.safetensors", "cpu")):
        one.predict().to_csv(tmp_path / "f.csv")
        rows = [line.split(",")[:2] for line in (tmp_path / "f.csv").read_text().splitlines()]
        assert rows == [["when", "store"], *([f"0{day}/03/2024", shop] for shop in "78" for day in (1, 2))]
        frame = one.predict().to_frame()
        assert frame["store"].tolist() == [7, 7, 8, 8]
        assert frame["when"].tolist() == [pd.Timestamp(2024, 3, day) for day in (1, 2, 1, 2)]
    assert list(model.backtest().to_frame())[:2] == ["when", "store"]


def test_absent_rows_of_events_count_as_zero() -> None:
    days = np.arange("2024-01-01", "2024-05-01", dtype="datetime64[D]")[::6]
    for members in (("network",), ("simple",)):
        model = Forecaster(2, context=8, hidden_size=4, num_layers=1, epochs=1, members=members, device="cpu")
        model.fit({"t": days, "y": np.full(len(days), 60.0)}, missing="zero", freq="D", progress=False)
        assert np.isfinite(model.predict().mean).all()
        assert model.predict().index[0, 0] == days[-1] + 1
