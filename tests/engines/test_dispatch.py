"""Engines satisfy one protocol, and an engine that computes nothing of its own can be put in front."""

from __future__ import annotations

import inspect
import warnings

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.engines import dispatch, spec
from gpulstm.engines.spec import Call, Engine, StackSpec

MEMBERS = [name for name, value in vars(Engine).items() if inspect.isfunction(value) and not name.startswith("_")]


@pytest.mark.parametrize("engine", dispatch.ENGINES, ids=lambda engine: engine.name)
def test_an_engine_has_what_the_protocol_asks_for(engine: Engine) -> None:
    """The types are mypy's matter, which checks `ENGINES`; here the arguments' names, which it does not."""
    assert isinstance(engine.name, str)
    assert len(MEMBERS) == 10
    for name in MEMBERS:
        asked = list(inspect.signature(getattr(Engine, name)).parameters)[1:]
        assert list(inspect.signature(getattr(engine, name)).parameters) == asked, name


def test_optional_capabilities_answer_none() -> None:
    stack = gl.LSTM(2, 3, 2, device="cpu", engine="reference")
    plan = stack.plan(4, 1)
    assert plan.engine.infer(stack.spec, stack.params) is None
    assert plan.engine.stream(plan, stack.params) is None
    assert plan.engine.side_by_side(plan) is None


def test_a_plan_names_its_engine_and_why_no_faster_one() -> None:
    plan = dispatch.choose(Call(StackSpec("lstm", 2, 3, peepholes=True), "cpu", 4, 1))
    assert plan.engine is dispatch.by_name("cpu")
    assert [name for name, _ in plan.refused] == ["cuda"]
    assert spec.unsupported(plan.call.spec) == ["peepholes"]


@pytest.fixture
def unsaid() -> None:
    dispatch._warn_once.cache_clear()


def test_the_first_large_call_without_native_code_warns_once(no_native: None, unsaid: None) -> None:
    model = gl.LSTM(64, 256, device="cpu")
    with pytest.warns(RuntimeWarning, match=r"NumPy computes this layer.*no native code.*(pip install|cd / && python)"):
        assert "engine: reference" in str(model.explain(100, 32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.explain(200, 32)
        gl.GRU(64, 256, device="cpu").explain(100, 32)


def test_small_calls_and_those_that_were_asked_for_do_not_warn(no_native: None, unsaid: None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gl.LSTM(3, 4, device="cpu")(np.zeros((5, 2, 3)))
        gl.LSTM(64, 256, device="cpu", engine="reference").explain(100, 32)
