"""Simple forecasts, which learn nothing: each looks at the window before its origin and no further."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gpulstm.forecast.members.harmonic import harmonic
from gpulstm.forecast.members.lagged import lagged
from gpulstm.forecast.members.smoothing import damped, theta
from gpulstm.forecast.panel import Seasons, View

WEEKS = 4  # whole weeks that the members for hours look at
LONGEST = 3653  # rows that a harmonic of days is fitted to: ten years


@dataclass(frozen=True)
class Simple:
    """A forecast without parameters.

    Args:
        kind: a key of `_RULES`.
        log: over logarithms, in windows of values above zero.
        season: m, rows in the season it repeats.
        limit: rows it looks at.
        count: seasons it takes the mean of.
        test: whether a season has to be significant.
        move: rows at the end whose level the forecast is moved to; 0 leaves it.
        waves, trend: of a harmonic.
    """

    kind: str
    log: bool = False
    season: int = 1
    limit: int = 60
    count: int = 1
    test: bool = True
    move: int = 0
    waves: tuple[tuple[float, int], ...] = ()
    trend: bool = False

    @property
    def name(self) -> str:
        """As tables of members show it."""
        words = {
            "naive": "naive",
            "seasonal": "seasonal naive" if self.count == 1 else f"mean of {self.count} seasons",
            "drift": "drift",
            "theta": "theta",
            "damped": "damped Holt",
            "harmonic": "harmonics",
            "blend": "mean of day and week ago",
            "lagged": "regression on day and week ago",
        }[self.kind]
        notes = []
        if self.kind in ("seasonal", "theta", "damped") and self.season in (168,):
            notes.append("week")
        if self.kind in ("theta", "damped") and not self.test:
            notes.append("season untested")
        if self.move:
            notes.append(f"level of last {self.move}")
        if self.waves:
            notes.append(" and ".join(f"{harmonics} x {period:g}" for period, harmonics in self.waves))
            notes.append(f"last {self.limit} rows")
        if self.log:
            notes.append("log")
        return words + (f" ({', '.join(notes)})" if notes else "")

    def config(self) -> dict[str, Any]:
        """As a file keeps it."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Simple:
        """The member that `config` described."""
        waves = tuple((float(period), int(harmonics)) for period, harmonics in config["waves"])
        return cls(**{**config, "waves": waves})

    def forecast(self, view: View) -> np.ndarray:
        """Medians `(N, H)` in the units of the series."""
        view = view.logged if self.log else view
        return view.kept(self, lambda: view.back(_RULES[self.kind](self, view)))

    def raw(self, view: View) -> np.ndarray:
        """The same in the view's own space: logarithms where it holds those."""
        return view.kept((self, "raw"), lambda: _RULES[self.kind](self, view))


def last_value(view: View) -> np.ndarray:
    """`(N, 1)`, the last value."""
    return view.take(view.origins[:, None] - 1)


def phase_lags(season: int, horizon: int, back: int) -> np.ndarray:
    """Rows between the origin and the value of each step's phase, `back` whole seasons before the latest: `(H,)`."""
    steps = np.arange(horizon)
    return season * (steps // season + 1 + back) - steps


def _naive(member: Simple, view: View) -> np.ndarray:
    return np.repeat(last_value(view), view.horizon, axis=1)


def _seasonal(member: Simple, view: View) -> np.ndarray:
    """The mean of the last `count` values of each phase, of those that the series has."""
    total, have_any = np.zeros((len(view), view.horizon)), np.zeros((len(view), view.horizon))
    for back in range(member.count):
        values, have = view.lags(phase_lags(member.season, view.horizon, back))
        total += np.where(have, values, 0.0)
        have_any += have
    found = np.asarray(np.where(have_any > 0, total / np.maximum(have_any, 1), last_value(view)))
    if not member.move:
        return found
    # the rows that were averaged against the last ones, in equally many whole seasons
    recent, have = view.lags(np.arange(1, member.move + 1))
    level = _mean(recent, have)
    if member.count == 1:
        before, have = view.lags(member.season + np.arange(1, member.move + 1))
    else:
        before, have = view.lags(np.arange(1, member.count * member.season + 1))
    known = np.asarray(have.any(axis=1))[:, None]
    return np.where(known, found + (level - _mean(before, have))[:, None], found)


def _mean(values: np.ndarray, have: np.ndarray) -> np.ndarray:
    return np.where(have, values, 0.0).sum(axis=1) / np.maximum(have.sum(axis=1), 1)


def _blend(member: Simple, view: View) -> np.ndarray:
    """The mean of the values a day and a week ago."""
    day = Simple("seasonal", season=view.season).raw(view)
    return (day + Simple("seasonal", season=member.season).raw(view)) / 2


def _drift(member: Simple, view: View) -> np.ndarray:
    steps = np.minimum(view.rows, member.limit) - 1
    last = last_value(view)
    first = view.take((view.origins - 1 - steps)[:, None])
    return last + (last - first) / np.maximum(steps, 1)[:, None] * np.arange(1, view.horizon + 1)


def _grouped(rule: Callable[[np.ndarray], np.ndarray]) -> Callable[[View, int], np.ndarray]:
    def run(view: View, limit: int) -> np.ndarray:
        found = np.empty((len(view), view.horizon))
        for index, windows in view.groups(limit):
            found[index] = rule(windows)
        return found

    return run


def _theta(member: Simple, view: View) -> np.ndarray:
    return _grouped(lambda w: theta(w, member.season, view.horizon, test=member.test, multiply=not view.logs))(
        view, member.limit
    )


def _damped(member: Simple, view: View) -> np.ndarray:
    return _grouped(lambda w: damped(w, member.season, view.horizon, test=member.test, multiply=not view.logs))(
        view, member.limit
    )


def _harmonic(member: Simple, view: View) -> np.ndarray:
    """Where a window is too short for its harmonics, the seasonal-naive forecast of the view's season."""
    needed = 1.9 * member.waves[0][0]
    fallback = Simple("seasonal", season=view.season).raw(view)
    found = fallback.copy()
    for index, windows in view.groups(member.limit, 4 * member.season):
        if windows.shape[1] >= needed:
            found[index] = harmonic(windows, view.horizon, member.waves, member.trend, member.move)
    return found


def _lagged(member: Simple, view: View) -> np.ndarray:
    """Where a window is too short for its lags, the mean of the values a day and a week ago."""
    found = _blend(member, view)
    for index, windows in view.groups(member.limit, member.season):
        if windows.shape[1] >= 2 * member.season + view.horizon:
            found[index] = lagged(windows, view.season, member.season, view.horizon)
    return found


_RULES: dict[str, Callable[[Simple, View], np.ndarray]] = {
    "naive": _naive,
    "seasonal": _seasonal,
    "blend": _blend,
    "drift": _drift,
    "theta": _theta,
    "damped": _damped,
    "harmonic": _harmonic,
    "lagged": _lagged,
}


def simple_members(seasons: Seasons, rows: int, limit: int, positive: bool) -> list[Simple]:
    """The simple forecasts for a time step.

    Args:
        rows: that most series have for fitting.
        limit: rows of the window that smoothing looks at.
        positive: whether logarithms are worth trying.
    """
    m = seasons.short
    smoothed = m if 2 * m + 1 <= limit else 1  # a season longer than the window enters through the lags alone
    found = [Simple("naive")]
    if m > 1:
        found += [Simple("seasonal", season=m, count=count) for count in (1, 3)]
    else:
        found.append(Simple("drift", limit=limit))
    for kind in ("theta", "damped"):
        for log in (False, True) if positive else (False,):
            for test in (True, False) if 1 < smoothed < 24 else (True,):
                found.append(Simple(kind, log, smoothed, limit, test=test))
    if seasons.long:
        week, log = seasons.long, positive
        found += [
            Simple("seasonal", False, week),
            Simple("seasonal", log, week, move=m),
            Simple("blend", log, week),
            Simple("seasonal", log, week, count=WEEKS),
            Simple("seasonal", log, week, count=WEEKS, move=week),
            Simple("theta", log, week, limit, test=False),
            Simple("lagged", log, week, limit),
        ]
    found += _harmonics(seasons, rows)
    return found


def _harmonics(seasons: Seasons, rows: int) -> list[Simple]:
    year, m = seasons.year, seasons.short
    if year and m == 52 and rows >= 3 * year:
        five, ten = round(5 * year), round(10 * year)
        waves = ((year, 3),)
        found = [
            Simple("harmonic", limit=five, waves=waves, trend=True, season=m),
            Simple("harmonic", limit=five, waves=waves, trend=True, season=m, move=4),
        ]
        if rows >= 6 * year:
            found.append(Simple("harmonic", limit=ten, waves=waves, trend=True, season=m))
        return [*found, *(Simple("seasonal", season=m, count=count) for count in (2, 5))]
    if m == 7:
        means = [Simple("seasonal", season=m, count=count) for count in (2, 5)]
        if year and rows >= 2 * year:
            return [
                Simple("harmonic", limit=LONGEST, waves=((year, 2),), season=m),
                Simple("harmonic", limit=LONGEST, waves=((year, 2), (7.0, 3)), season=m),
                *means,
            ]
        return [Simple("harmonic", limit=56, waves=((7.0, 3),), season=m), *means] if rows >= 112 else means
    return []
