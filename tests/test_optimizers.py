"""Optimizers: steps against PyTorch's, CPU against CUDA, clipping, state that survives a save, mistakes named."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paths import GOLDEN_FOLDER
from safetensors import safe_open
from safetensors.numpy import load_file

import gpulstm as gl
from gpulstm import optimizers
from gpulstm.arrays import native
from gpulstm.arrays.backend import Backend
from gpulstm.arrays.devices import resolve, to_host
from gpulstm.arrays.kernel_source import kernel_folder
from gpulstm.arrays.params import ParamDict
from gpulstm.errors import CheckpointError, ConfigError, DTypeError, ShapeError
from gpulstm.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop, clip_scale

FILE = GOLDEN_FOLDER / "optimizers.safetensors"
GOLDEN = load_file(FILE)
with safe_open(FILE, "np") as opened:
    CASES = json.loads(opened.metadata()["cases"])
    RATE = float(opened.metadata()["rate"])
CLASSES = {"sgd": SGD, "rmsprop": RMSprop, "adam": Adam, "adamw": AdamW}


def make(case: str) -> Optimizer:
    """Our optimizer with the options that PyTorch's had."""
    options = dict(CASES[case])
    if "betas" in options:
        options["beta1"], options["beta2"] = options.pop("betas")
    if "eps" in options:
        options["epsilon"] = options.pop("eps")
    return CLASSES[case.split("-")[0]](**options)


def pack(backend: Backend, values: np.ndarray, dtype: str = "float64") -> ParamDict:
    """A vector as two parameters with a gap of alignment between them."""
    params = ParamDict.allocate(backend, {"a": (5,), "b": (values.size - 5,)}, dtype)
    params.load({"a": values[:5], "b": values[5:]})
    return params


def unpack(params: ParamDict) -> np.ndarray:
    return np.concatenate([to_host(params["a"]), to_host(params["b"])])


@pytest.mark.parametrize("case", CASES)
def test_ten_steps_as_in_pytorch(case: str, backend: Backend) -> None:
    params, optimizer = pack(backend, GOLDEN["start"]), make(case)
    optimizer.init(params)
    for grad, expected in zip(GOLDEN["grads"], GOLDEN[case], strict=True):
        grads = pack(backend, grad)
        optimizer.step(params, grads, rate=RATE)
        np.testing.assert_allclose(unpack(params), expected, rtol=1e-12, atol=1e-13)
        np.testing.assert_array_equal(unpack(grads), grad)
    assert not to_host(params.flat)[5:8].any()  # the gap stays zero


@pytest.mark.usefixtures("no_native")
@pytest.mark.parametrize("case", CASES)
def test_ten_steps_without_native_code(case: str) -> None:
    test_ten_steps_as_in_pytorch(case, resolve("cpu"))


@pytest.mark.usefixtures("no_native")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_blocks_and_scale(case: str, dtype: str, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Several blocks give what one gives, and a scale what scaled gradients give, bit for bit."""
    start, grad, cpu = rng.normal(size=100), rng.normal(size=(3, 100)), resolve("cpu")
    results = []
    for block, scale in ((16384, None), (7, None), (7, 0.25)):
        monkeypatch.setattr(optimizers, "BLOCK", block)
        params, optimizer = pack(cpu, start, dtype), make(case)
        optimizer.init(params)
        for g in grad:
            scaled = None if scale is None else np.asarray(scale, dtype)
            optimizer.step(params, pack(cpu, g * 0.25 if scale is None else g, dtype), rate=0.01, scale=scaled)
        results.append(unpack(params))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def walk(case: str, dtype: str, size: int) -> list[np.ndarray]:
    """Weights and moments after five clipped steps."""
    rng, cpu = np.random.default_rng(size), resolve("cpu")
    params, optimizer = pack(cpu, rng.normal(size=size), dtype), make(case)
    optimizer.init(params)
    for _ in range(5):
        optimizer.step(params, pack(cpu, rng.normal(size=size), dtype), rate=0.01, scale=np.asarray(0.3, dtype))
    return [params.flat, *optimizer.arrays().values()]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_native_steps_have_the_bits_of_numpy(case: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On every instruction set of this machine, with tails, and over several of NumPy's blocks."""
    module = native.load()
    assert module is not None
    best = module.instruction_set()
    for size in (6, 1037, 70_001):
        results = {}
        for isa in module.instruction_sets():
            module.use(isa)
            results[isa] = walk(case, dtype, size)
        module.use(best)
        with monkeypatch.context() as patch:
            patch.setattr(native, "load", lambda: None)
            expected = walk(case, dtype, size)
        for isa, ours in results.items():
            for value, reference in zip(ours, expected, strict=True):
                np.testing.assert_array_equal(value, reference, err_msg=f"{isa} {size}")


@pytest.mark.parametrize("case", ["adam", "sgd"])
def test_large_steps_do_not_depend_on_threads(case: str) -> None:
    results = []
    for threads in (1, 2, 3):
        gl.set_num_threads(threads)
        results.append(walk(case, "float32", 1_100_003))  # above the size from which threads are used
    gl.set_num_threads(None)
    for other in results[1:]:
        for value, expected in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(value, expected)


def test_the_native_step_takes_arrays_as_they_are_or_refuses_them() -> None:
    """A converted copy would be changed in place of the caller's array."""
    module = native.load()
    assert module is not None
    w, g = np.ones(10), np.ones(10)
    moments, numbers = [np.zeros(10), np.zeros(10)], (1.0, 0.0, 0.1, 0.9, 0.1, 0.1, 1.0, 1e-8)
    for wrong in (np.ones(20)[::2], np.ones(10, "float32"), np.ones(9)):
        for arguments in ((wrong, g, moments), (w, wrong, moments), (w, g, [wrong, moments[1]])):
            with pytest.raises((TypeError, ValueError)):
                module.step_double("gl_adam<T>", *arguments, 1.0, numbers, 1)
    with pytest.raises(ValueError, match="there is no native step gl_lion<T>"):
        module.step_double("gl_lion<T>", w, g, moments, 1.0, numbers, 1)
    assert (w == 1).all() and not moments[0].any()


@pytest.mark.cuda
@pytest.mark.parametrize("case", CASES)
def test_cuda_equals_cpu(case: str, rng: np.random.Generator) -> None:
    start, grad = rng.normal(size=100), rng.normal(size=(5, 100))
    for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-5)):
        results = {}
        for device in ("cpu", "cuda"):
            backend = resolve(device)
            params, optimizer = pack(backend, start, dtype), make(case)
            optimizer.init(params)
            for g in grad:
                grads = pack(backend, g, dtype)
                norm, scale = clip_scale(grads, 2.0)
                assert backend.owns(scale) and float(norm) > 2
                optimizer.step(params, grads, rate=0.01, scale=scale)
            results[device] = [unpack(params), *(to_host(moment) for moment in optimizer.arrays().values())]
        for ours, theirs in zip(results["cpu"], results["cuda"], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.cuda
def test_a_step_is_one_launch_and_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    backend, launched = resolve("cuda"), []
    make_kernel = type(backend).elementwise

    def counting(self: Backend, name: str, *args: Any, **kwargs: Any) -> Any:
        launched.append(name)
        return make_kernel(self, name, *args, **kwargs)

    params, grads, optimizer = pack(backend, np.ones(50)), pack(backend, np.ones(50)), Adam()
    optimizer.init(params)
    optimizer.step(params, grads, rate=0.1, scale=clip_scale(grads, 1.0)[1])
    monkeypatch.setattr(type(backend), "elementwise", counting)
    if "HOSTGPU" in os.environ:  # the simulator counts what a program asks of the device
        with importlib.import_module("hostgpu").counting() as counted:
            optimizer.step(params, grads, rate=0.1, scale=clip_scale(grads, 1.0)[1])
        assert counted["launches"] == 3  # those below; the sum of the squares is of CUB, a call of a library
        assert counted["sync_stream"] == counted["sync_device"] == counted["sync_implicit"] == 0
    else:
        optimizer.step(params, grads, rate=0.1, scale=clip_scale(grads, 1.0)[1])
    assert launched == ["gpulstm_squares", "gpulstm_clip", "gpulstm_adam"]


@pytest.mark.parametrize("case", CASES)
def test_a_nan_scale_leaves_everything_untouched(case: str, backend: Backend, rng: np.random.Generator) -> None:
    params, optimizer = pack(backend, rng.normal(size=20)), make(case)
    optimizer.init(params)
    optimizer.step(params, pack(backend, rng.normal(size=20)), rate=0.1)
    before = [to_host(params.flat).copy(), *(to_host(moment).copy() for moment in optimizer.arrays().values())]
    nan = backend.from_host(np.asarray(np.nan))
    optimizer.step(params, pack(backend, np.full(20, np.nan)), rate=0.1, scale=nan)
    after = [to_host(params.flat), *(to_host(moment) for moment in optimizer.arrays().values())]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("case", CASES)
def test_state_goes_on_bit_for_bit_and_between_devices(case: str, backend: Backend, rng: np.random.Generator) -> None:
    start, grad = rng.normal(size=30), rng.normal(size=(6, 30))
    params, optimizer = pack(backend, start), make(case)
    optimizer.init(params)
    for g in grad[:3]:
        optimizer.step(params, pack(backend, g), rate=0.1)
    arrays = {name: to_host(moment).copy() for name, moment in optimizer.arrays().items()}
    again, other = pack(backend, unpack(params)), optimizers.from_config(json.loads(json.dumps(optimizer.config())))
    assert type(other) is type(optimizer)
    other.init(again)
    other.restore(arrays, json.loads(json.dumps(optimizer.scalars())))
    for g in grad[3:]:
        optimizer.step(params, pack(backend, g), rate=0.1)
        other.step(again, pack(backend, g), rate=0.1)
    np.testing.assert_array_equal(unpack(params), unpack(again))
    assert other.steps == 6


def test_centered_variance_never_below_zero() -> None:
    """A gradient that stays the same has no variance; rounding must not make it negative and the step NaN."""
    cpu = resolve("cpu")
    params, optimizer = pack(cpu, np.zeros(1000), "float32"), RMSprop(centered=True, alpha=0.9)
    optimizer.init(params)
    grads = pack(cpu, np.random.default_rng(1).normal(size=1000), "float32")
    for _ in range(200):
        optimizer.step(params, grads, rate=1e-9)
    square, average = optimizer.arrays()["square"], optimizer.arrays()["average"]
    assert (square - average * average < 0).any()  # rounding does take some below zero
    assert np.isfinite(params.flat).all()


def test_norm_and_scale(backend: Backend) -> None:
    grads = pack(backend, GOLDEN["grads"].ravel())
    norm, scale = clip_scale(grads, 1.5)
    assert norm.shape == scale.shape == () and backend.owns(norm) and backend.owns(scale)
    np.testing.assert_allclose(to_host(norm), GOLDEN["norm"], rtol=1e-13)
    np.testing.assert_allclose(float(norm) * float(scale), 1.5, rtol=1e-13)
    assert float(clip_scale(grads, 1e9)[1]) == 1.0
    assert float(clip_scale(grads)[1]) == 1.0
    assert float(clip_scale(pack(backend, np.zeros(9)), 1.0)[1]) == 1.0
    broken = pack(backend, np.array([1.0] * 8 + [np.inf]))
    assert np.isinf(float(clip_scale(broken, 1.0)[0])) and float(clip_scale(broken, 1.0)[1]) == 1.0
    with pytest.raises(ConfigError, match="max_norm is 0, expected a number above 0"):
        clip_scale(grads, 0)


def test_norm_of_many_is_the_same_every_time(backend: Backend, rng: np.random.Generator) -> None:
    values = rng.normal(size=40_000).astype("float32")
    grads = pack(backend, values, "float32")
    norms = {float(clip_scale(grads)[0]) for _ in range(3)}
    assert len(norms) == 1
    assert norms.pop() == pytest.approx(np.linalg.norm(values.astype(float)), rel=1e-6)


@pytest.mark.usefixtures("no_native")
def test_norm_without_native_code(rng: np.random.Generator) -> None:
    test_norm_and_scale(resolve("cpu"))
    test_norm_of_many_is_the_same_every_time(resolve("cpu"), rng)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_native_norm_is_summed_in_float64_in_one_order(dtype: str, rng: np.random.Generator) -> None:
    module, cpu = native.load(), resolve("cpu")
    assert module is not None
    best = module.instruction_set()
    for size in (5, 37, 65_537, 1_500_000, 5_000_003):
        grads = pack(cpu, rng.normal(size=size), dtype)
        squares, results = module.squares_float if dtype == "float32" else module.squares_double, set()
        for isa in module.instruction_sets():
            module.use(isa)
            results |= {squares(grads.flat, threads) for threads in (1, 2, 3)}
        module.use(best)
        assert len(results) == 1
        exact = np.square(grads.flat.astype(np.longdouble)).sum()
        assert results.pop() == pytest.approx(float(exact), rel=1e-14)
    large = pack(cpu, np.full(9, 1e25), dtype)
    assert float(clip_scale(large, 1.0)[0]) == pytest.approx(3e25, rel=1e-6)  # squares of float32 would overflow


def test_header_compiles_for_the_host(tmp_path: Path) -> None:
    """The header the GPU runs, compiled by g++: ten Adam steps on PyTorch's numbers."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    assert compiler, "this test needs a C++ compiler, as the simulator does"
    numbers = [GOLDEN["start"][3], *GOLDEN["grads"][:, 3]]
    source = tmp_path / "adam.cpp"
    source.write_text(
        '#include "equations/optimizers.h"\n#include <cstdio>\nint main() {\n'
        f"  double w = {numbers[0]!r}, m = 0, v = 0, g[10] = {{{', '.join(repr(float(x)) for x in numbers[1:])}}};\n"
        "  for (int t = 1; t <= 10; ++t) {\n"
        f"    gl_adam(w, m, v, g[t - 1], 1.0, 0.0, 1 - 0.9, 0.999, 1 - 0.999, {RATE!r} / (1 - std::pow(0.9, t)),\n"
        "            std::sqrt(1 - std::pow(0.999, t)), 1e-8);\n"
        '    std::printf("%.17g\\n", w);\n  }\n}\n'.replace("np.float64", ""),
        encoding="utf-8",
    )
    program = tmp_path / "adam"
    command = [compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function"]
    subprocess.run([*command, f"-I{kernel_folder()}", str(source), "-o", str(program)], check=True)
    printed = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    np.testing.assert_allclose([float(x) for x in printed.split()], GOLDEN["adam"][:, 3], rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(momentum=1.0), "momentum is 1.0, expected a finite number at least 0 and below 1"),
        (lambda: SGD(nesterov=True), "nesterov is True but momentum is 0"),
        (lambda: SGD(nesterov=1, momentum=0.5), "nesterov is 1, expected True or False"),
        (lambda: SGD(weight_decay=-0.1), "weight_decay is -0.1"),
        (lambda: RMSprop(alpha=1.2), "alpha is 1.2"),
        (lambda: RMSprop(epsilon=0), "epsilon is 0, expected a finite number above 0"),
        (lambda: Adam(beta1=1), "beta1 is 1"),
        (lambda: Adam(beta2=-0.1), "beta2 is -0.1"),
        (lambda: AdamW(weight_decay=float("inf")), "weight_decay is inf"),
        (lambda: optimizers.from_config({"name": "lion"}), "optimizer is 'lion', expected one of: sgd, rmsprop"),
        (lambda: optimizers.from_config({"name": "adam", "steps": 3}), "optimizer 'adam' has no option 'steps'"),
    ],
)
def test_bad_options(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_bad_calls() -> None:
    cpu = resolve("cpu")
    params, grads = pack(cpu, np.ones(10)), pack(cpu, np.ones(10))
    with pytest.raises(ConfigError, match="does not know its parameters yet"):
        SGD().step(params, grads, rate=0.1)
    optimizer = Adam()
    optimizer.init(params)
    for rate in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=f"rate is {rate}"):
            optimizer.step(params, grads, rate=rate)
    with pytest.raises(ShapeError, match=r"grads is float64 .* expected float64"):
        optimizer.step(params, pack(cpu, np.ones(30)), rate=0.1)
    with pytest.raises(ShapeError, match="grads is float32"):
        optimizer.step(params, pack(cpu, np.ones(10), "float32"), rate=0.1)
    with pytest.raises(DTypeError, match="parameters have dtype float16"):
        optimizer.init(pack(cpu, np.ones(10), "float16"))
    assert optimizer.steps == 0


def test_state_of_another_optimizer_or_model_is_refused() -> None:
    cpu = resolve("cpu")
    adam, sgd, small = Adam(), SGD(momentum=0.5), Adam()
    adam.init(pack(cpu, np.ones(10)))
    sgd.init(pack(cpu, np.ones(10)))
    small.init(pack(cpu, np.ones(50)))
    with pytest.raises(CheckpointError, match=r"'adam' keeps \['mean', 'square'\], the checkpoint has \['velocity'\]"):
        adam.restore(sgd.arrays(), sgd.scalars())
    with pytest.raises(CheckpointError, match="it belongs to another model"):
        adam.restore(small.arrays(), small.scalars())
    with pytest.raises(CheckpointError, match="count of optimizer steps is -1"):
        adam.restore(adam.arrays(), {"steps": -1})
