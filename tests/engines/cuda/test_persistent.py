"""The persistent kernel where a launch may not run for long."""

from __future__ import annotations

import numpy as np
import pytest
from variables import SetVariable

import gpulstm as gl
import hostgpu
from gpulstm.arrays.devices import resolve, to_host
from gpulstm.engines.cuda import persistent, planner

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", [gl.LSTM, gl.GRU])
def test_steps_are_cut_where_the_driver_watches(
    cell: type[gl.LSTM], bidirectional: bool, monkeypatch: pytest.MonkeyPatch, set_variable: SetVariable
) -> None:
    """The bits are those of one launch, wherever the steps are cut."""
    set_variable(planner.FORM, "persistent")
    set_variable(planner.GRAPH, "0")
    backend = resolve("cuda")
    x = backend.from_host(np.random.default_rng(0).normal(size=(7, 5, 3)).astype("f"))
    lengths = np.array([7, 3, 0, 5, 7])
    results, launches = [], []
    for at_once in (None, 1, 2, 3, 7, 100):
        monkeypatch.setattr(backend, "watched", at_once is not None, raising=False)
        if at_once is not None:
            monkeypatch.setattr(persistent, "AT_ONCE", at_once)
        layer = cell(3, 11, bidirectional=bidirectional, device="cuda", seed=2)
        with hostgpu.counting() as count:
            y, state, tape = layer.forward(x, lengths=lengths)
            assert tape is not None
            dx, _, grads = layer.backward(tape, y)
        h = state[0] if isinstance(state, tuple) else state
        results.append([to_host(part) for part in (y, h, dx, grads.flat)])
        launches.append(count["kernels"]["gpulstm_forward_all"])
    for result in results[1:]:
        assert all(np.array_equal(one, other) for one, other in zip(results[0], result, strict=True))
    if hostgpu.simulated():
        assert [number // (1 + bidirectional) for number in launches] == [1, 7, 4, 3, 1, 1]
