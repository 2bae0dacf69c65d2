"""The forecaster: from tables to forecasts, backtests, streams and files, on either device."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpulstm import metrics
from gpulstm.data import datasets
from gpulstm.data.loading import load_series
from gpulstm.errors import CheckpointError, ConfigError, DataError, EngineError, GpulstmError, NotFittedError
from gpulstm.forecast.config import ForecasterConfig
from gpulstm.forecast.forecaster import Forecaster
from gpulstm.forecast.results import DRIFT, MODEL, NAIVE, SEASONAL, SEASONAL_DRIFT

SMALL: dict[str, Any] = {
    "members": ("network",),
    "horizon": 4,
    "context": 12,
    "hidden_size": 8,
    "num_layers": 1,
    "device": "cpu",
    "epochs": 2,
    "batch_size": 32,
    "validation": 20,
}


def wave(rows: int = 150, seed: int = 0) -> np.ndarray:
    """A trend, a season of 8 and a little noise."""
    steps = np.arange(rows)
    return 0.05 * steps + 3 * np.sin(2 * np.pi * steps / 8) + np.random.default_rng(seed).normal(0, 0.1, rows)


def dated(rows: int = 150) -> dict[str, Any]:
    days = np.datetime64("2024-01-01", "D") + np.arange(rows)
    return {"day": days, "y": wave(rows), "k": np.cos(np.arange(rows) / 5), "z": wave(rows, 1)}


def small(data: Any = None, *, roles: dict[str, Any] | None = None, **changes: Any) -> Forecaster:
    return Forecaster(**{**SMALL, **changes}).fit(wave() if data is None else data, progress=False, **(roles or {}))


@pytest.fixture(scope="module")
def fitted() -> Forecaster:
    """One small forecaster that no test changes."""
    return small(test=30)


# fitting


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
    assert 0.5 < result.metrics()[MODEL]["coverage"] <= 1


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
    here, there = small(dtype="float64", epochs=1), small(dtype="float64", epochs=1, device=device)
    np.testing.assert_allclose(there.predict().quantiles, here.predict().quantiles, rtol=1e-9)


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


def test_uneven_rows_are_noted() -> None:
    data = {name: np.delete(column, 70) for name, column in dated().items()}
    model = small(data, roles={"target": "y", "time": "day"})
    assert model.notes == ["rows not evenly spaced, so that forecasts are dated by the most frequent step: series"]
    np.testing.assert_array_equal(np.diff(model.predict().index[0]), np.timedelta64(1, "D"))


# forecasting


@pytest.mark.parametrize(("shape", "series", "targets"), [((150,), 1, 1), ((150, 2), 1, 2), ((3, 60, 2), 3, 2)])
def test_arrays_of_every_shape(rng, shape: tuple[int, ...], series: int, targets: int) -> None:
    forecast = small(rng.normal(size=shape), validation=8).predict()
    assert forecast.mean.shape == (series, 4, targets)
    rows = shape[-2] if len(shape) > 1 else shape[0]
    np.testing.assert_array_equal(forecast.index, np.broadcast_to(np.arange(rows, rows + 4.0), (series, 4)))


def test_a_forecast_is_the_network_on_the_scaled_context(fitted: Forecaster) -> None:
    part = fitted.fitted
    location, scale = wave()[:100].mean(), wave()[:100].std()
    context = ((wave()[-12:] - location) / scale).astype(np.float32)
    raw, _, _ = part.network.forward((context - context[-1])[:, None, None])
    expected = np.sort(raw[0, :, 0].astype(np.float64) + context[-1], axis=-1) * scale + location
    np.testing.assert_allclose(fitted.predict().quantiles[0, :, 0], expected, rtol=1e-6)


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
    assert model.fitted.season == 7


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
    with pytest.raises(DataError, match="expected 2024-05-30, the time that follows"):
        model.predict(future={"day": data["day"][149:153], "k": ahead["k"]})


def many(lengths: tuple[int, ...] = (80, 120, 14)) -> pd.DataFrame:
    return pd.concat(
        pd.DataFrame({"id": f"s{number}", "t": np.arange(rows), "y": (number + 1) * wave(rows, number)})
        for number, rows in enumerate(lengths)
    )


def test_many_series_each_with_its_own_scale() -> None:
    model = Forecaster(**{**SMALL, "validation": 8, "epochs": 6})
    model.fit(many(), target="y", time="t", series="id", progress=False)
    assert model.notes == ["too short to learn from: s2"]
    forecast = model.predict()
    assert forecast.names == ("s0", "s1", "s2")
    np.testing.assert_array_equal(forecast.index[:, 0], [80, 120, 14])
    ones = many((80,))
    np.testing.assert_allclose(model.predict(data=ones).mean[0], forecast.mean[0], rtol=1e-5)
    new = pd.DataFrame({"id": "new", "t": np.arange(30), "y": 1e4 + 100 * wave(30)})
    assert 9e3 < model.predict(data=new).mean.min() < 2e4
    with pytest.raises(DataError, match="series 'new' has 11 rows, fewer than the context of 12"):
        model.predict(data=new[:11])


def test_masked_gaps() -> None:
    values = wave()
    values[[20, 50, 51, 149]] = np.nan
    forecast = small(values, roles={"missing": "mask"}).predict()
    assert np.isfinite(forecast.quantiles).all()
    whole = small(roles={"missing": "mask"})  # no gap when fitted, one when asked
    assert np.isfinite(whole.predict(data=values).quantiles).all()


def test_recursive_forecasts_go_as_far_as_asked() -> None:
    model = small(strategy="recursive", draws=64, epochs=4)
    forecast = model.predict(9)
    assert forecast.quantiles.shape == (1, 9, 1, 3)
    assert (np.diff(forecast.quantiles, axis=-1) >= 0).all()
    np.testing.assert_array_equal(forecast.quantiles, model.predict(9).quantiles)
    with pytest.raises(ConfigError, match="cannot use the past covariates z"):
        small(dated(), strategy="recursive", roles={"target": "y", "past": "z", "time": "day"})


def test_a_recursive_point_forecast_is_one_step_again_and_again(device: str) -> None:
    model = small(strategy="recursive", likelihood="point", dtype="float64", window_scaling="none", device=device)
    values, expected = wave(), []
    part = model.fitted
    for _ in range(5):  # the network reads the whole sequence anew for every step
        scaled = (values[138:] - part.scaler.location[0, 0]) / part.scaler.scale[0, 0]
        raw, _, _ = part.network.forward(part.network.backend.from_host(scaled[:, None, None]))
        expected.append(float(raw[0, 0, 0, 0]) * part.scaler.scale[0, 0] + part.scaler.location[0, 0])
        values = np.append(values, expected[-1])
    np.testing.assert_allclose(model.predict(5).mean[0, :, 0], expected, rtol=1e-10)


@pytest.mark.parametrize("likelihood", ["quantile", "gaussian"])
def test_draws_follow_the_forecast_of_one_step(likelihood: str) -> None:
    model = small(strategy="recursive", likelihood=likelihood, draws=4000, quantiles=(0.1, 0.3, 0.5, 0.7, 0.9))
    part = model.fitted
    scaled = (wave()[-12:] - part.scaler.location[0, 0]) / part.scaler.scale[0, 0]
    raw, _, _ = part.network.forward((scaled - scaled[-1])[:, None, None])
    levels = (part.loss.predict(raw)["quantiles"][0, 0, 0] + scaled[-1]) * part.scaler.scale[0, 0]
    levels = levels + part.scaler.location[0, 0]
    width = levels[-1] - levels[0]
    np.testing.assert_allclose(model.predict(1).quantiles[0, 0, 0], levels, atol=0.06 * width)


# backtest


def test_a_backtest_is_a_forecast_from_each_truncated_series(fitted: Forecaster) -> None:
    result = fitted.backtest(stride=3)
    values = wave()
    np.testing.assert_array_equal(result.origins, np.arange(120, 147, 3))
    assert not result.seen
    for row, origin in enumerate(result.origins):
        alone = fitted.predict(data=values[:origin])
        np.testing.assert_allclose(result.quantiles[row], alone.quantiles[0], rtol=1e-6)
        np.testing.assert_array_equal(result.actual[row, :, 0], values[origin : origin + 4])
        np.testing.assert_array_equal(result.forecasts[NAIVE][row, :, 0], metrics.naive(values[:origin], 4))
        np.testing.assert_array_equal(result.index[row], np.arange(origin, origin + 4))
    assert SEASONAL not in result.forecasts  # without times the season is 1
    errors = result.metrics()
    assert errors[MODEL]["MASE"] == pytest.approx(
        metrics.mase(result.actual[..., 0], result.forecasts[MODEL][..., 0], values[:120], 1)
    )
    assert errors[MODEL]["MAE"] == pytest.approx(np.mean(result.errors_by_step()[MODEL]))
    assert errors[MODEL]["pinball"] == pytest.approx(metrics.pinball(result.actual, result.quantiles, (0.1, 0.5, 0.9)))
    assert "pinball" not in errors[NAIVE]


@pytest.mark.parametrize("rule", ["interpolate", "forward", "mask"])
def test_a_backtest_sees_nothing_behind_its_origin(rule: str) -> None:
    values = wave()
    values[116:122] = np.nan
    model = small(values, roles={"missing": rule})
    changed = values.copy()
    changed[122:] += 50
    first, second = (model.backtest(array, origins=[120]) for array in (values, changed))
    np.testing.assert_array_equal(first.quantiles, second.quantiles)
    assert np.isnan(first.actual[0, :2]).all()
    assert np.isfinite(first.metrics()[MODEL]["MAE"])
    assert first.seen


def test_origins_by_number_and_by_row(fitted: Forecaster) -> None:
    np.testing.assert_array_equal(fitted.backtest(origins=3, stride=5).origins, [136, 141, 146])
    np.testing.assert_array_equal(fitted.backtest(origins=[50, 146]).origins, [50, 146])
    assert fitted.backtest(origins=[50, 146]).seen
    for origins, message in (
        (60, "60 origins 3 apart, context 12 and horizon 4 need 193 rows"),
        ([11], "may lie in the rows 12 to 146"),
        ([147], "may lie in the rows 12 to 146"),
    ):
        with pytest.raises(DataError, match=message):
            fitted.backtest(origins=origins, stride=3)
    with pytest.raises(ConfigError, match="no test part to backtest on"):
        small().backtest()


def test_a_backtest_of_many_series_weighs_them_by_their_scales() -> None:
    model = Forecaster(**{**SMALL, "validation": 8, "season": 8})
    model.fit(many((80, 120)), target="y", time="t", series="id", progress=False)
    result = model.backtest(origins=4)
    np.testing.assert_array_equal(result.series, [0, 0, 0, 0, 1, 1, 1, 1])
    scaled = [
        metrics.mase(
            result.actual[result.series == index, :, 0],
            result.forecasts[MODEL][result.series == index, :, 0],
            many((80, 120)).query(f"id == 's{index}'")["y"].to_numpy()[: result.origins[result.series == index].min()],
            8,
        )
        for index in (0, 1)
    ]
    assert result.metrics()[MODEL]["MASE"] == pytest.approx(np.mean(scaled))
    assert set(result.forecasts) == {MODEL, SEASONAL, SEASONAL_DRIFT, NAIVE, DRIFT}
    assert set(result.columns()) >= {"series", "origin", "step", "time", "actual", "seasonal_naive", "q0.1"}


# streams


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_stream_carries_the_state_over_the_whole_sequence(cell: str, device: str) -> None:
    model = small(window_scaling="none", dtype="float64", cell=cell, device=device)
    values = np.concatenate([wave(), wave(20, 3)])
    part, stream = model.fitted, model.stream()
    np.testing.assert_array_equal(stream.forecast.quantiles, model.predict().quantiles)
    for start, stop in ((150, 151), (151, 156), (156, 170)):
        forecast = stream.update(values[start:stop])
        scaled = (values[138:stop] - part.scaler.location[0, 0]) / part.scaler.scale[0, 0]
        raw, _, _ = part.network.forward(part.network.backend.from_host(scaled[:, None, None]))
        raw = part.network.backend.to_host(raw)
        expected = np.sort(raw[0, :, 0], axis=-1) * part.scaler.scale[0, 0] + part.scaler.location[0, 0]
        np.testing.assert_allclose(forecast.quantiles[0, :, 0], expected, rtol=1e-10)
        np.testing.assert_array_equal(forecast.index[0], np.arange(stop, stop + 4.0))
    assert (stream.rows, stream.starts) == (20, 1)


def test_a_stream_with_scaled_windows_starts_over_when_it_has_carried_enough() -> None:
    model = small(stream_rows=5)
    values = np.concatenate([wave(), wave(20, 3)])
    stream = model.stream()
    starts = [(stream.update(values[row : row + 1]), stream.starts)[1] for row in range(150, 163)]
    assert starts == [1] * 5 + [2] * 6 + [3] * 2
    fresh = small(stream_rows=0).stream()
    for row in range(150, 153):
        forecast = fresh.update(values[row : row + 1])
    assert fresh.starts == 4
    np.testing.assert_allclose(forecast.mean, small(stream_rows=0).predict(data=values[:153]).mean, rtol=1e-6)


def test_a_carried_state_forecasts_about_as_well_as_a_fresh_one() -> None:
    values = wave(500)
    model = small(values[:400], stream_rows=8, epochs=12, horizon=4, context=24, hidden_size=16, validation=60)
    stream, fresh, carried = model.stream(), [], []
    for row in range(400, 490):
        forecast = stream.update(values[row : row + 1])
        actual = values[row + 1 : row + 5]
        carried.append(np.abs(forecast.mean[0, :, 0] - actual).mean())
        fresh.append(np.abs(model.predict(data=values[: row + 1]).mean[0, :, 0] - actual).mean())
    assert stream.starts < 15
    assert np.mean(carried) < 1.25 * np.mean(fresh)


def test_streams_of_tables_calendars_and_several_series() -> None:
    data = dated(160)
    past = {name: column[:150] for name, column in data.items()}
    roles = {"target": "y", "past": "z", "future": "k", "time": "day", "calendar": "weekly"}
    model = small(past, roles=roles, window_scaling="none")
    by_table, by_array = (model.stream(future=data["k"][150:154]) for _ in range(2))
    rows = {name: column[150:152] for name, column in data.items()}
    first = by_table.update(rows, future=data["k"][152:156])
    second = by_array.update(np.stack([rows["y"], rows["z"], rows["k"]], axis=1), future=data["k"][152:156])
    np.testing.assert_array_equal(first.quantiles, second.quantiles)
    np.testing.assert_array_equal(first.index[0], data["day"][152:156])
    with pytest.raises(DataError, match="begin at 2024-05-30 in series 'series', expected a time after 2024-05-31"):
        by_table.update({name: column[150:151] for name, column in data.items()}, future=data["k"][152:156])
    model = Forecaster(**{**SMALL, "validation": 8, "window_scaling": "none"})
    model.fit(many((80, 120)), target="y", time="t", series="id", progress=False)
    stream = model.stream()
    forecast = stream.update(np.zeros((2, 3, 1)))
    np.testing.assert_array_equal(forecast.index[:, 0], [83, 123])
    with pytest.raises(DataError, match=r"rows has shape \(3,\), expected \(2, n, 1\)"):
        stream.update(np.zeros(3))


def test_a_refused_update_changes_nothing() -> None:
    stream = small(window_scaling="none").stream()
    for rows, message in (
        (np.array([np.nan]), "rows holds missing values"),
        (np.array([np.inf]), "rows holds infinite values"),
        (np.zeros((1, 2)), r"rows has shape \(1, 2\)"),
        (np.zeros((0, 1)), r"rows has shape \(0, 1\)"),
    ):
        with pytest.raises(DataError, match=message):
            stream.update(rows)
    assert stream.rows == 0
    np.testing.assert_array_equal(stream.update([5.0]).mean, small(window_scaling="none").stream().update([5.0]).mean)


# files


@pytest.mark.parametrize("changes", [{}, {"strategy": "recursive", "draws": 16}, {"likelihood": "gaussian"}])
def test_a_saved_forecaster_forecasts_the_same_bits(changes: dict[str, Any], tmp_path: Path, device: str) -> None:
    values = wave()
    values[[134, 137, 138, 139]] = np.nan  # gaps where the context begins
    model = small(values, roles={"missing": "interpolate"}, device=device, **changes)
    model.save(tmp_path / "m.safetensors")
    again = Forecaster.load(tmp_path / "m.safetensors", device=device)
    first, second = model.predict(), again.predict()
    np.testing.assert_array_equal(first.quantiles, second.quantiles)
    np.testing.assert_array_equal(first.index, second.index)
    assert again.config.to_dict() == model.config.to_dict()
    assert again.history.rows == model.history.rows
    other = Forecaster.load(tmp_path / "m.safetensors", device="cpu").predict()
    np.testing.assert_allclose(other.quantiles, first.quantiles, rtol=1e-4)
    with pytest.raises(DataError, match="loaded has only the end of its series"):
        again.backtest(origins=2)
    np.testing.assert_array_equal(
        again.backtest(values, origins=2).quantiles, model.backtest(values, origins=2).quantiles
    )


def test_dates_covariates_and_series_survive_a_file(tmp_path: Path) -> None:
    roles = {"target": "y", "past": "z", "time": "day", "calendar": "weekly"}
    model = small(dated(), roles=roles, validation="2024-05-01", test=np.int64(0))
    model.save(tmp_path / "m.safetensors")
    again = Forecaster.load(tmp_path / "m.safetensors", device="cpu")
    first, second = model.predict(), again.predict()
    np.testing.assert_array_equal(first.mean, second.mean)
    np.testing.assert_array_equal(first.index, second.index)
    assert second.index.dtype.kind == "M"
    longer = dated(170)
    np.testing.assert_array_equal(again.predict(data=longer).mean, model.predict(data=longer).mean)
    assert again.backtest(longer, origins=1).seen is False
    assert again.backtest(longer, origins=3, stride=10).seen is True


def test_tables_of_forecasts(fitted: Forecaster, tmp_path: Path) -> None:
    forecast = fitted.predict()
    forecast.to_csv(tmp_path / "f.csv")
    read = load_series(tmp_path / "f.csv", time="time")
    assert read.columns == ("median", "q0.1", "q0.5", "q0.9")
    np.testing.assert_array_equal(read.values[:, 1:], forecast.quantiles[0, :, 0])
    np.testing.assert_array_equal(read.time, forecast.index[0])
    for library in ("pandas", "polars", "pyarrow"):
        frame = forecast.to_frame(library)
        assert type(frame).__module__.partition(".")[0] == library
        np.testing.assert_array_equal(np.asarray(frame["q0.9"]), forecast.quantile(0.9)[0, :, 0])
    with pytest.raises(ConfigError, match="library is 'excel'"):
        forecast.to_frame("excel")
    with pytest.raises(ConfigError, match=r"level is 0\.2, but this forecast has the quantiles \(0\.1, 0\.5, 0\.9\)"):
        forecast.quantile(0.2)
    result = fitted.backtest()
    result.to_csv(tmp_path / "b.csv")
    assert len(load_series(tmp_path / "b.csv", target="actual").values) == result.actual.size
    two = small(np.stack([wave(), wave(seed=1)], axis=1)).predict()
    assert list(two.columns()) == ["time", "target", "median", "q0.1", "q0.5", "q0.9"]
    np.testing.assert_array_equal(two.columns()["target"][:2], ["0", "1"])


# mistakes


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


MISTAKES: list[tuple[dict[str, Any], type[GpulstmError], str]] = [
    ({"horizon": 0}, ConfigError, "horizon is 0"),
    ({"context": 2.5}, ConfigError, "context is 2.5"),
    ({"hidden_size": -1}, ConfigError, "hidden_size is -1"),
    ({"num_layers": True}, ConfigError, "num_layers is True"),
    ({"quantiles": (0.5, 0.1)}, ConfigError, "quantiles is"),
    ({"quantiles": ()}, ConfigError, "quantiles is empty"),
    ({"cell": "transformer"}, ConfigError, "cell is 'transformer'"),
    ({"likelihood": "poisson"}, ConfigError, "likelihood is 'poisson'"),
    ({"strategy": "both"}, ConfigError, "strategy is 'both'"),
    ({"scaling": "log"}, ConfigError, "scaling is 'log'"),
    ({"window_scaling": "max"}, ConfigError, "window_scaling is 'max'"),
    ({"schedule": "step"}, ConfigError, "schedule is 'step'"),
    ({"dtype": "float16"}, ConfigError, "dtype is 'float16'"),
    ({"learning_rate": 0}, ConfigError, "learning_rate is 0"),
    ({"dropout": 1.0}, ConfigError, "dropout is 1.0"),
    ({"clip_norm": -1}, ConfigError, "clip_norm is -1"),
    ({"weight_decay": -0.1}, ConfigError, "weight_decay is -0.1"),
    ({"patience": 0}, ConfigError, "patience is 0"),
    ({"season": 0}, ConfigError, "season is 0"),
    ({"stream_rows": 12}, ConfigError, "stream_rows is 12, expected less than the context of 12"),
    ({"seed": -1}, ConfigError, "seed is -1"),
]


@pytest.mark.parametrize(("changes", "error", "message"), MISTAKES, ids=[str(row[0]) for row in MISTAKES])
def test_mistakes_in_the_options(changes: dict[str, Any], error: type[GpulstmError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        Forecaster(**{**SMALL, **changes})
    assert "\n" not in str(caught.value)


def test_mistakes_in_the_data(fitted: Forecaster, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="validation=3 keeps 3 rows, fewer than the horizon of 4"):
        small(validation=3)
    with pytest.raises(ConfigError, match="leave no training rows"):
        small(validation=100, test=60)
    with pytest.raises(DataError, match="a window needs 16"):
        small(wave(15), validation=0)
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
    fitted.save(tmp_path / "m.safetensors")
    from gpulstm.arrays import checkpoint

    arrays, meta = checkpoint.load(tmp_path / "m.safetensors")
    checkpoint.save(tmp_path / "other.safetensors", arrays, {**meta, "kind": "training"})
    with pytest.raises(CheckpointError, match="holds 'training', expected a forecaster"):
        Forecaster.load(tmp_path / "other.safetensors")
    arrays.pop("weights.head.b")
    checkpoint.save(tmp_path / "part.safetensors", arrays, meta)
    with pytest.raises(CheckpointError, match=r"is no whole forecaster: parameters do not fit: missing \['head.b'\]"):
        Forecaster.load(tmp_path / "part.safetensors", device="cpu")
    del meta["options"]
    checkpoint.save(tmp_path / "part.safetensors", arrays, meta)
    with pytest.raises(CheckpointError, match="is no whole forecaster"):
        Forecaster.load(tmp_path / "part.safetensors", device="cpu")


def test_options_are_kept_as_plain_values() -> None:
    import datetime
    import json

    model = Forecaster(**{**SMALL, "test": datetime.date(2024, 1, 31), "validation": np.float64(0.25)})
    kept = json.loads(json.dumps(model.config.to_dict()))
    assert (kept["test"], kept["validation"], kept["quantiles"]) == ("2024-01-31", 0.25, [0.1, 0.5, 0.9])
    assert "device" not in kept
    again = Forecaster(**kept, device="cpu")
    assert again.config.to_dict() == model.config.to_dict()
    assert {f.name for f in dataclasses.fields(ForecasterConfig)} == {*kept, "device"}


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
