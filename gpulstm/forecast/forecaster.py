"""The forecaster: fit on a table, predict what follows, backtest, save and load.

    f = Forecaster(horizon=52, context=156)
    f.fit("co2.csv", target="co2", time="date", calendar="yearly", missing="interpolate")
    f.predict().to_csv("forecast.csv")

It holds everything that lies between a table and a network: roles of columns, cuts, scaling, windows, loss and training
run.  What it learned is one checkpoint file.

Methods import what only training, backtests and streams need: this keeps a loaded model's first forecast fast.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

import numpy as np

from gpulstm import validate
from gpulstm.arrays.launch import place
from gpulstm.data.options import TableOptions
from gpulstm.data.series import SeriesSet
from gpulstm.errors import ConfigError, DataError, NotFittedError
from gpulstm.forecast import fitted as artifacts
from gpulstm.forecast.config import ForecasterConfig
from gpulstm.forecast.decisions import seasons_for, test_rows
from gpulstm.forecast.fitted import Fitted, FittedMixture, past_of, read_like
from gpulstm.forecast.results import Backtest, Forecast
from gpulstm.forecast.short import SIMPLE
from gpulstm.training.history import History

if TYPE_CHECKING:
    from gpulstm.forecast.streaming import ForecastStream, MixtureStream
    from gpulstm.losses import Loss
    from gpulstm.training.callbacks import Callback

LOG = logging.getLogger("gpulstm")  # silent unless the program asks for it

_P = ParamSpec("_P")


def _arguments_of(options: Callable[_P, Any]) -> Callable[[Callable[..., None]], Callable[Concatenate[Any, _P], None]]:
    """Give a method the signature of a class of options, for type checkers, `help` and editors."""

    def decorate(method: Callable[..., None]) -> Callable[Concatenate[Any, _P], None]:
        signature = inspect.signature(options)
        own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        method.__signature__ = signature.replace(parameters=[own, *signature.parameters.values()])  # type: ignore[attr-defined]
        return method

    return decorate


def _with_options_of(options: type) -> Callable[[Any], Any]:
    """Give a method with `**table` the names of a class of options in its signature, for `help` and editors."""

    def decorate(method: Any) -> Any:
        signature = inspect.signature(method)
        own = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
        more = [
            one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in inspect.signature(options).parameters.values()
        ]
        method.__signature__ = signature.replace(parameters=[*own, *more])
        return method

    return decorate


def in_parts(data: Any) -> bool:
    """Whether data is a table in parts."""
    from gpulstm.data.parts import is_in_parts

    return is_in_parts(data)


def mapped(what: str, forecaster: Forecaster, *arguments: Any) -> Any:
    """A Dask frame with what a method gives of each part of a table."""
    from gpulstm.forecast import partitions

    return getattr(partitions, f"{what}_parts")(forecaster, *arguments)


class Forecaster:
    """A recurrent network that forecasts time series, made from the options that `ForecasterConfig` explains.

    Attributes:
        config, history: the options; the last training run.
        notes: sentences on what the data made necessary, such as series too short to learn from.

    Raises:
        ConfigError: an option out of range, or a combination that cannot be.
    """

    @_arguments_of(ForecasterConfig)
    def __init__(self, *args: Any, **options: Any) -> None:
        self.config = ForecasterConfig(*args, **options)
        self.history = History()
        self.notes: list[str] = []
        self._fitted: Fitted | FittedMixture | None = None
        self._series: SeriesSet | None = None

    @classmethod
    def of(cls, config: ForecasterConfig) -> Forecaster:
        """A forecaster with these options, not yet fitted."""
        return cls(**{one.name: getattr(config, one.name) for one in fields(config)})

    def __repr__(self) -> str:
        return f"Forecaster({', '.join(f'{name}={value!r}' for name, value in self.get_params().items())})"

    @property
    def fitted(self) -> Fitted | FittedMixture:
        """What the fit left: network, loss, scaler and the end of the series.

        Raises:
            NotFittedError: before `fit`.
        """
        if self._fitted is None:
            raise NotFittedError("this forecaster has not been fitted; call fit first, or load a fitted one")
        return self._fitted

    # -- fitting -----------------------------------------------------------------------------------------------------
    @_with_options_of(TableOptions)
    def fit(
        self,
        data: Any,
        *,
        progress: bool = True,
        callbacks: Sequence[Callback] = (),
        checkpoint: str | os.PathLike[str] | None = None,
        resume: str | os.PathLike[str] | None = None,
        warm_start: bool = False,
        **table: Any,
    ) -> Forecaster:
        """Learn from one or many series; under mpiexec all ranks call it with the same data, and train together.

        Args:
            data: a path, frame, dict or array with the roles of its columns, as `load_series` takes them; a
                `SeriesSet`; or a table in parts that is larger than memory, whole series in each: a Dask frame, a
                folder, or a pattern such as `"parts/*.parquet"`.
            progress: a bar on stderr.
            callbacks: further callbacks of the training run; of a mixture's networks, of the first one's.
            checkpoint: a file to which the present training run is saved after every epoch.
            resume: such a file, to go on from: with the same data and options the fit continues bit for bit.
            warm_start: go on from the weights of the last fit, or of the loaded model, for more epochs or with new
                rows; a single network keeps its scaling, too, and a mixture judges its members again.
            table: how the table is read, by the names of `TableOptions`: target, past, future, static, time, series,
                calendar, holidays, freq, missing, duplicates and others.

        Returns:
            this forecaster.

        Raises:
            DataError: a table that cannot be used, or too short a series.
            TrainingError, CheckpointError: as `Trainer`.
        """
        from gpulstm.data.parts import read_table
        from gpulstm.forecast.fit import Fitting

        if table.get("calendar") in ("auto", ["auto"], ("auto",)):  # a mixture looks at the calendar by itself
            del table["calendar"]
        earlier = self.fitted if warm_start else None
        named = table if earlier is None or table else {"like": earlier.tail}
        series = read_table(data, embedding=self.config.embedding, **named)
        fitting = Fitting(self.config, callbacks, progress, checkpoint, resume, earlier)
        self._fitted, self.history, self.notes = fitting.learn(series)
        self._series = series if isinstance(series, SeriesSet) else None
        for line in self.summary().splitlines():
            LOG.info(line)
        return self

    # -- forecasting -------------------------------------------------------------------------------------------------
    def predict(self, data: Any = None, horizon: int | None = None, future: Any = None) -> Forecast:
        """Forecast what follows the series.

        Args:
            data: other series with the same columns, to forecast instead of those of the fit; of a table in parts the
                forecast is a Dask frame with the rows that `predict_frame` gives of each.  A whole number is taken for
                the horizon.
            horizon: steps, at most those of the model with the direct strategy; all of them by default.
            future: the future covariates of the steps ahead, where there are any besides the calendar's: a table with
                their columns, or an array `(steps, columns)` or `(series, steps, columns)`.  The direct strategy needs
                them for the whole horizon of the model.

        Raises:
            NotFittedError: before `fit`.
            ConfigError: too long a horizon.
            DataError: series too short, or wrong future covariates.
        """
        fitted = self.fitted
        if isinstance(data, (int, np.integer)):
            if horizon is not None:
                raise ConfigError(f"data is {data}, expected series, or a horizon alone")
            data, horizon = None, int(data)
        if data is not None and in_parts(data):
            return mapped("predict", self, data, horizon, future)
        steps = fitted.horizon if horizon is None else validate.count("horizon", horizon)
        forecast, notes = fitted.forecast(past_of(self.fitted, data), steps, future)
        self.notes = [note for note in self.notes if not note.startswith(SIMPLE)] + notes
        return forecast

    def quantize(self, kind: str | None) -> Forecaster:
        """Forecast from now on with weights in "int8" or "bfloat16", None: as fitted; see `Recurrent.quantize`."""
        self.fitted.quantize(kind)
        return self

    def predict_frame(self, frame: Any, horizon: int | None = None) -> Any:
        """`predict` for the whole series of a pandas frame, as a frame in long form: for Dask, Spark or Ray."""
        return self.predict(frame, horizon).to_frame("pandas")

    def stream(self, data: Any = None, future: Any = None) -> ForecastStream | MixtureStream:
        """Start a forecast that follows the series row by row; see `ForecastStream` and `MixtureStream`.

        Args:
            data: other series with the same columns to start from, instead of those of the fit.
            future: as in `predict`, for the first forecast.
        """
        from gpulstm.forecast.streaming import ForecastStream, MixtureStream

        past, fitted = past_of(self.fitted, data), self.fitted
        if isinstance(fitted, FittedMixture):
            return MixtureStream(fitted, past, future)
        return ForecastStream(fitted.model(past, past.offsets[1:]), past, future)

    def backtest(
        self,
        data: Any = None,
        *,
        origins: int | Sequence[int] | np.ndarray | None = None,
        stride: int | None = None,
        automatic: bool = False,
    ) -> Backtest:
        """Forecast from many origins in the past, and compare with what came and with the naive forecasts.

        Args:
            data: series with the columns of the fit; by default those of the fit; or a table of them in parts.
            origins: a number of origins in each series, the last of them a horizon before its end; or row numbers; None
                for all of the test part (`test`), `stride` apart.
            stride: rows between neighboring origins, a quarter of the horizon by default.
            automatic: compare with AutoETS and AutoTheta, too, where statsforecast is installed; see
                `baselines.automatic_baselines`.

        Returns:
            a `Backtest`, whose `seen` tells whether some of the rows took part in training; of a table in parts a Dask
            frame, every forecast next to what came.

        Raises:
            NotFittedError: before `fit`.
            ConfigError: neither origins nor a test part.
            DataError: series too short.
        """
        from gpulstm.forecast.backtest import backtest

        if data is not None and in_parts(data):
            return mapped("backtest", self, data, origins, stride)
        fitted, series = self.fitted, self._series if data is None else self.read(data)
        if series is None:
            raise DataError("data is missing: a forecaster that was loaded has only the end of its series; give them")
        seasons = fitted.seasons if data is None else seasons_for(self.config, series)
        return backtest(fitted, series, seasons, test_rows(self.config, series), origins, stride, automatic)

    @property
    def members(self) -> dict[str, Any] | None:
        """Who forecasts, as JSON holds it; None for a single network.

        `members`: name, validation error (relative to `reference`, the seasonal-naive or naive forecast) and weight of
        each; `error` of the mixture, `without_networks` what it would be, `share` how much weights differ from series
        to series (0 to 1), and whether the best simple forecast is taken alone (`guarded`).
        """
        return self.fitted.members

    def summary(self) -> str:
        """What was fitted, in lines of text: members with their errors and weights, or the network."""
        return self.fitted.summary(self.notes)

    def tune(self, data: Any, *, trials: int = 20, timeout: float | None = None, **search: Any) -> Any:
        """Search for options with optuna, and take the best; what was fitted is forgotten.

        Args:
            data: the series, as `fit` takes them; roles of columns are given to `load_series` before.
            trials, timeout, search: as `tune.tune`: `space`, `storage`, `name`.

        Returns:
            optuna's study.
        """
        from gpulstm.data.loading import load_series
        from gpulstm.forecast.tune import tune

        read = load_series(data, embedding=self.config.embedding)
        config, study = tune(Forecaster.of, self.config, read, trials=trials, timeout=timeout, **search)
        self.config, self._fitted, self._series = config, None, None
        return study

    # -- the protocol of scikit-learn --------------------------------------------------------------------------------
    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The options by name, as scikit-learn asks for them."""
        return {one.name: getattr(self.config, one.name) for one in fields(self.config)}

    def set_params(self, **params: Any) -> Forecaster:
        """Change options; what was fitted is forgotten.

        Raises:
            ConfigError: there is no such option, or it is out of range.
        """
        unknown = sorted(params.keys() - self.get_params().keys())
        if unknown:
            raise ConfigError(f"a forecaster has no option {unknown[0]!r}")
        self.config, self._fitted, self._series = replace(self.config, **params), None, None
        return self

    def score(self, data: Any, y: Any = None) -> float:
        """Minus the MASE of forecasts of the rows of `data` that the fit has not seen, every origin of them: larger is
        better.

        Args:
            data: the series of the fit with the rows that came after it, as `backtest` takes it; without such rows the
                last horizon is forecast.
            y: not looked at.
        """
        from gpulstm.forecast.backtest import unseen_origins

        series = self.read(data)
        origins = unseen_origins(series, self.fitted.until, self.fitted.horizon)
        return -self.backtest(series, origins=origins).metrics()["model"]["MASE"]

    def __sklearn_clone__(self) -> Forecaster:
        return Forecaster.of(self.config)

    @property
    def tail(self) -> SeriesSet:
        """The end of the fitted series, from which `predict` goes on; row numbers stand in for times."""
        return self.fitted.tail

    def read(self, data: Any) -> SeriesSet:
        """A table read with the roles of columns of the fit, as `predict` and `backtest` read theirs.

        Raises:
            NotFittedError: before `fit`.
            DataError: as `load_series`, or the columns are not those of the fit.
        """
        return read_like(data, self.fitted.tail)

    # -- files -------------------------------------------------------------------------------------------------------
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write options, weights, scaling and the end of the series to one checkpoint file; of several ranks the first.

        Raises:
            NotFittedError: before `fit`.
            CheckpointError: the file cannot be written; one that was there is as it was.
        """
        fitted = self.fitted
        if not place().rank or self.config.parallel == "none":
            fitted.save(path, self.config.to_dict(), self.history, self.notes)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str = "auto", *, likelihood: Loss | None = None) -> Forecaster:
        """The forecaster that `save` wrote, on `device`: its forecasts are the same bit for bit on the same device.

        Args:
            likelihood: the loss of your own that it was fitted with, which a file cannot hold.

        Raises:
            CheckpointError: there is no such file, it is damaged, or holds something else.
            DeviceError: the device is not there.
        """
        config, fitted, history, notes = artifacts.load(path, device, likelihood)
        forecaster = cls.of(config)
        forecaster._fitted, forecaster.history, forecaster.notes = fitted, history, notes
        return forecaster
