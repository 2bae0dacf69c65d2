"""`gpulstm bench` writes what it measured, and ends quietly."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from command_line import call


def test_bench_writes_what_it_measured_and_overwrites_only_by_force(tmp_path: Path) -> None:
    arguments = ["bench", "--shape", "2,2,2,2,1", "--kind", "inference", "--rounds", "1", "--seconds", "0.001"]
    arguments += ["--threads", "1", "--peers-python", str(tmp_path / "no python"), "--output", str(tmp_path / "out")]
    shown = call(*arguments)
    assert shown.exit_code == 0
    assert "2,2,2,2,1" in shown.stdout
    assert "not measured: PyTorch: " in shown.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["bench.json", "inference.png"]
    document = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert {row["contender"]: row["calls"] > 0 for row in document["results"]}["gpulstm reference"]
    again = call(*arguments)
    assert again.exit_code == 2
    assert "already holds bench.json, inference.png" in again.stderr
    assert call(*arguments, "--force").exit_code == 0


def test_ctrl_c_gives_130_and_no_traceback() -> None:
    command = [sys.executable, "-m", "gpulstm", "bench", "--shape", "50,32,8,64,1", "--seconds", "60"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        while not Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text():  # the first contender's process
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate()
    assert process.returncode == 130
    assert "gpulstm: interrupted" in stderr
    assert "Traceback" not in stderr
