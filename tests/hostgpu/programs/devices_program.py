"""A program for two CUDA devices: a stack on each gives the same numbers, and arrays of the other one are refused.

HOSTGPU_DEVICES=2 tests/hostgpu/hostgpu python tests/hostgpu/programs/devices_program.py
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

import gpulstm as gl
from gpulstm.arrays.cupy_backend import device_count
from gpulstm.arrays.devices import resolve, to_device, to_host
from gpulstm.engines.spec import StackSpec
from gpulstm.errors import DeviceError
from gpulstm.losses import MSE
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.model.stack import Recurrent
from gpulstm.optimizers import Adam
from gpulstm.training.gradients import GradientPass
from gpulstm.training.mixed_precision import LossScale, masters


def results(stack: Recurrent, x: np.ndarray) -> list[np.ndarray]:
    """A training pass and a streamed step; every array must live on the stack's device."""
    backend, here = stack.backend, to_device(x, stack.backend)
    for _ in range(3):  # piece by piece, recorded as a graph, replayed
        stack.calls = 0
        y, state, tape = stack.forward(here, lengths=[3, 5, 0])
    dx, dstate, grads = stack.backward(tape, y)
    streamed = stack.stream(3)(here[0])
    results = [y, *state, dx, *dstate, grads.flat, streamed]
    assert all(backend.owns(value) for value in results)
    return [to_host(value) for value in results]


def passes(device: str, dtype: str, x: np.ndarray) -> list[float]:
    """The losses of training steps: piece by piece, recorded as a graph, replayed."""
    network = Network(NetworkConfig(StackSpec("lstm", 2, 4, 2, dtype=dtype)), device=device, seed=1)
    half = dtype == "float16"
    weights = masters(network.params) if half else network.params
    scale, optimizer = LossScale(network.backend) if half else None, Adam()
    optimizer.init(weights)
    gradients = GradientPass(network, MSE(), weights.like(), scale=scale)
    data, target = (to_device(value.astype("f"), device) for value in (x, x[0, :, :1, None]))
    results = []
    for _ in range(4):
        result = gradients(data, target)
        optimizer.step(weights, gradients.grads, rate=0.1, scale=result.scale)
        if scale is not None:
            scale.move(result.scale)
            network.params.load(weights)
        results.append(float(result.value))
    return results


def refused(call: Callable[[], Any], pattern: str) -> None:
    """The call raises `DeviceError` with these words."""
    message = "nothing was raised"
    try:
        call()
    except DeviceError as error:
        message = str(error)
    assert re.search(pattern, message), f"{message!r} does not say {pattern!r}"


def main() -> None:
    assert device_count() == 2
    cupy = resolve("cuda").xp
    x = np.random.default_rng(0).normal(size=(5, 3, 2))
    options: dict[str, Any] = {"bidirectional": False, "dropout": 0.4, "zoneout": 0.2, "recurrent_dropout": 0.3}
    for special in ({}, {"layer_norm": True}):  # the CUDA engine, and the reference on CuPy
        stacks = [gl.LSTM(2, 4, 2, dtype="float64", device=f"cuda:{n}", **options, **special) for n in (0, 1)]
        first, second = (results(stack, x) for stack in stacks)
        assert cupy.cuda.Device().id == 0  # the current device is the caller's again
        for one, other in zip(first, second, strict=True):
            np.testing.assert_array_equal(one, other)
        host = gl.LSTM(2, 4, 2, dtype="float64", device="cpu", **options, **special)
        for one, other in zip(first, results(host, x), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)

    for dtype in ("float32", "float16"):  # passes on the device that is not the current one
        losses = [passes(f"cuda:{number}", dtype, x) for number in (0, 1)]
        assert losses[0] == losses[1] and np.isfinite(losses[0]).all()
        assert cupy.cuda.Device().id == 0

    zero, one = (gl.LSTM(2, 4, device=f"cuda:{n}") for n in (0, 1))
    on_second, wrong = to_device(x, "cuda:1"), to_device(x, "cuda:0")
    for _ in range(3):  # what is refused, is refused whether or not the shape was recorded
        one(on_second), zero(wrong)
    refused(lambda: one.stream(3)(wrong[0]), "^x lives on cuda:0 but the model is on cuda:1")
    refused(
        lambda: one.stream(3)(on_second[0], to_device(np.zeros((3, 4), "f"), "cuda:0")),
        "^out lives on cuda:0 but the model is on cuda:1",
    )
    refused(lambda: one(wrong), "^x lives on cuda:0 but the model is on cuda:1")
    refused(lambda: zero(on_second), "^x lives on cuda:1 but the model is on cuda:0")
    refused(lambda: one(x), "^x is a ndarray on the host but the model is on cuda:1.*to_device")
    refused(lambda: gl.LSTM(2, 4, device="cpu")(on_second), "^x lives on cuda:1 but the model is on cpu.*to_host")
    h, c = (to_device(np.zeros((1, 3, 4)), "cuda:1") for _ in range(2))
    refused(lambda: one(on_second, (h, to_device(to_host(c), "cuda:0"))), "^c of state lives on cuda:0")
    refused(lambda: one(on_second, lengths=to_device(np.array([1, 2, 3]), "cuda:0")), "^lengths lives on cuda:0")
    y, _, tape = one.forward(on_second)
    refused(lambda: one.backward(tape, to_device(y, "cuda:0")), "^dy lives on cuda:0 but the model is on cuda:1")
    refused(lambda: one.backward(tape, y, (h, to_device(to_host(c), "cuda:0"))), "^c of dstate lives on cuda:0")
    refused(lambda: one.backward(tape, y, grads=zero.params.like()), "^grads lives on cuda:0")
    refused(lambda: one.params.__setitem__("b_l0", zero.params["b_l0"]), "parameter 'b_l0' .*cuda:0.*cuda:1")
    refused(lambda: gl.LSTM(2, 4, device="cuda:2"), "cuda:0 to cuda:1")
    assert np.isfinite(to_host(y)).all()
    print("ok")


if __name__ == "__main__":
    main()
