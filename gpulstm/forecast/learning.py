"""How a forecaster's network learns: windows or lanes of its series, and a trainer for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gpulstm.arrays.devices import resolve
from gpulstm.data.scaling import Scaler
from gpulstm.data.series import SeriesSet, end_of
from gpulstm.data.splits import Cuts, chronological_cuts
from gpulstm.data.streamed import AnyWindows
from gpulstm.data.tbptt import Lanes
from gpulstm.data.windows import WindowSet, window_set
from gpulstm.errors import ConfigError, option
from gpulstm.forecast.config import ForecasterConfig
from gpulstm.forecast.fitted import Fitted, new_scaler
from gpulstm.forecast.members.training import Runs
from gpulstm.forecast.predictor import scaled_by_context
from gpulstm.forecast.shaping import Cut, Left, Shape, Transform, chosen
from gpulstm.forecast.short import listed
from gpulstm.model.embedding import Category
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.optimizers import AdamW
from gpulstm.schedules import Constant, Cosine, Schedule
from gpulstm.training.callbacks import Callback, CheckpointEvery, EarlyStopping, Progress
from gpulstm.training.history import History
from gpulstm.training.parallel import SINGLE
from gpulstm.training.trainer import Trainer


def fit_network(
    config: ForecasterConfig, series: SeriesSet, seasons: tuple[int, ...], runs: Runs, warm: Fitted | None = None
) -> tuple[Fitted, History, list[str]]:
    """Train a single network.

    Args:
        config: with everything decided that was automatic.
        series: in their own units.
        seasons: rows in each season.
        runs: callbacks, checkpoint and what to resume.
        warm: an earlier fit, whose weights the run starts from, and whose scaling stays.

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
    shape, scaler, train, judge = shaped(config, series, cuts, seasons[0], warm)
    trainer, history = run_trainer(config, series, (train, judge), runs, warm, shape)
    notes = scaler.notes()
    if train.skipped:
        notes.append(f"too short to learn from: {listed(train.skipped)}")
    lengths = series.lengths
    padded = (lengths < config.context + config.training_horizon) & (lengths >= config.least)
    if padded.any():
        short = [series.names[at] for at in np.flatnonzero(padded)]
        notes.append(f"shorter than a window, and padded on the left: {listed(short)}")
    until = last_times(series, cuts.validation)
    tail = end_of(series, config.context)
    return Fitted(config, trainer.network, trainer.state.loss, scaler, tail, until, seasons, shape), history, notes


def run_trainer(
    config: ForecasterConfig,
    series: SeriesSet,
    windows: tuple[Any, Any],
    runs: Runs,
    warm: Fitted | None = None,
    shape: Shape | None = None,
) -> tuple[Trainer, History]:
    """Make a trainer of a new network, and run it.

    Args:
        config: with everything decided that was automatic.
        series: whose columns these are, of a table in parts those of the first one.
        windows: what to learn from, and what to judge epochs by.
        runs: callbacks, checkpoint, what to resume, and who trains.
        warm: an earlier fit, whose weights the run starts from.
        shape: what the network need not learn.
    """
    train, judge = windows
    watchers: list[Callback] = [Progress(runs.progress), *runs.callbacks]
    if config.patience is not None:
        watchers.append(EarlyStopping(config.patience))
    if runs.checkpoint is not None:
        watchers.append(CheckpointEvery(runs.checkpoint, epochs=1))
    trainer = new_trainer(config, train, watchers, runs, categories_of(series))
    if shape is not None and shape.base is not None:  # before the first step the forecast is the base
        trainer.network.params["head.W"][...] = 0
    if warm is not None:
        if warm.network.config != trainer.network.config:
            raise ConfigError(
                "warm_start needs the options and columns of the fit before: its network has other shapes"
            )
        host = warm.network.backend.to_host
        trainer.network.params.load({name: host(value) for name, value in warm.network.params.items()})
    if runs.resume is not None:
        trainer.restore(runs.resume)
    return trainer, trainer.fit(train, judge)


def shaped(
    config: ForecasterConfig, series: SeriesSet, cuts: Cuts, season: int, warm: Fitted | None
) -> tuple[Shape, Scaler, Any, Any]:
    """What the network need not learn, the scaler, and what is left to train on and to judge by."""
    same = warm is not None and warm.names == series.names

    def parts(transform: Transform) -> tuple[Scaler, WindowSet | Lanes, WindowSet | None]:
        moved = transform.forward(series)
        scaler = warm.scaler if same and warm is not None else new_scaler(config, moved, cuts.train)
        return scaler, *training_parts(config, moved, scaler, cuts)

    def cut(transform: Transform) -> Cut:
        scaler, train, judge = parts(transform)
        assert isinstance(train, WindowSet)  # the options refuse lanes
        return Cut(transform, scaler, train, judge)

    asked = config.transform, config.residual, config.skip
    if warm is not None or asked == ("none", "none", "none"):
        shape = Shape() if warm is None else warm.shape
        scaler, train, judge = parts(shape.transform)
    else:
        shape, made = chosen(asked, series, cuts.train, season, cut)
        scaler, train, judge = made.scaler, made.train, made.judge
    if shape.base is None:
        return shape, scaler, train, judge
    assert isinstance(train, WindowSet)
    return shape, scaler, Left(train, shape.base), None if judge is None else Left(judge, shape.base)


def last_times(series: SeriesSet, stops: np.ndarray) -> np.ndarray:
    """`(series,)`: the time of the last row before `stops`; before all others where there is none."""
    times = series.times
    last = times[np.maximum(stops - 1, series.offsets[:-1])]
    none = stops <= series.offsets[:-1]
    if none.any():
        last[none] = np.datetime64("NaT", "us") if times.dtype.kind == "M" else times.min() - 1
    return last


def windows_of(config: ForecasterConfig, series: SeriesSet, scaler: Scaler, cuts: Cuts) -> WindowSet:
    """Windows over series as a network reads them, without an origin yet; arguments as `training_parts`."""
    windows = window_set(
        series,
        scaler.transform,
        context=config.context,
        horizon=config.training_horizon,
        cuts=cuts,
        dtype=config.stack(1).data_dtype,
        origins=np.zeros(0, np.int64),
        least=config.least,
    )
    return replace(scaled_by_context(config, windows), scale_lag=config.scale_lag)


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
    windows = windows_of(config, series, scaler, cuts)
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
    if rows >= windows.horizon and not len(judge):
        raise ConfigError(
            f"{option('validation', config.validation)} keeps up to {rows} rows of a series, and no target is observed "
            f"in them within {windows.horizon} steps of an origin; keep others, or none with {option('validation', 0)}"
        )
    if rows and not len(judge):
        raise ConfigError(
            f"validation={config.validation!r} keeps {rows} rows, fewer than the horizon of "
            f"{windows.horizon}; keep more, or none with validation=0"
        )
    return train, judge if len(judge) else None


def categories_of(series: SeriesSet) -> tuple[Category, ...]:
    """The columns of codes as a network's input has them; 1.6 n^0.56 numbers for n values, at most 50.

    The rule is that of fastai (Howard & Gugger 2020, "fastai: a layered API for deep learning", Information 11(2)).
    """
    first = series.targets + series.past
    return tuple(
        Category(column, count, min(50, round(1.6 * count**0.56)), column - first if column >= first else None)
        for column, count in series.coded
    )


def new_trainer(
    config: ForecasterConfig,
    train: AnyWindows | Left,
    callbacks: Sequence[Callback],
    runs: Runs | None = None,
    categories: tuple[Category, ...] = (),
) -> Trainer:
    """A trainer of a new network for these windows."""
    loss = config.loss()
    layout = NetworkConfig(
        config.stack(train.inputs + sum(one.size - 1 for one in categories)),
        train.horizon,
        train.targets,
        loss.outputs,
        future_size=train.future,
        chrono=config.chrono,
        categories=categories,
    )
    return Trainer(
        Network(layout, device=resolve(config.device), seed=config.seed, engine=config.engine),
        loss,
        AdamW(weight_decay=config.weight_decay),
        _schedule(config, config.epochs * -(-len(train) // config.batch_size)),
        epochs=config.epochs,
        batch_size=config.batch_size,
        clip_norm=config.clip_norm,
        seed=config.seed,
        memory=config.memory,
        callbacks=callbacks,
        extra={"forecaster": config.to_dict()},
        identity=None if runs is None else runs.identity,
        parallel=SINGLE if runs is None else runs.ranks,
    )


def _schedule(config: ForecasterConfig, steps: int) -> Schedule:
    """The learning rates of a run of `steps` steps."""
    if config.schedule == "constant":
        return Constant(config.learning_rate)
    return Cosine(config.learning_rate, steps, 0.01 * config.learning_rate)
