"""Processes that this one starts: what they compute on, how they are stopped, and what is said of their end."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gpulstm.errors import ConfigError, DeviceError, MissingExtraError
from gpulstm.training import launcher


def test_devices_are_named_by_number_or_counted_on_the_cpu() -> None:
    assert launcher.cards("cpu:3") == ["cpu"] * 3
    for wrong in ("cpu", "cpu:0", "0;1", "", "gpu", [0, 1], -1):
        with pytest.raises(ConfigError, match=r"devices is .*, expected 'all', numbers such as '0,1', or 'cpu:4'"):
            launcher.cards(wrong)  # type: ignore[arg-type]


def test_gpus_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "cuda_missing", lambda: None)
    monkeypatch.setattr(launcher, "device_count", lambda: 3)
    assert launcher.cards("all") == ["0", "1", "2"]
    assert launcher.cards("2,0") == ["2", "0"]
    for wrong in ("3", "1,1"):
        with pytest.raises(DeviceError, match="this machine has 0 to 2, once each"):
            launcher.cards(wrong)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6,7")
    assert launcher.visible(["2", "0"]) == {"CUDA_VISIBLE_DEVICES": "7,5"}
    assert launcher.visible(["cpu"]) == {}


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="needs mpi4py and an MPI; run: pip install mpi4py mpich"):
        launcher.launcher()


def run(folder: Path, code: str, interrupted: Callable[[Callable[[], None]], None] = lambda stop: None) -> str | None:
    """Two processes that register and run some code."""
    head = "import os, signal, sys, time; from gpulstm.training.launcher import register; register(); "
    head += "rank = int(os.environ['PMI_RANK']); "
    return launcher.run(2, ["-c", head + code], folder, {}, interrupted)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("pass", None),
        (
            "time.sleep(1); rank and os.kill(os.getpid(), 9); time.sleep(30)",  # the launcher kills the rest at once
            r"(rank 1 of 2|a rank) was ended by signal 9 \(killed\); all ranks end",
        ),
        (
            "rank and (sys.stderr.write('gpulstm: rank 1 of 2: a reason; all ranks end\\n'), sys.exit(3))",
            "rank 1 of 2: a reason; all ranks end",
        ),
    ],
)
@pytest.mark.slow
def test_the_end_is_told_in_one_sentence(
    code: str, reason: str | None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = run(tmp_path, code)
    assert said is reason if reason is None else re.fullmatch(reason, str(said)), said
    assert capfd.readouterr().err == ""
    assert sorted(file.read_text() for file in tmp_path.iterdir()) == ["0", "1"]


def test_the_first_rank_is_asked_to_stop(tmp_path: Path) -> None:
    (tmp_path / str(os.getpid())).write_text("0")
    (tmp_path / "1").write_text("1")
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        launcher._stop(tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]
    assert Path(sys.executable).exists()
