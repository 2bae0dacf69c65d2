"""The options of a forecaster: what is refused, and what is kept."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import numpy as np
import pytest
from forecasters import SMALL

from gpulstm.errors import ConfigError, GpulstmError
from gpulstm.forecast.config import ForecasterConfig
from gpulstm.forecast.forecaster import Forecaster
from gpulstm.losses import MSE, GaussianNLL, Pinball

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
    ({"past_scaling": "standard"}, ConfigError, "past_scaling is 'standard'"),
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


def test_options_are_kept_as_plain_values() -> None:
    import datetime
    import json

    model = Forecaster(**{**SMALL, "test": datetime.date(2024, 1, 31), "validation": np.float64(0.25)})
    kept = json.loads(json.dumps(model.config.to_dict()))
    assert (kept["test"], kept["validation"], kept["quantiles"]) == ("2024-01-31", 0.25, [0.1, 0.5, 0.9])
    assert not {"device", "parallel", "devices"} & kept.keys()
    again = Forecaster(**kept, device="cpu")
    assert again.config.to_dict() == model.config.to_dict()
    assert {f.name for f in dataclasses.fields(ForecasterConfig)} == {*kept, "device", "parallel", "devices"}


def test_it_describes_loss_and_layers() -> None:
    config = ForecasterConfig(quantiles=[0.2, 0.8], cell="gru", hidden_size=5, num_layers=3, dropout=0.25)
    assert config.loss() == Pinball((0.2, 0.8))
    assert ForecasterConfig(likelihood="gaussian").loss() == GaussianNLL((0.1, 0.5, 0.9))
    assert ForecasterConfig(likelihood="point").loss() == MSE()
    spec = config.stack(7)
    assert (spec.cell, spec.input_size, spec.hidden_size, spec.num_layers, spec.dropout) == ("gru", 7, 5, 3, 0.25)


def test_windows_of_the_recursive_strategy_know_the_states_that_it_feeds_back() -> None:
    direct = ForecasterConfig(horizon=6, context=10, stream_rows=2)
    recursive = ForecasterConfig(horizon=6, context=10, stream_rows=2, strategy="recursive")
    assert (direct.training_horizon, direct.scale_lag) == (6, 2)
    assert (recursive.training_horizon, recursive.scale_lag) == (1, 7)
    assert ForecasterConfig(horizon=60, context=10, strategy="recursive").scale_lag == 9  # one row is always left


def test_options_cannot_be_changed_behind_their_checks() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ForecasterConfig().epochs = 0  # type: ignore[misc]


def test_every_option_says_what_it_is() -> None:
    assert ForecasterConfig.__doc__ is not None
    for option in dataclasses.fields(ForecasterConfig):
        text = option.metadata["option"].text
        assert text and not text.endswith(".")
        assert f"    {option.name}: {text}." in ForecasterConfig.__doc__


def test_a_forecaster_takes_the_options_by_place_and_by_name() -> None:
    assert Forecaster(3, 9, cell="rnn").config == ForecasterConfig(horizon=3, context=9, cell="rnn")
    assert inspect.signature(Forecaster).parameters == inspect.signature(ForecasterConfig).parameters
    assert "horizon=3, context=9" in repr(Forecaster(3, 9))
    with pytest.raises(TypeError, match="unexpected keyword argument 'layers'"):
        Forecaster(layers=2)  # type: ignore[call-arg]


def test_a_file_of_before_scales_past_covariates_as_it_was_trained() -> None:
    options = ForecasterConfig().to_dict()
    assert ForecasterConfig.from_dict(options, "cpu").past_scaling == "window"
    del options["past_scaling"]
    assert ForecasterConfig.from_dict(options, "cpu").past_scaling == "none"
