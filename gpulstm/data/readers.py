"""Where columns come from: CSV files, Parquet files, data frames, dicts of columns and plain arrays.

A source knows the names of its columns and reads the ones that are asked for: numbers as float64 with NaN where a cell
is missing, times as `datetime64[us]` or float64, and names of series as integer codes.  Only the columns asked for are
held, and a CSV is parsed in chunks, so memory grows with the numbers kept and not with the text of the file.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gpulstm.data.cells import TIME, cells_of_frame, parse_codes, parse_numbers, parse_times
from gpulstm.data.columns import Columns, Reading
from gpulstm.errors import DataError, missing_extra

_BATCH = 65536  # rows of a Parquet file that exist as Arrow columns at one time
_CHUNK = 1024  # rows of a CSV that exist as Python strings at one time; few enough to stay in the cache


class Source(Protocol):
    """A table that is not read yet."""

    label: str

    @property
    def names(self) -> list[str]:
        """The columns' names in their order."""
        ...

    def read(self, numbers: Sequence[str], time: str | None, series: str | None) -> Columns:
        """Read the named columns."""
        ...


def open_source(data: Any, *, delimiter: str | None = None) -> Source:
    """The source for a path, a frame, a dict of columns or an array.

    Raises:
        DataError: the file is not there or not readable, column names repeat, or the object is none of these.
        MissingExtraError: a Parquet file needs pyarrow, which is not installed.
    """
    if isinstance(data, (str, Path)):
        return _open_file(Path(data), delimiter)
    if isinstance(data, Mapping):
        return _Arrays.of_mapping(data)
    if hasattr(data, "__cuda_array_interface__"):
        raise DataError(
            "the series is an array on a CUDA device; tables are read on the host, pass gpulstm.to_host(series)"
        )
    if isinstance(data, (np.ndarray, list, tuple)):
        return _Arrays.of_array(data)
    return _frame(data)


def need(name: str, names: Sequence[str], label: str) -> str:
    """`name` if the table has it.

    Raises:
        DataError: no such column; the message gives the nearest names, or all of a few.
    """
    if name in names:
        return name
    import difflib  # here, because only a mistake needs it

    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or list(names[:8])
    raise DataError(f"{label} has no column {name!r}; the nearest are: {', '.join(map(repr, near))}")


def _check_names(names: Sequence[str], label: str) -> list[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"{label} has two columns named {name!r}; rename one of them")
        seen.add(name)
    if not names:
        raise DataError(f"{label} has no columns")
    return list(names)


def _open_file(path: Path, delimiter: str | None) -> Source:
    if not path.exists():
        raise DataError(f"there is no file {str(path)!r}")
    if path.is_dir():
        raise DataError(f"{str(path)!r} is a folder, expected a CSV or Parquet file")
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv", ".txt"):
        return _Csv.open(path, delimiter)
    if suffix in (".parquet", ".pq"):
        return _Parquet.open(path)
    raise DataError(f"{str(path)!r} ends in {suffix or 'nothing'!r}, expected .csv, .tsv, .txt, .parquet or .pq")


# CSV


@dataclass
class _Csv:
    """A delimited text file in UTF-8 whose first row names the columns."""

    path: Path
    delimiter: str
    names: list[str]
    label: str = field(init=False)

    def __post_init__(self) -> None:
        self.label = self.path.name

    @classmethod
    def open(cls, path: Path, delimiter: str | None) -> _Csv:
        with _decoding(path), open(path, encoding="utf-8-sig", newline="") as file:
            line = file.readline()
        if not line.strip():
            raise DataError(f"{path.name} is empty, expected a first row with the names of the columns")
        if delimiter is None:
            delimiter = max(",;\t|", key=line.count) if any(mark in line for mark in ",;\t|") else ","
        names = [name.strip() for name in next(csv.reader([line], delimiter=delimiter))]
        for position, name in enumerate(names, start=1):
            if not name:
                raise DataError(f"column {position} of {path.name} has no name in the first row")
        return cls(path, delimiter, _check_names(names, path.name))

    def read(self, numbers: Sequence[str], time: str | None, series: str | None) -> Columns:
        wanted = {name: self.names.index(name) for name in numbers}
        known: dict[str, int] = {}
        reading = Reading(numbers)
        for first, columns in self._chunks():
            parts = {name: parse_numbers(columns[at], name, self.label, first) for name, at in wanted.items()}
            reading.add(parts, len(columns[0]))
            if time is not None:
                reading.add_time(
                    parse_times(columns[self.names.index(time)], time, self.label, first), time, self.label
                )
            if series is not None:
                cells = columns[self.names.index(series)]
                reading.add_codes(parse_codes(cells, known, series, self.label, first))
        if not reading.rows:
            raise DataError(f"{self.label} has no rows below the names of the columns")
        return reading.done(list(known), "row", 2)

    def _chunks(self) -> Iterator[tuple[int, list[tuple[str, ...]]]]:
        """The number of the first row, and the columns, of each run of rows; blank rows at the end are dropped."""
        with _decoding(self.path), open(self.path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=self.delimiter)
            next(reader)
            first, blank = 2, 0  # `blank`: rows without a cell that may turn out to be the end of the file
            width = len(self.names)
            while True:
                rows: list[list[str]] = [[]] * blank + list(itertools.islice(reader, _CHUNK))
                more = len(rows) > blank
                blank = sum(1 for _ in itertools.takewhile(lambda row: not row, reversed(rows)))
                rows = rows[: len(rows) - blank]
                if rows:
                    if width == 1:
                        rows = [row or [""] for row in rows]  # a blank row of one column is one missing value
                    if set(map(len, rows)) != {width}:
                        offset, wrong = next((at, row) for at, row in enumerate(rows) if len(row) != width)
                        raise DataError(
                            f"row {first + offset} of {self.label} has {len(wrong)} cells, "
                            f"expected {width} as in the first row"
                        )
                    yield first, list(zip(*rows, strict=True))
                    first += len(rows)
                if not more:
                    return


@contextlib.contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Say in one sentence what keeps a text file from being read."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{path.name} cannot be read as CSV: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


# Parquet and frames


@dataclass
class _Parquet:
    """A Parquet file; only the wanted columns are read."""

    path: Path
    names: list[str]
    label: str

    @classmethod
    def open(cls, path: Path) -> _Parquet:
        parquet = _pyarrow_parquet()
        try:
            names = parquet.read_schema(path).names
        except (OSError, ValueError) as error:  # pyarrow's own errors derive from these two
            raise DataError(f"{path.name} cannot be read as Parquet: {error}") from error
        return cls(path, _check_names(names, path.name), path.name)

    def read(self, numbers: Sequence[str], time: str | None, series: str | None) -> Columns:
        wanted = [*numbers, *(name for name in (time, series) if name is not None)]
        known: dict[str, int] = {}
        try:
            with _pyarrow_parquet().ParquetFile(self.path) as file:
                reading = Reading(numbers, file.metadata.num_rows)
                for batch in file.iter_batches(batch_size=_BATCH, columns=wanted):
                    native = _narwhals().from_native(_pyarrow().Table.from_batches([batch]), eager_only=True)
                    part = _Frame(native, self.names, self.label, start=reading.rows)
                    part.read_into(reading, numbers, time, series, known)
        except (OSError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{self.label} cannot be read as Parquet: {error}") from error
        _pyarrow().default_memory_pool().release_unused()
        if not reading.rows:
            raise DataError(f"{self.label} has no rows")
        return reading.done(list(known), "position", 0)


@dataclass
class _Frame:
    """A pandas, polars or pyarrow frame, seen through narwhals."""

    frame: Any
    names: list[str]
    label: str = "the frame"
    index: str | None = None  # name under which a pandas time index was made a column
    start: int = 0  # position of the first row in the whole table

    def read(self, numbers: Sequence[str], time: str | None, series: str | None) -> Columns:
        if len(self.frame) == 0:
            raise DataError(f"{self.label} has no rows")
        known: dict[str, int] = {}
        reading = Reading(numbers, len(self.frame))
        self.read_into(reading, numbers, time, series, known)
        return reading.done(list(known), "position", 0)

    def read_into(
        self, reading: Reading, numbers: Sequence[str], time: str | None, series: str | None, known: dict[str, int]
    ) -> None:
        """Add the named columns to what was read before them."""
        reading.add({name: self._number(name) for name in numbers}, len(self.frame))
        if time is not None:
            reading.add_time(self._time(time), time, self.label)
        if series is not None:
            reading.add_codes(parse_codes(self.frame[series].to_list(), known, series, self.label, self.start))

    def _number(self, name: str) -> np.ndarray:
        nw, column = _narwhals(), self.frame[name]
        if column.dtype.is_numeric() or column.dtype == nw.Boolean:
            return np.asarray(column.cast(nw.Float64).to_numpy(), dtype=np.float64)
        cells = ["" if cell is None else str(cell) for cell in column.to_list()]
        return cells_of_frame(parse_numbers, cells, name, self.label, self.start)

    def _time(self, name: str) -> np.ndarray:
        nw, column = _narwhals(), self.frame[name]
        if column.dtype.is_numeric():
            return np.asarray(column.cast(nw.Float64).to_numpy(), dtype=np.float64)
        if column.dtype == nw.Date:
            return np.asarray(column.to_list(), dtype=TIME)
        if column.dtype == nw.Datetime:
            if column.dtype.time_zone is not None:
                column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
            return column.to_numpy().astype(TIME)
        cells = ["" if cell is None else str(cell) for cell in column.to_list()]
        return cells_of_frame(parse_times, cells, name, self.label, self.start)


def _frame(data: Any) -> Source:
    native = data
    if type(data).__module__.partition(".")[0] == "pandas":
        if hasattr(data, "to_frame") and not hasattr(data, "columns"):  # a pandas Series
            data = data.to_frame(name="value" if data.name is None else str(data.name))
        if type(data.index).__name__ == "PeriodIndex":
            data = data.set_axis(data.index.to_timestamp())
        index = None
        if type(data.index).__name__ == "DatetimeIndex":
            index = "index" if data.index.name is None else str(data.index.name)
            if index in data.columns:
                raise DataError(f"the frame has a column {index!r} and a time index of that name; rename one of them")
            data = data.rename_axis(index).reset_index()
        names = _check_names([str(name) for name in data.columns], "the frame")
        return _Frame(_narwhals().from_native(data.set_axis(names, axis=1), eager_only=True), names, index=index)
    try:
        frame = _narwhals().from_native(native, eager_only=True, allow_series=True)
    except TypeError:
        raise DataError(
            f"the series came as {type(native).__name__}, expected a path, a frame (pandas, polars, pyarrow), "
            "a dict of columns or an array"
        ) from None
    if not hasattr(frame, "columns"):
        frame = frame.alias(frame.name or "value").to_frame()
    return _Frame(frame, _check_names(list(frame.columns), "the frame"))


def _narwhals() -> Any:
    import narwhals  # here, because it takes a while to import and arrays and CSV files do without

    return narwhals


def _pyarrow() -> Any:
    import pyarrow  # behind `_pyarrow_parquet`, which says so where it is missing

    return pyarrow


def _pyarrow_parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "tables", "reading a Parquet file") from error
    return pyarrow.parquet


# arrays


@dataclass
class _Arrays:
    """A dict of columns, or an array `(time,)`, `(time, features)` or `(series, time, features)` cut into columns."""

    columns: dict[str, Any]
    label: str
    series: int = 1  # how many equally long series the rows hold one after another

    @property
    def names(self) -> list[str]:
        return list(self.columns)

    @classmethod
    def of_mapping(cls, data: Mapping[Any, Any]) -> _Arrays:
        columns = {str(name): values for name, values in data.items()}
        if len(columns) != len(data):
            raise DataError("the dict has two columns with the same name as text; rename one of them")
        _check_names(list(columns), "the dict")
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"the columns of the dict have different lengths: {lengths}")
        return cls(columns, "the dict")

    @classmethod
    def of_array(cls, data: Any) -> _Arrays:
        if isinstance(data, np.ma.MaskedArray):
            data = np.ma.filled(data.astype(np.float64), np.nan)
        try:
            array = np.asarray(data)
        except ValueError as error:
            raise DataError(f"the series is a {type(data).__name__} that is no array of numbers: {error}") from error
        if array.dtype.kind not in "fiub":
            raise DataError(f"the series has dtype {array.dtype}, expected real numbers")
        if array.ndim not in (1, 2, 3):
            raise DataError(
                f"the series has shape {array.shape}, expected (time,), (time, features) or (series, time, features)"
            )
        if array.size == 0:
            raise DataError(f"the series has shape {array.shape}, expected at least one value")
        series = array.shape[0] if array.ndim == 3 else 1
        table = array.reshape(-1, 1 if array.ndim == 1 else array.shape[-1])
        return cls({str(column): table[:, column] for column in range(table.shape[1])}, "the array", series)

    def read(self, numbers: Sequence[str], time: str | None, series: str | None) -> Columns:
        if self.columns and len(next(iter(self.columns.values()))) == 0:
            raise DataError(f"{self.label} has no rows")
        rows = len(next(iter(self.columns.values())))
        known: dict[str, int] = {}
        reading = Reading(numbers, rows)
        reading.add({name: self._number(name) for name in numbers}, rows)
        if time is not None:
            reading.add_time(self._time(time), time, self.label)
        if series is not None:
            reading.add_codes(parse_codes(list(self.columns[series]), known, series, self.label, 0))
        elif self.series > 1:
            reading.add_codes(np.repeat(np.arange(self.series), rows // self.series))
            known = {str(index): index for index in range(self.series)}
        return reading.done(list(known), "position", 0)

    def _number(self, name: str) -> np.ndarray:
        values = np.asarray(self.columns[name])
        if values.ndim != 1:
            raise DataError(f"column {name!r} has shape {values.shape}, expected (rows,)")
        if values.dtype.kind in "fiub":
            return np.asarray(values, dtype=np.float64)
        cells = ["" if cell is None else str(cell) for cell in values.tolist()]
        return cells_of_frame(parse_numbers, cells, name, self.label, 0)

    def _time(self, name: str) -> np.ndarray:
        values = np.asarray(self.columns[name])
        if values.dtype.kind in "fiu":
            return np.asarray(values, dtype=np.float64)
        if values.dtype.kind == "M":
            return values.astype(TIME)
        cells = ["" if cell is None else str(cell) for cell in values.tolist()]
        return cells_of_frame(parse_times, cells, name, self.label, 0)
