"""Streams on the device: packed weights, kept state, one launch a step."""

from __future__ import annotations

from typing import Any

import pytest
from replayed import bits, small
from variables import SetVariable

from gpulstm.engines.cuda import planner
from gpulstm.engines.cuda.stream import PackedStream

pytestmark = pytest.mark.cuda


@pytest.fixture(autouse=True)
def always(set_variable: SetVariable) -> None:
    """Calls are replayed whatever the planner finds."""
    set_variable(planner.GRAPH, "1")


def test_the_weights_of_a_stream_count_from_its_reset_on() -> None:
    layer, x = small()
    step = layer.stream(4)
    assert isinstance(step._steps, PackedStream)
    first = bits(step(x[0]))
    layer.params.flat[...] *= 0.5
    step.state = (0 * step.state[0], 0 * step.state[1])
    assert bits(step(x[0])) == first
    step.reset()
    assert bits(step(x[0])) != first


def test_a_step_into_an_array_of_the_callers_allocates_nothing() -> None:
    layer, x = small()
    step, out = layer.stream(4), layer.backend.xp.empty((4, 8), "f")
    expected = bits(step(x[0]))
    step.reset()
    asked: list[int] = []
    pool = layer.backend.xp.get_default_memory_pool()

    def allocate(size: int) -> Any:
        asked.append(size)
        return pool.malloc(size)

    row = layer.backend.xp.ascontiguousarray(x[0])
    with layer.backend.xp.cuda.using_allocator(allocate):
        assert step(row, out) is out
        assert not asked
        step(row)
    assert len(asked) == 1
    step.reset()
    assert bits(step(x[0], out)) == expected
