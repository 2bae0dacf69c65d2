"""What only the simulator can tell: launches and copies counted, several devices, and modes that provoke faults.

Collected under the simulator alone (see conftest.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stacks import CELLS
from variables import SetVariable

import gpulstm as gl
import hostgpu
from gpulstm.arrays.devices import to_device
from gpulstm.engines.cuda import planner

pytestmark = pytest.mark.cuda

PROGRAMS = Path(__file__).parent / "programs"
MODES = {
    "lazy": {"HOSTGPU_LAZY": "1"},  # work is done only when something waits for it: missing synchronization
    "reverse": {"HOSTGPU_SCHED": "reverse"},  # blocks and threads in another order: results that depend on it
    "random": {"HOSTGPU_SCHED": "random", "HOSTGPU_SEED": "3"},
    "memcheck": {"HOSTGPU_MEMCHECK": "1"},  # arrays end at a closed page
    "poison": {"HOSTGPU_POISON": "1"},  # new memory is NaN
}


def run(program: str, *arguments: str, **variables: str) -> str:
    """What a program of this folder prints, run under the simulator with `variables` set."""
    command = [sys.executable, "-W", "error", str(PROGRAMS / program), *arguments]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.mark.parametrize("mode", MODES)
def test_parity_in_a_mode_of_the_simulator(mode: str) -> None:
    arguments = ["no-pool"] if mode in ("memcheck", "poison") else []
    assert run("mode_program.py", *arguments, **MODES[mode]) == "ok\n"


def test_two_devices() -> None:
    assert run("devices_program.py", HOSTGPU_DEVICES="2") == "ok\n"


@pytest.mark.slow
@pytest.mark.parametrize(("watched", "launches"), [("0", "1 1"), ("1", "2 2")])
def test_a_long_sequence_takes_launches_of_bounded_length_where_the_driver_watches(watched: str, launches: str) -> None:
    assert run("watched_program.py", "16385", HOSTGPU_WATCHED=watched) == f"{launches}\n"


def count(cell: str, steps: int, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The counters of a training step's forward and backward, once all kernels are compiled and the pool is filled."""
    stack = CELLS[cell](3, 6, device="cuda", **options)
    x = to_device(np.ones((steps, 4, 3), "float32"), "cuda")
    dy = to_device(np.ones((steps, 4, stack.spec.output_size), "float32"), "cuda")
    for _ in range(5):  # two tapes take turns: each is recorded and replayed
        with hostgpu.counting() as forward:
            tape = stack.forward(x)[2]
        with hostgpu.counting() as backward:
            stack.backward(tape, dy)
    return forward, backward


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "deep": {"num_layers": 2, "bidirectional": True},
    "masks": {"recurrent_dropout": 0.2, "zoneout": 0.2},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_time_step_is_one_product_and_one_kernel(cell: str, options: str, set_variable: SetVariable) -> None:
    """In the first form, per layer and direction, both ways; what is around the cell adds no launch to a step."""
    set_variable(planner.FORM, "first")
    set_variable(planner.GRAPH, "0")
    layers = 4 if options == "deep" else 1
    short, long = count(cell, 5, **OPTIONS[options]), count(cell, 12, **OPTIONS[options])
    for few, many, name in zip(short, long, (f"gpulstm_{cell}", f"gpulstm_{cell}_backward"), strict=True):
        assert many["launches"] - few["launches"] == 7 * layers
        assert many["blas"] - few["blas"] == 7 * layers
        assert few["kernels"][name] == 5 * layers


@pytest.mark.parametrize("cell", CELLS)
def test_launches_of_a_training_step_around_the_time_steps(cell: str, set_variable: SetVariable) -> None:
    """The input product forward; three whole-sequence products backward; a few copies and sums, however long T is."""
    set_variable(planner.FORM, "first")
    set_variable(planner.GRAPH, "0")
    forward, backward = count(cell, 5)
    assert forward["blas"] - 5 == 1
    assert backward["blas"] - 5 == 3
    assert forward["launches"] - 5 <= 5
    assert backward["launches"] - 5 <= 9


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_training_step_waits_for_nothing(cell: str, options: str) -> None:
    """No copy from or to the host, no synchronization, no allocation that reaches the driver once the pool is warm."""
    for counted in count(cell, 5, **OPTIONS[options]):
        for key in ("copies_h2d", "copies_d2h", "sync_stream", "sync_device", "sync_event", "sync_implicit"):
            assert counted[key] == 0, key
        if options != "deep":
            assert counted["mallocs"] == 0


def test_lengths_on_the_device_are_not_waited_for() -> None:
    stack, x = gl.LSTM(3, 6, device="cuda"), to_device(np.ones((5, 4, 3), "float32"), "cuda")
    lengths = to_device(np.array([5, 0, 2, 3]), "cuda")
    for _ in range(3):
        with hostgpu.counting() as counted:
            stack.forward(x, lengths=lengths)
    assert counted["copies_d2h"] == counted["sync_stream"] == counted["sync_implicit"] == 0
