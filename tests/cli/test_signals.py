"""Signals to the program: one sentence, 128 + n, the last checkpoint, and no traceback at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpulstm.arrays import checkpoint

TRAIN = [
    "--target",
    "y",
    "--horizon",
    "2",
    "--context",
    "4",
    "--hidden-size",
    "2",
    "--num-layers",
    "1",
    "--epochs",
    "1000000",
    "--patience",
    "1000000",
]
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    path.write_text("y\n" + "\n".join(str(value) for value in np.sin(np.arange(60) / 3)) + "\n")
    return path


def training(table: Path, *more: str, before: str = "") -> subprocess.Popen[str]:
    """A training run without end that has finished its first epoch."""
    command = [
        sys.executable,
        "-m",
        "gpulstm",
        "train",
        str(table),
        *TRAIN,
        "--patience",
        "0",
        "--device",
        "cpu",
        *more,
    ]
    if before:
        command = [before, *command]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch 1/"):
            return process
    raise AssertionError(f"the run ended with {process.wait()}")


@pytest.mark.parametrize("number", SIGNALS)
def test_training_stops_with_its_last_checkpoint(table: Path, tmp_path: Path, number: int) -> None:
    with training(table, "--output", str(tmp_path / "run")) as process:
        process.send_signal(number)
        _, stderr = process.communicate()
    assert process.returncode == 128 + number
    assert "interrupted: the best epoch so far is kept; go on with --resume" in stderr and "Traceback" not in stderr
    _, meta = checkpoint.load(tmp_path / "run" / "run.safetensors")
    assert meta["counters"]["epoch"] >= 1
    assert not [name for name in os.listdir(tmp_path / "run") if name.endswith(".tmp")]


def test_a_hang_up_that_is_ignored_stops_nothing(table: Path, tmp_path: Path) -> None:
    with training(table, "--output", str(tmp_path / "run"), before="nohup") as process:
        process.send_signal(signal.SIGHUP)
        assert process.stderr is not None
        for _ in range(3):  # it goes on
            assert "/1000000: loss" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 128 + signal.SIGTERM


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal, as Linux tells."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(mask, 16) >> (number - 1) & 1)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_it_imports_leaves_one_sentence(number: int) -> None:
    command = [sys.executable, "-m", "gpulstm", "bench", "--shape", "50,32,8,64,1", "--seconds", "60"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        while not catches(process.pid, signal.SIGTERM):  # from then on: its imports, its start, its work
            assert process.poll() is None
        process.send_signal(number)
        _, stderr = process.communicate()
    assert process.returncode == 128 + number
    assert stderr.endswith("gpulstm: interrupted\n") and "Traceback" not in stderr


@pytest.mark.parametrize("module", ["gpulstm.training", "threading", "gpulstm.cli", "pandas"])
def test_ctrl_c_at_an_import_leaves_one_sentence(module: str) -> None:
    """Before the program's handlers are in their place, at the last import before that, and after it."""
    code = (
        "import os, signal, sys\n"
        "import gpulstm.__main__ as program\n"
        "class Finder:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == sys.argv[1]:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "program.main(['train', 'co2', '--output', '/proc/none'])\n"
    )
    run = subprocess.run([sys.executable, "-c", code, module], capture_output=True, text=True, check=False)
    assert run.stderr == "gpulstm: interrupted\n" and run.returncode == 128 + signal.SIGINT


def test_nothing_is_imported_before_ctrl_c_is_taken_care_of() -> None:
    code = (
        "import importlib.util, sys; importlib.util.find_spec('gpulstm'); "  # what finds an editable installation
        "before = set(sys.modules); import gpulstm.__main__; print(*sorted(set(sys.modules) - before))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(run.stdout.split()) - {"__future__"} == {"gpulstm", "gpulstm.__main__"}


def test_without_standard_streams(table: Path, tmp_path: Path) -> None:
    """A service may have none of them."""
    command = f'exec "{sys.executable}" -m gpulstm train "{table}" --target y --horizon 2 --context 4 --hidden-size 2 '
    command += f'--num-layers 1 --epochs 1 --device cpu --output "{tmp_path / "run"}" <&- >&- 2>&-'
    assert subprocess.run(["bash", "-c", command], check=False).returncode == 0
    assert (tmp_path / "run" / "model.safetensors").is_file()
