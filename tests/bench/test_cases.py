"""Cases by suite, kind and shape, their operations, and the contenders."""

from __future__ import annotations

import pytest

from gpulstm.bench import cases, peers
from gpulstm.bench.cases import Case
from gpulstm.errors import ConfigError


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
    assert {one.package for one in who} == {"gpulstm", *peers.PEERS}
    assert [one.name for one in cases.contenders("cpu", names=["JAX"])] == ["JAX"]
    with pytest.raises(ConfigError, match="contender is 'TensorFlow', expected one of gpulstm"):
        cases.contenders("cpu", names=["TensorFlow"])


def test_contenders_with_rounded_weights() -> None:
    who = cases.contenders("cpu", "/peers/python", quantize="int8")
    assert [one.name for one in who] == ["gpulstm cpu int8", "gpulstm cpu", "ONNX Runtime int8", "PyTorch int8"]
    assert [one.quantize for one in who] == ["int8", "", "int8", "int8"]
    assert {one.kinds for one in who} == {("step", "inference")}
    with pytest.raises(ConfigError, match="quantize is 'int4' with suite 'cpu', expected int8 or bfloat16 with cpu"):
        cases.contenders("cpu", quantize="int4")
