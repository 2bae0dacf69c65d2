"""The forecaster: fit on a table, predict what follows, backtest, save and load.

    f = Forecaster(horizon=52, context=156)
    f.fit("co2.csv", target="co2", time="date", calendar="yearly", missing="interpolate")
    f.predict().to_csv("forecast.csv")

It holds everything that lies between a table and a network: roles of columns, cuts, scaling, windows, loss and training
run.  What it learned is one checkpoint file.

What only training, backtests and streams need is imported by those methods: the first forecast of a loaded model is
there the sooner.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpulstm import validate
from gpulstm.arrays.devices import resolve
from gpulstm.data.calendars import season_of, step_of
from gpulstm.data.loading import Names, known_ahead, load_series
from gpulstm.data.scaling import Scaler
from gpulstm.data.series import SeriesSet
from gpulstm.data.splits import Cuts, chronological_cuts
from gpulstm.data.tbptt import Lanes
from gpulstm.data.windows import WindowSet, window_set
from gpulstm.errors import ConfigError, DataError, NotFittedError
from gpulstm.forecast import fitted as fits
from gpulstm.forecast.config import Settings
from gpulstm.forecast.fitted import Fitted, end_of
from gpulstm.forecast.predictor import forecast_windows
from gpulstm.forecast.results import Backtest, Forecast
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.training.history import History

if TYPE_CHECKING:
    from gpulstm.forecast.streaming import Rolling
    from gpulstm.training.callbacks import Callback


@dataclass(eq=False)
class Forecaster(Settings):
    """A recurrent network that forecasts time series.

    The options, which `settings.Settings` explains one by one, are given when it is made.

    Attributes:
        history: of the last training run.
        notes: sentences on what the data made necessary, such as series too short to learn from.

    Raises:
        ConfigError: an option out of range, or a combination that cannot be.
    """

    history: History = field(default_factory=History, init=False, repr=False)
    notes: list[str] = field(default_factory=list, init=False, repr=False)
    _fitted: Fitted | None = field(default=None, init=False, repr=False)
    _series: SeriesSet | None = field(default=None, init=False, repr=False)

    # -- fitting -----------------------------------------------------------------------------------------------------
    def fit(
        self,
        data: Any,
        *,
        target: Names | None = None,
        past: Names = (),
        future: Names = (),
        time: str | int | None = None,
        series: str | int | None = None,
        calendar: str | Sequence[str] = (),
        missing: str = "refuse",
        delimiter: str | None = None,
        progress: bool = True,
        callbacks: Sequence[Callback] = (),
        checkpoint: str | os.PathLike[str] | None = None,
        resume: str | os.PathLike[str] | None = None,
    ) -> Forecaster:
        """Learn from one or many series.

        Args:
            data: a path, frame, dict or array with the roles of its columns, as `table.load_series` takes them; or a
                `SeriesSet`.
            progress: a bar on stderr.
            callbacks: further callbacks of the training run.
            checkpoint: a file to which the training run is saved after every epoch.
            resume: such a file, to go on from: with the same data and options the run continues bit for bit.

        Returns:
            this forecaster, with the weights of the best epoch.

        Raises:
            DataError: a table that cannot be used, or too short a series.
            TrainingError, CheckpointError: as `Trainer`.
        """
        from gpulstm.optimizers import AdamW
        from gpulstm.training.callbacks import CheckpointEvery, EarlyStopping, Progress
        from gpulstm.training.trainer import Trainer

        read = load_series(
            data,
            target=target,
            past=past,
            future=future,
            time=time,
            series=series,
            calendar=calendar,
            missing=missing,
            delimiter=delimiter,
        )
        if self.strategy == "recursive" and read.past:
            names = ", ".join(read.columns[read.targets : read.targets + read.past])
            raise ConfigError(
                f"strategy='recursive' cannot use the past covariates {names}: "
                "their values over the horizon are unknown"
            )
        cuts = chronological_cuts(read, self.validation, self.test)
        scaler = Scaler(self.scaling).fit(
            read.values,
            read.offsets,
            cuts.train,
            names=read.names,
            columns=read.columns,
            skip=2 * len(read.calendar),
        )
        train, judge = self._parts(read, scaler, cuts)
        loss, backend = self.loss(), resolve(self.device)
        config = NetworkConfig(
            self.stack(train.inputs),
            train.horizon,
            read.targets,
            loss.outputs,
            future_size=read.future,
            chrono=self.chrono,
        )
        network = Network(config, device=backend, seed=self.seed, engine=self.engine)
        watchers: list[Callback] = [Progress(progress), *callbacks]
        if self.patience is not None:
            watchers.append(EarlyStopping(self.patience))
        if checkpoint is not None:
            watchers.append(CheckpointEvery(checkpoint, epochs=1))
        trainer = Trainer(
            network,
            loss,
            AdamW(weight_decay=self.weight_decay),
            self.rate(self.epochs * -(-len(train) // self.batch_size)),
            epochs=self.epochs,
            batch_size=self.batch_size,
            clip_norm=self.clip_norm,
            seed=self.seed,
            memory=self.memory,
            callbacks=watchers,
            extra={"forecaster": self.to_dict()},
        )
        if resume is not None:
            trainer.restore(resume)
        self.notes = scaler.notes()
        if train.skipped:
            self.notes.append(f"too short to learn from: {', '.join(train.skipped)}")
        self.notes += _uneven(read)
        self.history = trainer.fit(train, judge)
        times = [read.time_of(index) for index in range(len(read))]
        until = np.array(
            [t[stop - 1 - start] for t, stop, start in zip(times, cuts.validation, read.offsets, strict=False)]
        )
        self._fitted = Fitted(network, loss, scaler, end_of(read, self.context), until, self._season(read))
        self._series = read
        return self

    def _parts(self, series: SeriesSet, scaler: Scaler, cuts: Cuts) -> tuple[WindowSet | Lanes, WindowSet | None]:
        """What to train on, and validation windows."""
        windows = window_set(
            series,
            scaler.transform,
            context=self.context,
            horizon=self.horizon if self.strategy == "direct" else 1,
            cuts=cuts,
            window_scaling=self.window_scaling,
            carry=self.training_carry,
            dtype=self.stack(1).data_dtype,
            origins=np.zeros(0, np.int64),
        )
        judge = windows.within(cuts.train, cuts.validation, self.stride)
        rows = int((cuts.validation - cuts.train).max())
        train: WindowSet | Lanes
        if self.training == "truncated":
            reach = self.chunk if self.reach is None else self.reach
            lanes = {"lanes": self.batch_size, "chunk": self.chunk, "reach": reach}
            train = Lanes(windows, cuts.train, borders=self.borders, **lanes)
        else:
            train = windows.within(series.offsets[:-1], cuts.train, self.stride)
            windows.check_training(train, cuts)
        if rows and not len(judge):
            raise ConfigError(
                f"validation={self.validation!r} keeps {rows} rows, fewer than the horizon of "
                f"{windows.horizon}; keep more, or none with validation=0"
            )
        return train, judge if len(judge) else None

    # -- forecasting -------------------------------------------------------------------------------------------------
    def predict(self, horizon: int | None = None, future: Any = None, *, data: Any = None) -> Forecast:
        """Forecast what follows the series.

        Args:
            horizon: steps, at most those of the model with the direct strategy; all of them by default.
            future: the future covariates of the steps ahead, where there are any besides the calendar's: a table with
                their columns, or an array `(steps, columns)` or `(series, steps, columns)`.  The direct strategy needs
                them for the whole horizon of the model.
            data: other series with the same columns, to forecast instead of those of the fit.

        Raises:
            NotFittedError: before `fit`.
            ConfigError: too long a horizon.
            DataError: series too short, or wrong future covariates.
        """
        fitted = self._need()
        steps = self.horizon if horizon is None else validate.count("horizon", horizon)
        if self.strategy == "direct" and steps > self.horizon:
            raise ConfigError(
                f"horizon is {steps}, but this direct forecaster was made for {self.horizon} steps; a recursive one "
                "(strategy='recursive') forecasts any number"
            )
        length = self.horizon if self.strategy == "direct" else steps
        past, scaler = self._given(data)
        self._check_lengths(past)
        known = past.extended(length, known_ahead(past, length, future))
        origins = known.offsets[1:] - length
        windows = window_set(
            known,
            scaler.transform,
            context=self.context,
            horizon=length,
            cuts=Cuts(origins, origins),
            window_scaling=self.window_scaling,
            dtype=self.stack(1).data_dtype,
            origins=origins,
        )
        mean, quantiles = forecast_windows(
            fitted.network, fitted.loss, windows, scaler, self.sampling(), **self.passes()
        )
        index = np.stack([known.time_of(place)[-length:] for place in range(len(known))])
        return Forecast(
            known.names,
            known.target_names,
            index[:, :steps],
            mean[:, :steps],
            fitted.loss.levels,
            None if quantiles is None else quantiles[:, :steps],
        )

    def stream(self, data: Any = None, future: Any = None) -> Rolling:
        """Start a stateful forecast that follows the series row by row; see `Rolling`.

        Args:
            data: other series with the same columns to start from, instead of those of the fit.
            future: as in `predict`, for the first forecast.
        """
        from gpulstm.forecast.streaming import Rolling

        fitted = self._need()
        past, scaler = self._given(data)
        self._check_lengths(past)
        return Rolling(
            fitted.network,
            fitted.loss,
            scaler,
            past.tail(past.offsets[1:] - self.context),
            context=self.context,
            horizon=self.horizon,
            window_scaling=self.window_scaling,
            carry=self.carry,
            draws=self.sampling(),
            future=future,
        )

    def backtest(
        self, data: Any = None, *, origins: int | Sequence[int] | np.ndarray | None = None, stride: int | None = None
    ) -> Backtest:
        """Forecast from many origins in the past, and compare with what came and with the naive forecasts.

        Args:
            data: series with the columns of the fit; by default those of the fit.
            origins: a number of origins in each series, the last of them a horizon before its end; or row numbers; None
                for all of the test part (`test`), `stride` apart.
            stride: rows between neighbouring origins, a quarter of the horizon by default.

        Returns:
            forecasts and metrics; `seen` tells whether some of the rows took part in training.

        Raises:
            NotFittedError: before `fit`.
            ConfigError: neither origins nor a test part.
            DataError: series too short.
        """
        from gpulstm.forecast.backtest import backtest_origins, run_backtest

        fitted = self._need()
        if data is None and self._series is None:
            raise DataError("data is missing: a forecaster that was loaded has only the end of its series; give them")
        series = self._series if data is None else self.read(data)
        assert series is not None
        tests = None
        if isinstance(self.test, str) or self.test != 0:
            tests = chronological_cuts(series, 0, self.test).validation
        step = max(1, self.horizon // 4) if stride is None else validate.count("stride", stride)
        rows = backtest_origins(series, self.context, self.horizon, origins, step, tests)
        which = np.searchsorted(series.offsets, rows, side="right") - 1
        firsts = np.array([rows[which == index].min() for index in range(len(series))])
        result = run_backtest(
            fitted.network,
            fitted.loss,
            self._scaler(series, firsts),
            series,
            rows,
            context=self.context,
            horizon=self.horizon,
            window_scaling=self.window_scaling,
            season=fitted.season,
            draws=self.sampling(),
            **self.passes(),
        )
        known = dict(zip(fitted.scaler.names, fitted.until, strict=True))
        starts = result.index[:, 0]
        seen = any(
            name in known and bool((starts[result.series == index] <= known[name]).any())
            for index, name in enumerate(series.names)
        )
        return replace(result, seen=seen)

    # -- series ------------------------------------------------------------------------------------------------------
    @property
    def tail(self) -> SeriesSet:
        """The end of the fitted series, from which `predict` goes on; row numbers stand in for times."""
        return self._need().tail

    def read(self, data: Any) -> SeriesSet:
        """A table read with the roles of columns of the fit, as `predict` and `backtest` read theirs.

        Raises:
            NotFittedError: before `fit`.
            DataError: as `table.load_series`, or the columns are not those of the fit.
        """
        tail = self._need().tail
        own = len(tail.columns) - 2 * len(tail.calendar)
        series = (
            data
            if isinstance(data, SeriesSet)
            else load_series(
                data,
                target=tail.columns[: tail.targets],
                past=tail.columns[tail.targets : tail.targets + tail.past],
                future=tail.columns[tail.targets + tail.past : own],
                time=tail.time_name,
                series=tail.series_name,
                calendar=tail.calendar,
                missing=tail.missing,
            )
        )
        if (series.columns, series.targets, series.past) != (tail.columns, tail.targets, tail.past):
            raise DataError(
                f"the series have the columns {', '.join(series.columns)} in other roles or order than those "
                f"of the fit, {', '.join(tail.columns)}"
            )
        return series

    # -- files -------------------------------------------------------------------------------------------------------
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write options, weights, scaling and the end of the series to one checkpoint file.

        Raises:
            NotFittedError: before `fit`.
            CheckpointError: the file cannot be written; one that was there is as it was.
        """
        self._need().save(path, self.to_dict(), self.history, self.notes)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str = "auto") -> Forecaster:
        """The forecaster that `save` wrote, on `device`: its forecasts are the same bit for bit on the same device.

        Raises:
            CheckpointError: there is no such file, it is damaged, or holds something else.
            DeviceError: the device is not there.
        """
        forecaster, fitted, history, notes = fits.load(path, cls, device)
        assert isinstance(forecaster, cls)
        forecaster._fitted, forecaster.history, forecaster.notes = fitted, history, notes
        return forecaster

    # -- parts -------------------------------------------------------------------------------------------------------
    def _season(self, series: SeriesSet) -> int:
        if self.season is not None:
            return self.season
        return 1 if series.time is None or series.lengths[0] < 2 else season_of(step_of(series.time_of(0)))

    def _need(self) -> Fitted:
        if self._fitted is None:
            raise NotFittedError("this forecaster has not been fitted; call fit first, or load a fitted one")
        return self._fitted

    def _given(self, data: Any) -> tuple[SeriesSet, Scaler]:
        """The end of the fitted series, or other series, and a scaler with one row for each."""
        fitted = self._need()
        if data is None:
            return fitted.tail, fitted.scaler
        series = self.read(data)
        return end_of(series, self.context), self._scaler(series, series.offsets[1:])

    def _scaler(self, series: SeriesSet, stops: np.ndarray) -> Scaler:
        """One row for each series: that of the fit where it was fitted, else of the rows before `stops`."""
        fitted = self._need()
        names = fitted.scaler.names
        if series.names == names:
            return fitted.scaler
        scaler = Scaler(self.scaling).fit(
            series.values,
            series.offsets,
            stops,
            names=series.names,
            columns=series.columns,
            skip=2 * len(series.calendar),
        )
        for index, name in enumerate(series.names):
            if name in names:
                scaler.location[index] = fitted.scaler.location[names.index(name)]
                scaler.scale[index] = fitted.scaler.scale[names.index(name)]
        return scaler

    def _check_lengths(self, series: SeriesSet) -> None:
        for name, rows in zip(series.names, series.lengths, strict=True):
            if rows < self.context:
                raise DataError(f"series {name!r} has {rows} rows, fewer than the context of {self.context}")


def _uneven(series: SeriesSet) -> list[str]:
    """A sentence on series whose rows are not evenly spaced in time."""
    if series.time is None:
        return []
    found = [
        name
        for index, name in enumerate(series.names)
        if series.lengths[index] > 1 and not step_of(series.time_of(index)).regular
    ]
    if not found:
        return []
    return [f"rows not evenly spaced, so that forecasts are dated by the most frequent step: {', '.join(found)}"]
