"""How a forecaster's network learns: the parts of its series, and the trainer that it gets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from forecasters import wave

from gpulstm.data.loading import load_series
from gpulstm.data.splits import chronological_cuts
from gpulstm.data.tbptt import Lanes
from gpulstm.data.windows import WindowSet
from gpulstm.errors import ConfigError, DataError
from gpulstm.forecast.config import ForecasterConfig
from gpulstm.forecast.fitted import new_scaler
from gpulstm.forecast.learning import new_trainer, training_parts
from gpulstm.schedules import Cosine

SMALL: dict[str, Any] = {
    "learning_rate": 0.01,
    "members": ("network",),
    "horizon": 4,
    "context": 12,
    "device": "cpu",
    "validation": 20,
    "test": 30,
}


def parts(rows: int = 150, **options: Any) -> tuple[WindowSet | Lanes, WindowSet | None]:
    """Training and validation part of a wave."""
    config, series = ForecasterConfig(**{**SMALL, **options}), load_series(wave(rows))
    cuts = chronological_cuts(series, config.validation, config.test)
    return training_parts(config, series, new_scaler(config, series, cuts.train), cuts)


def test_windows_of_training_end_before_those_of_validation_begin() -> None:
    train, judge = parts()
    assert isinstance(train, WindowSet) and judge is not None
    np.testing.assert_array_equal(train.origins, np.arange(12, 97))
    np.testing.assert_array_equal(judge.origins, np.arange(100, 117))
    assert (train.horizon, train.scale_lag) == (4, 0)


def test_the_recursive_strategy_learns_single_steps() -> None:
    train, _ = parts(strategy="recursive", stream_rows=2, stride=5)
    assert isinstance(train, WindowSet)
    assert (train.horizon, train.scale_lag) == (1, 5)
    assert set(np.diff(train.origins)) == {5}


def test_truncated_training_reads_lanes() -> None:
    train, judge = parts(training="truncated", window_scaling="none", batch_size=2, chunk=8, reach=16)
    assert isinstance(train, Lanes) and judge is not None
    assert (train.lanes, train.chunk, train.reach) == (2, 8, 16)
    assert train.starts.max() + train.reach + train.horizon <= 100


def test_without_validation_there_is_no_judge() -> None:
    assert parts(validation=0)[1] is None
    with pytest.raises(ConfigError, match="validation=3 keeps 3 rows, fewer than the horizon of 4"):
        parts(validation=3)
    with pytest.raises(DataError, match="the longest training part has 10 rows, but a window needs 16"):
        parts(60)


def test_the_trainer_has_the_options_of_the_forecaster() -> None:
    options = {"epochs": 7, "batch_size": 16, "clip_norm": None, "seed": 5, "weight_decay": 0.1, "memory": "sqrt"}
    config = ForecasterConfig(**SMALL, hidden_size=6, num_layers=3, **options)
    train, _ = parts()
    trainer = new_trainer(config, train, [])
    state, network = trainer.state, trainer.network.config
    assert (trainer.epochs, trainer.memory, state.batch_size, state.clip_norm, state.seed) == (7, "sqrt", 16, None, 5)
    assert (network.stack.hidden_size, network.stack.num_layers, network.horizon, network.outputs) == (6, 3, 4, 3)
    assert state.optimizer.config()["weight_decay"] == 0.1
    assert isinstance(state.schedule, Cosine)
    assert state.schedule.steps == 7 * -(-len(train) // 16)  # the rate falls until the last step
    assert state.schedule.rate(state.schedule.steps) == pytest.approx(0.01 * state.schedule.rate(0))
    assert trainer.extra == {"forecaster": config.to_dict()}
