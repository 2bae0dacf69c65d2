"""Seasons that a time step has: how many rows make a day, a week or a year."""

from __future__ import annotations

import numpy as np

from gpulstm.data.time_axis import Step

_MINUTE, _HOUR, _DAY, _WEEK = 60.0, 3600.0, 86400.0, 7 * 86400.0
_TWICE = 2  # a season fits series that hold it so many times


def seasons_of(step: Step, rows: int) -> tuple[int, ...]:
    """Rows in each season of a step that a series of `rows` rows holds twice, the shortest first; empty if none.

    Steps below a minute: an hour and a day.  Below a day: a day and a week.  Days: a week and a year.  Business days:
    a week and a year of 261.  Weeks, half months, months and quarters: a year.
    """
    return tuple(season for season in _all(step) if season * _TWICE <= rows)


def _all(step: Step) -> list[int]:
    name = step.alias.partition("-")[0]
    if step.kind == "offset" and name in ("B", "C"):
        return [5 // step.count, 261] if step.count == 1 else _whole(5, step.count)
    if step.kind == "offset" and name.endswith("bh"):
        return [8, 40] if step.count == 1 else _whole(8, step.count)
    if step.kind == "session":
        return [len(step.slots), len(step.slots) * step.alias.count("1")]
    seconds = step.seconds
    if not np.isfinite(seconds):
        return []
    if step.kind in ("offset", "months") and name not in ("W", "D"):
        months = seconds / (30.4375 * _DAY)
        if name in ("SMS", "SME"):
            return _whole(24, step.count)
        return _whole(12, round(months)) if months >= 0.9 else []
    if seconds < _MINUTE:
        cycles = [_HOUR, _DAY]
    elif seconds < _DAY:
        cycles = [_DAY, _WEEK]
    elif seconds < _WEEK:
        cycles = [_WEEK, 365 * _DAY]
    else:
        weeks = seconds / _WEEK
        return _whole(52, round(weeks)) if abs(weeks - round(weeks)) < 1e-9 else []
    return [season for season in (_ratio(cycle, seconds) for cycle in cycles) if season > 1]


def _whole(cycle: int, step: int) -> list[int]:
    return [cycle // step] if step and cycle % step == 0 and cycle // step > 1 else []


def _ratio(cycle: float, seconds: float) -> int:
    """How often a step goes into a cycle; 0 where it does not."""
    ratio = cycle / seconds
    return round(ratio) if abs(ratio - round(ratio)) < 1e-6 else 0
