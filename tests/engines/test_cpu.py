"""The CPU engine against the reference: every option it supports, every instruction set, any number of threads."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import tracemalloc
from typing import Any

import numpy as np
import pytest
from cpu_runs import DTYPES, both, run
from stacks import WITH_RELU

import gpulstm as gl
from gpulstm.arrays import native
from gpulstm.engines import cpu
from gpulstm.errors import ConfigError, ShapeError

# T, B, I, H: tails in every direction, one row, more rows than a chunk, K longer than a block, T of 0 and 1
SHAPES = [(5, 3, 4, 7), (7, 1, 3, 40), (4, 13, 9, 33), (2, 101, 20, 16), (3, 8, 150, 70), (1, 2, 1, 1), (0, 4, 3, 5)]


@pytest.fixture(autouse=True)
def _default_threads() -> Any:
    yield
    gl.set_num_threads(None)
    cpu.split = "automatic"


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cell", WITH_RELU)
def test_it_agrees_with_the_reference(cell: str, shape: tuple[int, ...], dtype: str) -> None:
    both(cell, shape, dtype)


@pytest.mark.parametrize("cell", WITH_RELU)
def test_it_agrees_where_products_go_through_the_caches_in_parts(cell: str) -> None:
    both(cell, (3, 40, 900, 420), "float32")  # K of several blocks, columns of several groups, rows of tiles


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("lengths", [False, True], ids=["whole", "lengths"])
@pytest.mark.parametrize("cell", WITH_RELU)
def test_all_layers_at_once_give_the_bits_of_one_after_another(cell: str, lengths: bool, dtype: str) -> None:
    rng = np.random.default_rng(6)
    for steps, batch, hidden, layers in [(70, 1, 40, 3), (33, 4, 70, 2), (17, 3, 16, 5), (9, 20, 33, 2), (1, 2, 64, 2)]:
        x = rng.standard_normal((steps, batch, 11)).astype(dtype)
        rows = rng.integers(0, steps + 1, batch) if lengths else None
        results = []
        for threads in (1, 2, 3, 8):
            gl.set_num_threads(threads)
            model = WITH_RELU[cell](11, hidden, layers, dtype=dtype, device="cpu", engine="cpu", seed=1)
            y, state = model(x, None, rows)
            results.append([y, *np.atleast_1d(state)])
            y, state, _ = model.forward(x, None, rows)  # with a tape: layer by layer
            results.append([y, *np.atleast_1d(state)])
        for other in results[1:]:
            for result, expected in zip(other, results[0], strict=True):
                assert np.array_equal(result, expected)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_layers_at_once_read_what_is_there_where_caches_are_small(dtype: str) -> None:
    """A second-level cache of 256 KiB holds the input's products of 12 steps, and layers follow one another by 16."""
    module = native.load()
    assert module is not None
    before = module.caches()
    module.give_caches(32 << 10, 256 << 10, 8 << 20)
    try:
        model = gl.LSTM(11, 70 if dtype == "float32" else 50, 4, dtype=dtype, device="cpu", engine="cpu", seed=1)
        inputs = np.random.default_rng(0).standard_normal((5, 100, 4, 11)).astype(dtype)
        gl.set_num_threads(1)
        expected = [model(x)[0] for x in inputs]
        for threads in (2, 3):
            gl.set_num_threads(threads)
            for _ in range(3):  # other inputs each time: what an earlier call left is not what belongs there
                for x, y in zip(inputs, expected, strict=True):
                    assert np.array_equal(model(x)[0], y)
    finally:
        module.give_caches(*before[:3])


def test_products_in_parts_are_as_accurate_as_float_ones() -> None:
    # against float64; the bound is what the reference's float32 products leave, and the engine's may not be worse
    shape = (20, 48, 200, 160)
    exact = run(gl.LSTM(200, 160, device="cpu", dtype="float64", engine="reference", seed=2), shape)
    errors = []
    for engine in ("cpu", "reference"):
        model = gl.LSTM(200, 160, device="cpu", engine=engine, seed=2)
        results = run(model, shape)
        errors.append({n: np.linalg.norm(results[n] - v) / np.linalg.norm(v) for n, v in exact.items()})
    for name in exact:
        assert errors[0][name] <= 1.5 * errors[1][name], (name, errors[0][name], errors[1][name])


def test_infinities_and_the_largest_numbers_saturate() -> None:
    big = np.array([np.inf, -np.inf, 3.4e38, -3.4e38, 1e30, -1e30], np.float32)
    model = gl.RNN(1, 3, device="cpu", bias=False, engine="cpu")
    model.params.load({"W_x_l0": np.full((1, 3), 2.0), "W_h_l0": np.zeros((3, 3))})
    for batch in (1, 20):
        y, _ = model(np.repeat(big, batch).reshape(len(big), batch, 1))
        assert np.allclose(y, np.sign(big)[:, None, None], rtol=0, atol=1e-6)


def test_arrays_outlive_what_made_them() -> None:
    model = gl.LSTM(16, 64, device="cpu", engine="cpu")
    x = np.random.default_rng(0).standard_normal((100, 16, 16)).astype("float32")
    y = model(x)[0]
    kept, view = y.copy(), y[50:, 3]
    expected = view.copy()
    for _ in range(5):  # others come and go in the same memory
        assert np.array_equal(model(x[::-1])[0][-1].shape, y[-1].shape)
    assert np.array_equal(y, kept)
    del y
    for _ in range(5):
        model(x * 2)
    assert np.array_equal(view, expected)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 2, "dropout": 0.3},
        {"bidirectional": True},
        {"recurrent_dropout": 0.4},
        {"bias": False},
        {"num_layers": 2, "bidirectional": True, "dropout": 0.2, "recurrent_dropout": 0.2},
    ],
    ids=lambda options: "-".join(options),
)
@pytest.mark.parametrize("lengths", [False, True], ids=["whole", "lengths"])
@pytest.mark.parametrize("cell", WITH_RELU)
def test_every_option_agrees_with_the_reference(cell: str, lengths: bool, options: Any, dtype: str) -> None:
    both(cell, (6, 9, 5, 19), dtype, lengths=lengths, **options)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("hidden", [*range(1, 18), 20, 21, 24, 25])
def test_units_that_fill_a_part_of_a_register(hidden: int, dtype: str) -> None:
    for batch in (7, 9):  # with more rows the last panel may be narrow, down to one register of four
        both("lstm", (4, batch, 5, hidden), dtype, lengths=True)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("cell", WITH_RELU)
def test_results_do_not_depend_on_threads_or_on_how_the_work_is_split(cell: str, dtype: str) -> None:
    for shape, lengths in [
        ((5, 1, 6, 70), False),
        ((4, 14, 40, 130), True),
        ((4, 9, 5, 67), False),
        ((3, 3, 5, 20), False),
    ]:
        results = []
        for threads, split in [(1, "automatic"), *itertools.product((1, 2, 3, 4), ("rows", "units"))]:
            gl.set_num_threads(threads)
            cpu.split = split
            model = WITH_RELU[cell](shape[2], shape[3], dtype=dtype, device="cpu", bidirectional=True, engine="cpu")
            results.append(run(model, shape, lengths=lengths))
        for other in results[1:]:
            for name, value in results[0].items():
                assert np.array_equal(other[name], value), (shape, name)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("batch", "hidden"), [(1, 21), (5, 48), (1, 800)])
@pytest.mark.parametrize("cell", WITH_RELU)
def test_a_stream_gives_the_bits_of_the_whole_sequence(cell: str, batch: int, hidden: int, dtype: str) -> None:
    model = WITH_RELU[cell](6, hidden, num_layers=3, dtype=dtype, device="cpu", engine="cpu")
    x = np.random.default_rng(4).standard_normal((7, batch, 6)).astype(dtype)
    y, state = model(x)
    step = model.stream(batch)
    assert np.array_equal(np.stack([step(x_t) for x_t in x]), y)
    for results, expected in zip(np.atleast_1d(step.state), np.atleast_1d(state), strict=True):
        assert np.array_equal(results, expected)
    half = model(x[:4])[1]
    step.reset()
    step.state = half
    out = np.empty((batch, hidden), dtype)
    for x_t, y_t in zip(x[4:], y[4:], strict=True):
        assert step(x_t, out=out) is out
        assert np.array_equal(out, y_t)


def test_a_step_allocates_nothing() -> None:
    step = gl.LSTM(8, 128, 2, device="cpu", engine="cpu").stream(1)
    x, out = np.ones((1, 8), np.float32), np.empty((1, 128), np.float32)
    for _ in range(10):
        step(x, out=out)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in range(1000):
            step(x, out=out)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1024  # of 1000 steps: nothing is left, and
    assert peak - before < 2048  # no array of theirs was ever there besides x and out


def test_a_stream_refuses_an_out_that_does_not_fit() -> None:
    step = gl.LSTM(8, 8, device="cpu", engine="cpu").stream(2)
    x = np.ones((2, 8), np.float32)
    wrong = (np.empty((2, 9), np.float32), np.empty((2, 8)), [0.0], x, np.empty((8, 2), np.float32).T)
    for out in wrong:
        with pytest.raises(ShapeError, match="out"):
            step(x, out=out)


@pytest.mark.parametrize("outputs", ["all", "last"])
@pytest.mark.parametrize("ends", [False, True], ids=["whole", "lengths"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", WITH_RELU)
def test_a_sequence_in_segments_gives_the_same_bits(cell: str, reverse: bool, ends: bool, outputs: str) -> None:
    rng = np.random.default_rng(2)
    x, dy = (rng.standard_normal((11, 300, size)).astype("float32") for size in (5, 21 * (1 + reverse)))
    lengths = rng.integers(0, 12, 300) if ends else None
    dy = dy[0] if outputs == "last" else dy
    assert cpu.block_steps(300) == 3
    results = []
    for memory in (None, "sqrt"):
        model = WITH_RELU[cell](
            5, 21, num_layers=2, bidirectional=reverse, dropout=0.2, recurrent_dropout=0.2, device="cpu", engine="cpu"
        )
        y, state, tape = model.forward(x, None, lengths, memory=memory, outputs=outputs)
        dx, dstate, grads = model.backward(tape, dy, state)
        results.append([y, dx, grads.flat, *(np.stack(each) for each in (state, dstate))])
    for whole, cut in zip(*results, strict=True):
        assert np.array_equal(whole, cut)


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512", "amx"])
def test_every_instruction_set_of_this_machine_agrees(isa: str) -> None:
    sets = cpu._module().instruction_sets()
    code = (
        "import itertools, sys; sys.path[:0] = ['tests/engines', 'tests/helpers']\n"
        "import test_cpu as t, test_cpu_variant as v\n"
        "assert t.cpu._module().instruction_set() == sys.argv[1]\n"
        "for cell, dtype in itertools.product(t.WITH_RELU, t.DTYPES):\n"
        "    for shape in t.SHAPES: t.both(cell, shape, dtype)\n"
        "    t.both(cell, (6, 9, 5, 19), dtype, lengths=True, bidirectional=True, recurrent_dropout=0.3)\n"
        "for cell, options in v.VARIANTS: t.both(cell, (6, 9, 5, 19), 'float32', lengths=True, **options)\n"
    )
    environment = {**os.environ, native.VARIABLE: isa}
    done = subprocess.run([sys.executable, "-c", code, isa], env=environment, capture_output=True, text=True)
    if isa in sets:
        assert done.returncode == 0, done.stderr
    else:
        assert f"{native.VARIABLE} is '{isa}'" in done.stderr


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_activations_are_accurate_over_their_whole_range(dtype: str) -> None:
    # an RNN of H units without recurrence and bias is tanh of its input
    values = np.concatenate([np.linspace(-30, 30, 40001), np.logspace(-30, 1, 4001), [0.0, -0.0, np.inf, -np.inf]])
    model = gl.RNN(1, 1, dtype=dtype, device="cpu", bias=False, engine="cpu")
    model.params.load({"W_x_l0": np.ones((1, 1)), "W_h_l0": np.zeros((1, 1))})
    x = values.astype(dtype)
    y, _ = model(x.reshape(1, -1, 1))
    exact = np.tanh(x.astype(np.float64))
    ulp = np.spacing(np.maximum(np.abs(exact), np.finfo(dtype).tiny).astype(dtype)).astype(np.float64)
    assert (np.abs(y.ravel() - exact) <= 7 * ulp).all()
    assert (np.abs(y) <= 1).all()


def test_gradients_fade_to_zero_and_the_thread_is_left_as_it_was() -> None:
    model = gl.RNN(3, 20, device="cpu", engine="cpu", seed=1)
    model.params["W_h_l0"] *= 0.3
    for batch in (2, 20):
        x = np.random.default_rng(0).standard_normal((400, batch, 3)).astype("float32")
        y, _, tape = model.forward(x, outputs="last")
        dx, _, _ = model.backward(tape, np.ones_like(y))
        assert (dx[0] == 0).all() and (dx[-1] != 0).any()
        assert (np.abs(dx[dx != 0]) >= np.finfo("float32").tiny).all()  # the slow numbers in between are not there
        assert np.float32(1e-38) * np.float32(0.01) != 0


def test_a_nan_stays_one() -> None:
    for cell, dtype in itertools.product(("lstm", "gru", "rnn"), DTYPES):
        model = WITH_RELU[cell](2, 5, dtype=dtype, device="cpu", engine="cpu")
        x = np.zeros((3, 2, 2), dtype)
        x[1, 1, 0] = np.nan
        y, _ = model(x)
        assert np.isfinite(y[:, 0]).all()
        assert np.isfinite(y[0]).all()
        assert np.isnan(y[1:, 1]).all()


def test_several_python_threads_at_once_get_their_own_results() -> None:
    gl.set_num_threads(3)
    shape = (20, 6, 8, 48)
    models = [gl.LSTM(8, 48, device="cpu", seed=seed, engine="cpu") for seed in range(4)]
    alone = [run(model, shape, seed=index) for index, model in enumerate(models)]
    wrong: list[object] = []

    def work(index: int) -> None:
        for _ in range(30):
            again = run(models[index], shape, seed=index)
            wrong.extend(
                (index, name) for name, value in alone[index].items() if not np.array_equal(again[name], value)
            )

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_child_of_a_fork_computes_the_same() -> None:
    code = (
        "import os, sys, hashlib, numpy as np, gpulstm as gl\n"
        "gl.set_num_threads(3)\n"
        "model = gl.LSTM(16, 96, device='cpu', engine='cpu')\n"
        "x = np.random.default_rng(0).standard_normal((30, 48, 16)).astype('float32')\n"
        "def digest(): return hashlib.sha256(model(x)[0].tobytes()).hexdigest().encode()\n"
        "before = digest()\n"
        "read, write = os.pipe()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os.write(write, digest()); os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert os.read(read, 64) == before == digest()\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def test_a_tape_can_be_used_again_and_gradients_are_added_to() -> None:
    model = gl.LSTM(3, 9, device="cpu", dtype="float64", engine="cpu")
    x = np.random.default_rng(1).standard_normal((4, 5, 3))
    y, _, tape = model.forward(x)
    _, _, once = model.backward(tape, np.ones_like(y))
    _, _, twice = model.backward(tape, np.ones_like(y), grads=model.backward(tape, np.ones_like(y))[2])
    for name, value in once.items():
        assert np.allclose(twice[name], 2 * value, rtol=1e-13, atol=0)


def test_it_is_the_default_on_the_cpu() -> None:
    for options in ({}, {"peepholes": True}, {"zoneout": 0.1}, {"clip": 1.0}):
        assert gl.LSTM(3, 4, device="cpu", **options).explain(5, 2).engine is cpu


def test_the_number_of_threads_can_be_set_and_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    gl.set_num_threads(3)
    assert gl.get_num_threads() == 3
    for wrong in (0, -1, 1.5, True, "2"):
        with pytest.raises(ConfigError, match="count is"):
            gl.set_num_threads(wrong)  # type: ignore[arg-type]
    gl.set_num_threads(None)
    monkeypatch.setenv("GPULSTM_NUM_THREADS", "5")
    assert gl.get_num_threads() == 5
    gl.set_num_threads(None)
    monkeypatch.setenv("GPULSTM_NUM_THREADS", "many")
    with pytest.raises(ConfigError, match="GPULSTM_NUM_THREADS is 'many'"):
        gl.get_num_threads()
