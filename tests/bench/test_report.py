"""What the timings say: ratios, means, rates, and the JSON and tables of them."""

from __future__ import annotations

import json
import math
import runpy

import pytest
from bench_cases import TINY
from paths import DOCS, TOOLS

from gpulstm.bench import report
from gpulstm.bench.cases import Case, Result

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


def test_the_tables_of_the_documentation_are_those_of_its_json() -> None:
    document = json.loads((DOCS / "benchmarks" / "cpu.json").read_text(encoding="utf-8"))
    tables = runpy.run_path(str(TOOLS / "benchmark_tables.py"))["tables"](document)
    text = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    for line in filter(None, tables.splitlines()):
        assert line in text
    assert {row["wrong"] for row in document["results"]} == {""}
