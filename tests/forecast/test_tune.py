"""Search of options with optuna."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpulstm.errors import ConfigError
from gpulstm.forecast.forecaster import Forecaster

SMALL: dict[str, Any] = {"members": "network", "device": "cpu", "hidden_size": 4, "num_layers": 1, "epochs": 2}


def wave(rows: int = 160) -> np.ndarray:
    steps = np.arange(rows)
    return 20 + 3 * np.sin(2 * np.pi * steps / 8) + np.random.default_rng(0).normal(0, 0.5, rows)


def test_search_takes_the_best_and_goes_on(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'tune.db'}"
    model = Forecaster(4, **SMALL)
    space = {"learning_rate": (1e-3, 1e-1, "log"), "hidden_size": [2, 4]}
    study = model.tune(wave(), trials=3, space=space, storage=storage)
    assert len(study.trials) == 3
    assert model.config.learning_rate == study.best_params["learning_rate"]
    assert len(model.tune(wave(), trials=1, space=space, storage=storage).trials) == 4
    mixture = Forecaster(4, season=8, device="cpu", members="simple")
    assert mixture.tune(wave(), trials=1, space={"hidden_size": [4]}).best_value < 1
    with pytest.raises(ConfigError, match="space has 'units'"):
        model.tune(wave(), trials=1, space={"units": [1]})
    with pytest.raises(ConfigError, match="expected a list of choices"):
        model.tune(wave(), trials=1, space={"hidden_size": 4})
