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


@pytest.mark.cuda
@pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=[] if mode == "lazy streams" else [pytest.mark.slow]) for mode in MODES]
)
def test_every_form_in_every_mode_of_the_simulator(mode: str) -> None:
    """On a GPU the modes mean nothing; there the same cases run once more."""
    run = subprocess.run(
        [sys.executable, cuda_forms.__file__], capture_output=True, text=True, env={**os.environ, **MODES[mode]}
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("ok ") > 65
