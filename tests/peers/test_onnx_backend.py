"""ONNX's own backend test cases for LSTM, GRU, RNN and every other operator that this library has.

`onnx.backend.test` runs its node cases through `onnx.backend.base.Backend`.  The recurrent ones must all be there and
pass, with each engine that GPULSTM_PEER_ENGINES names (default: the choice, and the reference).
"""

from __future__ import annotations

import os
import unittest
import warnings
from typing import Any

import pytest

from gpulstm.interop.onnx.backend import make_backend
from gpulstm.interop.onnx.graph import DTYPES, OPSETS
from gpulstm.interop.onnx.operators import OPERATORS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # making some of ONNX's cases overflows on purpose
    import onnx.backend.test
    import onnx.defs
    from onnx.backend.test.loader import load_model_tests

    CASES = {case.name: case for case in load_model_tests(kind="node")}

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
ENGINES = [engine or None for engine in os.environ.get("GPULSTM_PEER_ENGINES", ",reference").split(",")]
RECURRENT = [name for name in CASES if name.startswith(("test_lstm_", "test_gru_", "test_rnn_", "test_simple_rnn_"))]


ONE_PLACE = 2.0**-23  # a gate of float32 may differ in its last place, in which 1 - z of a GRU may be all there is


class Suite(onnx.backend.test.BackendTest):  # type: ignore[misc]
    """ONNX's cases, whose absolute tolerance of 1e-7 is less than the last place of a gate."""

    @classmethod
    def assert_similar_outputs(cls, ref_outputs: Any, outputs: Any, rtol: float, atol: float, **where: Any) -> None:
        super().assert_similar_outputs(ref_outputs, outputs, rtol, atol + ONE_PLACE, **where)


def runner(engine: str | None) -> dict[str, unittest.TestCase]:
    """ONNX's own test methods by name, `<case>_<device>`."""
    suite = Suite(make_backend(engine), __name__).test_suite
    return {test.id().split(".")[-1]: test for test in suite}


RUNNERS = {engine: runner(engine) for engine in ENGINES}


def run(name: str, device: str, engine: str | None) -> None:
    result = unittest.TestResult()
    RUNNERS[engine][f"{name}_{device}"].run(result)
    assert result.testsRun == 1
    assert not result.skipped, result.skipped
    problems = [text for _, text in result.errors + result.failures]
    assert not problems, problems[0]


def test_the_recurrent_cases_are_all_there() -> None:
    assert len(RECURRENT) == 18


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_recurrent(name: str, device: str, engine: str | None) -> None:
    run(name, device, engine)


def others() -> list[str]:
    """ONNX's node cases that need nothing but operators and element types that there are, and an operator set >= 7."""
    return [name for name, case in CASES.items() if name not in RECURRENT and not refusal(case.model)]


def refusal(model: onnx.ModelProto) -> str:
    """Why a case is none for this library: an operator, a type that is no tensor, an element type, its age."""
    values = [*model.graph.input, *model.graph.output]
    if not {node.op_type for node in model.graph.node} <= OPERATORS.keys():
        return "operators"
    if any(not value.type.HasField("tensor_type") for value in values):
        return "has no tensor type"
    if any(value.type.tensor_type.elem_type not in DTYPES for value in values):
        return "element type"
    if max(entry.version for entry in model.opset_import if entry.domain == "") not in OPSETS:
        return "operator set"
    if any(node.op_type == "Dropout" and len(node.input) == 3 for node in model.graph.node):
        training = model.graph.node[0].input[2]
        constant = [node for node in model.graph.node if node.output[0] == training]
        return "" if constant else "training mode"
    return ""


@pytest.mark.parametrize("name", others())
def test_other_operators(name: str) -> None:
    run(name, "cpu", None)
