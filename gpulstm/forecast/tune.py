"""Search for options with optuna: each trial fits, and is judged by the fit's own validation rows.

Source: Akiba et al. (2019), "Optuna: A next-generation hyperparameter optimization framework", KDD 25.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from gpulstm.data.series import SeriesSet
from gpulstm.errors import ConfigError, missing_extra
from gpulstm.forecast.config import ForecasterConfig
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
        MissingExtraError: optuna is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise missing_extra("optuna", "tuning") from error
    space = SPACE if space is None else space
    for option in space:
        if not hasattr(config, option):
            raise ConfigError(f"space has {option!r}, which is no option of a forecaster")

    def objective(trial: Any) -> float:
        watcher = Prune(trial)
        chosen = {option: _suggest(trial, option, values) for option, values in space.items()}
        forecaster = make(replace(config, **chosen))
        single = forecaster.config.single
        forecaster.fit(series, progress=False, callbacks=[watcher] if single else [])
        if watcher.pruned:
            raise optuna.TrialPruned()
        members = forecaster.members
        if members is not None:
            if members["error"] is None:
                raise ConfigError("the series are too short to judge options by")
            return float(members["error"])
        return float(forecaster.history.best_loss)

    sampler = optuna.samplers.TPESampler(seed=config.seed)
    study = optuna.create_study(
        study_name=name, storage=storage, sampler=sampler, load_if_exists=True, direction="minimize"
    )
    study.optimize(objective, n_trials=trials, timeout=timeout)
    return replace(config, **study.best_params), study


def _suggest(trial: Any, option: str, values: Any) -> Any:
    if isinstance(values, list):
        return trial.suggest_categorical(option, values)
    if not isinstance(values, tuple) or len(values) not in (2, 3) or (len(values) == 3 and values[2] != "log"):
        raise ConfigError(
            f"space has {values!r} for {option}, expected a list of choices, (low, high) or (low, high, 'log')"
        )
    suggest = trial.suggest_int if all(isinstance(value, int) for value in values[:2]) else trial.suggest_float
    return suggest(option, values[0], values[1], log=len(values) == 3)
