"""Columns as a file, a frame or a table of a notebook; times are written as they came."""

from __future__ import annotations

import csv
import html
import importlib
import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpulstm.arrays import files
from gpulstm.data.labels import Labels
from gpulstm.errors import ConfigError, MissingExtraError

LIBRARIES = ("pandas", "polars", "pyarrow")


def add_column(table: dict[str, np.ndarray], name: str, values: np.ndarray) -> None:
    """Put a column into a table, under another name where a column of ids or times has that one."""
    while name in table:
        name += "_"
    table[name] = values


def first_columns(labels: Labels, *more: str) -> list[str]:
    """The names of a result's columns up to that of the targets, which are known before there is a result."""
    table: dict[str, np.ndarray] = {}
    for name in (labels.time_name, *labels.id_names, *more, "target"):
        add_column(table, name, np.empty(0))
    return list(table)


def write_csv(path: str | os.PathLike[str], columns: Mapping[str, np.ndarray], labels: Labels | None = None) -> None:
    """Write columns as a CSV; the file is replaced in one step."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*_texts(columns, labels), strict=True))
    files.write(path, text.getvalue().encode())


def _texts(columns: Mapping[str, np.ndarray], labels: Labels | None) -> list[list[Any]]:
    time = None if labels is None else _time_column(columns, labels)
    return [
        labels.form.texts(values) if labels is not None and name == time else _cells(values)
        for name, values in columns.items()
    ]


def _time_column(columns: Mapping[str, np.ndarray], labels: Labels) -> str:
    """The name of the column of times, which may have been changed so that it is its own."""
    return next(name for name in (labels.time_name, f"{labels.time_name}_") if name in columns)


def _cells(values: np.ndarray) -> list[Any]:
    if values.dtype.kind == "f":  # shortest text that reads back as the same number; an empty cell where missing
        return ["" if np.isnan(value) else repr(value) for value in values.tolist()]
    return values.tolist()


def frame_of(columns: Mapping[str, np.ndarray], library: str, labels: Labels) -> Any:
    """Columns as a frame of `"pandas"`, `"polars"` or `"pyarrow"`.

    Raises:
        ConfigError: another library.
        MissingExtraError: the library is not installed.
    """
    if library not in LIBRARIES:
        raise ConfigError(f"library is {library!r}, expected any of {', '.join(map(repr, LIBRARIES))}")
    time = _time_column(columns, labels)
    if library == "pandas":
        import pandas

        return pandas.DataFrame(
            {name: labels.form.column(values) if name == time else _plain(values) for name, values in columns.items()}
        )
    try:
        module = importlib.import_module(library)
    except ImportError as error:
        raise MissingExtraError(
            f"a frame of {library} needs it, and it is not installed; run: pip install {library}"
        ) from error
    if library == "pyarrow":
        return module.table(
            {name: labels.form.column(values) if name == time else _plain(values) for name, values in columns.items()}
        )
    return module.DataFrame(
        {
            name: _polars_times(module, values, labels) if name == time else _plain(values)
            for name, values in columns.items()
        }
    )


def _plain(values: np.ndarray) -> Any:
    """A column for a frame: text as text, whichever type NumPy has for it."""
    return values.tolist() if values.dtype.kind in "UO" else values


def _polars_times(polars: Any, values: np.ndarray, labels: Labels) -> Any:
    form = labels.form
    if values.dtype.kind != "M":
        return values
    if form.kind in ("text", "int"):
        texts = form.texts(values)
        return texts if form.kind == "text" else [int(text) for text in texts]
    column = polars.Series(values)
    if form.zone is not None:
        return column.dt.replace_time_zone("UTC").dt.convert_time_zone(form.zone)
    return column.cast(polars.Date) if form.kind == "date" else column


def html_table(columns: Mapping[str, np.ndarray], labels: Labels | None = None, most: int = 20) -> str:
    """Columns as an HTML table of at most `most` rows, for notebooks."""
    cells = _texts({name: values[:most] for name, values in columns.items()}, labels)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_short(cell))}</td>" for cell in row) + "</tr>"
        for row in zip(*cells, strict=True)
    )
    count = len(next(iter(columns.values())))
    more = f"<p>{count} rows in all</p>" if count > most else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{more}"


def _short(cell: Any) -> str:
    try:
        return f"{float(cell):.5g}"
    except (TypeError, ValueError):
        return str(cell)
