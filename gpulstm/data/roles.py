"""Which columns of a table play which role: what was asked for, and what is told from the table itself."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpulstm.data.cells import number_of
from gpulstm.data.frames import Source, need
from gpulstm.data.options import TableOptions
from gpulstm.data.time_formats import looks_like_date
from gpulstm.errors import ConfigError, DataError, option


@dataclass
class Roles:
    """Positions of columns by role.

    Attributes:
        targets, past, future, static: of the columns with numbers or categories.
        time: of the times, or None.
        series: of the columns that name the series.
        names: of all columns, by position.
        categories: positions whose cells are categories.
        ignored: names of the columns without a role.
        notes: what was told from the table.
    """

    targets: list[int]
    past: list[int]
    future: list[int]
    static: list[int]
    time: int | None
    series: list[int]
    names: list[str]
    categories: set[int] = field(default_factory=set)
    ignored: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def numbers(self) -> list[int]:
        """Positions of all columns that become features, in the order of the features."""
        return [*self.targets, *self.past, *self.future, *self.static]

    def groups(self) -> dict[str, list[int]]:
        """Positions of those columns by role."""
        return {"target": self.targets, "past": self.past, "future": self.future, "static": self.static}

    def kinds(self) -> dict[int, str]:
        """What to read of each column, as `frames.Source.read` takes it."""
        kinds = {at: "category" if at in self.categories else "number" for at in self.numbers}
        if self.time is not None:
            kinds[self.time] = "time"
        return kinds | dict.fromkeys(self.series, "id")


def decide(
    source: Source,
    options: TableOptions,
    made: Sequence[str],
    need_target: bool = True,
    categories: Collection[str] | None = None,
) -> Roles:
    """The roles of a table's columns.

    Args:
        made: names of the covariates that will be made from the dates.
        need_target: whether a column has to be left to forecast.
        categories: names of the covariates that are categories, where that is known.

    Raises:
        DataError: a column is not there, or none is left to forecast.
        ConfigError: a column has two roles.
    """
    names = _named(source)
    asked: dict[int, str] = {}

    def take(wanted: Sequence[str], role: str) -> list[int]:
        positions = []
        for name in wanted:
            at = need(name, names, source.label)
            if at in asked:
                raise ConfigError(f"column {name!r} is given two roles, {asked[at]} and {role}; a column has one")
            if name in made:
                raise ConfigError(f"column {name!r} has the name of a calendar covariate; rename it")
            asked[at] = role
            positions.append(at)
        return positions

    targets = None if options.target is None else take(options.target, "target")
    past, future = take(options.past, "past"), take(options.future, "future")
    static, series = take(options.static, "static"), take(options.series, "series")
    notes: list[str] = []
    time = _time(source, names, options, asked, notes, take)
    if not series and len(source.index) > 1:
        series = [at for at in source.index if at not in asked]
        for at in series:
            asked[at] = "series"
    covariates = (*past, *future, *static)
    coded = {at for at in covariates if (not _is_number(source, at) if categories is None else names[at] in categories)}
    ignored: list[str] = []
    if targets is None:
        targets = []
        for at in range(len(names)):
            if at in asked or at in source.index or (not names[at] and _counts(source, at)):
                continue
            if names[at] and _is_number(source, at):
                targets.append(at)
            else:
                ignored.append(names[at] or f"column {at + 1}, which has no name")
    else:
        ignored = [name for at, name in enumerate(names) if at not in asked and at not in source.index and name]
    if not targets and need_target:
        raise DataError(
            f"{source.label} has no column left to forecast: {_why(source, names, asked)}; "
            f"name the target column as {option('target', ...)}"
        )
    for at in targets:
        need(names[at], names, source.label)
        if names[at] in made:
            raise ConfigError(f"column {names[at]!r} has the name of a calendar covariate; rename it")
    return Roles(targets, past, future, static, time, series, names, coded, ignored, notes)


def _named(source: Source) -> list[str]:
    """The names of the columns; an index without a name is called by its role, where no column is."""
    names = list(source.names)
    for at in source.index:
        if not names[at]:
            before = [other for other in source.index if other < at]
            name = "time" if _dates(source, at) or _even_numbers(source, at, before) else "series"
            names[at] = name if name not in names else ""
    return names


def _time(
    source: Source, names: list[str], options: TableOptions, asked: dict[int, str], notes: list[str], take: Any
) -> int | None:
    if options.time == "none" and "none" not in names:
        return None
    if options.time is not None:
        if options.time not in names and len(source.index) == 1 and _is_time(source, source.index[0]):
            asked[source.index[0]] = "time"  # the name of an index is no part of the data
            return source.index[0]
        bare = [at for at, name in enumerate(names) if not name and at not in source.index and _dates(source, at)]
        if options.time not in names and options.time == "time" and len(bare) == 1:
            asked[bare[0]] = "time"  # a column without a name, which is called so in every output
            names[bare[0]] = "time"
            return bare[0]
        return take([options.time], "time")[0]
    inside = [at for at in source.index if at not in asked]
    dated = [at for at in inside if _dates(source, at)]
    columns = [at for at in range(len(names)) if at not in asked and at not in source.index and _dates(source, at)]
    if not dated and not columns:
        dated = [at for at in inside[-1:] if _even_numbers(source, at, inside[:-1])]
    found = dated or (columns if len(columns) == 1 else [])
    if len(columns) > 1 and not dated:
        notes.append(
            f"several columns hold dates ({', '.join(names[at] for at in columns[:5])}), and none is taken for the "
            f"time; name one as {option('time', ...)}"
        )
    if not found:
        return None
    at = found[0]
    asked[at] = "time"
    if at not in source.index:
        notes.append(f"times are those of column {names[at] or at + 1!r}")
        names[at] = names[at] or "time"
    return at


def _is_time(source: Source, at: int) -> bool:
    return _dates(source, at) or _even_numbers(source, at)


def _dates(source: Source, at: int) -> bool:
    """Whether a column holds dates: by its type, or all of its first texts."""
    import pandas as pd

    column = source.head[at]
    dtype = column.dtype
    if isinstance(dtype, (pd.PeriodDtype, pd.DatetimeTZDtype)) or pd.api.types.is_datetime64_dtype(dtype):
        return True
    if pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_bool_dtype(dtype):
        return False
    cells = [cell for cell in column.head(20) if not pd.isna(cell)]
    if not cells or (len(cells) < len(column.head(20)) and len(cells) < 10):
        return False
    if all(hasattr(cell, "isoformat") or isinstance(cell, pd.Period) for cell in cells):
        return True
    return all(isinstance(cell, str) and number_of(cell) is None and looks_like_date(cell) for cell in cells)


def _even_numbers(source: Source, at: int, ids: Sequence[int] = ()) -> bool:
    """Whether the first rows are numbers that rise, within each run of the columns `ids`."""
    import pandas as pd

    column = source.head[at]
    if not pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_bool_dtype(column.dtype) or len(column) < 2:
        return False
    steps = np.diff(column.to_numpy(dtype=np.float64, na_value=np.nan))
    inside = np.ones(len(steps), bool)
    for one in ids:
        inside &= ~np.diff(pd.factorize(source.head[one])[0]).astype(bool)
    return bool(inside.any() and (steps[inside] > 0).all())


def _counts(source: Source, at: int) -> bool:
    """Whether a column numbers its rows from 0 or 1, as what pandas and R write for rows without names does."""
    cells = [number_of(cell) for cell in source.head[at]]
    start = cells[0] if cells else None
    return start in (0, 1) and all(cell == start + row for row, cell in enumerate(cells))


def _is_number(source: Source, at: int) -> bool:
    """Whether a column holds numbers: by its type, or nearly all of its first cells, where another is then a fault."""
    import pandas as pd

    dtype = source.head[at].dtype
    if pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_bool_dtype(dtype):
        return True
    if isinstance(dtype, (pd.PeriodDtype, pd.DatetimeTZDtype)) or dtype.kind in "mM":
        return False
    cells = [cell for cell in source.head[at] if isinstance(cell, str) or not pd.isna(cell)]
    read = [number_of(_unmarked(cell, source)) for cell in cells]
    good = sum(number is not None for number in read)
    return not cells or good > 0.9 * len(cells)


def _unmarked(cell: Any, source: Source) -> Any:
    """A cell of a text file with the marks in its numbers as Python has them."""
    if not isinstance(cell, str) or source.marks == (".", None):
        return cell
    decimal, thousands = source.marks
    return cell.replace(thousands or "\0", "").replace(decimal, ".")


def _why(source: Source, names: Sequence[str], asked: dict[int, str]) -> str:
    """The first cell that keeps a column from being a target."""
    import pandas as pd

    for at, name in enumerate(names):
        if at in asked or at in source.index:
            continue
        for row, cell in enumerate(source.head[at]):
            if isinstance(cell, str) and number_of(_unmarked(cell, source)) is None:
                return f"column {name!r}, {source.word} {source.first + row} holds {cell!r}, expected a number"
            if not isinstance(cell, str) and not pd.isna(cell) and number_of(cell) is None:
                return f"column {name!r} holds {source.head[at].dtype}"
    return "all columns have another role"


def guess_series(source: Source, roles: Roles) -> list[int]:
    """The column, or the two, that tell the series of a panel apart: within each series no time comes twice.

    Text comes before numbers, and a column before a pair.  Empty where there is none.
    """
    import pandas as pd

    if roles.time is None:
        return []
    free = [at for at in range(len(roles.names)) if at not in {roles.time, *roles.past, *roles.future, *roles.static}]
    free = [at for at in free if roles.names[at]]
    text = [at for at in free if at not in roles.targets and not _is_number(source, at) and not _dates(source, at)]
    whole = [
        at
        for at in free
        if at not in text and _is_number(source, at) and all(_whole_number(cell) for cell in source.head[at])
    ]
    read: dict[int, list[Any]] = {at: [] for at in (*text, *whole, roles.time)}
    for chunk in source.read(dict.fromkeys(read, "id")):
        for at, part in chunk.items():
            read[at].append(part)
    columns = {at: pd.factorize(pd.concat(parts, ignore_index=True))[0] for at, parts in read.items()}
    times = columns.pop(roles.time)
    count = len(times)

    def apart(codes: np.ndarray) -> bool:
        kinds = len(np.unique(codes))
        return 1 < kinds <= count // 2 and len(np.unique(codes * (times.max() + 1) + times)) == count

    for at in (*text, *whole):
        if (columns[at] >= 0).all() and apart(columns[at]):
            return [at]
    for row, one in enumerate(text):
        for other in (*text[row + 1 :], *whole):
            if apart(columns[one] * (columns[other].max() + 1) + columns[other]):
                return [one, other]
    return []


def _whole_number(cell: Any) -> bool:
    number = number_of(cell)
    return number is not None and float(number).is_integer()
