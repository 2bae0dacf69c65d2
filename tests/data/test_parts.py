"""Tables in parts: files of a folder or pattern, partitions of a Dask frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gpulstm.data.parts import Parts, files_of, is_in_parts, read_table
from gpulstm.data.series import SeriesSet
from gpulstm.errors import DataError

ROLES = {"target": "y", "time": "t", "series": "id"}


def table(part: int) -> pd.DataFrame:
    names = np.repeat([f"s{part}", f"t{part}"], 6)
    times = np.tile(pd.date_range("2020-01-01", periods=6), 2)
    return pd.DataFrame({"id": names, "t": times, "y": np.arange(12.0) + part})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in (0, 1):
        table(part).to_parquet(tmp_path / f"{part}.parquet")
    (tmp_path / "notes.md").write_text("not a part")
    return tmp_path


def test_what_is_in_parts(folder: Path) -> None:
    assert is_in_parts(folder) and is_in_parts(str(folder / "*.parquet"))
    assert not any(map(is_in_parts, (folder / "0.parquet", "co2.csv", table(0), np.zeros(3), {"y": [1.0]})))


def test_parts_are_read_in_the_roles_of_the_first(folder: Path) -> None:
    for data in (folder, str(folder / "*.parquet"), f"file://{folder}/*.parquet"):
        parts = read_table(data, **ROLES)
        assert isinstance(parts, Parts) and len(parts) == 2
        assert [parts.series(part).names for part in (0, 1)] == [("s0", "t0"), ("s1", "t1")]
        assert parts.identity()["parts"] == parts.files
    assert read_table(parts) is parts
    assert isinstance(read_table(folder / "0.parquet", **ROLES), SeriesSet)


def test_a_dask_frame_is_read_by_partitions(folder: Path) -> None:
    parts = Parts(Parts(folder, **ROLES).frame(), **ROLES)
    assert len(parts) == 2 and parts.series(1).names == ("s1", "t1")
    np.testing.assert_array_equal(parts.series(1).values[:, 0], np.arange(12.0) + 1)


def test_a_folder_without_parts_is_refused(tmp_path: Path) -> None:
    for data in (tmp_path, tmp_path / "*.parquet"):
        with pytest.raises(DataError, match=r"there are no files .* expected parts of a table"):
            files_of(str(data))
