"""Trials: a check sees each wrong number, a timing has the sizes of the call."""

from __future__ import annotations

from typing import Any

import pytest

from gpulstm.engines.cuda import engine, fused, planner, trial
from gpulstm.engines.cuda.verdicts import Way
from gpulstm.engines.spec import Call, Plan, StackSpec

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("part", ["gradient", "state", "nothing"])
def test_a_check_looks_at_gradients_and_states(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    call = Call(StackSpec("gru", 3, 16), "cuda:0", 7, 4, training=True)
    forms = planner.forms_of(call)
    original = fused.backward

    def wrong(task: Any, tape: Any, dy: Any, dstate: Any, grads: Any, *rest: Any) -> Any:
        dx, dfirst = original(task, tape, dy, dstate, grads, *rest)
        if part == "gradient":
            grads["b_hn"][3] += 0.01
        if part == "state":
            dfirst.h[2, 1] += 0.01
        return dx, dfirst

    monkeypatch.setattr(fused, "backward", wrong)
    plan = planner.planned(Plan(call, engine), Way("fused", graph=False), forms)
    reason = trial.check(plan)
    expected = {"gradient": "the gradient of b_hn is", "state": "dh is", "nothing": None}[part]
    assert (reason is None) if expected is None else str(reason).startswith(expected)


def test_a_timing_has_the_sizes_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    original = fused.forward

    def seen(task: Any, x: Any, *rest: Any) -> Any:
        shapes.append(x.shape)
        return original(task, x, *rest)

    monkeypatch.setattr(fused, "forward", seen)
    monkeypatch.setattr(trial, "clock", lambda way, work, wait: 1.0)
    for steps, expected in ((2, 32), (50, 50), (5000, 256)):
        call = Call(StackSpec("rnn", 3, 16, 2), "cuda:0", steps, 4)
        way = Way("fused", graph=False)
        assert trial.seconds(way, planner.planned(Plan(call, engine), way, planner.forms_of(call))) == 1.0
        assert set(shapes) == {(expected, 4, 3), (expected, 4, 16)}
        shapes.clear()


def test_the_clock_takes_the_best_of_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "PATIENCE", 600.0)
    calls: list[str] = []
    took = trial.clock(Way("fused", graph=False), lambda: calls.append("work"), lambda: calls.append("wait"))
    assert took >= 0
    assert calls == ["work", "wait"] * trial.LAUNCHES
