"""statsforecast, live: theta and damped Holt agree where they are the same by definition; its automatic models join."""

from __future__ import annotations

import numpy as np
import pytest
from statsforecast.ets import pegelsresid_C
from statsforecast.theta import auto_theta, forecast_theta

from gpulstm.forecast.forecaster import Forecaster
from gpulstm.forecast.members.smoothing import ALPHAS, HOLT, adjusted, damped, smooth, theta

H = 9


def months(rows: int, seed: int, season: float = 0.3, noise: float = 4.0) -> np.ndarray:
    """A line with noise, and a season that multiplies."""
    steps = np.arange(rows)
    line = 60 + 0.5 * steps + noise * np.random.default_rng(seed).normal(size=rows)
    return line * (1 + season * np.sin(2 * np.pi * steps / 12))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("rows", "season"), [(31, 0.0), (120, 0.0), (60, 0.3), (126, 0.3)])
def test_theta_is_their_standard_theta_model(rows: int, season: float, seed: int) -> None:
    """The same smoothing, begun at the first value: their level is what remains of it without half the trend's line."""
    values = months(rows, seed, season)
    m = 12 if season else 1
    without, _, _ = adjusted(values[None], m, H, test=True, multiply=True)
    best, _ = smooth("level", without, without[:, :1])
    intercept = float(np.polyfit(np.arange(rows), without[0], 1)[1])
    start = float(without[0, 0]) - intercept / 2
    model = auto_theta(values, m, "STM", initial_smoothed=start, alpha=ALPHAS[int(best[0])], theta=2.0)
    np.testing.assert_allclose(theta(values[None], m, H)[0], forecast_theta(model, H)["mean"], rtol=1e-9)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("rows", [12, 40, 200])
def test_damped_holt_is_their_additive_damped_trend(rows: int, seed: int) -> None:
    """ETS(A, Ad, N), of whose parameters theirs has the product of alpha and beta."""
    values = months(rows, seed, 0.0)
    slope = (values[4] - values[0]) / 4
    best, state = smooth("holt", values[None], np.array([[values[0], slope]]))
    alpha, beta, phi = HOLT[int(best[0])]
    start = np.array([values[0], slope])
    _, errors, states, _ = pegelsresid_C(values, 1, start, "A", "A", "N", True, alpha, alpha * beta, 0.0, phi, 3)
    np.testing.assert_allclose(state[0], states[-1], rtol=1e-9)
    ahead = states[-1][0] + states[-1][1] * np.cumsum(phi ** np.arange(1, H + 1))
    np.testing.assert_allclose(damped(values[None], 1, H)[0], ahead, rtol=1e-9)
    for other in HOLT:  # and no other parameters of the grid have smaller errors
        theirs = pegelsresid_C(values, 1, start, "A", "A", "N", True, other[0], other[0] * other[1], 0.0, other[2], 3)[
            1
        ]
        assert float(theirs @ theirs) >= float(errors @ errors) * (1 - 1e-9)


def test_automatic_models_join_a_backtest() -> None:
    table = {"t": np.datetime64("2015-01", "M") + np.arange(96), "y": months(96, 0)}
    model = Forecaster(6, device="cpu", members="simple", test=24).fit(table, time="t", progress=False)
    result = model.backtest(stride=6, automatic=True)
    assert list(result.forecasts)[-2:] == ["AutoETS", "AutoTheta"]
    scores = result.metrics()
    assert scores["AutoETS"]["MASE"] < scores["naive"]["MASE"] and scores["AutoTheta"]["MASE"] < scores["naive"]["MASE"]
    assert "AutoETS" in result.verdict()
    assert "AutoETS" not in model.backtest(stride=6).forecasts
