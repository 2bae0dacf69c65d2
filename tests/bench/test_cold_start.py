"""Cold starts: a whole process to the first forecast."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from bench_cases import REFERENCE, peer, script

from gpulstm.bench import cold_start, runner
from gpulstm.bench.cases import Case


def test_cold_starts_beside_an_interpreter_alone(tmp_path: Path) -> None:
    case = Case(12, 1, 1, 4, 1, "cold")
    who = [REFERENCE, peer("PyTorch", script(tmp_path / "python", "echo 'No module named torch' >&2; exit 1"))]
    own, torch, alone = runner.run("cpu", [case], who, rounds=2, threads=1)
    assert [result.contender for result in (own, torch, alone)] == ["gpulstm", "PyTorch", "Python alone"]
    assert own.median > alone.median > 0
    assert len(own.seconds) == len(alone.seconds) == 2
    assert torch.reason == "No module named torch"


def test_a_cold_start_with_another_forecast_is_wrong() -> None:
    command = (sys.executable, "-c", "print([1.0, 2.1])")
    start = cold_start.Start("x", "peer", "", command, np.array([1.0, 2.0]))
    with pytest.raises(cold_start.StartError, match="not the expected one") as caught:
        start.once(runner.environment(1))
    assert caught.value.wrong
