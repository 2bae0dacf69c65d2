"""Runs of network members: checkpoints, and what they go on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forecasters import months

from gpulstm.errors import CheckpointError
from gpulstm.forecast.forecaster import Forecaster
from gpulstm.training.callbacks import Callback, Run


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
