"""As people use it: scikit-learn's protocol, search of options, warm starts, losses of one's own, pictures on axes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import matplotlib as mpl
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import TimeSeriesSplit

import gpulstm
from gpulstm.errors import CheckpointError, ConfigError
from gpulstm.forecast.forecaster import Forecaster
from gpulstm.losses import Loss

mpl.use("Agg")

SMALL: dict[str, Any] = {"members": "network", "device": "cpu", "hidden_size": 4, "num_layers": 1, "epochs": 2}


def wave(rows: int = 160, seed: int = 0) -> np.ndarray:
    steps = np.arange(rows)
    return 20 + 3 * np.sin(2 * np.pi * steps / 8) + np.random.default_rng(seed).normal(0, 0.5, rows)


def test_options_are_parameters() -> None:
    model = Forecaster(4, **SMALL)
    params = model.get_params()
    assert params["horizon"] == 4 and params["hidden_size"] == 4
    assert model.set_params(hidden_size=8).config.hidden_size == 8
    with pytest.raises(ConfigError, match="no option 'units'"):
        model.set_params(units=3)
    fitted = model.fit(wave(), progress=False)
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    with pytest.raises(gpulstm.errors.NotFittedError):
        copy.predict()


def test_the_first_argument_of_predict_is_data_or_a_horizon() -> None:
    y = wave()
    model = Forecaster(4, members="simple", season=8, device="cpu").fit(y, progress=False)
    early = model.predict(y[:100])
    np.testing.assert_array_equal(early.mean, model.predict(data=y[:100]).mean)
    np.testing.assert_array_equal(model.predict(y[:100], 2).mean, early.mean[:, :2])
    np.testing.assert_array_equal(model.predict(2).mean, model.predict(horizon=2).mean)
    with pytest.raises(ConfigError, match="data is 2, expected series, or a horizon alone"):
        model.predict(2, 3)


def test_rows_are_split_in_the_order_of_time() -> None:
    y, scores = wave(), []
    for train, test in TimeSeriesSplit(n_splits=3).split(y):
        model = Forecaster(4, members=("simple", "ridge"), season=8, device="cpu")
        model.fit(y[train], progress=False)
        scores.append(model.score(y[: test[-1] + 1]))
    assert len(scores) == 3 and all(-1.2 < score < 0 for score in scores)


def test_the_score_is_of_rows_that_the_fit_has_not_seen() -> None:
    y = wave()
    model = Forecaster(4, members="simple", season=8, device="cpu").fit(y[:120], progress=False)
    result = model.backtest(y, origins=list(range(120, 157)))
    assert model.score(y) == pytest.approx(-result.metrics()["model"]["MASE"])
    assert not result.seen


def test_a_network_goes_on_from_its_weights(tmp_path: Path) -> None:
    options = {**SMALL, "epochs": 4, "schedule": "constant", "context": 16}
    first = Forecaster(4, **options).fit(wave(), progress=False)
    first.save(tmp_path / "m.safetensors")
    loaded = Forecaster.load(tmp_path / "m.safetensors", "cpu")
    scale = loaded.fitted.scaler.scale.copy()
    loaded.fit(wave(200), progress=False, warm_start=True)
    assert loaded.history.rows[0]["train_loss"] < first.history.rows[0]["train_loss"]
    np.testing.assert_array_equal(loaded.fitted.scaler.scale, scale)
    other = Forecaster.load(tmp_path / "m.safetensors", "cpu").set_params
    assert other(hidden_size=8).config.hidden_size == 8


def test_a_mixture_goes_on_from_its_networks() -> None:
    model = Forecaster(4, season=8, device="cpu", hidden_size=8).fit(wave(), progress=False)
    weights = model.fitted.weights()
    model.fit(wave(200), progress=False, warm_start=True)
    assert np.isfinite(model.predict().mean).all()
    assert isinstance(weights, dict)


@dataclass(frozen=True)
class Cubed(Loss):
    """|error|^3."""

    name: ClassVar[str] = "cubed"

    def _each(self, xp: Any, z: Any, y: Any) -> tuple[Any, Any]:
        error = z[..., 0] - y
        return xp.abs(error) ** 3, (3 * error * xp.abs(error))[..., None]


def test_a_loss_of_ones_own(tmp_path: Path) -> None:
    model = Forecaster(4, **{**SMALL, "members": "auto"}, likelihood=Cubed()).fit(wave(), progress=False)
    assert model.fitted.loss == Cubed()
    assert any("members=('network',)" in note for note in model.notes)
    model.save(tmp_path / "m.safetensors")
    loaded = Forecaster.load(tmp_path / "m.safetensors", "cpu", likelihood=Cubed())
    np.testing.assert_array_equal(loaded.predict().mean, model.predict().mean)
    with pytest.raises(CheckpointError, match="the loss 'cubed' of its own"):
        Forecaster.load(tmp_path / "m.safetensors", "cpu")


def test_results_draw_on_axes() -> None:
    model = Forecaster(4, season=8, device="cpu", hidden_size=4, test=40).fit(wave(), progress=False)
    result = model.backtest()
    assert "covers" in result.plot().get_title()
    assert model.predict().plot().get_ylabel()
    network = Forecaster(4, **SMALL).fit(wave(), progress=False)
    assert network.history.plot().get_xlabel() == "epoch"
    for page in (model.predict()._repr_html_(), result._repr_html_(), network.history._repr_html_()):
        assert page.startswith("<table>") and "</table>" in page


def test_a_fit_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="gpulstm"):
        Forecaster(4, members="simple", device="cpu").fit(wave(), progress=False)
    assert any("the mixture" in record.message for record in caplog.records)


def test_dir_is_complete() -> None:
    assert set(gpulstm.__all__) <= set(dir(gpulstm))
    for name in dir(gpulstm):
        getattr(gpulstm, name)
