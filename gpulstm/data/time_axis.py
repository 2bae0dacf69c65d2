"""Time axes: how far apart rows are, where each row stands on the axis, and which times follow the last one.

One step serves all series of a set.  It is decided from all rows: of the axes that hold every row (a fixed step, wall
clock days, business days, months by their first, last or any other day, by a business day or a weekday), the one with
the fewest rows missing is taken.  What a calendar says comes from pandas, whose aliases name the steps; a fixed step
needs NumPy alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gpulstm.data.times import MONTH, TimeForm, format_time, localize, to_utc
from gpulstm.errors import ConfigError, DataError, option

DAY = 86_400_000_000_000  # nanoseconds
_JITTER = 0.25  # share of a step by which times may lie off it where no step holds all rows


@dataclass(frozen=True)
class Step:
    """The distance between neighbouring rows.

    Attributes:
        kind: "number" (`amount` in the unit of the times), "fixed" (`amount` nanoseconds), "wall" (`amount` nanoseconds
            on the clock of the zone), "offset" (`count` times the pandas offset `alias`, at `clock` nanoseconds after
            midnight), "months" (`count` months, on each series' own day of the month), or "none" where no series has
            two rows.
        amount, alias, count, clock: as said.
        even: whether every row lies on the axis; if not, rows stand at the nearest place.
    """

    kind: str = "none"
    amount: float = 0
    alias: str = ""
    count: int = 1
    clock: int = 0
    even: bool = True

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    @property
    def freq(self) -> str:
        """The pandas alias of the step, or the number; "" where there is none."""
        if self.kind == "number":
            return f"{self.amount:.15g}"
        if self.kind in ("fixed", "wall"):
            return _alias(int(self.amount))
        if self.kind == "none":
            return ""
        return f"{self.count}{self.alias}" if self.count > 1 else self.alias

    @property
    def seconds(self) -> float:
        """About how long a step is; NaN for numbers."""
        if self.kind in ("fixed", "wall"):
            return self.amount / 1e9
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


def infer_step(time: np.ndarray, offsets: np.ndarray, form: TimeForm) -> Step:
    """The step of series whose times rise strictly within each of them.

    Args:
        time: `(rows,)` `datetime64` in UTC, int64 or float64.
        offsets: `(series + 1,)` int64.
    """
    clock = form.clock(time)
    inner = _inner(offsets, len(time))
    if not inner.any():
        return Step()
    if clock is None:
        return _infer_numbers(np.diff(time)[inner])
    steps = np.diff(clock)[inner]
    if bool((steps == steps[0]).all()):
        fixed = int(steps[0].astype("timedelta64[ns]").astype(np.int64))
        if fixed < 20 * DAY // 24 or (form.zone is None and fixed < 28 * DAY):
            return Step("fixed", fixed)
    steps = steps.astype("timedelta64[ns]").astype(np.int64)
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
    elif fixed == DAY // 24:
        candidates += _business_hours(local, inner)
    best = min(candidates, key=lambda pair: pair[1])
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
        try:
            return Step("number", float(freq))
        except (TypeError, ValueError):
            raise ConfigError(
                f"freq is {freq!r}, but the times are numbers; expected a number or {option('freq', 'auto')}"
            ) from None
    import pandas as pd
    from pandas.tseries.frequencies import to_offset

    if isinstance(freq, str) and _own_rule(freq):
        return Step("offset", alias=freq, clock=_time_of_day(time, form))
    try:
        offset = to_offset(freq)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"freq is {freq!r}, which is no alias of pandas: {str(error).splitlines()[0]}") from None
    if offset is None or offset.n < 1:
        raise ConfigError(f"freq is {freq!r}, expected an alias of pandas such as 'D', 'B' or 'MS'")
    if isinstance(offset, pd.offsets.Tick) and not isinstance(offset, pd.offsets.Day):
        return Step("fixed", int(offset.nanos))
    if isinstance(offset, pd.offsets.Day):
        return Step("fixed" if form.zone is None else "wall", offset.n * DAY)
    base = offset.base.freqstr
    if to_offset(base) != offset.base:
        raise ConfigError(f"freq is {freq!r}, whose holidays an alias cannot hold; expected an alias of pandas")
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
        if bool((np.diff(ticks)[_inner(offsets, len(time))] == _ticks(np.int64(step.amount), ticks.dtype)).all()):
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


def follow(step: Step, last: np.ndarray, count: int, form: TimeForm, days: np.ndarray | None = None) -> np.ndarray:
    """`(series, count)`: the times after the `last` `(series,)` row of each series.

    Args:
        days: `(series,)` as `month_days`, for steps of months.

    Raises:
        DataError: the step is not known, for no series has two rows.
    """
    return at(step, last, np.broadcast_to(np.arange(1, count + 1), (len(last), count)), form, days)


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


def off_axis(step: Step, row_time: np.generic, where: str, form: TimeForm, own: bool) -> DataError:
    """The error for a row that no step reaches."""
    named = f"{option('freq', step.freq)}" if own else f"the step {step.freq}"
    return DataError(f"{where} is at {format_time(row_time, form)}, which {named} does not reach from the first row")


# -- finding a step ---------------------------------------------------------------------------------------------------
def _inner(offsets: np.ndarray, rows: int) -> np.ndarray:
    """`(rows - 1,)` bool: which pairs of neighbouring rows are of one series."""
    inner = np.ones(max(rows - 1, 0), bool)
    borders = offsets[1:-1] - 1
    inner[borders[(borders >= 0) & (borders < rows - 1)]] = False
    return inner


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
    early: Candidates = []
    late: Candidates = []
    months = days.astype("datetime64[M]")
    day, length = _day_of_month(days), _month_length(months)
    weekday = (days.astype(np.int64) + 3) % 7
    if monthly:
        jumps = np.diff(months.astype(np.int64))[inner]
        count = int(np.gcd.reduce(jumps))
        absent = int((jumps // count - 1).sum()) if count else 0
        alias = _month_rule(days, months, day, length, weekday)
        own = np.repeat(np.maximum.reduceat(day, offsets[:-1]), np.diff(offsets))
        if count and alias:
            early.append((Step("offset", alias=_quarterly(alias, count, months[0]), clock=clock, count=1), absent))
            if early[-1][0].alias == alias:
                early[-1] = (Step("offset", alias=alias, count=count, clock=clock), absent)
        if count and bool((day == np.minimum(own, length)).all()) and alias not in ("MS", "ME"):
            early.insert(0, (Step("months", count=count, clock=clock), absent))
        return early, late
    smallest = int(np.diff(days.astype(np.int64))[inner].min())
    half = sorted(set(np.unique(day).tolist()))
    if smallest >= 8 and len(half) >= 2:
        for alias, low, high in (("SMS", 1, None), ("SME", None, -1)):
            second = [value for value in half if value != low and not (high and value >= 28)]
            at = second[0] if len(second) == 1 else 0
            first = day == (low or at)
            last = (day == at) if low else (day == length)
            if at and bool((first | last).all()):
                place = 2 * months.astype(np.int64) + ~first
                jumps = np.diff(place)[inner]
                count = int(np.gcd.reduce(jumps))
                named = alias if at == 15 else f"{alias}-{at}"
                late.append((Step("offset", alias=named, count=count, clock=clock), int((jumps // count - 1).sum())))
    if bool((weekday < 5).all()):
        place = 5 * ((days.astype(np.int64) + 3) // 7) + weekday
        jumps = np.diff(place)[inner]
        count = int(np.gcd.reduce(jumps))
        absent = int((jumps // count - 1).sum()) if count else 0
        weeks = len(np.unique((days.astype(np.int64) + 3) // 7))
        if count and (absent == 0 or weeks > 2):  # rows that happen to miss one weekend are days
            late.append((Step("offset", alias="B", count=count, clock=clock), absent))
    return early, late


def _business_hours(local: np.ndarray, inner: np.ndarray) -> Candidates:
    """The axis of the hours from 9 to 16 on business days, if all rows stand on them."""
    days = local.astype("datetime64[D]")
    weekday = (days.astype(np.int64) + 3) % 7
    inside = _inside_day(local)
    hour = inside.astype("timedelta64[h]").astype(np.int64)
    if bool(((weekday > 4) | (hour < 9) | (hour > 16) | (hour.astype("timedelta64[h]") != inside)).any()):
        return []
    jumps = np.diff(8 * (5 * ((days.astype(np.int64) + 3) // 7) + weekday) + hour)[inner]
    count = int(np.gcd.reduce(jumps))
    return [(Step("offset", alias="bh", count=count, clock=-1), int((jumps // count - 1).sum()))]


def _month_rule(days: np.ndarray, months: np.ndarray, day: np.ndarray, length: np.ndarray, weekday: np.ndarray) -> str:
    """The alias of the day of a month that all rows stand on, or ""."""
    starts = months.astype("datetime64[D]")
    ends = (months + MONTH).astype("datetime64[D]")
    names = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
    if bool((day == 1).all()):
        return "MS"
    if bool((day == length).all()):
        return "ME"
    if bool((weekday < 5).all()):
        nth = np.busday_count(starts, days) + 1
        back = np.busday_count(days, ends)
        if bool((nth == nth[0]).all()):
            return "BMS" if nth[0] == 1 else f"BMS#{nth[0]}"
        if bool((back == back[0]).all()):
            return "BME" if back[0] == 1 else f"BME#{back[0]}"
    if bool((weekday == weekday[0]).all()):
        week = (day - 1) // 7
        if bool((week == week[0]).all()) and week[0] < 4:
            return f"WOM-{week[0] + 1}{names[weekday[0]]}"
        if bool((day > length - 7).all()):
            return f"LWOM-{names[weekday[0]]}"
    return ""


def _quarterly(alias: str, count: int, first: np.datetime64) -> str:
    """The alias of quarters and years for three and twelve months of MS, ME, BMS or BME; else the alias."""
    if alias not in ("MS", "ME", "BMS", "BME") or count not in (3, 12):
        return alias
    names = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
    month = int(first.astype(np.int64)) % 12
    start = alias.endswith("S")
    if count == 3:
        month = month % 3 if start else 9 + month % 3
    return f"{'B' if alias[0] == 'B' else ''}{'Q' if count == 3 else 'Y'}{'S' if start else 'E'}-{names[month]}"


# -- calendars --------------------------------------------------------------------------------------------------------
def _own_rule(alias: str) -> bool:
    """Whether an alias names the n-th business day of a month from its start or end, which pandas has not."""
    name, mark, number = alias.partition("#")
    return name in ("BMS", "BME") and mark == "#" and number.isdecimal() and 1 <= int(number) <= 20


def _grid(step: Step, clock: np.ndarray, form: TimeForm, more: int) -> np.ndarray:
    """All times of an offset, in UTC, from before the earliest of some times to `more` steps after the latest."""
    import pandas as pd
    from pandas.tseries.frequencies import to_offset

    local, _ = localize(np.array([clock.min(), clock.max()]), form.zone)
    if _own_rule(step.alias):
        first, last = local.astype("datetime64[M]")
        months = np.arange(first, last + (more + 1) * MONTH, dtype="datetime64[M]")
        dates = _business_day(months, step.alias)
    else:
        offset = to_offset(step.alias)
        low, high = (pd.Timestamp(value) for value in local)
        if step.clock >= 0:
            low, high = low.normalize(), high.normalize()
        found: Any = pd.bdate_range(low, high) if step.alias == "B" else pd.date_range(low, high, freq=offset)
        if more:
            start = found[-1] if len(found) else high
            found = found.append(pd.date_range(start, periods=more + 2, freq=offset)).unique()
        if not len(found):
            found = pd.date_range(low, periods=1, freq=offset)
        dates = found.to_numpy()
    if step.clock > 0:
        dates = dates.astype(clock.dtype) + _ticks(np.int64(step.clock), clock.dtype)
    return to_utc(dates.astype(clock.dtype), form.zone)


def _business_day(months: np.ndarray, alias: str) -> np.ndarray:
    name, _, number = alias.partition("#")
    if name == "BMS":
        return np.busday_offset(months.astype("datetime64[D]"), int(number) - 1, roll="forward")
    return np.busday_offset((months + MONTH).astype("datetime64[D]"), -int(number), roll="forward")


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
