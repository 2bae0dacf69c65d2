"""Where tables come from: text files, workbooks, Parquet, frames of any library, dicts of columns.

A `Source` knows the names of its columns and shows the first rows; `read` then gives the columns that are asked for,
part by part, as pandas Series.  Only those columns are read, so memory grows with what is kept.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.arrays import files
from gpulstm.data import packed
from gpulstm.data.cells import MISSING, number_of
from gpulstm.data.csv_dialect import HEAD, Dialect, find_dialect, other_encoding
from gpulstm.data.frames import SHOWN, Kinds, ReadAgain, Source, columns_source, frame_source, mapping_source
from gpulstm.data.options import TableOptions
from gpulstm.errors import DataError, GpulstmError, missing_extra, option
from gpulstm.validate import whole_of

CHUNK = 65_536  # rows of a text file that exist as pandas columns at one time
_BATCH = 131_072  # rows of a Parquet file likewise
_SUFFIXES = (".csv", ".tsv", ".txt", ".tab", ".dat")


def open_source(data: Any, options: TableOptions) -> Source:
    """The source for a path, "-" for standard input, a frame, or a dict of columns or of frames.

    Raises:
        DataError: the file is not there or not readable, or the object is none of these.
        MissingExtraError: a library that reads the file is not installed.
    """
    if isinstance(data, (str, Path)) and str(data) == "-":
        return _text(files.standard_input(DataError), "standard input", options)
    if isinstance(data, (str, Path)):
        return _file(Path(data), options)
    if hasattr(data, "__cuda_array_interface__"):
        raise DataError(
            "the series is an array on a CUDA device; tables are read on the host, pass gpulstm.to_host(series)"
        )
    if isinstance(data, Mapping):
        return mapping_source(data, options.missing)
    return frame_source(data)


# -- files ------------------------------------------------------------------------------------------------------------
def _file(path: Path, options: TableOptions) -> Source:
    if not path.exists():
        raise DataError(f"there is no file {str(path)!r}")
    if path.is_dir():
        raise DataError(f"{str(path)!r} is a folder, expected a file")
    if not path.is_file():  # a pipe, as `<(zcat data.csv.gz)` of a shell gives; devices are refused
        return _text(files.read(path, DataError), path.name, options)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    last = suffixes[-1] if suffixes else ""
    if last in (".parquet", ".pq"):
        return _parquet(path)
    if last in (".xlsx", ".xlsm", ".xls", ".ods"):
        return _workbook(path, options)
    if last in _SUFFIXES or last in packed.SUFFIXES:
        return _text(path, path.name, options)
    raise DataError(
        f"{str(path)!r} ends in {last or 'nothing'!r}, expected .csv, .tsv, .txt (also .gz, .bz2, .xz, .zst, .zip), "
        ".xlsx or .parquet"
    )


def _open(file: Path | bytes) -> io.BufferedReader:
    """The bytes of a text file, unpacked."""
    return io.BufferedReader(io.BytesIO(file)) if isinstance(file, bytes) else packed.unpacked(file)


def _text(file: Path | bytes, label: str, options: TableOptions) -> Source:
    with _reading(label), _open(file) as stream:
        head = stream.read(HEAD)
        whole = not stream.read(1)
        dialect = find_dialect(head, whole, label, options.sep, (options.decimal, options.thousands), options.encoding)
    return _text_source(file, label, dialect, options)


def _text_source(
    file: Path | bytes, label: str, dialect: Dialect, options: TableOptions, *, whole_ids: bool = False
) -> Source:
    """The source of a text file.

    Args:
        whole_ids: read ids as the text that they are from the start: somewhere some look like numbers, others do not.
    """
    import pandas as pd

    head = pd.DataFrame([list(row) for row in dialect.rows], columns=range(len(dialect.names)), dtype=object)
    odd = options.encoding is None and dialect.encoding in ("cp1252", "latin-1")
    notes = [f"{label} is read as {dialect.encoding}"] if odd else []
    if dialect.decimal != "." and options.decimal is None:
        notes.append(f"{label} is read with a decimal comma")
    if dialect.thousands and options.thousands is None:
        notes.append(f"{label} is read with {dialect.thousands!r} between thousands")

    def read(kinds: Kinds) -> Iterator[dict[int, Any]]:
        try:
            for chunk in _text_chunks(file, label, dialect, kinds, whole_ids):
                if not whole_ids and any(kinds[at] == "id" and _is_read_as_numbers(chunk[at]) for at in kinds):
                    raise ReadAgain(_text_source(file, label, dialect, options, whole_ids=True))
                yield chunk
        except UnicodeDecodeError as error:
            if options.encoding is not None or dialect.encoding != "utf-8":
                raise DataError(
                    f"{label} is not in the encoding {error.encoding} (byte {error.start}); name it as "
                    f"{option('encoding')}"
                ) from None
            with _open(file) as stream:
                encoding = other_encoding(stream.read())
            again = replace(dialect, encoding=encoding)
            raise ReadAgain(_text_source(file, label, again, options, whole_ids=whole_ids)) from None

    return Source(
        label,
        list(dialect.names),
        head,
        read,
        word="row",
        first=2,
        file=True,
        notes=notes,
        marks=(dialect.decimal, dialect.thousands),
        rows=_about_rows(file, dialect),
    )


def _about_rows(file: Path | bytes, dialect: Dialect) -> int:
    """About how many rows a text file has, by its first ones; 0 for a packed one."""
    if isinstance(file, Path) and file.suffix.lower() in packed.SUFFIXES:
        return 0
    size = len(file) if isinstance(file, bytes) else file.stat().st_size
    return 1 + int(1.02 * size / max(1, sum(sum(map(len, row)) + len(row) for row in dialect.rows)) * len(dialect.rows))


def _text_chunks(
    file: Path | bytes, label: str, dialect: Dialect, kinds: Kinds, whole_ids: bool
) -> Iterator[dict[int, Any]]:
    import pandas as pd

    arrow = getattr(pd.Series(dtype="str").dtype, "storage", "") == "pyarrow"  # strings that are no objects of Python
    thousands = dialect.thousands if dialect.thousands is None or dialect.thousands.isascii() else None
    as_text: dict[int, Any] = {}
    for position, kind in kinds.items():
        plain = all(number_of(row[position]) is not None for row in dialect.rows)
        marked = kind != "number" and dialect.thousands is not None
        if kind == "category" or marked or (kind == "id" and (plain or whole_ids)):  # 007 is not 7
            as_text[position] = object
        elif kind in ("id", "time") and not plain and not arrow:
            as_text[position] = "category"  # each text is made once
    blank = {position: ["", *MISSING] if kind == "number" else [""] for position, kind in kinds.items()}
    flags = {
        position: sorted({cell for row in dialect.rows if (cell := row[position].strip()).lower() in ("true", "false")})
        for position in kinds
    }
    truth = sorted({cell for cells in flags.values() for cell in cells} | {"True", "TRUE", "true"})
    with _reading(label), _open(file) as stream:
        reader = pd.read_csv(
            stream,
            sep=dialect.sep,
            header=0,
            names=list(range(len(dialect.names))),
            index_col=False,  # with usecols pandas would cut rows that are too long, without a word
            dtype=as_text,
            keep_default_na=False,
            na_values=blank,
            true_values=[cell for cell in truth if cell.lower() == "true"],
            false_values=["False", "FALSE", "false"],
            decimal=dialect.decimal,
            thousands=thousands,
            encoding=dialect.encoding,
            skipinitialspace=dialect.spaced,
            chunksize=CHUNK,
            engine="c",
            low_memory=False,
        )
        for chunk in reader:
            part = {position: chunk[position] for position in kinds}
            if thousands != dialect.thousands:  # a narrow blank, which pandas' parser does not take for a mark
                for position, kind in kinds.items():
                    if kind == "number" and part[position].dtype.kind not in "iufb":
                        part[position] = part[position].map(partial(_without_marks, dialect), na_action="ignore")
            yield part


def _without_marks(dialect: Dialect, cell: Any) -> Any:
    """A cell with the marks in its numbers as Python has them."""
    return cell.replace(dialect.thousands or "\0", "").replace(dialect.decimal, ".") if isinstance(cell, str) else cell


def _is_read_as_numbers(column: Any) -> bool:
    return getattr(column.dtype, "categories", column).dtype.kind in "iufb"


@contextlib.contextmanager
def _reading(label: str) -> Iterator[None]:
    """Say in one sentence what keeps a file from being read."""
    import pandas as pd

    try:
        yield
    except pd.errors.ParserError as error:
        text = str(error).removeprefix("Error tokenizing data. C error: ").strip().splitlines()[0]
        raise DataError(f"{label} cannot be read as CSV: {text}") from None
    except pd.errors.EmptyDataError:
        raise DataError(f"{label} has no rows below the names of the columns") from None
    except UnicodeDecodeError:
        raise
    except UnicodeError as error:
        raise DataError(
            f"{label} is not in the encoding found: {error}; name it as {option('encoding', ...)}"
        ) from None
    except OSError as error:
        raise DataError(f"{label} cannot be read: {error.strerror or error}") from None


_OF_WORKBOOKS = ("xml", "openpyxl", "xlrd", "odf")


def _workbook(path: Path, options: TableOptions) -> Source:
    import pandas as pd

    engines = {".xls": "xlrd", ".ods": "odfpy"}
    packed.check_workbook(path)
    what = f"{path.name} cannot be read as a workbook"
    try:
        with warnings.catch_warnings(), packed.unpacking(path), files.damaged(what, DataError):
            warnings.simplefilter("ignore")  # openpyxl's, of styles and forms that no table has
            with pd.ExcelFile(path) as book:
                sheet: Any = 0 if options.sheet is None else options.sheet
                if isinstance(sheet, str) and sheet not in book.sheet_names and (number := whole_of(sheet)) is not None:
                    sheet = number
                raw = pd.read_excel(book, sheet_name=sheet, header=None, dtype=object)
    except GpulstmError:
        raise
    except ImportError:
        raise missing_extra(engines.get(path.suffix.lower(), "openpyxl"), f"reading {path.name}") from None
    except Exception as error:  # zipfile and XML libraries raise classes of their own for damaged workbooks
        if not isinstance(error, OSError) and type(error).__module__.split(".")[0] not in _OF_WORKBOOKS:
            raise
        raise DataError(f"{what}: {error}") from None
    raw = raw.dropna(how="all").dropna(how="all", axis=1)
    if len(raw) < 2:
        raise DataError(f"{path.name} has no rows below the names of the columns")
    names = ["" if pd.isna(cell) else str(cell).strip() for cell in raw.iloc[0]]
    body = raw.iloc[1:].infer_objects()
    columns = [body.iloc[:, position] for position in range(body.shape[1])]
    return columns_source(columns, names, path.name, word="row", first=2, file=True)


def _parquet(path: Path) -> Source:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise missing_extra("pyarrow", "reading a Parquet file") from None
    import pandas as pd
    import pyarrow

    @contextlib.contextmanager
    def reading() -> Iterator[None]:
        try:
            with files.damaged(f"{path.name} cannot be read as Parquet", DataError):
                yield
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"{path.name} cannot be read as Parquet: {error}") from None

    def check_size(columns: int, rows: int, groups: Iterable[Any]) -> None:
        """What the file says of itself is compared with its length: values that repeat take next to nothing."""
        size = max(8 * columns * rows, sum(group.total_byte_size for group in groups))
        if size > 8 * packed.most(path):
            raise packed.too_much(path, f"{size}")

    with reading(), parquet.ParquetFile(path) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
        check_size(1, rows, [file.metadata.row_group(at) for at in range(file.num_row_groups)])
        names, named, ranges = _columns_of_pandas(schema)
        first = next(file.iter_batches(batch_size=SHOWN), None)
        if rows < 1 or first is None:
            raise DataError(f"{path.name} has no rows")
        head = {position: _arrow_column(first.column(position)) for position in range(len(schema.names))}
        for level in ranges:
            head[len(head)] = _range(level, 0, len(first))

    def chunks(kinds: Kinds) -> Iterator[dict[int, Any]]:
        inside = [schema.names[position] for position in kinds if position < len(schema.names)]
        done = 0
        with reading(), parquet.ParquetFile(path) as file:
            check_size(len(kinds), rows, [])
            for batch in file.iter_batches(batch_size=_BATCH, columns=inside):
                yield {
                    position: _arrow_column(batch.column(schema.names[position]))
                    if position < len(schema.names)
                    else _range(ranges[0], done, len(batch))
                    for position in kinds
                }
                done += len(batch)
        pyarrow.default_memory_pool().release_unused()

    index = tuple(schema.names.index(name) for name in named)
    index += tuple(range(len(schema.names), len(schema.names) + len(ranges)))
    return Source(path.name, names, pd.DataFrame(head), chunks, index=index, file=True, rows=rows)


def _columns_of_pandas(schema: Any) -> tuple[list[str], list[str], list[Any]]:
    """The names of all columns as pandas had them, those that were a frame's index, and its levels that are ranges."""
    described = schema.pandas_metadata or {}
    levels = described.get("index_columns", [])
    ranges = [level for level in levels if isinstance(level, dict) and (level["start"], level["step"]) != (0, 1)]
    if not all(isinstance(level[part], int) for level in ranges for part in ("start", "step")):
        raise ValueError("a range of its index is not one of whole numbers")
    named = [level for level in levels if isinstance(level, str) and level in schema.names]
    real = {
        column["field_name"]: str(column["name"] or "")
        for column in described.get("columns", [])
        if column.get("field_name") in named
    }
    names = [real.get(name, name) for name in schema.names] + [str(level.get("name") or "") for level in ranges]
    return names, named, ranges


def _range(level: Mapping[str, Any], start: int, count: int) -> Any:
    import pandas as pd

    return pd.Series(level["start"] + level["step"] * np.arange(start, start + count))


def _arrow_column(column: Any) -> Any:
    """An Arrow column as a pandas Series; whole numbers with gaps become floats."""
    import pyarrow

    if pyarrow.types.is_decimal(column.type):
        column = column.cast(pyarrow.float64())
    if pyarrow.types.is_nested(column.type):  # no number, time or category: shown as text where it is asked for
        import pandas as pd

        return pd.Series([None if value is None else str(value) for value in column.to_pylist()], dtype=object)
    try:
        return column.to_pandas()
    except (ValueError, OverflowError) as error:
        raise DataError(f"a column of type {column.type} cannot be read: {str(error).splitlines()[0]}") from None
