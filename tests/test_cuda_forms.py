"""Every form of the CUDA engine against the reference, in every mode of the simulator."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from parity import cuda_forms

import gpulstm
import hostgpu
from gpulstm.backend import resolve
from gpulstm.engines.cuda import planner
from gpulstm.errors import ConfigError

MODES = {
    "lazy streams": {"HOSTGPU_LAZY": "1"},
    "reversed": {"HOSTGPU_SCHED": "reverse"},
    "random": {"HOSTGPU_SCHED": "random", "HOSTGPU_SEED": "5"},
    "memory check": {"HOSTGPU_MEMCHECK": "1", "GPULSTM_TEST_POOL": "none"},
    "poison": {"HOSTGPU_POISON": "1", "GPULSTM_TEST_POOL": "none"},
}


@pytest.mark.cuda
@pytest.mark.parametrize("case", [case for form in planner.FORMS for case in cuda_forms.cases(form)], ids=str)
def test_every_form_equals_the_reference_and_repeats_bit_for_bit(case: cuda_forms.Case) -> None:
    worst, place = cuda_forms.compare(case)
    assert worst <= 1, place


@pytest.mark.cuda
@pytest.mark.parametrize("mode", MODES)
def test_every_form_in_every_mode_of_the_simulator(mode: str) -> None:
    """On a GPU the modes mean nothing; there the same cases run once more."""
    run = subprocess.run(
        [sys.executable, cuda_forms.__file__], capture_output=True, text=True, env={**os.environ, **MODES[mode]}
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("ok ") > 40


@pytest.mark.cuda
def test_an_override_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = gpulstm.LSTM(2, 3, device="cuda")
    for name in (planner.FORM, planner.TILE):
        with monkeypatch.context() as patch:
            patch.setenv(name, "quick")
            with pytest.raises(ConfigError, match=f"{name} is 'quick', expected"):
                layer.explain(2, 2)


@pytest.mark.cuda
def test_a_step_is_one_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted by the simulator; on a GPU there is no counter, and the kernels' own count is not looked at."""
    if not hostgpu.simulated():
        return
    monkeypatch.setenv(planner.FORM, "fused")
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
