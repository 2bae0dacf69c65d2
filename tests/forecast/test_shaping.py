"""What a single network need not learn: transforms, residuals and linear maps, asked for or chosen by validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpulstm.data.loading import load_series
from gpulstm.errors import ConfigError, DataError
from gpulstm.forecast.fitted import Fitted
from gpulstm.forecast.forecaster import Forecaster
from gpulstm.forecast.results import MODEL
from gpulstm.forecast.shaping import Transform, best_power

H = 4
SMALL: dict[str, Any] = {"horizon": H, "context": 14, "hidden_size": 4, "num_layers": 1, "epochs": 1, "season": 7}
EVERY = [{"transform": "boxcox"}, {"residual": "seasonal"}, {"skip": "linear"}]
EVERY += [{"transform": "log", "residual": "seasonal", "skip": "linear"}, dict.fromkeys(EVERY[0] | EVERY[1], "auto")]


def sales(rows: int = 160, seed: int = 0) -> np.ndarray:
    steps = np.arange(rows)
    noise = np.random.default_rng(seed).normal(0, 0.03, rows)
    return np.exp(3 + 0.02 * steps + 0.4 * np.sin(2 * np.pi * steps / 7) + noise)


def fit(values: np.ndarray, **options: Any) -> Forecaster:
    return Forecaster(**{**SMALL, **options}, device="cpu").fit(values, progress=False)


def shape_of(model: Forecaster) -> Any:
    assert isinstance(model.fitted, Fitted)
    return model.fitted.shape


@pytest.mark.parametrize("power", [-0.5, 0.0, 0.3, 1.0, 2.0])
def test_the_inverse_brings_values_back(power: float) -> None:
    values = np.array([0.2, 1.0, 7.0])
    transform = Transform(power)
    moved = transform.forward(load_series(values)).values[:, 0] if power != 1 else values
    np.testing.assert_allclose(transform.inverse(moved), values, rtol=1e-12)


def test_the_power_is_that_under_which_steps_vary_evenly() -> None:
    growth = load_series(sales())
    assert best_power(growth, growth.offsets[1:]) == pytest.approx(0, abs=0.21)
    walk = load_series(100 + np.cumsum(np.random.default_rng(1).normal(size=400)))
    assert best_power(walk, walk.offsets[1:]) is not None
    low = load_series(sales() - 30)
    assert best_power(low, low.offsets[1:]) is None


@pytest.mark.parametrize("options", EVERY)
def test_forecasts_of_backtest_file_and_stream_agree(options: dict[str, str], tmp_path: Path) -> None:
    values = sales()
    model = fit(values, test=24, **options)
    result = model.backtest(origins=[140, 150])
    for row, origin in enumerate((140, 150)):
        alone = model.predict(data=values[:origin])
        np.testing.assert_allclose(alone.median[0], result.forecasts[MODEL][row], rtol=2e-5)
    model.save(tmp_path / "m.safetensors")
    loaded = Forecaster.load(tmp_path / "m.safetensors", "cpu")
    np.testing.assert_array_equal(loaded.predict().quantiles, model.predict().quantiles)
    stream = model.stream(values[:140])
    followed = stream.update(values[140:150, None])
    np.testing.assert_allclose(followed.median[0], result.forecasts[MODEL][1], rtol=2e-5)
    assert (np.diff(followed.quantiles, axis=-1) >= 0).all()


def test_a_linear_map_forecasts_what_is_linear() -> None:
    values = 10 + np.sin(2 * np.pi * np.arange(160) / 7) + 0.3 * np.cos(2 * np.pi * np.arange(160) / 3.1)
    results = [fit(values, test=24, skip=skip, members=("network",)).backtest(stride=1) for skip in ("none", "linear")]
    errors = [result.metrics()[MODEL]["MASE"] for result in results]
    assert errors[1] < 0.1 * errors[0]


def test_what_is_automatic_is_chosen_by_validation_rows() -> None:
    values = sales()
    changed = values.copy()
    changed[-24:] = np.random.default_rng(2).normal(50, 5, 24)  # of the test part, which nothing may see
    options = {"transform": "auto", "residual": "auto", "skip": "auto", "test": 24}
    first, second = (shape_of(fit(one, **options)) for one in (values, changed))
    assert first.scalars() == second.scalars()
    assert first.transform.power < 1 and first.base.weights is not None
    noise = shape_of(fit(np.random.default_rng(0).normal(size=160), **options))
    assert noise.transform.power == 1


def test_such_options_select_a_single_network_and_say_so() -> None:
    model = fit(sales(), transform="log")
    assert model.config.single and model.notes[0].startswith("transform='log' is of a single network")
    warm = model.fit(sales(170), progress=False, warm_start=True)
    assert shape_of(warm).transform.power == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transform": "sqrt"}, "transform is 'sqrt', expected any of 'none', 'log', 'boxcox', 'auto'"),
        ({"skip": "linear", "stream_rows": 3}, "skip='linear' needs stream_rows=0, got 3"),
        ({"residual": "seasonal", "strategy": "recursive"}, "residual='seasonal' needs strategy='direct'"),
        ({"transform": "log", "training": "truncated", "window_scaling": "none"}, "needs training='windows'"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Forecaster(**{**SMALL, **options})


def test_series_that_do_not_allow_it() -> None:
    with pytest.raises(DataError, match="holds 0, but a transform needs values above zero; fit with transform='none'"):
        fit(np.maximum(sales() - 25, 0), transform="log")
    with pytest.raises(ConfigError, match="residual is 'seasonal', but the season is of 1 rows"):
        fit(sales(), residual="seasonal", season=1)
