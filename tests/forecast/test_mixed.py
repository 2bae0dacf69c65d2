"""The mixture as what forecasts a set of series: files, further steps, levels, targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from forecasters import fitted_to, months

from gpulstm.forecast.forecaster import Forecaster
from gpulstm.forecast.results import MODEL


def test_a_file_gives_the_same_back(mixture: Forecaster, tmp_path: Path) -> None:
    mixture.save(tmp_path / "m.safetensors")
    loaded = Forecaster.load(tmp_path / "m.safetensors", "cpu")
    assert loaded.members == mixture.members and loaded.notes == mixture.notes
    np.testing.assert_array_equal(loaded.predict().quantiles, mixture.predict().quantiles)
    assert loaded.config.horizon == "auto" and loaded.fitted.horizon == 12
    assert loaded.history.rows == mixture.history.rows


def test_more_steps_than_it_was_made_for(mixture: Forecaster) -> None:
    near, far = mixture.predict(), mixture.predict(40)
    assert far.quantiles is not None and near.quantiles is not None
    np.testing.assert_allclose(far.median[:, :12], near.median, rtol=1e-12)
    width = far.quantiles[0, :, 0, -1] - far.quantiles[0, :, 0, 0]
    assert np.isfinite(width).all() and width[-1] > width[11]
    np.testing.assert_array_equal(mixture.predict(5).median, near.median[:, :5])


def test_levels_mean_and_median_are_named() -> None:
    model = fitted_to(months(), quantiles=(0.05, 0.25, 0.75, 0.95))
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
