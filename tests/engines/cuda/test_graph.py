"""Training passes as CUDA graphs: same numbers, few calls, no waiting, streams and devices respected."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from paths import CUDA_PROGRAMS, DOCS
from variables import SetVariable

import hostgpu
from gpulstm.arrays.devices import resolve, to_host
from gpulstm.engines.cuda import planner
from gpulstm.engines.cuda.graph import KEPT, Recording
from gpulstm.engines.spec import StackSpec
from gpulstm.errors import ConfigError
from gpulstm.losses import MSE
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.training.gradients import GradientPass

MODES = {
    "default": {},
    "two devices": {"HOSTGPU_DEVICES": "2"},
    "lazy streams": {"HOSTGPU_LAZY": "1"},
    "lazy streams on two devices": {"HOSTGPU_LAZY": "1", "HOSTGPU_DEVICES": "2"},
    "reversed": {"HOSTGPU_SCHED": "reverse"},
    "random": {"HOSTGPU_SCHED": "random", "HOSTGPU_SEED": "9"},
    "poison": {"HOSTGPU_POISON": "1"},
}

pytestmark = pytest.mark.cuda


@pytest.fixture(autouse=True)
def always(set_variable: SetVariable) -> None:
    """Passes are replayed whatever the planner finds."""
    set_variable(planner.GRAPH, "1")


def child(program: str, settings: dict[str, str]) -> str:
    """The output of a program of tests/engines/cuda/programs, which must end well."""
    run = subprocess.run(
        [sys.executable, str(CUDA_PROGRAMS / program)], capture_output=True, text=True, env={**os.environ, **settings}
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def small(batch: int = 4, **options: object) -> tuple[GradientPass, dict[str, object]]:
    """A pass of a small network, and a batch for it."""
    network = Network(NetworkConfig(StackSpec("lstm", 3, 9, **options)), device="cuda", seed=2)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    put = network.backend.from_host
    data = {"x": put(rng.normal(size=(5, batch, 3)).astype("f")), "target": put(rng.normal(size=(batch, 1, 1)))}
    return GradientPass(network, MSE(), network.params.like()), data


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param(mode, marks=[] if mode in ("default", "lazy streams on two devices") else [pytest.mark.slow])
        for mode in MODES
    ],
)
def test_training_on_two_streams_and_devices_equals_the_reference(mode: str) -> None:
    """On a GPU the modes mean nothing; there the same training runs once more, on two devices where they are."""
    assert child("cuda_replays.py", MODES[mode]).count("ok ") == 6


def test_a_replay_has_the_bits_of_the_pass_piece_by_piece() -> None:
    gradients, data = small(dropout=0.0, recurrent_dropout=0.4)
    seen = []
    for _ in range(3):  # piece by piece, recorded, replayed
        gradients.network.calls = 7
        result = gradients(**data)
        seen.append([to_host(part).tobytes() for part in (gradients.grads.flat, result.value, result.norm)])
        assert gradients.network.calls == 8
    assert seen[0] == seen[1] == seen[2]


def test_old_recordings_are_given_up() -> None:
    gradients, _ = small()
    for batch in (*range(1, KEPT + 3), 1):
        _, data = small(batch)
        values = [float(gradients(**data).value) for _ in range(2)]
        assert values[0] == values[1]
    assert len(gradients._recordings) <= KEPT


def test_a_function_that_waits_cannot_be_recorded_and_leaves_the_stream_usable() -> None:
    backend = resolve("cuda")
    x = backend.xp.ones(3)
    calls = []

    def waits(x):  # type: ignore[no-untyped-def]
        calls.append(1)
        return x * (2.0 if len(calls) == 1 else float(x[0]))

    with pytest.raises(RuntimeError, match="captur"):
        Recording(backend, waits, {"x": x})
    assert to_host(x + 1).tolist() == [2, 2, 2]


def test_the_switch_is_checked(set_variable: SetVariable) -> None:
    gradients, _ = small()
    assert gradients.refusal(5, 4) is None
    set_variable(planner.GRAPH, "0")
    assert gradients.refusal(5, 4) == "GPULSTM_CUDA_GRAPH is 0"
    set_variable(planner.GRAPH, "yes")
    with pytest.raises(ConfigError, match="GPULSTM_CUDA_GRAPH is 'yes', expected 0 or 1"):
        gradients.refusal(5, 4)


def test_the_calls_of_a_warm_training_step() -> None:
    """The table of docs/cuda-engine.md is what the simulator counts; a GPU has no such counters."""
    if not hostgpu.simulated():
        assert planner.FORMS
        return
    lines = child("cuda_counters.py", {"HOSTGPU_NULL": "1"}).splitlines()
    documented = (DOCS / "cuda-engine.md").read_text(encoding="utf-8")
    rows = {}
    for line in lines[2:]:
        form, *numbers = [cell.strip() for cell in line.strip("|").split("|")]
        rows[form] = [int(number) for number in numbers[:-1]]
        counts = line.rsplit("|", 2)[0]
        assert counts in documented, f"docs/cuda-engine.md does not have: {line}"
    assert len(rows) == 9
    for launches, blas, graphs, _, copies, syncs, mallocs in rows.values():
        assert syncs == mallocs == 0  # nothing waits or allocates once it is warm
        if graphs:
            assert launches + blas + graphs + copies <= 12
