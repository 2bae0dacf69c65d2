"""Search for options with optuna: each trial fits, and is judged by the fit's own validation rows.

Source: Akiba et al. (2019), "Optuna: A next-generation hyperparameter optimization framework", KDD 25.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpulstm.arrays import files
from gpulstm.data.series import SeriesSet
from gpulstm.errors import CheckpointError, ConfigError, missing_extra
from gpulstm.forecast.config import ForecasterConfig
from gpulstm.training import interrupts
from gpulstm.training.callbacks import Callback, Run
from gpulstm.training.history import Row

SPACE: dict[str, Any] = {  # (low, high), a third entry "log", or a list of choices
    "hidden_size": [16, 32, 64, 128],
    "learning_rate": (5e-4, 2e-2, "log"),
    "weight_decay": (1e-6, 1e-2, "log"),
    "dropout": (0.0, 0.4),
    "cell": ["lstm", "gru"],
}


class Prune(Callback):
    """Tells optuna the validation loss of every epoch, and ends a run that it gives up."""

    name = "prune"

    def __init__(self, trial: Any) -> None:
        self._trial, self.pruned = trial, False

    def on_epoch(self, run: Run, row: Row) -> None:
        loss = row["train_loss"] if row["validation_loss"] is None else row["validation_loss"]
        assert loss is not None
        self._trial.report(float(loss), run.epoch)
        if self._trial.should_prune():
            self.pruned = True
            run.stop("pruned")


def tune(
    make: Callable[[ForecasterConfig], Any],
    config: ForecasterConfig,
    series: SeriesSet,
    *,
    trials: int = 20,
    timeout: float | None = None,
    space: Mapping[str, Any] | None = None,
    storage: str | None = None,
    name: str = "gpulstm",
) -> tuple[ForecasterConfig, Any]:
    """Try options, and give back the best.

    Args:
        make: a forecaster of options, such as `Forecaster.of`.
        config: the options that are not searched.
        series: to fit on.
        trials: how many, those of an earlier search in `storage` not counted.
        timeout: seconds after which no further trial begins, or None.
        space: options to search, by name: a list of choices, or `(low, high)`, whole numbers or not, with "log" as a
            third entry for a logarithmic scale; `SPACE` by default.
        storage: where optuna keeps the search, such as "sqlite:///tune.db", to go on with it later.
        name: of the search in the storage.

    Returns:
        the options with the best found, and optuna's study.

    Raises:
        ConfigError: the space names something that is no option.
        CheckpointError: the storage is damaged, or cannot be written to.
        MissingExtraError: optuna is not installed.
        KeyboardInterrupt: a signal ended the search; what was found until then is in the storage.
    """
    try:
        import optuna
    except ImportError as error:
        raise missing_extra("optuna", "tuning") from error
    space = SPACE if space is None else space
    for option in space:
        if not hasattr(config, option):
            raise ConfigError(f"space has {option!r}, which is no option of a forecaster")

    stopped = False

    def stop() -> None:  # in the midst of what optuna writes: its own code is never left by an exception
        nonlocal stopped
        stopped = True

    def objective(trial: Any) -> float:
        watcher = Prune(trial)
        try:
            chosen = {option: _suggest(trial, option, values) for option, values in space.items()}
        except ConfigError:
            raise
        except ValueError as problem:  # optuna's, of a search that goes on
            raise ConfigError(f"the search in {storage} had other values: {problem} Begin a new one") from problem
        try:
            with as_before():
                error = judge(make(replace(config, **chosen)), watcher)
        except KeyboardInterrupt:
            error = None
            stop()
        if stopped:
            trial.study.stop()
        if error is None or watcher.pruned:
            raise optuna.TrialPruned()
        return error

    def judge(forecaster: Any, watcher: Prune) -> float | None:
        """The validation error after a fit; None where a signal ended it."""
        single = forecaster.config.single
        forecaster.fit(series, progress=False, callbacks=[watcher] if single else [])
        if forecaster.history.stopped == "interrupted":
            raise KeyboardInterrupt
        members = forecaster.members
        if members is None:
            return float(forecaster.history.best_loss)
        if members["error"] is None:
            raise ConfigError("the series are too short to judge options by")
        return float(members["error"])

    with interrupts.deferred(stop) as as_before:
        study = _study(optuna, storage, name, config.seed)
        if not stopped:
            with _storage(storage):
                study.optimize(objective, n_trials=trials, timeout=timeout)
    if stopped:
        raise KeyboardInterrupt
    if all(trial.state.name != "COMPLETE" for trial in study.trials):
        raise ConfigError("no trial came to its end, so there is no best one; try more, or with more time")
    return replace(config, **study.best_params), study


@contextlib.contextmanager
def _storage(storage: str | None) -> Iterator[None]:
    """Where optuna's storage cannot be used: one sentence."""
    import optuna
    import sqlalchemy.exc

    try:
        yield
    except (optuna.exceptions.OptunaError, sqlalchemy.exc.SQLAlchemyError) as error:
        reason = getattr(error.__cause__, "orig", None) or getattr(error, "orig", None) or error
        raise CheckpointError(f"the search in {storage} cannot be read or written: {reason}") from error


def _study(optuna: Any, storage: str | None, name: str, seed: int) -> Any:
    """The search in a storage, or a new one; all that the storage holds has been read."""
    with _storage(storage), files.damaged(f"the search in {storage} is damaged", CheckpointError):
        sampler = optuna.samplers.TPESampler(seed=seed)
        study = optuna.create_study(
            study_name=name, storage=storage, sampler=sampler, load_if_exists=True, direction="minimize"
        )
        if len(study.directions) != 1 or study.direction.name != "MINIMIZE":
            raise CheckpointError(f"the search in {storage} is none for a forecaster's options")
        for trial in study.trials:
            trial.distributions  # noqa: B018  read from text
        return study


def check_database(path: str | os.PathLike[str]) -> None:
    """Raise unless a file is a database as a search keeps it, with tables alone: nothing in it computes.

    Raises:
        CheckpointError: it is something else, or damaged.
    """
    with files.opened(path, CheckpointError) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise CheckpointError(f"{path} is a pipe, expected the file of a search")
    try:
        with contextlib.closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=rw", uri=True)) as connection:
            (others,) = connection.execute("select count(*) from sqlite_master where type not in ('table', 'index')")
            (virtual,) = connection.execute("select count(*) from sqlite_master where sql like '%virtual table%'")
            faults = connection.execute("pragma quick_check(1)").fetchall()
    except (sqlite3.Error, UnicodeError, OverflowError) as error:
        raise CheckpointError(f"{path} is no database of a search: {error}") from error
    if others != (0,) or virtual != (0,):
        raise CheckpointError(f"{path} has more than tables, expected the database of a search")
    if faults != [("ok",)]:
        raise CheckpointError(f"{path} is damaged: {faults[0][0]}")


def _suggest(trial: Any, option: str, values: Any) -> Any:
    if isinstance(values, list):
        return trial.suggest_categorical(option, values)
    if not isinstance(values, tuple) or len(values) not in (2, 3) or (len(values) == 3 and values[2] != "log"):
        raise ConfigError(
            f"space has {values!r} for {option}, expected a list of choices, (low, high) or (low, high, 'log')"
        )
    suggest = trial.suggest_int if all(isinstance(value, int) for value in values[:2]) else trial.suggest_float
    return suggest(option, values[0], values[1], log=len(values) == 3)
