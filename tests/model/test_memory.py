"""Segments: the same bits as the whole, in less memory, as predicted."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tracemalloc
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from stacks import CELLS

import gpulstm as gl
from gpulstm.engines import cpu, reference
from gpulstm.engines.cuda import engine as cuda
from gpulstm.engines.spec import Call, StackSpec
from gpulstm.errors import ConfigError
from gpulstm.model.memory import segment_length, training_bytes
from gpulstm.model.scan import cut
from gpulstm.validate import format_bytes, parse_bytes

CASES = [
    ("lstm", {}),
    ("gru", {}),
    ("rnn", {}),
    ("lstm", {"bidirectional": True}),
    ("lstm", {"layer_norm": True}),
    ("lstm", {"proj_size": 32}),
    ("lstm", {"dropout": 0.1, "zoneout": 0.1, "recurrent_dropout": 0.1}),
]


@pytest.mark.parametrize("memory", [None, "sqrt"])
@pytest.mark.parametrize("outputs", ["all", pytest.param("last", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("cell", "options"),
    [pytest.param(*case, marks=[pytest.mark.slow] if case[1] else [], id=f"{case[0]}-{case[1]}") for case in CASES],
)
def test_the_predicted_peak_is_right_within_15_percent(cell: str, options: Any, outputs: str, memory: Any) -> None:
    steps, batch, inputs = 400, 16, 16
    layer = CELLS[cell](inputs, 64, 2, device="cpu", engine="reference", **options)
    x = np.random.default_rng(0).normal(size=(steps, batch, inputs)).astype("float32")
    layer.backward(layer.forward(x[:2])[2], np.zeros((2, batch, layer.spec.output_size)))  # what is made once
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    y, _, tape = layer.forward(x, memory=memory, outputs=outputs)
    _, _, grads = layer.backward(tape, y)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert grads.flat.size
    predicted = layer.explain(steps, batch, training=True, memory=memory, outputs=outputs).memory
    assert 0.85 < predicted / peak < 1.15, (format_bytes(predicted), format_bytes(peak))


RESIDENT = """
import gc, json, sys
import numpy as np
import gpulstm as gl
from gpulstm.engines import cpu

def resident(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name)) * 1024

cell, shape, memory, outputs, options = json.loads(sys.argv[1])
steps, batch, inputs, hidden, layers = shape
make = {"lstm": gl.LSTM, "gru": gl.GRU, "rnn": gl.RNN}[cell]
small = make(1, 1, device="cpu", engine="cpu")
y, _, tape = small.forward(np.zeros((2, 1, 1)))
small.backward(tape, y)
layer = make(inputs, hidden, layers, device="cpu", engine="cpu", **options)
x = np.random.default_rng(0).standard_normal((steps, batch, inputs)).astype(layer.spec.dtype)
dy = np.full((batch, hidden) if outputs == "last" else (steps, batch, hidden), 1e-3, layer.spec.dtype)
plan = layer.explain(steps, batch, training=True, memory=memory, outputs=outputs)
grads = layer.params.like()
gc.collect()
with open("/proc/self/clear_refs", "w") as clear:
    clear.write("5")
start = resident("VmRSS")
for _ in range(2):
    y, _, tape = layer.forward(x, memory=memory, outputs=outputs)
    layer.backward(tape, dy, grads=grads)
    del y, tape
print(json.dumps([plan.memory, resident("VmHWM") - start, cpu._module().instruction_set()]))
"""
STEPS_OF_LAYERS = [
    ("lstm", (250, 32, 16, 256, 2), None, "last", {}),
    ("lstm", (250, 32, 16, 256, 2), "sqrt", "last", {}),
    ("lstm", (1000, 32, 16, 256, 2), "sqrt", "last", {}),
    ("lstm", (1000, 32, 16, 256, 2), "96MiB", "last", {}),
    ("lstm", (4000, 16, 16, 128, 2), "64MiB", "last", {}),
    ("lstm", (600, 32, 16, 256, 2), "96MiB", "all", {}),
    ("lstm", (1000, 8, 64, 128, 3), None, "all", {}),  # too few rows for a matrix unit
    ("lstm", (500, 16, 32, 128, 1), None, "last", {"dtype": "float64"}),
    ("gru", (1000, 32, 16, 128, 2), "40MiB", "last", {}),
    ("rnn", (1000, 48, 16, 192, 2), None, "all", {}),
]


@pytest.mark.parametrize("isa", ["amx", pytest.param("avx512", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "stack",
    [pytest.param(case, marks=[pytest.mark.slow] if case[2] else [], id=str(case)) for case in STEPS_OF_LAYERS],
)
def test_what_a_native_training_step_takes_of_the_machine(stack: Any, isa: str) -> None:
    """The resident set of a process, which a bound is for; of the best instruction set where this one is not there."""
    sets = cpu._module().instruction_sets()
    chosen = isa if isa in sets else sets[-1]
    environment = {**os.environ, "GPULSTM_CPU_ISA": chosen, "GPULSTM_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RESIDENT, json.dumps(stack)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    predicted, peak, used = json.loads(done.stdout)
    assert used == chosen
    assert 0.85 < predicted / peak < 1.15, (format_bytes(predicted), format_bytes(peak))
    if stack[2] not in (None, "sqrt"):
        assert peak < 1.05 * parse_bytes(stack[2]), format_bytes(peak)  # pages besides the arrays are not foreseen


@pytest.mark.cuda
@pytest.mark.slow
@pytest.mark.parametrize("memory", [None, "sqrt"])
@pytest.mark.parametrize("cell", CELLS)
def test_the_predicted_peak_on_cuda(cell: str, memory: Any) -> None:
    import cupy

    steps, batch = 4096, 16
    layer = CELLS[cell](8, 16, 1, device="cuda")
    x = cupy.ones((steps, batch, 8), "float32")
    layer.backward(layer.forward(x[:2], outputs="last")[2], cupy.zeros((batch, 16), "float32"))
    pool, peak = cupy.cuda.MemoryPool(), 0
    with cupy.cuda.using_allocator(pool.malloc):

        class Watch(cupy.cuda.MemoryHook):
            name = "peak"

            def malloc_postprocess(self, **_: Any) -> None:
                nonlocal peak
                peak = max(peak, pool.used_bytes())

        with Watch():
            y, _, tape = layer.forward(x, memory=memory, outputs="last")
            layer.backward(tape, y)
    predicted = layer.explain(steps, batch, training=True, memory=memory, outputs="last").memory
    assert 0.85 < predicted / peak < 1.15, (format_bytes(predicted), format_bytes(peak))


@pytest.mark.parametrize("engine", [reference, cuda])
def test_a_bound_is_kept_and_used(engine: ModuleType) -> None:
    call = Call(StackSpec("lstm", 16, 256, 2), "cpu", 4000, 32, training=True)
    whole = training_bytes(engine, call, cut(4000, 4000), "last")
    bound = whole // 4
    length = segment_length(engine, call, bound, "last")
    assert length % engine.block_steps(32) == 0
    assert training_bytes(engine, call, cut(4000, length), "last") <= bound
    assert segment_length(engine, call, whole, "last") == 4000
    assert segment_length(engine, call, None, "last") == 4000


@pytest.mark.parametrize(
    ("text", "count"),
    [("256MiB", 256 << 20), ("1.5 GB", 1_500_000_000), ("800000", 800_000), (4096, 4096), ("2 kib", 2048)],
)
def test_bytes_are_read(text: Any, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("memory", ["much", "-1", "5 TiBs", "", 0, True, 1.5j])
def test_other_bounds_are_refused(memory: Any) -> None:
    with pytest.raises(ConfigError, match=r"memory is .*, expected a number of bytes, a string like '256MiB'"):
        gl.LSTM(2, 3, device="cpu").forward(np.zeros((4, 1, 2)), memory=memory)


def test_a_bound_that_cannot_be_kept_says_what_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"memory is '1KiB', but a training step of T=4 B=1 needs at least \d"):
        gl.LSTM(2, 3, device="cpu").forward(np.zeros((4, 1, 2)), memory="1KiB")
