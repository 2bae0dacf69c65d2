"""Columns as files, frames and tables of a notebook."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpulstm.data.labels import Labels
from gpulstm.data.times import TimeForm
from gpulstm.errors import ConfigError, MissingExtraError
from gpulstm.forecast.tables import LIBRARIES, add_column, frame_of, html_table, write_csv

DAYS = np.array(["2024-01-31", "2024-02-01"], "datetime64[us]")
COLUMNS = {"id": np.array(["a", "b"]), "time": DAYS, "mean": np.array([1.5, np.nan])}
LABELS = Labels(("id",), (), "time", TimeForm(kind="date"))


def test_a_column_of_a_name_that_is_taken_gets_another() -> None:
    table = {"mean": np.zeros(1)}
    add_column(table, "mean", np.ones(1))
    add_column(table, "mean", np.full(1, 2.0))
    assert {name: values[0] for name, values in table.items()} == {"mean": 0.0, "mean_": 1.0, "mean__": 2.0}


def test_a_csv_has_times_as_they_came_and_nothing_where_a_value_is_missing(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", COLUMNS, LABELS)
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[0] == "id,time,mean"
    assert lines[1].startswith("a,2024-01-31") and lines[1].endswith(",1.5")
    assert lines[2].startswith("b,2024-02-01") and lines[2].endswith(",")


@pytest.mark.parametrize("library", LIBRARIES)
def test_frames_of_all_libraries_hold_the_same(library: str) -> None:
    frame: Any = frame_of(COLUMNS, library, LABELS)
    data = frame.to_pydict() if library == "pyarrow" else frame.to_dict("list") if library == "pandas" else None
    data = frame.to_dict(as_series=False) if data is None else data
    assert data["id"] == ["a", "b"] and data["mean"][0] == 1.5
    assert [str(value)[:10] for value in data["time"]] == ["2024-01-31", "2024-02-01"]


def test_other_libraries_and_those_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="library is 'excel', expected any of 'pandas', 'polars', 'pyarrow'"):
        frame_of(COLUMNS, "excel", LABELS)
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(MissingExtraError, match="run: pip install polars"):
        frame_of(COLUMNS, "polars", LABELS)


def test_a_page_escapes_names_and_says_how_many_rows_there_are() -> None:
    page = html_table({"<b>": np.arange(30.0)}, most=2)
    assert "&lt;b&gt;" in page and "<b>" not in page
    assert page.count("<tr>") == 3 and page.endswith("<p>30 rows in all</p>")
