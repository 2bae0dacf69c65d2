"""Fitting and forecasting of tables that are larger than memory, part by part.

A single network learns from windows that stream through a buffer of a few parts (`data.streamed`), each scaled by its
own context: nothing is kept per series, so there may be any number of them.  Forecasts and backtests are functions of
one part, which Dask maps over all of them, as Spark or Ray may.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace
from typing import Any

import numpy as np

from gpulstm.arrays.random import host_generator
from gpulstm.data.parts import Parts, parts_of
from gpulstm.data.series import SeriesSet, end_of
from gpulstm.data.splits import chronological_cuts
from gpulstm.data.streamed import StreamedWindows, merged
from gpulstm.data.windows import WindowSet
from gpulstm.errors import ConfigError, DataError, option
from gpulstm.forecast.config import ALONE, AUTO, ForecasterConfig
from gpulstm.forecast.decisions import resolved, typical_rows, with_test
from gpulstm.forecast.fitted import Fitted, new_scaler
from gpulstm.forecast.learning import last_times, run_trainer, windows_of
from gpulstm.forecast.members.training import Runs
from gpulstm.training.history import History

BUFFER = 4  # parts in memory while a network learns
JUDGES = 4  # parts whose validation windows judge the epochs
_JUDGES = 0x10D6  # which stream of the seed these are drawn from


def config_for_parts(config: ForecasterConfig) -> ForecasterConfig:
    """The options of a network that learns from parts: windows scaled by themselves alone.

    Raises:
        ConfigError: options that need all series at one time.
    """
    for name, possible in (
        ("members", (AUTO, ALONE)),
        ("scaling", ("standard", "none")),
        ("training", ("windows",)),
        ("window_scaling", ("last", "standard", "mean")),
        ("transform", ("none",)),
        ("residual", ("none",)),
        ("skip", ("none",)),
    ):
        if getattr(config, name) not in possible:
            wanted = " or ".join(repr(value) for value in possible)
            raise ConfigError(f"{name} is {getattr(config, name)!r}, expected {wanted} for a table in parts")
    scaling = "standard" if config.window_scaling == "last" else config.window_scaling
    return replace(config, members=ALONE, scaling="none", window_scaling=scaling)


def fit_parts(
    config: ForecasterConfig, parts: Parts, seasons: tuple[int, ...], runs: Runs
) -> tuple[Fitted, History, list[str]]:
    """Train a network on a table in parts.

    Args:
        config: the forecaster's options.
        parts: with whole series each.
        seasons: rows in each season.
        runs: callbacks, checkpoint and what to resume.

    Returns:
        what was fitted, the run's history, and sentences on what the data made necessary.

    Raises:
        ConfigError: as `config_for_parts`.
        DataError: a series lies in two parts, or no part has a window.
    """
    first = parts.first
    config = resolved(config_for_parts(with_test(config, first)), seasons[0], typical_rows(config, first))
    reader = Reader(parts, config)
    counts, judged = reader.count()
    if not counts.any():
        raise DataError(f"no part has a window of {config.context} + {config.training_horizon} rows before validation")
    some = int(np.flatnonzero(counts)[0])
    train = StreamedWindows(reader.train, counts, reader.train(some), buffer=BUFFER, name=str(parts.identity()))
    candidates = np.flatnonzero(judged)
    words = host_generator(config.seed, _JUDGES).bit_generator.random_raw(len(candidates))
    judges = np.sort(candidates[np.argsort(words, kind="stable")[:JUDGES]])
    validation = merged([reader.judge(int(part)) for part in judges]) if len(judges) else None
    trainer, history = run_trainer(config, first, (train, validation), runs)
    cuts = chronological_cuts(first, config.validation, config.test)
    notes = [f"learned from {len(parts)} parts with {reader.series} series, each window scaled by its own context"]
    if len(judges) < len(candidates):
        notes.append(f"epochs were judged by the validation rows of {len(judges)} of the parts")
    scaler = new_scaler(config, first, cuts.train)
    until, tail = last_times(first, cuts.validation), end_of(first, config.context)
    return Fitted(config, trainer.network, trainer.state.loss, scaler, tail, until, seasons), history, notes


class Reader:
    """The windows of each part.

    Args:
        parts: the table.
        config: lengths and scaling.

    Attributes:
        series: how many there are, once they were counted.
    """

    def __init__(self, parts: Parts, config: ForecasterConfig) -> None:
        self._parts, self._config, self.series = parts, config, 0

    def count(self) -> tuple[np.ndarray, np.ndarray]:
        """`(parts,)` training and validation windows of each part; every part is read once.

        Raises:
            DataError: a series lies in two parts.
        """
        counts, judged = np.zeros(len(self._parts), np.int64), np.zeros(len(self._parts), np.int64)
        seen = np.zeros(0, np.uint64)
        for part in range(len(self._parts)):
            series = self._parts.series(part)
            names = np.array([_hash(name) for name in series.names], np.uint64)
            twice = np.isin(names, seen)
            if twice.any():
                name = series.names[int(np.flatnonzero(twice)[0])]
                raise DataError(
                    f"series {name!r} is in part {part} and in one before it; a part has to hold whole series"
                )
            seen = np.concatenate([seen, names])
            counts[part], judged[part] = (len(windows) for windows in self._windows(series))
        self.series = len(seen)
        return counts, judged

    def train(self, part: int) -> WindowSet:
        """The training windows of a part."""
        return self._windows(self._parts.series(part))[0]

    def judge(self, part: int) -> WindowSet:
        """The validation windows of a part."""
        return self._windows(self._parts.series(part))[1]

    def _windows(self, series: SeriesSet) -> tuple[WindowSet, WindowSet]:
        config = self._config
        cuts = chronological_cuts(series, config.validation, config.test)
        windows = windows_of(config, series, new_scaler(config, series, cuts.train), cuts)
        train = windows.within(series.offsets[:-1], cuts.train, config.stride)
        return train, windows.within(cuts.train, cuts.validation, config.stride)


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


# -- forecasts ---------------------------------------------------------------------------------------------------------
def predict_parts(forecaster: Any, data: Any, horizon: int | None, future: Any) -> Any:
    """Forecasts of all parts by a `Forecaster` as a Dask frame, a partition a part; nothing is computed yet.

    Raises:
        ConfigError: `future` is given, which would have to be cut as the parts are.
    """
    if future is not None:
        raise ConfigError(f"{option('future')} cannot be given for a table in parts; forecast its parts one by one")
    steps = forecaster.fitted.horizon if horizon is None else horizon
    frame = parts_of(data, like=forecaster.tail).frame()
    like = forecaster.predict(steps).to_frame("pandas").iloc[:0]
    return frame.map_partitions(_predicted, _without_series(forecaster), steps, like, meta=like)


def backtest_parts(forecaster: Any, data: Any, origins: Any, stride: int | None) -> Any:
    """Forecasts from past origins of all parts, next to what came, as a Dask frame."""
    parts = parts_of(data, like=forecaster.tail)
    like = _judged(parts.table(0), forecaster, origins, stride, None).iloc[:0]
    return parts.frame().map_partitions(_judged, _without_series(forecaster), origins, stride, like, meta=like)


def _without_series(forecaster: Any) -> Any:
    """What a worker needs of a forecaster."""
    sent = copy.copy(forecaster)
    sent._series = None
    return sent


def _predicted(frame: Any, forecaster: Any, steps: int, like: Any) -> Any:
    return forecaster.predict_frame(frame, steps) if len(frame) else like


def _judged(frame: Any, forecaster: Any, origins: Any, stride: int | None, like: Any) -> Any:
    if like is not None and not len(frame):
        return like
    return forecaster.backtest(frame, origins=origins, stride=stride).to_frame("pandas")
