"""How a table is to be read: where its cells are, which columns play which role, and what happens to gaps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gpulstm.errors import ConfigError, option
from gpulstm.validate import described, documented

MISSING = ("auto", "refuse", "interpolate", "forward", "mask", "zero")
DUPLICATES = ("refuse", "first", "last", "mean", "sum")

TABLE = "The table"

Names = Any  # one name, text or number, or several; a tuple of texts once the options are made


@documented
@dataclass(frozen=True)
class TableOptions:
    """How a table is to be read; the options of `load_series`, `Forecaster.fit` and the command line.

    Raises:
        ConfigError: an option out of range.
    """

    target: Names | None = described(
        None, "column to forecast; by default all numbers without another role", TABLE, many=True
    )
    past: Names = described((), "covariate known up to now: a number, or a category", TABLE, many=True)
    future: Names = described((), "covariate known ahead, likewise", TABLE, many=True)
    static: Names = described((), "covariate that stays the same within a series, likewise", TABLE, many=True)
    time: str | int | None = described(
        None, "column of times, or none to number the rows; by default the only one with dates", TABLE
    )
    series: Names = described(
        (), "column that names each row's series; several columns do so together", TABLE, many=True
    )
    calendar: Names = described((), "covariate made from dates: yearly, monthly, weekly, daily", TABLE, many=True)
    holidays: str | None = described(
        None, "country whose holidays are a covariate, as US, DE or US-CA; needs the library holidays", TABLE
    )
    freq: Any = described("auto", "step between rows: auto, an alias of pandas such as D, B or MS, or a number", TABLE)
    missing: str = described(
        "auto",
        "missing cells and rows: auto (carried forward in the input, masked in the loss), refuse, interpolate, "
        "forward, mask or zero",
        TABLE,
    )
    duplicates: str = described("refuse", "rows with the same time: refuse, first, last, mean or sum", TABLE)
    sep: str | None = described(None, "between the cells of a CSV; by default found", TABLE, aliases=("--delimiter",))
    decimal: str | None = described(None, "decimal mark of a CSV, a point or a comma; by default found", TABLE)
    thousands: str | None = described(None, "thousands mark of a CSV; by default found", TABLE)
    encoding: str | None = described(None, "of a CSV; by default found", TABLE)
    time_format: str | None = described(None, "strptime format of the times, as %d.%m.%Y; by default found", TABLE)
    dayfirst: bool | None = described(None, "whether 01/02/2024 is 1 February; by default told from all rows", TABLE)
    sheet: str | int | None = described(None, "name or number of a workbook's sheet; by default the first", TABLE)

    def __post_init__(self) -> None:
        for name, known in (("missing", MISSING), ("duplicates", DUPLICATES)):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"{option(name)} is {getattr(self, name)!r}, expected any of {', '.join(map(repr, known))}"
                )
        for name in ("target", "past", "future", "static", "series", "calendar"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if name == "target" and value is None else tuple(names(value)))
        if self.time is not None:
            object.__setattr__(self, "time", column_name(self.time))
        for name in ("decimal", "thousands"):
            mark = getattr(self, name)
            if mark is not None and (not isinstance(mark, str) or len(mark) != 1 or mark.isalnum()):
                raise ConfigError(f"{option(name)} is {mark!r}, expected one mark such as '.' or ','")
        if self.decimal is not None and self.decimal == self.thousands:
            raise ConfigError(f"{option('decimal')} and {option('thousands')} are both {self.decimal!r}")
        if self.sep is not None and (not isinstance(self.sep, str) or len(self.sep) != 1 or self.sep in '"\0\r\n'):
            raise ConfigError(f"{option('sep')} is {self.sep!r}, expected one mark such as ',' or ';'")
        if self.dayfirst is not None and not isinstance(self.dayfirst, bool):
            raise ConfigError(f"{option('dayfirst')} is {self.dayfirst!r}, expected True, False or None")


def names(value: Any) -> list[str]:
    """One name or several, as a list of texts; a tuple in a list is a column of two levels."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        return [column_name(value)]
    return [column_name(one) for one in value]


def column_name(name: Any) -> str:
    """The name of a column as text; the levels of a tuple stand one after another."""
    if isinstance(name, tuple):
        return " ".join(str(level) for level in name if str(level))
    return str(name)
