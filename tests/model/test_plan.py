"""One plan a shape: made once, explained as it is, forgotten together with the variables; and how short the way is."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from variables import SetVariable

import gpulstm as gl
from gpulstm.arrays.devices import to_host
from gpulstm.engines import dispatch
from gpulstm.engines.cuda import planner
from gpulstm.model.plan import KEPT
from gpulstm.model.stack import Recurrent

PACKAGE = Path(gl.__file__).parent
MOST = 4  # functions of the package between a caller and the engine


def test_a_shape_is_decided_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("gpulstm.model.plan.choose", lambda *call: asked.append(call) or dispatch.choose(*call))
    stack = gl.LSTM(2, 3, device="cpu")
    x = np.ones((4, 1, 2), "f")
    for _ in range(3):
        stack(x)
        stack.forward(x)
    assert len(asked) == 2  # outside and within training
    assert stack.plan(4, 1) is stack.plan(4, 1)
    stack(x[:3])
    stack.forward(x, memory="sqrt")
    assert len(asked) == 4


def test_a_copy_makes_plans_of_its_own_and_few_are_kept() -> None:
    stack = gl.LSTM(2, 3, device="cpu")
    plan = stack.plan(4, 1)
    assert copy.deepcopy(stack).plan(4, 1) is not plan
    for steps in range(KEPT + 5):
        stack.plan(steps, 1)
    assert len(stack._plans._plans) <= KEPT


def test_variables_are_read_once_until_they_are_forgotten(
    set_variable: SetVariable, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = gl.LSTM(2, 3, device="cpu")
    set_variable("GPULSTM_ENGINE", None)
    first = stack.plan(4, 1)
    monkeypatch.setenv("GPULSTM_ENGINE", "reference")
    assert stack.plan(4, 1) is first
    assert gl.LSTM(2, 3, device="cpu").plan(4, 1).engine is first.engine
    set_variable("GPULSTM_ENGINE", "reference")
    assert stack.plan(4, 1).engine.name == "reference"


def test_the_engine_and_what_it_computes_at_once_follow_the_plan(set_variable: SetVariable) -> None:
    stack = gl.GRU(2, 3, device="cpu", seed=1)
    x = np.ones((4, 1, 2), "f")
    for engine in ("reference", "cpu", "reference"):
        set_variable("GPULSTM_ENGINE", engine)
        np.testing.assert_array_equal(stack(x)[0], gl.GRU(2, 3, device="cpu", seed=1, engine=engine)(x)[0])


def test_explain_prints_the_plan_that_runs() -> None:
    stack = gl.LSTM(2, 3, device="cpu")
    plan, explained = stack.plan(9, 2, True, memory="sqrt"), stack.explain(9, 2, training=True, memory="sqrt")
    assert {**vars(plan), "memory": explained.memory, "recorded": ""} == vars(explained)
    assert explained.memory > 0


def engine_depth(call: Any) -> int:
    """Functions of the package on the stack where a call enters an engine's `forward`, or all layers at once."""
    depths: list[int] = []

    def watch(frame: FrameType, event: str, _: Any) -> None:
        file = Path(frame.f_code.co_filename)
        enters = file.parent.name == "engines" and frame.f_code.co_name in ("forward", "__call__")
        if event != "call" or not (enters or (file.name == "engine.py" and frame.f_code.co_name == "forward")):
            return
        above, names = frame.f_back, []
        while above is not None:
            if above.f_code.co_filename.startswith(str(PACKAGE)):
                names.append(above.f_code.co_qualname if sys.version_info >= (3, 11) else above.f_code.co_name)
            above = above.f_back
        depths.append(len(names))

    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(None)
    return depths[0]


@pytest.mark.parametrize("engine", ["cpu", "reference"])
def test_a_call_reaches_its_engine_through_few_functions(engine: str) -> None:
    stack = gl.LSTM(2, 3, 2, device="cpu", engine=engine)
    x = np.ones((4, 1, 2), "f")
    stack(x)
    assert engine_depth(lambda: stack(x)) <= MOST


@pytest.mark.cuda
def test_on_a_gpu_too(set_variable: SetVariable) -> None:
    set_variable(planner.GRAPH, "0")
    stack = gl.LSTM(2, 3, 2, device="cuda")
    x = stack.backend.xp.ones((4, 1, 2), "f")
    stack(x)
    assert engine_depth(lambda: stack(x)) <= MOST


@pytest.mark.cuda
@pytest.mark.parametrize("shape", [{"num_layers": 9}, {"num_layers": 5, "bidirectional": True}], ids=str)
@pytest.mark.parametrize("cell", [gl.LSTM, gl.GRU])
def test_deep_stacks_are_recorded(cell: type[Recurrent], shape: dict[str, Any], set_variable: SetVariable) -> None:
    """CuPy stacks more than eight arrays by a table of pointers that it copies from the host."""
    set_variable(planner.GRAPH, "1")
    stack = cell(2, 3, device="cuda", seed=2, **shape)  # type: ignore[call-arg]
    x = stack.backend.xp.ones((4, 2, 2), "f")

    def values() -> list[bytes]:
        y, state, tape = stack.forward(x)
        dx, dstate, grads = stack.backward(tape, y, state)
        plain, _ = stack(x)
        parts = (part for each in (state, dstate) for part in (each if isinstance(each, tuple) else (each,)))
        return [to_host(value).tobytes() for value in (y, dx, grads.flat, plain, *parts)]

    assert values() == values() == values()
    assert len(stack._replays.passes) == len(stack._replays.tapes) == 1
