"""Time axes: how far apart rows are, where each row stands on the axis, and which times follow the last one.

One step serves all series of a set.  It is decided from all rows: of the axes that hold every row (a fixed step, wall
clock days, business days, months by their first, last or any other day, by a business day or a weekday), the one with
the fewest rows missing is taken.  What a calendar says comes from pandas, whose aliases name the steps; a fixed step
needs NumPy alone.
"""

from __future__ import annotations

import numbers
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gpulstm.data.offsets import aliases_of_months, dates_of, own_rule
from gpulstm.data.times import MONTH, TimeForm, localize, to_utc
from gpulstm.errors import ConfigError, DataError, option
from gpulstm.validate import number_of

DAY = 86_400_000_000_000  # nanoseconds
_MINUTE = 60 * 10**9
_MONDAY = np.datetime64("0001-01-01")
_MOST_SLOTS = 1440  # times of day that rows may have: one a minute
_JITTER = 0.25  # share of a step by which times may lie off it where no step holds all rows


@dataclass(frozen=True)
class Step:
    """The distance between neighboring rows.

    Attributes:
        kind: "number" (`amount` in the unit of the times), "fixed" (`amount` nanoseconds), "wall" (`amount` nanoseconds
            on the clock of the zone), "offset" (`count` times the pandas offset `alias`, at `clock` nanoseconds after
            midnight), "months" (`count` months, on each series' own day of the month), "session" (at each of `slots`,
            in nanoseconds after midnight, on the days of the week that `alias` marks, as "1111100"), or "none" where no
            series has two rows.
        amount, alias, count, clock, slots: as said.
        even: whether every row lies on the axis; if not, rows stand at the nearest place.
    """

    kind: str = "none"
    amount: float = 0
    alias: str = ""
    count: int = 1
    clock: int = 0
    even: bool = True
    slots: tuple[int, ...] = ()

    @property
    def freq(self) -> str:
        """The pandas alias of the step, or the number; "" where there is none."""
        if self.kind == "number":
            return f"{self.amount:.15g}"
        if self.kind in ("fixed", "wall"):
            return _alias(int(self.amount))
        if self.kind == "none":
            return ""
        if self.kind == "session":
            minutes = (self.slots[0] // _MINUTE, self.slots[-1] // _MINUTE)
            first, last = (f"{minute // 60:02}:{minute % 60:02}" for minute in minutes)
            return f"{len(self.slots)} times a day from {first} to {last} on {self.alias.count('1')} days a week"
        return f"{self.count}{self.alias}" if self.count > 1 else self.alias

    @property
    def seconds(self) -> float:
        """About how long a step is; NaN for numbers."""
        if self.kind in ("fixed", "wall"):
            return self.amount / 1e9
        if self.kind == "session":
            return 7 * 86400 / (len(self.slots) * self.alias.count("1"))
        days = {"B": 1.4, "C": 1.4, "D": 1, "W": 7, "S": 15.2, "Q": 91.3125, "Y": 365.25, "bh": 1 / 24, "BQ": 91.3125}
        if self.kind == "months":
            return self.count * 30.4375 * 86400
        if self.kind != "offset":
            return float("nan")
        name = self.alias.partition("-")[0]
        key = "S" if name in ("SMS", "SME") else "bh" if name.endswith("bh") else name
        size = days.get(key) or days.get(key[:2]) or days.get(key[:1]) or 30.4375
        if name in ("MS", "ME", "BMS", "BME", "CBMS", "CBME", "WOM", "LWOM") or "#" in name:
            size = 30.4375
        if name[:2] in ("BY", "YS", "YE", "RE"):
            size = 365.25
        return self.count * size * 86400


def inner_pairs(offsets: np.ndarray, rows: int) -> np.ndarray:
    """`(rows - 1,)` bool: which pairs of neighboring rows are of one series."""
    inner = np.ones(max(rows - 1, 0), bool)
    borders = offsets[1:-1] - 1
    inner[borders[(borders >= 0) & (borders < rows - 1)]] = False
    return inner


def infer_step(time: np.ndarray, offsets: np.ndarray, form: TimeForm) -> Step:
    """The step of series whose times rise strictly within each of them.

    Args:
        time: `(rows,)` `datetime64` in UTC, int64 or float64.
        offsets: `(series + 1,)` int64.
    """
    clock = form.clock(time)
    inner = inner_pairs(offsets, len(time))
    if not inner.any():
        return Step()
    if clock is None:
        return _infer_numbers(np.diff(time)[inner])
    steps = np.diff(clock)
    first = steps[int(np.argmax(inner))]
    if bool(((steps == first) | ~inner).all()):
        fixed = int(first.astype("timedelta64[ns]").astype(np.int64))
        if fixed < 20 * DAY // 24 or (form.zone is None and fixed < 28 * DAY):
            return Step("fixed", fixed)
    steps = steps[inner].astype("timedelta64[ns]").astype(np.int64)
    smallest, fixed = int(steps.min()), int(np.gcd.reduce(steps))
    absent = int((steps // fixed - 1).sum())
    if absent == 0 and fixed < 20 * DAY // 24:
        return Step("fixed", fixed)
    local, _ = localize(clock, form.zone)
    candidates = [(Step("fixed", fixed), absent)]
    wall_steps = np.diff(local.astype("datetime64[ns]").astype(np.int64))[inner]
    if not np.array_equal(wall_steps, steps) and wall_steps.min() > 0:
        wall = int(np.gcd.reduce(wall_steps))
        found = (Step("wall", wall), int((wall_steps // wall - 1).sum()))
        candidates.insert(0 if wall >= DAY else 1, found)
    elif form.zone is not None and fixed % DAY == 0:
        candidates.insert(0, (Step("wall", fixed), absent))
    if smallest >= 0.9 * DAY:
        days = local.astype("datetime64[D]")
        inside = local - days.astype(local.dtype)
        if bool((inside == inside[0]).all()):
            tod = int(inside[0].astype("timedelta64[ns]").astype(np.int64))
            early, late = _calendars(days, offsets, inner, tod, int(wall_steps.min()) >= 27.9 * DAY)
            candidates = [*early, *candidates, *late]
    best = min(candidates, key=lambda pair: pair[1])
    if 4 * best[1] > len(time) and fixed < DAY:
        best = min([best, *_sessions(local, inner, best[1] // 4)], key=lambda pair: pair[1])
    if best[1] <= len(time):
        return best[0]
    middle = float(np.median(steps))
    return Step("fixed", round(middle), even=False) if _near(steps / middle) else best[0]


def given_step(freq: Any, time: np.ndarray, form: TimeForm) -> Step:
    """The step that a person gave: a pandas alias or offset, or a number where the times are numbers.

    Raises:
        ConfigError: pandas knows no such alias, or the times are numbers.
    """
    if form.clock(time) is None:
        amount = number_of(freq) if isinstance(freq, str) else freq
        if isinstance(amount, bool) or not isinstance(amount, numbers.Real) or not 0 < float(amount) < float("inf"):
            raise ConfigError(
                f"{option('freq')} is {freq!r}, but the times are numbers; expected a number above 0 or "
                f"{option('freq', 'auto')}"
            )
        return Step("number", float(amount))
    import pandas as pd
    from pandas.tseries.frequencies import to_offset

    if isinstance(freq, str) and own_rule(freq):
        return Step("offset", alias=freq, clock=_time_of_day(time, form))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)  # pandas 2 still takes the old names that pandas 3 refuses
            offset = to_offset(freq if not isinstance(freq, str) or freq.isascii() else None)
    except (ValueError, TypeError, FutureWarning) as error:
        newer = re.search(r"(?:use|mean) '?(\w+)", str(error))
        hint = f"; {newer[1]!r} is its name today" if newer else ""
        raise ConfigError(
            f"{option('freq')} is {freq!r}, expected an alias of pandas such as 'D', 'B' or 'MS'{hint}"
        ) from None
    if offset is None or offset.n < 1:
        raise ConfigError(f"{option('freq')} is {freq!r}, expected an alias of pandas such as 'D', 'B' or 'MS'")
    if isinstance(offset, pd.offsets.Tick) and not isinstance(offset, pd.offsets.Day):
        return Step("fixed", int(offset.nanos))
    if isinstance(offset, pd.offsets.Day):
        return Step("fixed" if form.zone is None else "wall", offset.n * DAY)
    base = offset.base.freqstr
    if to_offset(base) != offset.base:
        raise ConfigError(
            f"{option('freq')} is {freq!r}, whose holidays an alias cannot hold; expected an alias of pandas"
        )
    intraday = isinstance(offset, pd.offsets.BusinessHour | pd.offsets.CustomBusinessHour)
    return Step("offset", alias=base, count=int(offset.n), clock=-1 if intraday else _time_of_day(time, form))


def positions(step: Step, time: np.ndarray, offsets: np.ndarray, form: TimeForm) -> tuple[np.ndarray, np.ndarray]:
    """Where each row stands on its series' axis: `(rows,)` int64 from 0, and `(rows,)` bool, which rows lie off it."""
    starts = np.repeat(offsets[:-1], np.diff(offsets))
    clock = form.clock(time)
    if step.kind == "none":
        return np.zeros(len(time), np.int64), np.zeros(len(time), bool)
    if not step.even:
        ticks = time if clock is None else clock.astype("datetime64[ns]").astype(np.int64)
        jumps = np.zeros(len(time), np.int64)
        jumps[1:] = np.maximum(np.round(np.diff(ticks) / step.amount), 1).astype(np.int64)
        jumps[offsets[:-1][np.diff(offsets) > 0]] = 0
        place = np.cumsum(jumps)
        return place - place[starts], np.zeros(len(time), bool)
    if step.kind == "number" or clock is None:
        place = (time - time[starts]) / step.amount
        whole = np.round(place)
        return whole.astype(np.int64), np.abs(place - whole) > 1e-3
    if step.kind in ("fixed", "wall"):
        ticks = localize(clock, form.zone)[0] if step.kind == "wall" else clock
        regular = np.diff(ticks) == _ticks(np.int64(step.amount), ticks.dtype)
        if bool((regular | ~inner_pairs(offsets, len(time))).all()):
            return np.arange(len(time)) - starts, np.zeros(len(time), bool)  # no row is missing
        since = ticks.astype("datetime64[ns]").astype(np.int64)
        place, rest = np.divmod(since - since[starts], int(step.amount))
        return place, rest != 0
    if step.kind == "months":
        local, _ = localize(clock, form.zone)
        months = local.astype("datetime64[M]")
        place, rest = np.divmod((months - months[starts]).astype(np.int64), step.count)
        days = np.repeat(month_days(step, time, offsets, form), np.diff(offsets))
        right = to_utc(_on_day(months, days, _inside_day(local)), form.zone).astype(clock.dtype) == clock
        return place, (rest != 0) | ~right
    if step.kind == "session":
        place, off = _session_place(step, localize(clock, form.zone)[0])
        return place - place[starts], off
    grid = _grid(step, clock, form, 0)
    index = np.minimum(np.searchsorted(grid, clock), len(grid) - 1)
    off = grid[index] != clock
    place, rest = np.divmod(index - index[starts], step.count)
    return place, off | (rest != 0)


def month_days(step: Step, time: np.ndarray, offsets: np.ndarray, form: TimeForm) -> np.ndarray:
    """`(series,)` int64: the day of the month that each series' rows stand on; zeros where the step is no such one."""
    clock = form.clock(time)
    if step.kind != "months" or clock is None:
        return np.zeros(len(offsets) - 1, np.int64)
    local, _ = localize(clock, form.zone)
    return np.maximum.reduceat(_day_of_month(local.astype("datetime64[D]")), offsets[:-1])


def at(step: Step, origin: np.ndarray, place: np.ndarray, form: TimeForm, days: np.ndarray | None = None) -> np.ndarray:
    """`(series, n)`: the times `place` `(series, n)` steps after the rows `origin` `(series,)`."""
    if step.kind == "none":
        raise DataError(
            "a series of one row has no time step; the times after it are unknown: give the step as "
            + option("freq", ...)
        )
    clock = form.clock(origin)
    if clock is None:
        amount = step.amount
        if origin.dtype.kind in "iu" and float(amount).is_integer():
            return origin[:, None] + int(amount) * place
        return origin[:, None] + amount * place
    if step.kind == "fixed":
        dates = clock[:, None] + _ticks(int(step.amount) * place, clock.dtype)
        return form.unclock(dates, origin.dtype)
    local, _ = localize(clock, form.zone)
    if step.kind == "wall":
        dates = local[:, None] + _ticks(int(step.amount) * place, clock.dtype)
    elif step.kind == "session":
        days, slot = np.divmod(_session_place(step, local)[0][:, None] + place, len(step.slots))
        inside = _ticks(np.array(step.slots, dtype=np.int64)[slot], clock.dtype)
        dates = np.busday_offset(_MONDAY, days, roll="forward", weekmask=step.alias).astype(clock.dtype) + inside
    elif step.kind == "months":
        months = local.astype("datetime64[M]")[:, None] + (step.count * place).astype("timedelta64[M]")
        day = _day_of_month(local.astype("datetime64[D]")) if days is None else days
        dates = _on_day(months, np.broadcast_to(day[:, None], place.shape), _inside_day(local)[:, None])
    else:
        most = int(place.max(initial=0)) * step.count
        grid = _grid(step, clock, form, most)
        index = np.searchsorted(grid, clock)
        return form.unclock(grid[index[:, None] + step.count * place], origin.dtype)
    utc = to_utc(dates.ravel().astype(clock.dtype), form.zone).reshape(place.shape)
    return form.unclock(utc, origin.dtype)


def same_times(one: np.ndarray, other: np.ndarray, step: Step) -> np.ndarray:
    """Which times are equal: exactly, or for floats to a thousandth of a step."""
    if one.dtype.kind == "f" or other.dtype.kind == "f":
        size = step.amount if step.kind == "number" else 1e-3 * max(float(np.abs(one).max(initial=0)), 1e-9)
        return np.abs(one - other) <= 1e-3 * abs(size)
    return one == other


@dataclass(frozen=True)
class Axis:
    """How the times of a set go on.

    Attributes:
        step: between neighboring rows.
        form: how times are written.
        days: `(series,)` int64, the day of the month of each series' rows; used by steps of months alone.
    """

    step: Step = field(default_factory=Step)
    form: TimeForm = field(default_factory=TimeForm)
    days: np.ndarray | None = None

    def after(self, last: np.ndarray, count: int, days: np.ndarray | None = None) -> np.ndarray:
        """`(series, count)`: the times that follow the rows at `last` `(series,)`."""
        place = np.broadcast_to(np.arange(1, count + 1), (len(last), count))
        return at(self.step, last, place, self.form, self.days if days is None else days)

    def clock(self, time: np.ndarray) -> np.ndarray | None:
        """Times as `datetime64` on the clock of their zone, for calendars; None for numbers."""
        dates = self.form.clock(time)
        return None if dates is None else localize(dates, self.form.zone)[0]

    def select(self, series: Any) -> Axis:
        """The axis of some of the series."""
        return self if self.days is None else replace(self, days=self.days[series])


# -- finding a step ---------------------------------------------------------------------------------------------------
def _infer_numbers(steps: np.ndarray) -> Step:
    if steps.dtype.kind in "iu":
        common = int(np.gcd.reduce(steps))
        if (steps // common - 1).sum() <= len(steps):
            return Step("number", common)
    middle = float(np.median(steps))
    tidy = float(f"{middle:.9g}")
    share = steps / tidy
    whole = np.maximum(np.round(share), 1)
    if bool((np.abs(share - whole) <= 1e-4 * whole).all()):
        return Step("number", tidy)
    smallest = float(f"{steps.min():.9g}")
    share = steps / smallest
    if bool((np.abs(share - np.round(share)) <= 1e-4 * share).all()) and share.sum() <= 2 * len(steps):
        return Step("number", smallest)
    return Step("number", middle, even=False) if _near(steps / middle) else Step("number", smallest)


def _near(share: np.ndarray) -> bool:
    """Whether distances are about whole numbers of steps, mostly one."""
    whole = np.maximum(np.round(share), 1)
    return bool((np.abs(share - whole) <= _JITTER).all()) and float(whole.mean()) <= 2


Candidates = list[tuple[Step, int]]


def _calendars(
    days: np.ndarray, offsets: np.ndarray, inner: np.ndarray, clock: int, monthly: bool
) -> tuple[Candidates, Candidates]:
    """Axes of calendars that hold all rows, with how many rows each misses: those before and after fixed steps."""
    months = days.astype("datetime64[M]")
    day = _day_of_month(days)
    if monthly:
        jumps = np.diff(months.astype(np.int64))[inner]
        count = int(np.gcd.reduce(jumps))
        early = _on_calendars(aliases_of_months(days[0], count), days, inner, clock)[:1]
        own = np.repeat(np.maximum.reduceat(day, offsets[:-1]), np.diff(offsets))
        ends = bool(early) and early[0][0].alias.partition("-")[0] in ("MS", "ME", "QS", "QE", "YS", "YE")
        if count and not ends and bool((day == np.minimum(own, _month_length(months))).all()):
            early.insert(0, (Step("months", count=count, clock=clock), int((jumps // count - 1).sum())))
        return early, []
    late: Candidates = []
    if int(np.diff(days.astype(np.int64))[inner].min()) >= 8:
        seconds = [value for value in np.unique(day).tolist() if 2 <= value <= 27][:1]
        names = [f"{half}-{second}" for half in ("SMS", "SME") for second in seconds]
        late += _on_calendars([name.removesuffix("-15") for name in names], days, inner, clock)
    weeks = len(np.unique((days.astype(np.int64) + 3) // 7))
    business = _on_calendars(["B"], days, inner, clock)
    return [], late + [pair for pair in business if pair[1] == 0 or weeks > 2]  # days may happen to miss one weekend


def _sessions(local: np.ndarray, inner: np.ndarray, most: int) -> Candidates:
    """The axis of the times of day and days of the week that rows have, if it misses at most `most` of them.

    A day of the week that the table does not reach counts if it is a business day.
    """
    days = local.astype("datetime64[D]")
    slots = np.unique(_inside_day(local).astype("timedelta64[ns]").astype(np.int64))
    first, last = int(days.min().astype(np.int64)), int(days.max().astype(np.int64))
    reached = {(day + 3) % 7 for day in range(first, min(last, first + 6) + 1)}
    seen = set(np.unique((days.astype(np.int64) + 3) % 7).tolist())
    mask = "".join("1" if day in seen or (day not in reached and day < 5) else "0" for day in range(7))
    if not 2 <= len(slots) <= min(_MOST_SLOTS, len(days) // 3) or len(np.unique(days)) < 5:
        return []  # too few days to tell
    step = Step("session", alias=mask, slots=tuple(slots.tolist()))
    absent = int((np.diff(_session_place(step, local)[0])[inner] - 1).sum())
    return [(step, absent)] if absent <= most else []


def _session_place(step: Step, local: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which slot of all days a time on the clock of its zone stands at, and which times lie off the slots."""
    days, slots = local.astype("datetime64[D]"), np.array(step.slots, dtype=np.int64)
    inside = _inside_day(local).astype("timedelta64[ns]").astype(np.int64)
    slot = np.minimum(np.searchsorted(slots, inside), len(slots) - 1)
    off = (slots[slot] != inside) | ~np.is_busday(days, weekmask=step.alias)
    return len(slots) * np.busday_count(_MONDAY, days, weekmask=step.alias) + slot, off


def _on_calendars(names: Sequence[str], dates: np.ndarray, inner: np.ndarray, clock: int) -> Candidates:
    """Those of some aliases whose dates hold all of `dates`, each with how many it misses."""
    candidates = []
    for name in names:
        grid = dates_of(name, dates.min(), dates.max(), 0).astype(dates.dtype)
        place = np.minimum(np.searchsorted(grid, dates), len(grid) - 1)
        jumps = np.diff(place)[inner]
        if bool((grid[place] == dates).all()) and bool((jumps > 0).all()):
            count = int(np.gcd.reduce(jumps))
            candidates.append((Step("offset", alias=name, count=count, clock=clock), int((jumps // count - 1).sum())))
    return candidates


# -- calendars --------------------------------------------------------------------------------------------------------
def _grid(step: Step, clock: np.ndarray, form: TimeForm, more: int) -> np.ndarray:
    """All times of an offset, in UTC, from before the earliest of some times to `more` steps after the latest."""
    low, high = localize(np.array([clock.min(), clock.max()]), form.zone)[0]
    if step.clock >= 0:
        low, high = low.astype("datetime64[D]"), high.astype("datetime64[D]")
    dates = dates_of(step.alias, low, high, more).astype(clock.dtype)
    if step.clock > 0:
        dates = dates + _ticks(np.int64(step.clock), clock.dtype)
    return to_utc(dates, form.zone)


def _on_day(months: np.ndarray, days: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The days of months, clipped to their lengths, at the times of day `inside`."""
    clipped = np.minimum(days, _month_length(months))
    return (months.astype("datetime64[D]") + (clipped - 1).astype("timedelta64[D]")) + inside


def _day_of_month(days: np.ndarray) -> np.ndarray:
    return (days - days.astype("datetime64[M]").astype("datetime64[D]")).astype(np.int64) + 1


def _month_length(months: np.ndarray) -> np.ndarray:
    return ((months + MONTH).astype("datetime64[D]") - months.astype("datetime64[D]")).astype(np.int64)


def _inside_day(local: np.ndarray) -> np.ndarray:
    return local - local.astype("datetime64[D]").astype(local.dtype)


def _time_of_day(time: np.ndarray, form: TimeForm) -> int:
    """The most frequent time of day, in nanoseconds, on the clock of the zone."""
    clock = form.clock(time)
    assert clock is not None
    values, counts = np.unique(_inside_day(localize(clock, form.zone)[0]), return_counts=True)
    return int(values[np.argmax(counts)].astype("timedelta64[ns]").astype(np.int64))


def _ticks(nanoseconds: Any, dtype: np.dtype[Any]) -> Any:
    """Nanoseconds as a `timedelta64` of the unit of `dtype`."""
    unit, _ = np.datetime_data(dtype)
    size = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit]
    return (nanoseconds // size).astype(f"timedelta64[{unit}]")


def _alias(nanoseconds: int) -> str:
    for size, name in ((7 * DAY, "W"), (DAY, "D"), (DAY // 24, "h"), (60 * 10**9, "min"), (10**9, "s")):
        if nanoseconds % size == 0 and not (name == "W" and nanoseconds != size):
            return f"{nanoseconds // size}{name}" if nanoseconds != size else name
    for size, name in ((10**6, "ms"), (10**3, "us"), (1, "ns")):
        if nanoseconds % size == 0:
            return f"{nanoseconds // size}{name}" if nanoseconds != size else name
    return f"{nanoseconds}ns"
