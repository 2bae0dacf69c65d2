"""What the data decide before anything is learned: windows, where learning starts, and where members are judged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpulstm.forecast.panel import Panel, Seasons

WINDOWS = 20_000  # training windows at most
NUMBERS = 8_000_000  # in those windows at most
JUDGED = 2_000  # series, or origins of one of a few, at most that members are judged on
LONGEST = 1_024  # rows of a window at most
SEEN = 512  # rows at most that a learned member sees one by one
PANEL = 8  # series from which on each is judged at few origins
HOURS = 696  # rows of the window for hours: four weeks and a day
ORIGINS = 500  # of one series at most
BLOCKS = 5


@dataclass(frozen=True)
class Setup:
    """Lengths in rows.

    Attributes:
        horizon: H.
        seasons: of the time step.
        length: L, what learned members see.
        limit: C, what smoothing sees.
        first: rows before the first origin that is learned from.
    """

    horizon: int
    seasons: Seasons
    length: int
    limit: int
    first: int

    @property
    def sight(self) -> int:
        """Rows before an origin within which all values have to be above zero for logarithms: what members look at."""
        m, long = self.seasons.short, self.seasons.long
        return max(self.limit, self.length, 6 * m + self.horizon + m, 5 * long + self.horizon + long)

    @classmethod
    def of(cls, horizon: int, seasons: Seasons, rows: np.ndarray, kept: int, context: int | None = None) -> Setup:
        """For series of `rows` `(series,)` rows, of which `kept` are for validation; `context` is L, if given."""
        m, longest = seasons.short, int(rows.max())
        typical = int(np.median(rows))
        if seasons.long:
            length = seasons.long + m
        elif m > 1:
            length = 2 * m + 1
        else:
            length = max(4, min(24, (typical - kept) // 4))
        length = min(length, SEEN) if context is None else context
        limit = HOURS if seasons.long else max(10 * m if m > 1 else 60, 2 * horizon, length)
        first = max(4, min(24, typical // 4)) if m == 1 else max(m, min(2 * m + 1, int(rows.min()) - kept - horizon))
        return cls(horizon, seasons, length, min(longest, limit, LONGEST), min(first, max(2, longest - horizon)))


def seasons_of(short: int, rows: int, year: float = 0.0) -> Seasons:
    """The seasons of a time step with `short` rows in a season and series of `rows` rows."""
    long = 168 if short == 24 and rows >= 4 * 168 else 0
    return Seasons(short, long, year)


def validation_origins(
    panel: Panel, stops: np.ndarray, horizon: int, amount: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where members are judged.

    Args:
        stops: `(series,)` first row after those that may be seen.
        amount: rows of each series to judge in; None lets the lengths decide.

    Returns:
        origins `(N,)`, their age `(N,)` in rows before the latest of their series, and `(series,)` the first row of
        each series that models under judgement may not learn from.
    """
    rows = stops - panel.starts
    usable = np.flatnonzero(rows > horizon + 1)
    if len(usable) > JUDGED:
        usable = np.sort(np.random.default_rng(seed).choice(usable, JUDGED, replace=False))
    cut, count = stops.copy(), rows[usable]
    if len(usable) < PANEL:
        room = _room(panel, stops[usable], usable, horizon) if amount is None else np.full(len(usable), amount)
        room = np.maximum(room, horizon)
        step = np.maximum(np.where(room >= 400, max(1, horizon // 8), 1), -(-room // JUDGED))
        many = (room - horizon) // step + 1
    else:
        room = count // 3 if amount is None else np.full(count.shape, amount)
        step = np.full(count.shape, max(1, horizon // 2))
        many = np.clip((room - horizon) // step + 1, 1, 7)
    many = np.minimum(many, (count - horizon - 2) // step + 1)
    age = [np.arange(one) * apart for one, apart in zip(many, step, strict=True)]
    latest = stops[usable] - horizon
    for index, last, back in zip(usable, latest, age, strict=True):
        cut[index] = last - back[-1]
    return np.repeat(latest, many) - np.concatenate(age), np.concatenate(age), cut


def _room(panel: Panel, stops: np.ndarray, series: np.ndarray, horizon: int) -> np.ndarray:
    """Rows before the stop of each of some series that hold enough observed values to judge by: three horizons or a
    fifth of all, but at most a third.
    """
    before = np.concatenate([[0], np.cumsum(panel.observed)])
    count = before[stops] - before[panel.starts[series]]
    enough = np.minimum(np.maximum(3 * horizon, 0.2 * count), count / 3).astype(np.int64)
    return stops - (np.searchsorted(before, before[stops] - enough, side="right") - 1)


def training_origins(panel: Panel, stops: np.ndarray, setup: Setup, first: int, seed: int) -> np.ndarray:
    """Origins of windows whose horizon ends before `stops` `(series,)`; of too many a random sample.

    In panels of hours only those of the stops' own phase: they are what will be asked for.
    """
    m = setup.seasons.short
    step = m if setup.seasons.long and len(panel) > 1 else 1
    last = stops - setup.horizon
    begin = panel.starts + first
    count = np.maximum((last - begin) // step + 1, 0)
    total = np.concatenate([[0], np.cumsum(count)])
    index = np.arange(total[-1])
    most = min(WINDOWS, NUMBERS // (setup.length + 2 * setup.horizon))
    if total[-1] > most:
        index = np.sort(np.random.default_rng(seed + 1).choice(total[-1], most, replace=False))
    series = np.searchsorted(total, index, side="right") - 1
    return last[series] - (index - total[series]) * step
