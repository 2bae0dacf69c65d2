"""Long tables take no more memory than their numbers do a few times: bytes a row, from CSV and from Parquet."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from paths import TOOLS

from gpulstm.data.columns import Columns, Growing
from gpulstm.data.loading import load_series
from gpulstm.data.windows import WindowSet

CODE = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from ten_million_rows import resident, use, write
folder, kind, training, rows = Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])
tiny = {"steps": 5, "hidden_size": 4, "batch_size": 4, "context": 8, "horizon": 2, "chunk": 8}
small, large = folder / f"small.{kind}", folder / f"large.{kind}"
write(small, 20_000)
use(small, 20_000, training, False, **tiny)  # what is allocated once, libraries included
write(large, rows)
Path("/proc/self/clear_refs").write_text("5")
print(json.dumps({"start": resident("VmRSS"), "peak": use(large, rows, training, False, **tiny)["peak"]}))
"""


@pytest.mark.parametrize(("kind", "training"), [("csv", "windows"), ("csv", "truncated"), ("parquet", "windows")])
def test_bytes_a_row(kind: str, training: str, tmp_path: Path) -> None:
    """A twentieth of ten million rows with the time and three numbers, 32 bytes a row in float64.

    Beside those there are the scaled numbers in float32 (12), the windows' origins and order (24) and what sorting the
    order takes; 1.5 GiB over ten million rows would be 161 bytes.
    """
    rows = 500_000
    command = [sys.executable, "-c", CODE, str(TOOLS), str(tmp_path), kind, training, str(rows)]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])
    bytes_a_row = (found["peak"] - found["start"]) * 2**20 / rows
    assert 30 < bytes_a_row < 110, found


def test_a_growing_array_keeps_what_was_written() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(rows, 3)) for rows in (1, 0, 5, 1000, 3000, 2)]
    growing = Growing(3, np.float64)
    for part in parts:
        growing.room(len(part))[:] = part
    np.testing.assert_array_equal(growing.done(), np.concatenate(parts))
    exact = Growing(None, np.int64, rows=4)
    exact.room(4)[:] = range(4)
    assert exact.done().tolist() == [0, 1, 2, 3]


def test_columns_that_lie_together_are_not_copied() -> None:
    base = np.arange(12.0).reshape(4, 3).copy()

    def columns() -> Columns:
        return Columns({name: base[:, place] for place, name in enumerate("abc")}, None, None, [], "row", 2)

    assert columns().together(["a", "b", "c"]) is base
    np.testing.assert_array_equal(columns().together(["c", "a", "b"]), base[:, [2, 0, 1]])
    np.testing.assert_array_equal(columns().together(["a", "c"]), base[:, [0, 2]])
    apart = Columns({"a": base[:, 0].copy(), "b": base[:, 1].copy()}, None, None, [], "row", 2)
    np.testing.assert_array_equal(apart.together(["a", "b"]), base[:, :2])


def test_an_array_that_was_given_is_not_the_series_own() -> None:
    given = np.arange(20.0).reshape(10, 2)
    read = load_series(given)
    assert not np.shares_memory(read.values, given)
    np.testing.assert_array_equal(read.values, given)


def test_parquet_is_read_in_batches_with_positions_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow
    import pyarrow.parquet

    monkeypatch.setattr("gpulstm.data.readers._BATCH", 4)
    days = np.arange("2024-01-01", "2024-01-12", dtype="datetime64[D]").astype("datetime64[us]")
    table = {"day": days, "y": np.arange(11), "shop": ["a"] * 6 + ["b"] * 5, "text": [str(n) for n in range(11)]}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "t.parquet")
    read = load_series(tmp_path / "t.parquet", target=["y", "text"], time="day", series="shop")
    np.testing.assert_array_equal(read.values, np.stack([np.arange(11)] * 2, axis=1))
    assert read.names == ("a", "b") and read.offsets.tolist() == [0, 6, 11]
    np.testing.assert_array_equal(read.time, days)
    table["text"][9] = "x"
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"column 'text', position 9 of t\.parquet holds 'x', expected a number"):
        load_series(tmp_path / "t.parquet", target="text")


@pytest.mark.parametrize("stride", [1, 3, 7])
@pytest.mark.parametrize("gaps", [False, True])
def test_windows_within_a_part_are_those_of_a_split(stride: int, gaps: bool) -> None:
    rng = np.random.default_rng(3)
    offsets = np.array([0, 40, 45, 90])
    observed = rng.random((90, 1)) > 0.7 if gaps else None
    data = WindowSet(rng.normal(size=(90, 1)), offsets, context=5, horizon=3, observed=observed)
    begin, end = np.array([10, 40, 60]), np.array([33, 45, 90])
    series = data.series_of()
    keep = (data.origins >= begin[series]) & (data.origins + 3 <= end[series])
    np.testing.assert_array_equal(data.within(begin, end, stride).origins, data.origins[keep][::stride])
