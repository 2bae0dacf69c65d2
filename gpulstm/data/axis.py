"""The time axis of a set of series, and what names its rows in every output: times and ids as they came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gpulstm.data.time_axis import Step, follow
from gpulstm.data.times import TimeForm


@dataclass(frozen=True)
class Axis:
    """How the times of a set go on.

    Attributes:
        step: between neighbouring rows.
        form: how times are written.
        days: `(series,)` int64, the day of the month of each series' rows; used by steps of months alone.
    """

    step: Step = field(default_factory=Step)
    form: TimeForm = field(default_factory=TimeForm)
    days: np.ndarray | None = None

    def after(self, last: np.ndarray, count: int, days: np.ndarray | None = None) -> np.ndarray:
        """`(series, count)`: the times that follow the rows at `last` `(series,)`."""
        return follow(self.step, last, count, self.form, self.days if days is None else days)

    def clock(self, time: np.ndarray) -> np.ndarray | None:
        """Times as `datetime64` on the clock of their zone, for calendars; None for numbers."""
        from gpulstm.data.times import localize

        dates = self.form.clock(time)
        return None if dates is None else localize(dates, self.form.zone)[0]

    def select(self, series: Any) -> Axis:
        """The axis of some of the series."""
        return self if self.days is None else replace(self, days=self.days[series])

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        days = None if self.days is None else self.days.tolist()
        return {"step": self.step.to_dict(), "form": self.form.to_dict(), "days": days}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Axis:
        """What `to_dict` gave."""
        days = None if saved["days"] is None else np.array(saved["days"], dtype=np.int64)
        return cls(Step(**saved["step"]), TimeForm(**saved["form"]), days)


@dataclass(frozen=True)
class Labels:
    """The columns that say which series and which time a row of an output is of, under their own names.

    Attributes:
        id_names: of the columns with ids; ("series",) where the table had none.
        ids: `(series,)` tuples of ids in their own types, one entry a column; empty where the names alone are known.
        time_name: of the column of times; "time" where the table had none.
        form: how times are written.
    """

    id_names: tuple[str, ...] = ("series",)
    ids: tuple[tuple[Any, ...], ...] = ()
    time_name: str = "time"
    form: TimeForm = field(default_factory=TimeForm)

    def id_columns(self, names: Sequence[str], series: np.ndarray) -> dict[str, np.ndarray]:
        """The columns of ids for rows of the series `series` `(rows,)`; `names` where there are no ids."""
        rows: Sequence[tuple[Any, ...]] = self.ids or [(name,) for name in names]
        columns = {}
        for at, name in enumerate(self.id_names):
            values = [row[at] for row in rows]
            alike = len({type(value) for value in values}) == 1 and not isinstance(values[0], str)
            array = np.array(values) if alike else np.array(values, dtype=object)
            if not alike and all(isinstance(value, str) for value in values):
                array = np.array(values, dtype=str) if values else array
            columns[name] = array[series]
        return columns

    def select(self, series: Sequence[int]) -> Labels:
        """The labels of some of the series."""
        return replace(self, ids=tuple(self.ids[at] for at in series)) if self.ids else self

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"id_names": list(self.id_names), "ids": [list(row) for row in self.ids], "time_name": self.time_name}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any], form: TimeForm) -> Labels:
        """What `to_dict` gave."""
        ids = tuple(tuple(row) for row in saved["ids"])
        return cls(tuple(saved["id_names"]), ids, saved["time_name"], form)
