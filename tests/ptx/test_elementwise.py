"""Kernels for which CuPy writes the source: the stepwise form, optimizers, clipping, masks and the loss scale.

CuPy is asked for each source on the simulator, see `ptx.cupy_sources`; NVRTC compiles it, the interpreter runs it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import nvrtc
import pytest
from ptx.cases import Case
from ptx.cupy_sources import CupySources
from ptx.device import PtxBackend, installed
from test_engine import judge

from gpulstm.arrays import random
from gpulstm.arrays.devices import resolve
from gpulstm.arrays.kernel_source import SHORT
from gpulstm.arrays.params import ParamDict
from gpulstm.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop, clip_scale
from gpulstm.training.mixed_precision import LossScale

pytestmark = pytest.mark.ptx
SHAPES = {"W": (7, 5), "b": (33,)}


@pytest.mark.parametrize(
    "case",
    [
        Case("stepwise", "lstm", "float32", masks=True, lengths=True, reverse=True),
        Case("stepwise", "gru", "float16", lengths=True),
        Case("stepwise", "rnn", "float64", masks=True, relu=True),
        Case("stepwise", "lstm", "float32", hold=True),
    ],
    ids=str,
)
def test_the_stepwise_form(case: Case, toolkit: nvrtc.Toolkit) -> None:
    judge(case, toolkit)


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_more_of_the_stepwise_form(cell: str, dtype: str, toolkit: nvrtc.Toolkit) -> None:
    judge(Case("stepwise", cell, dtype, (3, 4, 3, 40), reverse=dtype == "float16", masks=dtype == "float32"), toolkit)
    judge(Case("stepwise", cell, dtype, (2, 4, 3, 40), hold=True, lengths=True), toolkit)


def buffers(backend: Any, dtype: str) -> tuple[ParamDict, ParamDict]:
    """(parameters, gradients), the same numbers on every device."""
    rng = np.random.default_rng(5)
    pair = tuple(ParamDict.allocate(backend, SHAPES, dtype) for _ in range(2))
    for params in pair:
        for name, shape in SHAPES.items():
            params[name] = backend.from_host(rng.normal(size=shape).astype(dtype))
    return pair  # type: ignore[return-value]


OPTIMIZERS = {
    "sgd": lambda: SGD(momentum=0.9, nesterov=True, weight_decay=0.01),
    "rmsprop": lambda: RMSprop(momentum=0.5, centered=True),
    "adam": lambda: Adam(weight_decay=0.01),
    "adamw": lambda: AdamW(),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_and_clipping(name: str, dtype: str, toolkit: nvrtc.Toolkit) -> None:
    """Two steps with clipped gradients, against the same steps on the CPU."""
    results = []
    device = PtxBackend(toolkit)
    with installed(device):
        for backend in (device, resolve("cpu")):
            params, grads = buffers(backend, dtype)
            optimizer: Optimizer = OPTIMIZERS[name]()
            optimizer.init(params)
            for _ in range(2):
                norm, scale = clip_scale(grads, 0.5)
                optimizer.step(params, grads, rate=0.01, scale=scale)
            results.append([np.array(params.flat), np.array(norm), *(np.array(v) for v in optimizer.arrays().values())])
    assert not device.faults, str(device.faults)
    for on_device, on_host in zip(*results, strict=True):
        np.testing.assert_allclose(on_device, on_host, rtol=64 * np.finfo(dtype).eps, atol=8 * np.finfo(dtype).eps)


def test_gates_of_16_bits_are_closer_than_their_rounding(toolkit: nvrtc.Toolkit) -> None:
    """tanh and the logistic function of kernels/equations/short.h, everywhere, at infinity and for no number."""
    device = PtxBackend(toolkit)
    values = np.concatenate([np.linspace(-20, 20, 4001), [-np.inf, np.inf, 1e30, -1e30, 0.0, np.nan]]).astype("f4")
    with installed(device):
        kernel = device.elementwise(
            "gpulstm_short",
            "T x",
            "T hyperbolic, T logistic",
            "hyperbolic = gl_tanh(x); logistic = gl_sigmoid(x);",
            headers=(SHORT, "equations/gates.h"),
        )
        hyperbolic, logistic = (np.asarray(part) for part in kernel(device.from_host(values)))
    assert not device.faults, str(device.faults)
    wide = values.astype("f8")
    np.testing.assert_allclose(hyperbolic, np.tanh(wide), rtol=0, atol=5e-7)
    np.testing.assert_allclose(logistic, 0.5 + 0.5 * np.tanh(0.5 * wide), rtol=0, atol=5e-7)


def test_masks_are_the_same_bits(toolkit: nvrtc.Toolkit) -> None:
    key = random.MaskKey(2**40 + 5, 7, 3, random.Purpose.ZONEOUT_H)
    device = PtxBackend(toolkit)
    mask = random.keep_mask(device, 0.3, (3, 5, 21), key, first_step=4)  # type: ignore[arg-type]
    assert not device.faults, str(device.faults)
    np.testing.assert_array_equal(np.asarray(mask), random.keep(np, 0.3, (3, 5, 21), key, 4))


def test_the_loss_scale(toolkit: nvrtc.Toolkit) -> None:
    """An infinite gradient halves the scale and leaves the step out; good steps double it."""
    device = PtxBackend(toolkit)
    scale = LossScale(device, interval=2)  # type: ignore[arg-type]
    first = float(scale.state[0])
    out, halves = device.empty((40,), "f4"), device.from_host(np.full(40, 3, "f2"))
    scale.unscale(halves, out)
    np.testing.assert_array_equal(np.asarray(out), np.float32(3 / first))
    infinite, factor = device.from_host(np.array([np.inf], "f4")), device.from_host(np.array([1], "f4"))
    norm, guarded = scale.guarded(infinite, factor)
    assert float(norm[0]) == 0.0 and np.isnan(guarded[0])
    scale.move(guarded)
    assert float(scale.state[0]) == first / 2
    for _ in range(2):
        scale.move(factor)
    assert np.asarray(scale.state).tolist() == [first, 0.0]
    assert not device.faults, str(device.faults)


def test_nvrtc_is_given_the_options_that_cupy_gives(toolkit: nvrtc.Toolkit) -> None:
    """But for where the headers of CUDA lie; `RawModule` takes "-std=c++17" from this package as it is."""
    CupySources.get("gpulstm_probe", "T a", "T b", "b = a;", "", [np.zeros(1, "f4"), np.zeros(1, "f4")], None)
    ours = toolkit.options("sm_90")
    theirs = [option.replace("--std", "-std") for option in CupySources.options()]
    cuda = [option for option in theirs if option.startswith("-I") and "cupy" not in option]
    assert [option for option in theirs if option not in cuda] == [
        option for option in ours if option != f"-I{toolkit.headers}"
    ]
    assert len(cuda) == 1 and theirs.index(cuda[0]) == ours.index(f"-I{toolkit.headers}")
