"""Chronological cuts: where training, validation and test part of each series end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np

from gpulstm.data.series import SeriesSet
from gpulstm.data.times import TIME, to_utc
from gpulstm.errors import ConfigError
from gpulstm.validate import number_of, whole_of


@dataclass(frozen=True)
class Cuts:
    """Where the parts of each series end.

    Attributes:
        train, validation: `(series,)` int64: first absolute row after the training and the validation part; what
            follows is the test part.
    """

    train: np.ndarray
    validation: np.ndarray


Amount = float | int | str | date | np.datetime64


def chronological_cuts(series: SeriesSet, validation: Amount = 0.0, test: Amount = 0.0) -> Cuts:
    """Cut every series into training, validation and test part, in the order of time.

    Args:
        validation, test: the size of a part as a fraction of the rows (float below 1), as a number of rows (int), or
            the time at which it begins (ISO date, `date`, `datetime64`).

    Raises:
        ConfigError: an amount that is neither, or parts that leave no training rows in any series.
    """
    stop = series.offsets[1:].astype(np.int64)
    validation_stop = _cut(series, stop, test, "test")
    train_stop = _cut(series, validation_stop, validation, "validation")
    if not (train_stop > series.offsets[:-1]).any():
        raise ConfigError(
            f"validation={validation!r} and test={test!r} leave no training rows of any series; the longest has "
            f"{series.lengths.max()} rows"
        )
    return Cuts(train_stop, validation_stop)


def parse_amount(text: str) -> Amount:
    """`"0.1"` as a fraction, `"52"` as a number of rows, anything else as a date for `chronological_cuts` to judge."""
    whole, number = whole_of(text), number_of(text)
    return whole if whole is not None else text if number is None else number


def _cut(series: SeriesSet, stop: np.ndarray, amount: Amount, name: str) -> np.ndarray:
    if isinstance(amount, bool) or not isinstance(
        amount, (int, float, str, date, np.integer, np.floating, np.datetime64)
    ):
        raise ConfigError(f"{name} is {amount!r}, expected a fraction, a number of rows or a date")
    if isinstance(amount, (int, np.integer)):
        if amount < 0:
            raise ConfigError(f"{name} is {amount}, expected a number of rows of at least 0")
        return np.maximum(stop - int(amount), series.offsets[:-1])
    if isinstance(amount, (float, np.floating)):
        if not 0 <= amount < 1:
            raise ConfigError(
                f"{name} is {amount}, expected a fraction of at least 0 and below 1, or a whole number of rows"
            )
        return stop - np.round(amount * series.lengths).astype(np.int64)
    clock = None if series.time is None else series.axis.form.clock(series.time)
    if clock is None:
        raise ConfigError(f"{name} is the date {amount!s}, but the series have no column of dates")
    try:
        moment = np.datetime64(amount).astype(TIME)
    except ValueError:
        raise ConfigError(f"{name} is {amount!r}, expected a fraction, a number of rows or an ISO date") from None
    moment = to_utc(moment[None], series.axis.form.zone)[0]
    earlier = np.concatenate([[0], np.cumsum(clock < moment)])  # rows before the moment, up to each row
    before = earlier[series.offsets[1:]] - earlier[series.offsets[:-1]]
    return np.minimum(stop, series.offsets[:-1] + before)
