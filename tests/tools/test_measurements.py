"""The scripts behind the tables of docs/cpu-engine.md run and print what they say."""

from __future__ import annotations

import subprocess
import sys

import pytest
from paths import TOOLS


@pytest.mark.parametrize(
    ("name", "row", "rows"),
    [("flat_passes.py", "| step of AdamW | 1000000 |", 41), ("cold_start.py", "| + first `predict` |", 6)],
)
def test_a_script_prints_its_table(name: str, row: str, rows: int) -> None:
    command = [sys.executable, str(TOOLS / name), "--repeat", "1"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert row in printed
    assert sum(line.startswith("| ") for line in printed.splitlines()) == rows + 2  # the heads too
