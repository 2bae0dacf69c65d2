"""Contenders in processes of their own, in turn; those that fail are named."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from bench_cases import REFERENCE, TINY, peer, script

from gpulstm.bench import cases, report, runner
from gpulstm.bench.cases import Case, Contender, Result
from gpulstm.bench.runner import BenchError
from gpulstm.errors import ConfigError


def test_only_who_serves_a_kind_is_asked(tmp_path: Path) -> None:
    infers = Contender("infers", "onnxruntime", str(tmp_path / "python"), kinds=("inference",))
    training = cases.cases("cpu", kinds=["training"], shapes=["2,1,2,2,1"])
    results = runner.run("cpu", training, [REFERENCE, infers], rounds=1, seconds=0.001)
    assert [result.contender for result in results] == ["gpulstm reference"]


def test_numbers_out_of_range() -> None:
    with pytest.raises(ConfigError, match="rounds is 0"):
        runner.run("cpu", [TINY], [REFERENCE], rounds=0)


@pytest.mark.parametrize("kind", ["step", "inference", "training", "update"])
def test_every_kind_runs_in_a_process_of_its_own(kind: str) -> None:
    case = Case(1 if kind == "step" else 3, 2, 4, 5, 2, kind)
    (result,) = runner.run("cpu", [case], [REFERENCE], rounds=2, seconds=0.001, threads=1)
    assert result.reason == result.wrong == ""
    assert len(result.seconds) >= 6
    assert 0 < result.median < 1
    assert 0 < result.error < 1e-6  # float32 against float64
    assert "engine: reference" in result.plan


def test_a_contender_that_cannot_run_is_named_with_its_reason(tmp_path: Path) -> None:
    nowhere = peer("nowhere", tmp_path / "python")
    unknown = Contender("unknown", "gpulstm", sys.executable, "warp")
    results = runner.run("cpu", [TINY], [nowhere, unknown, REFERENCE], rounds=1, seconds=0.001)
    assert [bool(result.seconds) for result in results] == [False, False, True]
    assert "cannot be started: No such file" in results[0].reason
    assert "engine is 'warp', expected one of" in results[1].reason
    assert math.isnan(results[0].median)
    assert report.baseline(results) == "gpulstm reference"


def test_contenders_take_turns_and_another_is_first_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []

    def answer(self: Any, question: str) -> dict[str, Any]:
        turns.append(self.contender.name)
        return {"seconds": [0.5]}

    monkeypatch.setattr(runner._Process, "start", lambda self: None)
    monkeypatch.setattr(runner._Process, "_ask", answer)
    who = [Contender(name, "gpulstm", "python", "reference") for name in "abc"]
    runner.run("cpu", [TINY], who, rounds=3)
    assert "".join(turns) == "abcbcacab"


def test_a_process_that_dies_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    dying = peer("dying", script(tmp_path / "python", 'echo \'{"plan": "x"}\'\nread line\nexit 7'))
    first, second = runner.run("cpu", [TINY], [dying, REFERENCE], rounds=2, seconds=0.001)
    assert first.wrong == "its process ended with status 7"
    assert first.seconds == []
    assert len(second.seconds) >= 6


def test_a_process_that_all_need_ends_the_run() -> None:
    impossible = Case(3, 2, 4, 5, 0, "inference")  # a stack of no layers
    with pytest.raises(BenchError, match=r"gpulstm\.bench\.problem ended with status 1"):
        runner.run("cpu", [impossible], [REFERENCE], rounds=1, seconds=0.001)


def test_threads_for_everyone_and_no_word_on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # a cold start would compile the checkout each time
    variables = runner.environment(2)
    assert not {"OPENBLAS_CORETYPE", "PYTHONDONTWRITEBYTECODE"} & variables.keys()
    assert [variables[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GPULSTM_NUM_THREADS")] == ["2"] * 3
    assert runner.environment(0)["OMP_NUM_THREADS"] == "7"


def test_a_contender_that_computes_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "TOLERANCE", {False: 1e-12})  # what no float32 can hold
    (result,) = runner.run("cpu", [TINY], [REFERENCE], rounds=1, seconds=0.001)
    assert result.wrong.startswith("it computes something else: y is ")
    assert result.seconds == []


def test_memory_of_long_sequences() -> None:
    """Small, but large enough that segments show: 40 MiB kept whole."""
    who = [one for one in cases.contenders("long") if one.engine]
    assert [one.name.split(", ")[1] for one in who] == ["whole", "sqrt"]
    chosen = cases.cases("long", shapes=["1000,16,8,64,1"])
    whole, segmented = runner.run("long", chosen, who, rounds=1, threads=1)
    assert whole.reason == segmented.reason == ""
    assert 20 < whole.mebibytes < 80 and segmented.mebibytes < whole.mebibytes / 2
    assert "kept whole" in whole.plan and "segments of" in segmented.plan
    results = [whole, segmented, Result(TINY, "x", "peer", reason="no")]
    rows = json.loads(report.as_json("long", results))["results"]
    assert rows[0]["mebibytes"] == pytest.approx(whole.mebibytes, rel=1e-3) and rows[2]["mebibytes"] is None


def test_a_contender_whose_memory_cannot_be_measured_is_named(tmp_path: Path) -> None:
    dying = script(tmp_path / "python", "exit 3")
    who = [peer("PyTorch", path) for path in (dying, tmp_path / "nowhere")]
    first, second = runner.run("long", cases.cases("long", shapes=["2,2,2,2,1"]), who, rounds=1)
    assert first.reason == "its process ended with status 3" and math.isnan(first.mebibytes) and not first.wrong
    assert "cannot be started: No such file" in second.reason
    assert [case.steps for case in cases.cases("long")] == [250, 500, 1000, 2000, 4000, 8000, 16000]


@pytest.mark.cuda
def test_cuda_engines_are_counted_under_the_simulator_and_timed_everywhere() -> None:
    who = [one for one in cases.contenders("cuda") if one.engine]
    assert [one.name for one in who] == ["gpulstm cuda", "gpulstm reference"]
    fused, reference = runner.run("cuda", [TINY], who, rounds=1, seconds=0.001)
    assert fused.seconds
    assert reference.seconds
    if cases.simulated():
        assert 0 < fused.counts["launches"] < reference.counts["launches"]
        assert report.machine("cuda")["simulated"]
