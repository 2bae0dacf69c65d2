"""Two real series that ship with the package; `bundled/PROVENANCE.md` says where they are from, under which terms."""

from __future__ import annotations

from pathlib import Path

from gpulstm.data.loading import load_series
from gpulstm.data.series import SeriesSet
from gpulstm.errors import DataError

NAMES = ("co2", "seattle_weather")


def path(name: str) -> Path:
    """The CSV file of a bundled series.

    Raises:
        DataError: there is no such series.
    """
    if name not in NAMES:
        raise DataError(f"there is no bundled series {name!r}; there are: {', '.join(NAMES)}")
    return Path(__file__).resolve().parent / "bundled" / f"{name}.csv"


def co2(*, missing: str = "interpolate", calendar: tuple[str, ...] = ("yearly",)) -> SeriesSet:
    """Weekly carbon dioxide in the air at Mauna Loa, Hawaii, 1958 to 2001: `(2284, 1)` ppm by volume, season 52 weeks.

    59 weeks have no value; see `SeriesSet.filled` for the rules.
    """
    return load_series(path("co2"), target="co2", time="date", calendar=calendar, missing=missing)


def seattle_weather(*, target: str = "temp_max", calendar: tuple[str, ...] = ("yearly",)) -> SeriesSet:
    """Daily weather at Seattle, 2012 to 2015: `(1461, 4)`, one column to forecast and the others as past covariates.

    Columns: `precipitation` (mm), `temp_max` and `temp_min` (degrees Celsius), `wind` (m/s).  None is missing.
    """
    columns = ("precipitation", "temp_max", "temp_min", "wind")
    past = tuple(name for name in columns if name != target)
    return load_series(path("seattle_weather"), target=target, past=past, time="date", calendar=calendar)
