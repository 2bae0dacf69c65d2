"""Every form of the CUDA engine against the reference, in every mode of the simulator."""

from __future__ import annotations

import os
import subprocess
import sys

import cuda_forms
import pytest

MODES = {
    "lazy streams": {"HOSTGPU_LAZY": "1"},
    "reversed": {"HOSTGPU_SCHED": "reverse"},
    "random": {"HOSTGPU_SCHED": "random", "HOSTGPU_SEED": "5"},
    "memory check": {"HOSTGPU_MEMCHECK": "1", "GPULSTM_TEST_POOL": "none"},
    "poison": {"HOSTGPU_POISON": "1", "GPULSTM_TEST_POOL": "none"},
}


def ran(mode: str, every: int) -> int:
    """How many cases were right, of every `every`-th of each form; all have to be."""
    command = [sys.executable, cuda_forms.__file__, str(every)]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **MODES[mode]})
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout.count("ok ")


@pytest.mark.cuda
@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_every_form_in_every_mode_of_the_simulator(mode: str) -> None:
    """On a GPU the modes mean nothing; there the same cases run once more."""
    assert ran(mode, every=1) > 65


@pytest.mark.cuda
def test_some_cases_of_every_form_with_streams_that_run_late() -> None:
    assert ran("lazy streams", every=7) > 9
