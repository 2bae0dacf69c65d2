"""How a table is to be read, as the command line and `load_series` name it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpulstm.validate import described, documented

TABLE = "The table"

Names = str | int | Sequence[str | int]


@documented
@dataclass(frozen=True)
class TableOptions:
    """Which columns play which role, and what happens to gaps; the options of `load_series`."""

    target: Names | None = described(None, "column to forecast; by default all without another role", TABLE, many=True)
    past: Names = described((), "covariate known up to now", TABLE, many=True)
    future: Names = described((), "covariate known ahead", TABLE, many=True)
    time: str | int | None = described(None, "column of times: ISO dates or numbers", TABLE)
    series: str | int | None = described(None, "column that names each row's series", TABLE)
    calendar: Names = described((), "covariate made from dates: yearly, monthly, weekly, daily", TABLE, many=True)
    missing: str = described("refuse", "missing cells: refuse, interpolate, forward or mask", TABLE)
    delimiter: str | None = described(None, "of a CSV; by default the most frequent in its first row", TABLE)
