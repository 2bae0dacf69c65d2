"""How a forecaster's network learns: windows or lanes of its series, and a trainer for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gpulstm.arrays.devices import resolve
from gpulstm.data.calendars import season_of, step_of
from gpulstm.data.scaling import Scaler
from gpulstm.data.series import SeriesSet
from gpulstm.data.splits import Cuts, chronological_cuts
from gpulstm.data.tbptt import Lanes
from gpulstm.data.windows import WindowSet, window_set
from gpulstm.errors import ConfigError
from gpulstm.forecast.config import ForecasterConfig
from gpulstm.forecast.fitted import Fitted, end_of, new_scaler
from gpulstm.forecast.members.training import Runs
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.optimizers import AdamW
from gpulstm.training.callbacks import Callback, CheckpointEvery, EarlyStopping, Progress
from gpulstm.training.history import History
from gpulstm.training.trainer import Trainer


def fit_network(
    config: ForecasterConfig, series: SeriesSet, season: int, runs: Runs
) -> tuple[Fitted, History, list[str]]:
    """Train a single network.

    Args:
        config: with everything decided that was automatic.
        series: in their own units.
        season: rows in a season.
        runs: callbacks, checkpoint and what to resume.

    Returns:
        what was fitted, the run's history, and sentences on what the data made necessary.

    Raises:
        ConfigError, DataError, TrainingError, CheckpointError: as `Forecaster.fit`.
    """
    if config.strategy == "recursive" and series.past:
        names = ", ".join(series.columns[series.targets : series.targets + series.past])
        raise ConfigError(
            f"strategy='recursive' cannot use the past covariates {names}: their values over the horizon are unknown"
        )
    cuts = chronological_cuts(series, config.validation, config.test)
    scaler = new_scaler(config, series, cuts.train)
    train, judge = training_parts(config, series, scaler, cuts)
    watchers: list[Callback] = [Progress(runs.progress), *runs.callbacks]
    if config.patience is not None:
        watchers.append(EarlyStopping(config.patience))
    if runs.checkpoint is not None:
        watchers.append(CheckpointEvery(runs.checkpoint, epochs=1))
    trainer = new_trainer(config, train, watchers)
    if runs.resume is not None:
        trainer.restore(runs.resume)
    notes = scaler.notes()
    if train.skipped:
        notes.append(f"too short to learn from: {', '.join(train.skipped)}")
    history = trainer.fit(train, judge)
    until = last_times(series, cuts.validation)
    tail = end_of(series, config.context)
    return Fitted(config, trainer.network, trainer.state.loss, scaler, tail, until, season), history, notes


def last_times(series: SeriesSet, stops: np.ndarray) -> np.ndarray:
    """The time of the last row before `stops` `(series,)` of each series; its first one where that has none."""
    rows = np.maximum(stops - 1 - series.offsets[:-1], 0)
    return np.array([series.time_of(index)[row] for index, row in enumerate(rows)])


def training_parts(
    config: ForecasterConfig, series: SeriesSet, scaler: Scaler, cuts: Cuts
) -> tuple[WindowSet | Lanes, WindowSet | None]:
    """What to train on, and validation windows, or None where nothing is kept for validation.

    Args:
        config: lengths, scaling of windows, and whether to train on windows or on lanes.
        series: in their own units.
        scaler: fitted on the training rows.
        cuts: where training and validation part end.

    Raises:
        ConfigError: the validation part is shorter than the horizon.
        DataError: no training window is left.
    """
    windows = window_set(
        series,
        scaler.transform,
        context=config.context,
        horizon=config.training_horizon,
        cuts=cuts,
        window_scaling=config.window_scaling,
        dtype=config.stack(1).data_dtype,
        origins=np.zeros(0, np.int64),
    )
    windows = replace(windows, scale_lag=config.scale_lag)
    judge = windows.within(cuts.train, cuts.validation, config.stride)
    rows = int((cuts.validation - cuts.train).max())
    train: WindowSet | Lanes
    if config.training == "truncated":
        reach = config.chunk if config.reach is None else config.reach
        lanes = {"lanes": config.batch_size, "chunk": config.chunk, "reach": reach}
        train = Lanes(windows, cuts.train, borders=config.borders, **lanes)
    else:
        train = windows.within(series.offsets[:-1], cuts.train, config.stride)
        windows.check_training(train, cuts)
    if rows and not len(judge):
        raise ConfigError(
            f"validation={config.validation!r} keeps {rows} rows, fewer than the horizon of "
            f"{windows.horizon}; keep more, or none with validation=0"
        )
    return train, judge if len(judge) else None


def new_trainer(config: ForecasterConfig, train: WindowSet | Lanes, callbacks: Sequence[Callback]) -> Trainer:
    """A trainer of a new network for these windows."""
    loss = config.loss()
    layout = NetworkConfig(
        config.stack(train.inputs),
        train.horizon,
        train.targets,
        loss.outputs,
        future_size=train.future,
        chrono=config.chrono,
    )
    return Trainer(
        Network(layout, device=resolve(config.device), seed=config.seed, engine=config.engine),
        loss,
        AdamW(weight_decay=config.weight_decay),
        config.rate(config.epochs * -(-len(train) // config.batch_size)),
        epochs=config.epochs,
        batch_size=config.batch_size,
        clip_norm=config.clip_norm,
        seed=config.seed,
        memory=config.memory,
        callbacks=callbacks,
        extra={"forecaster": config.to_dict()},
    )


def season_in(config: ForecasterConfig, series: SeriesSet) -> int:
    """Rows in a season: those of the options, else those of the time step, else 1."""
    if config.season is not None:
        return config.season
    return 1 if series.time is None or series.lengths[0] < 2 else season_of(step_of(series.time_of(0)))


def uneven_rows(series: SeriesSet) -> list[str]:
    """A sentence on series whose rows are not evenly spaced in time."""
    if series.time is None:
        return []
    names = [
        name
        for index, name in enumerate(series.names)
        if series.lengths[index] > 1 and not step_of(series.time_of(index)).regular
    ]
    if not names:
        return []
    return [f"rows not evenly spaced, so that forecasts are dated by the most frequent step: {', '.join(names)}"]
