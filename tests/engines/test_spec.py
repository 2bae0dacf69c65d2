"""What a call and a task say of themselves."""

from __future__ import annotations

import pytest

from gpulstm.engines.dispatch import choose
from gpulstm.engines.spec import Call, StackSpec, Task, plan_of


@pytest.mark.parametrize(("reverse", "order"), [(False, [0, 1, 2, 3, 4, 5, 6]), (True, [6, 5, 4, 3, 2, 1, 0])])
def test_blocks_cover_the_steps_in_the_order_of_the_layer(reverse: bool, order: list[int]) -> None:
    task = Task(StackSpec("rnn", 1, 1), 0, reverse, {})
    blocks = task.blocks(7, 3)
    assert sorted(blocks) == [(0, 3), (3, 6), (6, 7)]  # cut at multiples of three, whichever way it is read
    assert [step for start, stop in blocks for step in task.steps(start, stop)] == order
    assert task.blocks(0, 3) == []


def test_only_a_task_with_a_plan_has_one() -> None:
    call = Call(StackSpec("lstm", 1, 1), "cpu", 2, 3)
    task = Task(call.spec, 0, False, {})
    with pytest.raises(AssertionError, match="has a plan"):
        plan_of(task)
    task.plan = choose(call)
    assert plan_of(task).call is call
    assert not call.on_cuda and Call(call.spec, "cuda:1", 2, 3).on_cuda
