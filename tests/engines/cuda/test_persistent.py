"""The persistent kernel where a launch may not run for long."""

from __future__ import annotations

import os
import subprocess
import sys

import cuda_forms
import numpy as np
import pytest
from variables import SetVariable

import gpulstm as gl
import hostgpu
from gpulstm.arrays.devices import resolve, to_host
from gpulstm.engines.cuda import persistent, planner
from gpulstm.engines.dispatch import choose
from gpulstm.engines.spec import Call, StackSpec
from gpulstm.errors import EngineError

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


@pytest.mark.cuda
def test_the_persistent_form_says_why_it_declines(set_variable: SetVariable) -> None:
    set_variable(planner.FORM, "persistent")
    for options, why in (
        ({"dtype": "float64"}, "the persistent kernel has no float64"),
        ({"hidden_size": 60000}, "needs 1875 blocks of 32 units at once"),
    ):
        layer = StackSpec(**{"cell": "lstm", "input_size": 2, "hidden_size": 8, **options})  # type: ignore[arg-type]
        call = Call(layer, "cuda:0", 4, 3)
        with pytest.raises(EngineError, match=f"GPULSTM_CUDA_FORM is 'persistent', but .*{why}"):
            choose(call, "cuda")
        assert why in str(choose(call).refused)  # what `explain` prints


H100, A100, RTX4090, T4 = (132, 232448, 65536), (108, 166912, 65536), (128, 101376, 65536), (40, 65536, 65536)


@pytest.mark.parametrize(
    ("dtype", "batch", "hidden", "card", "expected"),
    [
        ("float32", 64, 256, H100, (8, 32, 4, 1.0)),  # four groups of 32 blocks
        ("float32", 1, 1024, H100, (8, 128, 1, 1.0)),
        ("float32", 64, 1024, RTX4090, (8, 128, 1, 1.0)),  # 16 MiB of weights, all in registers
        ("float32", 64, 1536, H100, (12, 128, 1, 0.4)),  # 36 MiB, in registers and shared memory
        ("float32", 64, 1024, A100, (12, 86, 1, 0.6)),
        ("float16", 16, 1024, H100, (16, 64, 1, 1.0)),
        ("float16", 64, 1024, H100, (16, 64, 2, 0.75)),  # two tiles of rows need registers of their own
        ("float16", 64, 2048, H100, (16, 128, 1, 0.4)),  # 32 MiB of half the size
        ("TF32", 64, 1024, H100, (16, 64, 2, 0.4)),
        ("TF32", 64, 1536, H100, (12, 128, 1, 0.4)),  # does not fit in fragments, and need not be TF32
        ("float16", 16, 640, T4, (16, 40, 1, 1.0)),
        ("float32", 64, 2048, H100, "bytes of shared memory besides 131072 of registers, the card has 232448"),
        ("float32", 64, 1024, T4, "shared memory"),
        ("float32", 64, 256, (4, 232448, 65536), "needs 8 blocks of 32 units at once, the card has 4"),
        ("float16", 64, 256, (4, 232448, 65536), "at once, the card has 4"),
        ("float32", 1, 1024, (132, 101376, 32768), "bytes of shared memory, the card has 101376"),
    ],
)
def test_where_the_weights_stay(
    dtype: str, batch: int, hidden: int, card: tuple[int, int, int], expected: object
) -> None:
    kind, tensor = dtype.replace("TF32", "float32"), dtype != "float32"
    results = persistent.layout("lstm", kind, batch, hidden, *card, tensor)
    if isinstance(expected, str):
        assert isinstance(results, str)
        assert expected in results
        return
    assert isinstance(results, persistent.Layout)
    units, panels, groups, held = expected  # type: ignore[misc]
    assert (results.units, results.panels, results.groups) == (units, panels, groups)
    assert min(results.forward.share, results.backward.share) == pytest.approx(held, abs=0.1)
    assert max(results.forward.bytes, results.backward.bytes) <= card[1]
    assert results.panels * results.groups <= card[0]
    assert results.forward.tensor == results.backward.tensor == (tensor and units >= 16)
    for product, inner in ((results.forward, hidden), (results.backward, 4 * hidden)):
        spare = product.bytes - product.work
        held_bytes = product.held * product.depth * product.columns * product.size
        assert held_bytes <= 4 * persistent.WEIGHTS * product.threads
        assert held_bytes + spare >= inner * product.columns * product.size  # all weights are somewhere
    assert ("in registers, the rest" in str(results)) == (held < 1)


@pytest.mark.cuda
def test_a_grid_that_does_not_fit_is_refused_before_it_is_launched() -> None:
    backend = resolve("cuda")
    shape = persistent.shape(8, 32, 256, 4, 65536, False)
    macros = (("GL_T", "float"), ("GL_R", "float"), ("GL_CELL", "0"), *shape.macros)
    with pytest.raises(EngineError, match=r"needs 1000000 blocks at once and .* holds \d+"):
        persistent._compiled(backend, macros, "gpulstm_forward_all", 256, 4096, 1000000)


SHRUNK = """
import numpy as np
import gpulstm
from gpulstm.engines.cuda import persistent, planner
from gpulstm.arrays.devices import resolve, to_host
launch = persistent._compiled
def fewer(*args):
    kernel = launch(*args)
    return lambda grid, *rest, **more: kernel((grid[0] - 1,), *rest, **more)  # as CuPy does where it is too large
persistent._compiled = fewer
backend = resolve("cuda")
layer = gpulstm.LSTM(2, 16, device="cuda")
layer(backend.xp.ones((2, 3, 2), "f"))
backend.synchronize()
"""


@pytest.mark.cuda
def test_a_grid_that_came_out_smaller_stops_instead_of_computing_a_part() -> None:
    """In a process of its own: a kernel that stops so leaves the device unusable."""
    run = subprocess.run(
        [sys.executable, "-c", SHRUNK], capture_output=True, text=True, env={**os.environ, planner.FORM: "persistent"}
    )
    assert run.returncode != 0
    assert "CUDA" in run.stderr and "Error" in run.stderr


@pytest.mark.cuda
def test_layers_of_several_sizes_share_a_persistent_kernel(set_variable: SetVariable) -> None:
    """What one size asks of the kernel, its shared memory above all, must not stand in the way of another."""
    set_variable(planner.FORM, "persistent")
    ones = resolve("cuda").xp.ones
    layers = [gl.LSTM(2, size, device="cuda", seed=1) for size in (24, 8, 24)]
    outputs = [layer(ones((3, 2, 2), "f"))[0] for layer in layers]
    assert to_host(outputs[0]).tobytes() == to_host(outputs[2]).tobytes()


@pytest.mark.cuda
@pytest.mark.parametrize("case", list(cuda_forms.cases("persistent")), ids=str)
def test_it_equals_the_reference_and_repeats_bit_for_bit(case: cuda_forms.Case) -> None:
    cuda_forms.check(case)
