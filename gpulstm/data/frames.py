"""What a table is before it is read: names, first rows, and columns in parts; and tables that lie in memory already."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gpulstm.data.options import column_name
from gpulstm.data.plain_arrays import is_masked, numbers_of, refuse_mask
from gpulstm.errors import DataError, missing_extra

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 1000  # rows that roles are decided from

Kinds = Mapping[int, str]  # position of a column -> "number", "time", "id" or "category"


@dataclass
class Source:
    """A table that is not read yet.

    Attributes:
        label: its name in messages.
        names: of its columns, in their order; "" where one has none.
        index: positions of the columns that are a frame's index.
        head: the first rows, columns numbered by position.
        read: gives the columns asked for, part by part; may raise `ReadAgain`.
        word, first: how rows are named in messages: `"row"` from 2 in a file, `"position"` from 0 else.
        file: whether it is a file.
        notes: sentences on how it was read.
        marks: decimal and thousands mark of the numbers in `head`.
        rows: about how many rows there are; 0 where that is not known before they are read.
    """

    label: str
    names: list[str]
    head: pd.DataFrame
    read: Callable[[Kinds], Iterator[dict[int, Any]]]
    index: tuple[int, ...] = ()
    word: str = "position"
    first: int = 0
    file: bool = False
    notes: list[str] = field(default_factory=list)
    marks: tuple[str, str | None] = (".", None)
    rows: int = 0

    def row_names(self, done: int) -> Callable[[int], str]:
        """Rows' names for messages, from their numbers in a part that comes after `done` rows."""
        return lambda row: f"{self.word} {self.first + done + row}"


class ReadAgain(Exception):
    """What the first rows of a file told does not hold further down; `source` reads the file rightly."""

    def __init__(self, source: Source) -> None:
        super().__init__(source.label)
        self.source = source


def need(name: str, names: Sequence[str], label: str) -> int:
    """The position of the column `name`.

    Raises:
        DataError: no such column, where the message gives the nearest names, or two of them.
    """
    found = [position for position, other in enumerate(names) if other == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{label} has two columns named {name!r}; rename one of them")
    import difflib  # here, because only a mistake needs it

    known = [other for other in names if other]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known[:8]
    raise DataError(f"{label} has no column {name!r}; the nearest are: {', '.join(map(repr, near))}")


def columns_source(
    columns: Sequence[Any],
    names: Sequence[str],
    label: str,
    *,
    index: tuple[int, ...] = (),
    word: str = "position",
    first: int = 0,
    file: bool = False,
) -> Source:
    """The source of columns that lie in memory.

    Raises:
        DataError: there are no columns, or they have no rows.
    """
    import pandas as pd

    if not columns:
        raise DataError(f"{label} has no columns")
    if not len(columns[0]):
        raise DataError(f"{label} has no rows")
    head = pd.DataFrame({at: column.iloc[:SHOWN].reset_index(drop=True) for at, column in enumerate(columns)})

    def chunks(kinds: Kinds) -> Iterator[dict[int, Any]]:
        yield {position: columns[position].reset_index(drop=True) for position in kinds}

    return Source(label, list(names), head, chunks, index=index, word=word, first=first, file=file)


def frame_source(data: Any) -> Source:
    """The source of a frame or series of pandas, polars or pyarrow, or of what Arrow can take over.

    Raises:
        DataError: it is none of these, or is empty.
    """
    kind = type(data).__module__.partition(".")[0]
    if kind == "pandas":
        return _pandas(data)
    if kind == "polars":
        if hasattr(data, "collect"):
            data = data.collect()
        if hasattr(data, "to_frame") and not hasattr(data, "columns"):
            data = data.to_frame(data.name or "value")
        names = [str(name) for name in data.columns]
        return columns_source([_polars_column(data[name]) for name in data.columns], names, "the frame")
    if kind == "pyarrow" and hasattr(data, "column_names"):
        return _pandas(data.to_pandas())
    if hasattr(data, "__arrow_c_stream__"):
        try:
            import pyarrow
        except ImportError:
            raise missing_extra("pyarrow", f"reading a {type(data).__name__}") from None
        return _pandas(pyarrow.table(data).to_pandas())
    if hasattr(data, "to_pandas"):
        return _pandas(data.to_pandas())
    raise DataError(
        f"the series came as {type(data).__name__}, expected a path, a frame (pandas, polars, pyarrow), "
        "a dict of columns or an array"
    )


def _polars_column(column: Any) -> Any:
    """A polars column as a pandas Series, by way of NumPy, so that pyarrow is not needed."""
    import pandas as pd

    name = str(column.dtype)
    if name.startswith("Datetime"):
        dates = pd.Series(column.dt.replace_time_zone(None).to_numpy() if column.dtype.time_zone is None else None)
        if column.dtype.time_zone is None:
            return dates
        utc = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None).to_numpy()
        return pd.Series(pd.DatetimeIndex(utc).tz_localize("UTC").tz_convert(column.dtype.time_zone))
    if name == "Date":
        return pd.Series(column.to_numpy().astype("datetime64[s]"))
    if column.dtype.is_numeric() and not name.startswith("Decimal"):
        return pd.Series(column.to_numpy())
    if name == "Boolean" and not column.null_count():
        return pd.Series(column.to_numpy())
    if name.startswith("Decimal"):
        return pd.Series(column.to_list(), dtype="float64")
    return pd.Series(column.to_list(), dtype=object)


def _pandas(frame: Any) -> Source:
    """A pandas frame or series; its index is a column, or several, where it says more than a row number."""
    import pandas as pd

    if isinstance(frame, pd.Series):
        frame = frame.to_frame(name="value" if frame.name is None else frame.name)
    names = [column_name(name) for name in frame.columns]
    columns = [frame.iloc[:, position] for position in range(frame.shape[1])]
    index = frame.index
    levels: list[Any] = []
    if isinstance(index, pd.MultiIndex):
        levels = [index.get_level_values(level) for level in range(index.nlevels)]
    elif not isinstance(index, pd.RangeIndex) or (index.start, index.step) != (0, 1):
        levels = [index]
    for level in levels:
        columns.append(level.to_series(index=frame.index))
        names.append("" if level.name is None else column_name(level.name))
    first = len(columns) - len(levels)
    return columns_source(columns, names, "the frame", index=tuple(range(first, len(columns))))


def mapping_source(data: Mapping[Any, Any], missing: str) -> Source:
    """A dict of columns; or of frames or series with an index, one entry a series of the panel."""
    import pandas as pd

    def indexed(value: Any) -> bool:
        return isinstance(value, pd.DataFrame) or (
            isinstance(value, pd.Series) and isinstance(value.index, (pd.DatetimeIndex, pd.PeriodIndex))
        )

    if data and all(indexed(value) for value in data.values()):
        frames = [value.to_frame("value") if isinstance(value, pd.Series) else value for value in data.values()]
        ids = [name if isinstance(name, int) else column_name(name) for name in data]
        return _pandas(pd.concat(frames, keys=ids, names=["series", *frames[0].index.names]))
    names = [column_name(name) for name in data]
    columns = []
    for name, value in zip(names, data.values(), strict=True):
        refuse_mask(value, f"column {name!r} of the dict", missing)
        column = value if isinstance(value, pd.Series) else plain_column(value)
        if column.ndim != 1:
            raise DataError(f"column {name!r} has shape {column.shape}, expected (rows,)")
        columns.append(column if isinstance(column, pd.Series) else pd.Series(column))
    lengths = {name: len(column) for name, column in zip(names, columns, strict=True)}
    if len(set(lengths.values())) > 1:
        raise DataError(
            f"the columns of the dict have different lengths: {lengths}; series with rows of their own come as a dict "
            "of pandas Series with dates, or below one another with a column of their names"
        )
    return columns_source(columns, names, "the dict")


def plain_column(value: Any) -> Any:
    """An array or list; what is masked is missing."""
    if is_masked(value):
        if value.dtype.kind == "M":
            return value.filled(np.datetime64("NaT", "us"))
        if value.dtype.kind in "fiub":
            return (
                np.ma.filled(value.astype(np.float64), np.nan) if np.ma.getmaskarray(value).any() else np.asarray(value)
            )
        return np.ma.filled(value.astype(object), None)
    if type(value).__module__.partition(".")[0] == "polars":
        return _polars_column(value)
    if hasattr(value, "detach"):  # a tensor of PyTorch
        return numbers_of(value)
    array = np.asarray(value)
    if array.dtype.kind in "US":
        return array.astype(object)
    if array.dtype.kind == "O" or isinstance(value, (list, tuple)):
        import pandas as pd

        return pd.Series(list(value)) if array.ndim == 1 else array
    return array
