"""Files that mean harm: one sentence of the package's own, in five seconds and three times their size plus 256 MiB."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hostile import HOSTILE
from paths import CHECKOUT, TESTS
from readers import ENDS, READERS, whole

PROGRAM = TESTS / "fuzz" / "programs" / "read_all.py"


def read_all(reader: str, paths: list[Path]) -> list[dict[str, object]]:
    """What `read_all.py` says of files."""
    folders = [str(CHECKOUT), str(TESTS / "fuzz"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "OPENBLAS_NUM_THREADS": "1"}
    lines = "".join(f"{reader} {path}\n" for path in paths)
    run = subprocess.run(
        [sys.executable, PROGRAM], input=lines, capture_output=True, text=True, env=environment, check=True
    )
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.mark.parametrize("reader", READERS)
def test_a_whole_file_is_read(reader: str, tmp_path: Path) -> None:
    (result,) = read_all(reader, [whole(reader, tmp_path)])
    assert result["how"] == "result", result


@pytest.mark.parametrize("reader", HOSTILE)
def test_a_hostile_file_gives_one_sentence_within_bounds(reader: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    names, paths = [], []
    for number, (name, data) in enumerate(HOSTILE[reader](tmp_path)):
        path = tmp_path / f"{number}{ENDS[reader]}"
        path.write_bytes(data)
        names.append(name)
        paths.append(path)
    assert len(paths) > 5
    bad = {}
    for name, path, result in zip(names, paths, read_all(reader, paths), strict=True):
        room = 3 * path.stat().st_size / 2**20 + 256
        is_bounded = float(str(result["seconds"])) < 5 and float(str(result["mib"])) < room
        if result["how"] != "own" or len(str(result["message"])) > 300 or not is_bounded:
            bad[name] = result
    assert not bad
