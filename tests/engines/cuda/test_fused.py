"""One kernel a step: the recurrent product and all that follows it."""

from __future__ import annotations

import cuda_forms
import pytest
from variables import SetVariable

import gpulstm
import hostgpu
from gpulstm.arrays.devices import resolve
from gpulstm.engines.cuda import planner


@pytest.mark.cuda
def test_a_step_is_one_launch(set_variable: SetVariable) -> None:
    """Counted by the simulator; on a GPU there is no counter, and the kernels' own count is not looked at."""
    if not hostgpu.simulated():
        return
    set_variable(planner.FORM, "fused")
    set_variable(planner.GRAPH, "0")
    layer = gpulstm.LSTM(2, 3, device="cuda")
    x = resolve("cuda").xp.ones((7, 2, 2), "f")
    y, _, tape = layer.forward(x)
    layer.backward(tape, y)
    with hostgpu.counting() as count:
        y, _, tape = layer.forward(x)
        layer.backward(tape, y)
    assert count["kernels"]["gpulstm_forward"] == 7
    assert count["kernels"]["gpulstm_backward"] == 8
    assert count["mallocs"] == count["sync_stream"] == count["sync_implicit"] == count["copies_d2h"] == 0


@pytest.mark.cuda
@pytest.mark.parametrize("case", list(cuda_forms.cases("fused")), ids=str)
def test_it_equals_the_reference_and_repeats_bit_for_bit(case: cuda_forms.Case) -> None:
    cuda_forms.check(case)
