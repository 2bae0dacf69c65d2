"""Tables in parts, larger than memory: files of one form, or the partitions of a Dask frame, each with whole series."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import Any

from gpulstm.data.loading import load_series
from gpulstm.data.options import TableOptions
from gpulstm.data.series import SeriesSet
from gpulstm.errors import DataError, missing_extra

SUFFIXES = (".parquet", ".pq", ".csv")


def is_in_parts(data: Any) -> bool:
    """Whether a table is a Dask frame, a folder, a pattern of file names such as `parts/*.parquet`, or `Parts`."""
    if isinstance(data, Parts):
        return True
    if isinstance(data, (str, os.PathLike)):
        return "*" in os.fspath(data) or os.path.isdir(data)
    return type(data).__module__.partition(".")[0] == "dask"


class Parts:
    """A table in parts.

    Args:
        data: as `is_in_parts`; a pattern may begin with `s3://` or another file system of fsspec.
        table: how a part is read, as `load_series` takes it; the first part decides what is left open.

    Attributes:
        first: the series of the first part.

    Raises:
        DataError: there is no part.
    """

    def __init__(self, data: Any, **table: Any) -> None:
        self._frame = None if isinstance(data, (str, os.PathLike)) else data
        self.files = files_of(os.fspath(data)) if self._frame is None else []
        self.first = load_series(self.table(0), **table)

    def __len__(self) -> int:
        return len(self.files) if self._frame is None else self._frame.npartitions

    def identity(self) -> dict[str, Any]:
        """What tells this table from others, as far as its first part and the names of its files do."""
        return {**self.first.identity(), "parts": self.files or len(self)}

    def table(self, part: int) -> Any:
        """A part as `load_series` takes it."""
        if self._frame is not None:
            return self._frame.get_partition(part).compute()
        return _read(self.files[part])

    def series(self, part: int) -> SeriesSet:
        """The series of a part, in the roles of the first one."""
        return self.first if part == 0 else load_series(self.table(part), like=self.first)

    def frame(self) -> Any:
        """The table as a Dask frame, a partition a part.

        Raises:
            MissingExtraError: Dask is not installed.
        """
        if self._frame is not None:
            return self._frame
        return _dask().from_map(_frame_of, self.files)


def parts_of(data: Any, like: SeriesSet) -> Parts:
    """A table in parts, read in the roles of other series where it was not read yet."""
    return data if isinstance(data, Parts) else Parts(data, like=like)


def read_table(
    data: Any, options: TableOptions | None = None, *, like: SeriesSet | None = None, guess: bool = False, **named: Any
) -> SeriesSet | Parts:
    """The series of a table, or, where it is in parts, what reads them part by part; arguments as `load_series`."""
    if isinstance(data, Parts):
        return data
    if is_in_parts(data):
        return Parts(data, options=options, like=like, **named)
    return load_series(data, options, like=like, guess=guess, **named)


def files_of(data: str) -> list[str]:
    """The files of a folder or pattern, by name.

    Raises:
        DataError: there is none.
    """
    if "://" in data:
        try:
            import fsspec
        except ImportError as error:
            raise missing_extra("fsspec", f"reading {data}") from error
        system, path = fsspec.core.url_to_fs(data)
        files = [system.unstrip_protocol(name) for name in sorted(system.glob(path))]
    elif "*" in data:
        files = sorted(glob.glob(data))
    else:
        files = sorted(str(path) for path in Path(data).iterdir() if path.suffix in SUFFIXES)
    if not files:
        raise DataError(f"there are no files {data!r}, expected parts of a table ({', '.join(SUFFIXES)})")
    return files


def _read(file: str) -> Any:
    return _frame_of(file) if "://" in file else file


def _frame_of(file: str) -> Any:
    """A part as a pandas frame."""
    import pandas as pd

    return pd.read_csv(file) if file.endswith(".csv") else pd.read_parquet(file)


def _dask() -> Any:
    try:
        import dask.dataframe
    except ImportError as error:
        raise missing_extra("dask[dataframe]", "tables in parts") from error
    return dask.dataframe
