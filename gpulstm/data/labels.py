"""What names the rows of every output: times and ids as they came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gpulstm.data.times import TimeForm


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
        rows = self.ids or [(name,) for name in names]
        columns = {}
        for name, values in zip(self.id_names, zip(*rows, strict=True), strict=True):
            alike = len({type(value) for value in values}) == 1
            columns[name] = np.array(values, dtype=None if alike else object)[series]
        return columns

    def select(self, series: Sequence[int]) -> Labels:
        """The labels of some of the series."""
        return replace(self, ids=tuple(self.ids[at] for at in series)) if self.ids else self
