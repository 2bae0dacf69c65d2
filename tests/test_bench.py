"""The benchmark: its cases, its turns, what it says of a contender that cannot run, and what it writes down."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gpulstm.bench.worker
from gpulstm.bench import long, suites
from gpulstm.bench.long import Measured
from gpulstm.bench.suites import BenchError, Case, Contender, Result
from gpulstm.cli.long import draw
from gpulstm.errors import ConfigError

TINY = Case(3, 2, 4, 5, 1, "inference")
REFERENCE = Contender("gpulstm reference", "reference", sys.executable)


@pytest.mark.parametrize("text", ["", "1,2,3,4", "1,2,3,4,0", "1,2,3,4,x", "1,2,3,4,5,6", "1, 2, 3, 4, -5"])
def test_a_shape_is_five_whole_numbers(text: str) -> None:
    with pytest.raises(ConfigError, match="expected five whole numbers T,B,I,H,L"):
        suites.parse_shape(text)


def test_cases_by_suite_kind_and_shape() -> None:
    assert suites.cases("cpu")[0] == Case(1, 1, 8, 128, 2, "step")
    assert {case.kind for case in suites.cases("cpu", kinds=["training"])} == {"training"}
    assert len(suites.cases("cpu", kinds=["training"])) == len(suites.cases("cpu", kinds=["inference"])) == 8
    chosen = suites.cases("cpu", shapes=["9, 2,3,4,1"])
    assert chosen == (
        Case(9, 2, 3, 4, 1, "inference"),
        Case(9, 2, 3, 4, 1, "training"),
    )  # no stream of nine steps at once
    with pytest.raises(ConfigError, match="suite is 'gpu', expected one of cpu, cuda, long"):
        suites.cases("gpu")
    with pytest.raises(ConfigError, match="kind is 'infer', expected one of inference, training, step"):
        suites.cases("cpu", kinds=["infer"])


def test_numbers_out_of_range() -> None:
    with pytest.raises(ConfigError, match="rounds is 0"):
        suites.run("cpu", [TINY], [REFERENCE], rounds=0)


@pytest.mark.parametrize("kind", suites.KINDS)
def test_every_kind_runs_in_a_process_of_its_own(kind: str) -> None:
    case = Case(1 if kind == "step" else 3, 2, 4, 5, 2, kind)
    (result,) = suites.run("cpu", [case], [REFERENCE], rounds=2, seconds=0.001, threads=1)
    assert result.reason == ""
    assert len(result.seconds) >= 6
    assert 0 < result.median < 1
    assert "engine: reference" in result.plan


def test_a_contender_that_cannot_run_is_named_with_its_reason(tmp_path: Path) -> None:
    nowhere = Contender("nowhere", None, str(tmp_path / "python"))
    unknown = Contender("unknown", "warp", sys.executable)
    results = suites.run("cpu", [TINY], [nowhere, unknown, REFERENCE], rounds=1, seconds=0.001)
    assert [bool(result.seconds) for result in results] == [False, False, True]
    assert "cannot be started: No such file" in results[0].reason
    assert "engine is 'warp', expected one of" in results[1].reason
    assert math.isnan(results[0].median)
    assert suites.baseline(results) == "gpulstm reference"


def test_without_pytorch_the_worker_says_how_to_get_it(tmp_path: Path) -> None:
    """By its path and without the site's packages, as in an environment that has neither PyTorch nor this package."""
    task = {"contender": "torch", "device": "cpu", "case": {}}
    command = [sys.executable, "-I", "-S", gpulstm.bench.worker.__file__, json.dumps(task)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "pip install 'gpulstm[peers]'" in json.loads(run.stdout)["reason"]


def test_contenders_take_turns_and_another_is_first_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []

    def answer(self: Any, question: str) -> dict[str, Any]:
        turns.append(self.contender.name)
        return {"seconds": [0.5]}

    monkeypatch.setattr(suites._Process, "start", lambda self: None)
    monkeypatch.setattr(suites._Process, "_ask", answer)
    who = [Contender(name, "reference", "python") for name in "abc"]
    suites.run("cpu", [TINY], who, rounds=3)
    assert "".join(turns) == "abcbcacab"


def test_a_process_that_dies_is_reported_and_the_others_are_ended(tmp_path: Path) -> None:
    shell = tmp_path / "python"
    shell.write_text('#!/bin/sh\necho \'{"plan": "x"}\'\nread line\nexit 7\n')
    shell.chmod(0o755)
    with pytest.raises(BenchError, match="dying ended with status 7 on 3,2,4,5,1 inference"):
        suites.run("cpu", [TINY], [REFERENCE, Contender("dying", "reference", str(shell))], rounds=1, seconds=0.001)


def test_what_is_written_down() -> None:
    results = [
        Result(TINY, "PyTorch", [2.0, 4.0, 3.0]),
        Result(TINY, "gpulstm reference", [1.5]),
        Result(TINY, "x", reason="no"),
    ]
    document = json.loads(suites.as_json("cpu", results))
    assert document["baseline"] == "PyTorch"
    assert [row["median"] for row in document["results"]] == [3.0, 1.5, None]
    assert [row["ratio"] for row in document["results"]] == [1.0, 0.5, None]
    assert document["results"][2]["reason"] == "no"
    assert document["machine"]["cores"] >= 1


@pytest.mark.cuda
def test_cuda_engines_are_counted_under_the_simulator_and_timed_everywhere() -> None:
    who = [one for one in suites.contenders("cuda") if one.engine]
    assert [one.name for one in who] == ["gpulstm cuda", "gpulstm reference"]
    fused, reference = suites.run("cuda", [TINY], who, rounds=1, seconds=0.001)
    assert fused.seconds
    assert reference.seconds
    if suites.simulated():
        assert 0 < fused.counts["launches"] < reference.counts["launches"]
        assert suites.machine("cuda")["simulated"]


def test_memory_of_long_sequences(tmp_path: Path) -> None:
    """Small, but large enough that segments show: 40 MiB kept whole."""
    who = [one for one in long.contenders() if one[0].engine]
    assert [contender.name.split(", ")[1] for contender, _ in who] == ["whole", "sqrt"]
    whole, cut = long.run(long.cases(["1000,16,8,64,1"]), who, rounds=1, threads=1)
    assert whole.reason == cut.reason == ""
    assert 20 < whole.mebibytes < 80 and cut.mebibytes < whole.mebibytes / 2
    assert "kept whole" in whole.plan and "segments of" in cut.plan
    document = json.loads(long.as_json([whole, cut, Measured(TINY, "x", reason="no")]))
    assert document["results"][0]["mebibytes"] == whole.mebibytes and document["results"][2]["reason"] == "no"
    assert draw(tmp_path / "memory.png", [whole, cut]).stat().st_size > 10_000


def test_a_contender_of_the_long_suite_that_cannot_run_is_named(tmp_path: Path) -> None:
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\nexit 3\n")
    dying.chmod(0o755)
    who = [(Contender("PyTorch", None, str(path)), None) for path in (dying, tmp_path / "nowhere")]
    first, second = long.run(long.cases(["2,2,2,2,1"]), who, rounds=1)
    assert first.reason == "its process ended with status 3" and math.isnan(first.mebibytes)
    assert "cannot be started: No such file" in second.reason
    assert [case.steps for case in long.cases()] == [250, 500, 1000, 2000, 4000, 8000, 16000]
    with pytest.raises(ConfigError, match="rounds is 0, threads 0"):
        long.run([], [], rounds=0)
