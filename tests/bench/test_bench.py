"""The benchmark: its cases, its turns, who is refused and why, what is checked before it is timed, and what is said."""

from __future__ import annotations

import json
import math
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paths import DOCS, TOOLS

import gpulstm.bench.worker
from gpulstm.bench import cases, cold_start, limits, long_sequences, peers, problem, report, runner, worker
from gpulstm.bench.cases import Case, Contender, Result
from gpulstm.bench.long_sequences import Measured
from gpulstm.bench.runner import BenchError
from gpulstm.cli.long import draw
from gpulstm.errors import ConfigError
from gpulstm.validate import parse_shape

TINY = Case(3, 2, 4, 5, 1, "inference")
REFERENCE = Contender("gpulstm reference", "gpulstm", sys.executable, "reference")


def peer(name: str, python: str | Path) -> Contender:
    """A peer under some interpreter."""
    return Contender(name, "torch", str(python))


def script(path: Path, text: str) -> Path:
    """A program to be taken for an interpreter."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


# -- cases and contenders ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text", ["", "1,2,3,4", "1,2,3,4,0", "1,2,3,4,x", "1,2,3,4,5,6", "1, 2, 3, 4, -5"])
def test_a_shape_is_five_whole_numbers(text: str) -> None:
    with pytest.raises(ConfigError, match="expected five whole numbers T,B,I,H,L"):
        parse_shape(text)


def test_cases_by_suite_kind_and_shape() -> None:
    assert cases.cases("cpu")[0] == Case(1, 1, 8, 128, 2, "step")
    assert [case.kind for case in cases.cases("cpu")] == ["step"] + 8 * ["inference"] + 8 * ["training"] + ["cold"]
    assert {case.kind for case in cases.cases("cpu", kinds=["update"])} == {"update"}
    assert {case.kind for case in cases.cases("cuda")} == {"step", "inference", "training"}
    chosen = cases.cases("cpu", shapes=["9, 2,3,4,1"])
    assert chosen == (
        Case(9, 2, 3, 4, 1, "inference"),
        Case(9, 2, 3, 4, 1, "training"),
    )  # no stream of nine steps at once
    with pytest.raises(ConfigError, match="suite is 'gpu', expected one of cpu, cuda, long"):
        cases.cases("gpu")
    with pytest.raises(ConfigError, match="kind is 'infer', expected one of step, inference, training"):
        cases.cases("cpu", kinds=["infer"])


def test_operations_counted_by_hand() -> None:
    case = Case(10, 3, 7, 5, 2, "inference")
    one_row = 2 * (7 * 20 + 5 * 20) + 2 * (5 * 20 + 5 * 20)  # two layers: an input and a recurrent product each
    assert case.flops == 10 * 3 * one_row
    assert Case(10, 3, 7, 5, 2, "training").flops == 3 * case.flops


def test_contenders_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPULSTM_PEERS_PYTHON", raising=False)
    who = cases.contenders("cpu", "/peers/python")
    assert [one.name for one in who if one.side == "peer"] == ["PyTorch", "ONNX Runtime", "OpenVINO", "JAX"]
    assert {one.python for one in who if one.side == "peer"} == {"/peers/python"}
    assert [one.name for one in who if one.side == "own"][-1] == "gpulstm reference"
    assert {one.library for one in who} == {"gpulstm", *peers.PEERS}
    assert [one.name for one in cases.contenders("cpu", names=["JAX"])] == ["JAX"]
    with pytest.raises(ConfigError, match="contender is 'TensorFlow', expected one of gpulstm"):
        cases.contenders("cpu", names=["TensorFlow"])


def test_only_who_serves_a_kind_is_asked(tmp_path: Path) -> None:
    infers = Contender("infers", "onnxruntime", str(tmp_path / "python"), kinds=("inference",))
    training = cases.cases("cpu", kinds=["training"], shapes=["2,1,2,2,1"])
    results = runner.run("cpu", training, [REFERENCE, infers], rounds=1, seconds=0.001)
    assert [result.contender for result in results] == ["gpulstm reference"]


# -- rounds ------------------------------------------------------------------------------------------------------------
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


@pytest.mark.parametrize(
    ("library", "name"),
    [("torch", "PyTorch"), ("jax", "JAX"), ("onnxruntime", "ONNX Runtime"), ("openvino", "OpenVINO")],
)
def test_a_peer_that_is_not_installed_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, library: str, name: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)  # as if it were not there
    with pytest.raises(RuntimeError, match=rf"{name} is not installed for .*pip install 'gpulstm\[peers\]'"):
        peers.PEERS[library]({"case": {}, "device": "cpu"}, {})


def test_without_numpy_the_worker_says_how_to_get_it(tmp_path: Path) -> None:
    """By its path and without the site's packages, as in an environment that has neither NumPy nor this package."""
    command = [sys.executable, "-I", "-S", gpulstm.bench.worker.__file__, "{}"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "pip install" in json.loads(run.stdout)["reason"]


def test_by_its_path_the_worker_finds_the_peers_and_not_this_package(tmp_path: Path) -> None:
    """PyTorch's own environment: NumPy is there; a stand-in for `torch` shows that the path was followed to its end."""
    path = tmp_path / "problem.npz"
    np.savez(path, **problem.arrays({**vars(TINY)}))
    (tmp_path / "torch.py").write_text("raise ImportError('a stand-in')")
    task = {"contender": "torch", "device": "cpu", "problem": str(path), "case": vars(TINY)}
    code = f"import sys, runpy; sys.path.append({str(tmp_path)!r}); sys.argv = ['', {json.dumps(task)!r}];"
    code += "sys.modules['gpulstm'] = None; sys.modules.pop('torch', None); sys.path.insert(0, sys.path.pop());"
    code += f"sys.path.insert(1, {str(Path(worker.__file__).parent)!r});"
    code += f"runpy.run_path({worker.__file__!r}, run_name='__main__')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "PyTorch is not installed for" in json.loads(run.stdout)["reason"]


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


# -- what is checked before it is timed --------------------------------------------------------------------------------
def test_results_are_compared_by_name_shape_and_norm() -> None:
    arrays = {"x": np.ones(2), "expected.y": np.array([3.0, 4.0]), "expected.dx": np.zeros(2)}
    assert worker.difference({"y": np.array([3.0, 4.0]), "dx": np.zeros(2)}, arrays) == (0.0, "")
    assert worker.difference({"y": np.array([3.0, 4.5]), "dx": np.zeros(2)}, arrays) == (0.1, "y")
    assert worker.difference({"y": np.array([3.0, 4.0])}, arrays) == (math.inf, "dx")
    assert worker.difference({"y": np.zeros((2, 1)), "dx": np.zeros(2)}, arrays) == (math.inf, "y")
    assert worker.difference({"y": np.array([3.0, math.nan]), "dx": np.zeros(2)}, arrays) == (math.inf, "y")


def test_a_contender_that_computes_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "TOLERANCE", {False: 1e-12})  # what no float32 can hold
    (result,) = runner.run("cpu", [TINY], [REFERENCE], rounds=1, seconds=0.001)
    assert result.wrong.startswith("it computes something else: y is ")
    assert result.seconds == []


def test_a_problem_holds_inputs_and_what_comes_out() -> None:
    case = {"steps": 3, "batch": 2, "inputs": 4, "hidden": 5, "layers": 2, "kind": "training"}
    arrays = problem.arrays(case)
    given = {name: value.shape for name, value in arrays.items() if not name.startswith("expected.")}
    assert given["x"] == (3, 2, 4)
    assert given["dy"] == (3, 2, 5)
    results = {name.removeprefix("expected."): value.shape for name, value in arrays.items() if name not in given}
    weights = {name: shape for name, shape in given.items() if name not in ("x", "dy")}
    assert results == {"y": (3, 2, 5), "dx": (3, 2, 4), **{f"d{name}": shape for name, shape in weights.items()}}
    assert all(np.abs(arrays[name]).min() >= 0 and arrays[name].std() > 0 for name in arrays)  # biases too
    assert problem.arrays({**case, "kind": "step", "steps": 1})["expected.y"].shape == (4, 2, 5)
    assert not [name for name in problem.arrays(case, expected=False) if name.startswith("expected.")]


def test_weights_as_pytorch_lays_them_out() -> None:
    arrays = problem.arrays({**vars(TINY), "layers": 2}, expected=False)
    weights = peers.torch_weights(arrays)
    assert {name: value.shape for name, value in weights.items()} == {
        "weight_ih_l0": (20, 4),
        "weight_hh_l0": (20, 5),
        "bias_ih_l0": (20,),
        "bias_hh_l0": (20,),
        "weight_ih_l1": (20, 5),
        "weight_hh_l1": (20, 5),
        "bias_ih_l1": (20,),
        "bias_hh_l1": (20,),
    }
    np.testing.assert_array_equal(weights["weight_ih_l1"][3], arrays["W_x_l1"][:, 3])
    np.testing.assert_array_equal(weights["bias_ih_l0"] + weights["bias_hh_l0"], arrays["b_l0"])


def test_gates_in_the_order_of_onnx() -> None:
    i, f, g, o = range(4)
    stored = np.repeat([i, f, g, o], 3)
    np.testing.assert_array_equal(peers._iofc(stored, 3), np.repeat([i, o, f, g], 3))


# -- cold starts and limits --------------------------------------------------------------------------------------------
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


def test_limits_of_this_machine() -> None:
    assert 1e8 < limits.sgemm(0.01, side=128) < 1e14
    assert 1e7 < limits.copy(1 << 16, 2, 0.01) < 1e13


# -- what is said of it ------------------------------------------------------------------------------------------------
WIDE = Case(2, 2, 2, 2, 1, "inference")
RESULTS = [
    Result(TINY, "gpulstm cpu", "own", [1.0]),
    Result(TINY, "PyTorch", "peer", [2.0, 4.0, 3.0]),
    Result(TINY, "JAX", "peer", [4.0]),
    Result(TINY, "PyTorch TF32", "aside", [0.1]),
    Result(WIDE, "gpulstm cpu", "own", [1.0]),
    Result(WIDE, "PyTorch", "peer", [24.0]),
    Result(WIDE, "JAX", "peer", [12.0]),
    Result(WIDE, "OpenVINO", "peer", reason="not here"),
]


def test_ratios_are_to_the_best_peer_of_each_case() -> None:
    assert report.baseline(RESULTS) == "best peer"
    assert report.base_times(RESULTS) == {TINY: (3.0, "PyTorch"), WIDE: (12.0, "JAX")}
    faster = report.speedups(RESULTS)
    assert faster["gpulstm cpu"] == {TINY: 3.0, WIDE: 12.0}
    assert faster["PyTorch"] == {TINY: 1.0, WIDE: 0.5}
    assert "OpenVINO" not in faster
    assert report.geometric_mean(list(faster["gpulstm cpu"].values())) == pytest.approx(6.0)
    assert math.isnan(report.geometric_mean([]))


def test_without_a_peer_the_reference_is_the_measure() -> None:
    results = [Result(TINY, "gpulstm cpu", "own", [1.0]), Result(TINY, "gpulstm reference", "own", [5.0])]
    assert report.baseline(results) == "gpulstm reference"
    assert report.speedups(results)["gpulstm cpu"] == {TINY: 5.0}
    assert report.baseline([]) == ""


def test_rates_are_of_the_products_and_a_share_of_the_matrix_product() -> None:
    result = Result(TINY, "gpulstm cpu", "own", [1e-6])
    assert report.gflops(result) == pytest.approx(TINY.flops / 1e3)
    assert report.share(result, {"sgemm_gflops": 100.0}) == pytest.approx(TINY.flops / 1e5)
    assert math.isnan(report.share(result, {}))
    assert math.isnan(report.gflops(Result(Case(2, 1, 1, 1, 1, "cold"), "gpulstm", "own", [1.0])))
    assert report.best_of([{"a": 1.0, "b": 4.0}, {"a": 2.0, "b": 3.0}]) == {"a": 2.0, "b": 4.0}


def test_what_is_written_down() -> None:
    text = report.as_json("cpu", RESULTS, limits={"sgemm_gflops": 200.0}, settings={"rounds": 1})
    document = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert document["baseline"] == "best peer"
    assert document["geometric_mean_speedup"]["inference"]["gpulstm cpu"] == 6.0
    assert [row["median"] for row in document["results"]] == [1.0, 3.0, 4.0, 0.1, 1.0, 24.0, 12.0, None]
    assert [row["base"] for row in document["results"]][3:5] == ["PyTorch", "JAX"]
    assert document["results"][7]["reason"] == "not here"
    assert document["machine"]["cores"] >= 1
    assert document["limits"] == {"sgemm_gflops": 200.0}


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


# -- the tables of the documentation -----------------------------------------------------------------------------------
def test_the_tables_of_the_documentation_are_those_of_its_json() -> None:
    document = json.loads((DOCS / "benchmarks" / "cpu.json").read_text(encoding="utf-8"))
    made = runpy.run_path(str(TOOLS / "benchmark_tables.py"))["tables"](document)
    text = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    for line in filter(None, made.splitlines()):
        assert line in text
    assert {row["wrong"] for row in document["results"]} == {""}


# -- long sequences ---------------------------------------------------------------------------------------------------
def test_memory_of_long_sequences(tmp_path: Path) -> None:
    """Small, but large enough that segments show: 40 MiB kept whole."""
    who = [one for one in long_sequences.contenders() if one[0].engine]
    assert [contender.name.split(", ")[1] for contender, _ in who] == ["whole", "sqrt"]
    whole, cut = long_sequences.run(long_sequences.chosen_cases(["1000,16,8,64,1"]), who, rounds=1, threads=1)
    assert whole.reason == cut.reason == ""
    assert 20 < whole.mebibytes < 80 and cut.mebibytes < whole.mebibytes / 2
    assert "kept whole" in whole.plan and "segments of" in cut.plan
    document = json.loads(long_sequences.as_json([whole, cut, Measured(TINY, "x", reason="no")]))
    assert document["results"][0]["mebibytes"] == whole.mebibytes and document["results"][2]["reason"] == "no"
    assert draw(tmp_path / "memory.png", [whole, cut]).stat().st_size > 10_000


def test_a_contender_of_the_long_suite_that_cannot_run_is_named(tmp_path: Path) -> None:
    dying = script(tmp_path / "python", "exit 3")
    who = [(peer("PyTorch", path), None) for path in (dying, tmp_path / "nowhere")]
    first, second = long_sequences.run(long_sequences.chosen_cases(["2,2,2,2,1"]), who, rounds=1)
    assert first.reason == "its process ended with status 3" and math.isnan(first.mebibytes)
    assert "cannot be started: No such file" in second.reason
    assert [case.steps for case in long_sequences.chosen_cases()] == [250, 500, 1000, 2000, 4000, 8000, 16000]
    with pytest.raises(ConfigError, match="rounds is 0, threads 0"):
        long_sequences.run([], [], rounds=0)
