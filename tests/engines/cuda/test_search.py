"""Random configurations against the reference, with streams that run late."""

from __future__ import annotations

import os
import subprocess
import sys

import cuda_search
import pytest
from variables import SetVariable

from gpulstm.engines.cuda import planner

AT_ONCE = 50


@pytest.mark.cuda
@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 300, AT_ONCE))
def test_random_configurations_agree_with_the_reference(first: int) -> None:
    command = [sys.executable, cuda_search.__file__, str(first), str(AT_ONCE)]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HOSTGPU_LAZY": "1"})
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("ok ") == AT_ONCE


@pytest.mark.cuda
def test_a_configuration_is_that_of_its_seed_and_a_wrong_number_is_seen(
    monkeypatch: pytest.MonkeyPatch, set_variable: SetVariable
) -> None:
    for name in (planner.GRAPH, planner.FORM):  # which the program sets
        set_variable(name, "")
    one = cuda_search.configuration(3)
    assert one == cuda_search.configuration(3) != cuda_search.configuration(4)
    assert str(one) == "3: rnn float64 1x1x1x40 L=12 first both_ways"
    assert cuda_search.disagreement(one) is None
    monkeypatch.setitem(cuda_search.FEW_STEPS, "float64", 0.0)
    monkeypatch.setattr(cuda_search, "STEPS_OF_ROUNDING", 0)
    assert "is off by" in str(cuda_search.disagreement(one))
