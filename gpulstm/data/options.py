"""How a table is to be read: where its cells are, which columns play which role, and what happens to gaps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from gpulstm.errors import ConfigError, option
from gpulstm.validate import count

MISSING = ("auto", "refuse", "interpolate", "forward", "mask", "zero")
DUPLICATES = ("refuse", "first", "last", "mean", "sum")

Name = str | int | tuple[Any, ...]
Names = Name | list[Any]


HELP = {  # what each option means, for the command line and for people
    "past": "covariate known up to now: a number, or a category",
    "future": "covariate known ahead",
    "static": "covariate that stays the same within a series",
    "time": "column of times; by default the only one with dates",
    "series": "column, or columns, that name each row's series",
    "calendar": "covariates from the dates: yearly, monthly, weekly, daily",
    "sep": "between the cells of a CSV; found by default",
    "thousands": "thousands mark of a CSV; found by default",
    "encoding": "of a CSV; found by default",
    "sheet": "name or number of a workbook's sheet; the first by default",
    "target": "column to forecast; by default all numbers without another role",
    "holidays": "country whose holidays are a covariate, as US, DE or US-CA; needs holidays",
    "freq": "step between rows: auto, or an alias of pandas such as D, B or MS",
    "missing": "missing cells and rows: auto, refuse, interpolate, forward, mask or zero",
    "duplicates": "rows with the same time: refuse, first, last, mean or sum",
    "embedding": "categories with at least so many values are learned; 0: all are one column a value",
    "decimal": "decimal mark of a CSV, . or a comma; found by default",
    "time_format": "strptime format of the times, as %d.%m.%Y; found by default",
    "dayfirst": "whether 01/02/2024 is 1 February; told from all rows by default",
}


@dataclass(frozen=True)
class TableOptions:
    """Options of `load_series` and `Forecaster.fit`, by the names that the command line has too.

    Raises:
        ConfigError: an option out of range.
    """

    target: Any = None
    past: Any = ()
    future: Any = ()
    static: Any = ()
    time: Any = None
    series: Any = ()
    calendar: Any = ()
    holidays: str | None = None
    freq: Any = "auto"
    missing: str = "auto"
    duplicates: str = "refuse"
    embedding: int = 0
    sep: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    encoding: str | None = None
    time_format: str | None = None
    dayfirst: bool | None = None
    sheet: Any = None

    def __post_init__(self) -> None:
        for name, known in (("missing", MISSING), ("duplicates", DUPLICATES)):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"{option(name)} is {getattr(self, name)!r}, expected any of {', '.join(map(repr, known))}"
                )
        for name in ("target", "past", "future", "static", "series", "calendar"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if name == "target" and value is None else tuple(names(value)))
        object.__setattr__(self, "embedding", count("embedding", self.embedding, at_least=0))
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

    def changed(self) -> list[str]:
        """Names of the options that are not at their defaults."""
        return [one.name for one in fields(self) if getattr(self, one.name) != _DEFAULTS[one.name]]


def names(value: Any) -> list[str]:
    """One name or several, as a list of texts; a tuple in a list is a column of two levels."""
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return [column_name(value)]
    if not isinstance(value, Iterable):
        return [column_name(value)]
    return [column_name(one) for one in value]


def column_name(name: Any) -> str:
    """The name of a column as text; the levels of a tuple stand one after another."""
    if isinstance(name, tuple):
        return " ".join(str(level) for level in name if str(level))
    return str(name)


_DEFAULTS = {
    one.name: () if one.name in ("past", "future", "static", "series", "calendar") else one.default
    for one in fields(TableOptions)
}
