"""Search of options with optuna."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpulstm.errors import CheckpointError, ConfigError
from gpulstm.forecast import tune as search
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


def test_a_signal_between_the_trials_waits_for_what_optuna_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the midst of optuna's own code an exception would leave a traceback in its log, or half of a trial."""
    suggest = search._suggest

    def interrupted(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return suggest(*arguments)

    storage = f"sqlite:///{tmp_path / 'tune.db'}"
    monkeypatch.setattr(search, "_suggest", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Forecaster(4, **SMALL).tune(wave(), trials=3, space={"hidden_size": [2]}, storage=storage)
    monkeypatch.undo()
    study = Forecaster(4, **SMALL).tune(wave(), trials=1, space={"hidden_size": [2]}, storage=storage)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE"]


def test_a_signal_in_a_fit_ends_the_search_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    def make(config: Any) -> Any:
        def fit(*arguments: Any, **more: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)

        return SimpleNamespace(config=config, fit=fit)

    series: Any = None
    with pytest.raises(KeyboardInterrupt):
        search.tune(make, Forecaster(4, **SMALL).config, series, trials=3)
    assert not any(record.exc_info for record in caplog.records)


def test_a_damaged_search_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "tune.db"
    path.write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 20)
    with pytest.raises(CheckpointError, match="is no database of a search: "):
        search.check_database(path)
    with pytest.raises(CheckpointError, match=r"the search in sqlite:.* cannot be read or written: "):
        Forecaster(4, **SMALL).tune(wave(), trials=1, storage=f"sqlite:///{path}")
