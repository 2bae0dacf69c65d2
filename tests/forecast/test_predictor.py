"""Forecasts are those of the network on the scaled context, at once or fed back step by step."""

from __future__ import annotations

import numpy as np
import pytest
from forecasters import dated, small, wave

from gpulstm.data.loading import load_series
from gpulstm.data.splits import Cuts
from gpulstm.errors import ConfigError
from gpulstm.forecast import predictor as module
from gpulstm.forecast.forecaster import Forecaster
from gpulstm.forecast.predictor import Predictor


def test_a_forecast_is_the_network_on_the_scaled_context(fitted: Forecaster) -> None:
    part = fitted.fitted
    location, scale = wave()[:100].mean(), wave()[:100].std()
    context = ((wave()[-12:] - location) / scale).astype(np.float32)
    raw, _, _ = part.network.forward((context - context[-1])[:, None, None])
    expected = np.sort(raw[0, :, 0].astype(np.float64) + context[-1], axis=-1) * scale + location
    np.testing.assert_allclose(fitted.predict().quantiles[0, :, 0], expected, rtol=1e-6)


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
    for _ in range(5):  # the network reads the whole sequence again for every step
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


def predictor_of(model: Forecaster) -> Predictor:
    """What forecasts the series of a fitted forecaster."""
    return Predictor(model.fitted.network, model.fitted.loss, model.fitted.scaler, model.config)


def test_windows_have_the_lengths_and_scaling_of_the_options(fitted: Forecaster) -> None:
    predictor, series = predictor_of(fitted), load_series(wave())
    windows = predictor.windows(series, np.array([12, 80]))
    assert (windows.context, windows.horizon, windows.window_scaling, windows.dtype) == (12, 4, "last", np.float32)
    np.testing.assert_array_equal(windows.origins, [12, 80])
    other = predictor.windows(series, np.array([80]), horizon=7, context=3, window_scaling="none")
    assert (other.context, other.horizon, other.window_scaling) == (3, 7, "none")
    scaled = (wave()[77:80] - predictor.scaler.location[0, 0]) / predictor.scaler.scale[0, 0]
    batch = other.gather(0, predictor.network.backend)
    np.testing.assert_allclose(batch.x[:, 0, 0], scaled.astype(np.float32), rtol=1e-6)


def test_gaps_are_filled_without_looking_across_the_cuts(fitted: Forecaster) -> None:
    values = wave()
    values[98:100] = np.nan
    series, origins = load_series(values, missing="interpolate"), np.array([100])
    changed = load_series(np.where(np.arange(150) < 100, values, 99.0), missing="interpolate")
    forecasts = [
        predictor_of(fitted).forecast(predictor_of(fitted).windows(one, origins, cuts=Cuts(origins, origins)))[0]
        for one in (series, changed)
    ]
    np.testing.assert_array_equal(*forecasts)


@pytest.mark.parametrize("strategy", ["direct", "recursive"])
def test_how_windows_are_batched_changes_no_forecast(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small(strategy=strategy, draws=8, dtype="float64")
    predictor = predictor_of(model)
    windows = predictor.windows(load_series(wave()), np.arange(20, 40))
    mean, quantiles = predictor.forecast(windows)
    monkeypatch.setattr(module, "BATCH", 7)
    again, other = predictor.forecast(windows)
    np.testing.assert_allclose(again, mean, rtol=1e-12)
    np.testing.assert_allclose(other, quantiles, rtol=1e-12)
    assert mean.shape == (20, 4, 1) and quantiles is not None and quantiles.shape == (20, 4, 1, 3)


def test_the_state_after_a_batch_goes_on(fitted: Forecaster) -> None:
    """Two batches of six rows give the forecast of one of twelve."""
    predictor, series = predictor_of(fitted), load_series(wave())
    backend = predictor.network.backend
    options = {"window_scaling": "none"}
    whole = predictor.windows(series, np.array([60]), context=12, **options).gather(slice(None), backend)
    expected, _ = predictor.forecast_batch(whole, np.array([0]))
    state = None
    for origin in (54, 60):
        part = predictor.windows(series, np.array([origin]), context=6, **options).gather(slice(None), backend)
        forecast, state = predictor.forecast_batch(part, np.array([0]), state)
    np.testing.assert_allclose(forecast[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(forecast[1], expected[1], rtol=1e-6)  # type: ignore[arg-type]


def test_a_median_between_levels_is_read_off_a_straight_line() -> None:
    quantiles = np.array([[1.0, 3.0, 11.0]])
    assert module._level(quantiles, (0.1, 0.4, 0.8), 0.5) == pytest.approx(5.0)
    assert module._level(quantiles, (0.6, 0.7, 0.8), 0.5) == 1.0
    uniform = np.array([[0.25], [0.9], [0.05]])
    drawn = module._level_each(np, np.tile(quantiles[:, None], (3, 1, 1)), (0.1, 0.4, 0.8), uniform)
    np.testing.assert_allclose(drawn[:, 0], [2.0, 13.0, 1 - 2 * 0.05 / 0.3])


@pytest.mark.parametrize(
    ("levels", "point"), [((0.9,), "q0.9"), ((0.1, 0.3), "q0.3"), ((0.1, 0.9), "median"), ((0.5,), "median")]
)
def test_a_quantile_is_not_called_a_mean(levels: tuple[float, ...], point: str) -> None:
    model = small(quantiles=levels)
    for forecast in (model.predict(), model.stream().forecast):
        assert forecast.point == point
        assert "mean" not in forecast.columns()
        assert ("median" in forecast.columns()) == (point == "median")
