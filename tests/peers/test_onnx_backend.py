"""ONNX's own backend test cases for LSTM, GRU, RNN and every other operator that this library has.

`onnx.backend.test` runs its node cases through `onnx.backend.base.Backend`.  The recurrent ones must all be there and
pass, with each engine that GPULSTM_PEER_ENGINES names (default: the choice, and the reference).
"""

from __future__ import annotations

import os
import unittest
import warnings

import pytest

from gpulstm.backend import cuda_missing
from gpulstm.interop.onnx_backend import make_backend
from gpulstm.interop.onnx_ops import OPERATORS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # making some of ONNX's cases overflows on purpose
    import onnx.backend.test
    import onnx.defs
    from onnx.backend.test.loader import load_model_tests

    CASES = {case.name: case for case in load_model_tests(kind="node")}

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
ENGINES = [engine or None for engine in os.environ.get("GPULSTM_PEER_ENGINES", ",reference").split(",")]
RECURRENT = [name for name in CASES if name.startswith(("test_lstm_", "test_gru_", "test_rnn_", "test_simple_rnn_"))]


def run(name: str, device: str, engine: str | None) -> unittest.TestResult:
    runner = onnx.backend.test.BackendTest(make_backend(engine), __name__)
    runner.include(f"^{name}_{device}$")
    result = unittest.TestResult()
    runner.test_suite.run(result)
    return result


def test_the_recurrent_cases_are_all_there() -> None:
    assert len(RECURRENT) == 18


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_recurrent(name: str, device: str, engine: str | None) -> None:
    result = run(name, device, engine)
    problems = [text for _, text in result.errors + result.failures]
    assert not problems, problems[0]
    passed = result.testsRun - len(result.skipped)
    assert passed == 1, f"{name} was run {passed} times"
    assert device == "cpu" or cuda_missing() is None
