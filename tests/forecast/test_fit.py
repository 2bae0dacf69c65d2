"""One fit, and who takes part in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from forecasters import SMALL, wave

from gpulstm import Forecaster
from gpulstm.data.loading import load_series
from gpulstm.errors import ConfigError
from gpulstm.forecast.fit import Fitting
from gpulstm.forecast.fitted import Fitted, FittedMixture


def test_options_of_who_trains_are_no_part_of_a_model(tmp_path: Path) -> None:
    model = Forecaster(**SMALL, parallel="none").fit(wave(), progress=False)
    model.save(tmp_path / "model.safetensors")
    assert Forecaster.load(tmp_path / "model.safetensors", "cpu").config.parallel == "auto"
    assert Forecaster(**SMALL).config.identity() == Forecaster(**SMALL, devices="cpu:2").config.identity()
    with pytest.raises(ConfigError, match="parallel is 'all'"):
        Forecaster(parallel="all")
    with pytest.raises(ConfigError, match="devices is '0;1'"):
        Forecaster(**SMALL, devices="0;1").fit(wave(), progress=False)


def test_a_job_for_other_processes_is_on_their_device() -> None:
    fitting = Fitting(Forecaster(**SMALL).config).on("cuda:1")
    assert (fitting.config.device, fitting.earlier) == ("cuda:1", None)


@pytest.mark.parametrize(("members", "kind"), [("network", Fitted), ("simple", FittedMixture)])
def test_options_decide_what_is_fitted(members: str, kind: type) -> None:
    config = Forecaster(**{**SMALL, "members": members}).config
    series = load_series(wave())
    found = Fitting(config).learn(series)
    assert isinstance(found.fitted, kind) and found.fitted.horizon == SMALL["horizon"]
    assert bool(found.history.rows) == (kind is Fitted)
    assert found.fitted.until.tolist() == [149]
    again = Fitting(config, earlier=found.fitted).learn(series)
    same = np.array_equal(
        again.fitted.forecast(series, 4, None)[0].mean, found.fitted.forecast(series, 4, None)[0].mean
    )
    assert same == (kind is FittedMixture)  # a network has learned for more epochs, simple forecasts learn nothing
