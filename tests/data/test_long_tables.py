"""Long tables take no more memory than their numbers do a few times: bytes a row, from CSV and from Parquet."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from paths import TOOLS

from gpulstm.data.cells import Growing
from gpulstm.data.windows import WindowSet

CODE = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from ten_million_rows import resident, use, write
folder, kind, training, rows = Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])
tiny = {"steps": 5, "hidden_size": 4, "batch_size": 4, "context": 8, "horizon": 2, "chunk": 8, "members": "network"}
small, large = folder / f"small.{kind}", folder / f"large.{kind}"
write(small, 20_000)
use(small, 20_000, training, False, **tiny)  # what is allocated once, libraries included
write(large, rows)
Path("/proc/self/clear_refs").write_text("5")
print(json.dumps({"start": resident("VmRSS"), "peak": use(large, rows, training, False, **tiny)["peak"]}))
"""


@pytest.mark.parametrize(
    ("kind", "training"),
    [("csv", "windows"), pytest.param("csv", "truncated", marks=pytest.mark.slow), ("parquet", "windows")],
)
def test_bytes_a_row(kind: str, training: str, tmp_path: Path) -> None:
    """A twentieth of ten million rows with the time and three numbers, 32 bytes a row in float64.

    Apart from those there are the scaled numbers in float32 (12), the windows' origins and order (24) and what sorting
    the order takes.  At a twentieth of the rows, the part of a CSV that exists as pandas columns at one time (65,536
    rows) counts for about 50 bytes a row.  1.5 GiB over ten million rows would be 161 bytes.
    """
    rows = 500_000
    command = [sys.executable, "-c", CODE, str(TOOLS), str(tmp_path), kind, training, str(rows)]
    result = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])
    bytes_a_row = (result["peak"] - result["start"]) * 2**20 / rows
    assert 30 < bytes_a_row < 125, result


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


def test_a_growing_array_keeps_what_was_written() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(rows, 3)) for rows in (1, 0, 5, 1000, 3000, 2)]
    growing = Growing(3, np.float64)
    for part in parts:
        growing.room(len(part))[:] = part
    np.testing.assert_array_equal(growing.done(), np.concatenate(parts))
