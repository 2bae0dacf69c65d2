"""What the data decide before anything is learned: windows, where learning starts, and where members are judged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpulstm.forecast.panel import Panel, Seasons

WINDOWS = 20_000  # training windows at most
NUMBERS = 8_000_000  # in those windows at most
JUDGED = 2_000  # series at most that members are judged on
LONGEST = 1_024  # rows of a window at most
SEEN = 512  # rows at most that a learned member sees one by one
FEW_SERIES = 2  # from so many on series are judged as a panel
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
    cut = stops.copy()
    if len(panel) < FEW_SERIES or (len(usable) < FEW_SERIES and len(usable)):
        index = int(usable[0]) if len(usable) else 0
        count = int(rows[index])
        kept = int(min(max(3 * horizon, 0.2 * count), count / 3)) if amount is None else amount
        kept = max(kept, horizon)
        begin, end = int(stops[index]) - kept, int(stops[index]) - horizon
        origins = np.arange(end, begin - 1, -max(1, horizon // 8) if kept >= 400 else -1)[::-1]
        cut[index] = begin
        return origins, end - origins, cut
    if len(usable) > JUDGED:
        usable = np.sort(np.random.default_rng(seed).choice(usable, JUDGED, replace=False))
    step = max(1, horizon // 2)
    room = rows[usable] // 3 if amount is None else np.full(len(usable), amount)
    count = np.clip((room - horizon) // step + 1, 1, 7)
    if len(usable) < 8:  # few series are judged at more origins
        step = max(1, horizon // 8) if int(room.min()) >= 400 else 1
        count = np.maximum((np.maximum(room, horizon) - horizon) // step + 1, 1)
    origins, age = [], []
    for index, many in zip(usable, count, strict=True):
        back = np.arange(int(many)) * step
        origins.append(stops[index] - horizon - back)
        age.append(back)
        cut[index] = stops[index] - horizon - back[-1]
    return np.concatenate(origins), np.concatenate(age), cut


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
