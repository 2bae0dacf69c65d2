"""Whole stacks on a CUDA device against the same stacks on the CPU, and how the engine for them is chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from stacks import CELLS
from tolerance import FORWARD, GRADIENT
from variables import SetVariable

import gpulstm as gl
from gpulstm.arrays.backend import Backend
from gpulstm.arrays.devices import resolve, to_device, to_host
from gpulstm.errors import ConfigError, EngineError
from gpulstm.model.stack import Recurrent

STEPS, ROWS, INPUTS, HIDDEN = 5, 4, 3, 6

# What the CUDA engine has no kernel for, and the word of its reason.
UNSUPPORTED: dict[str, tuple[str, dict[str, Any], str]] = {
    "peepholes": ("lstm", {"peepholes": True}, "peepholes"),
    "coupled": ("lstm", {"coupled": True}, "coupled gates"),
    "layer-norm": ("gru", {"layer_norm": True}, "layer_norm"),
    "projection": ("lstm", {"proj_size": 2}, "proj_size"),
    "clip": ("rnn", {"clip": 1.0}, "clip"),
    "reset-before": ("gru", {"reset_after": False}, "reset_after=False"),
}


def run(stack: Recurrent, lengths: Any = None, outputs: str = "all", dtype: str = "float64") -> list[np.ndarray]:
    """Forward and backward on numbers that do not depend on the device; all results on the host."""
    rng, spec, backend = np.random.default_rng(4), stack.spec, stack.backend
    count = spec.num_layers * spec.directions
    x = rng.normal(size=(STEPS, ROWS, INPUTS)).astype(dtype)
    h, dh = (rng.normal(size=(count, ROWS, spec.state_size)).astype(dtype) for _ in range(2))
    c, dc = (rng.normal(size=(count, ROWS, spec.hidden_size)).astype(dtype) for _ in range(2))
    dy = rng.normal(size=(STEPS, ROWS, spec.output_size)).astype(dtype)

    def state(first: np.ndarray, second: np.ndarray) -> Any:
        h = to_device(first, backend)
        return (h, to_device(second, backend)) if spec.has_memory else h

    y, end, tape = stack.forward(to_device(x, backend), state(h, c), lengths, outputs=outputs)
    dy = to_device(dy[0] if outputs == "last" else dy, backend)
    dx, start, grads = stack.backward(tape, dy, state(dh, dc))
    ends, starts = (end, start) if spec.has_memory else ((end,), (start,))
    assert all(backend.owns(value) for value in (y, dx, *ends, *starts, *grads.values()))
    return [to_host(value) for value in (y, *ends, dx, *starts, grads.flat)]


def assert_equal_runs(cell: str, dtype: str = "float64", **options: Any) -> None:
    lengths, outputs = options.pop("lengths", None), options.pop("outputs", "all")
    results, expected = (
        run(CELLS[cell](INPUTS, HIDDEN, dtype=dtype, device=device, seed=9, **options), lengths, outputs, dtype)
        for device in ("cuda", "cpu")
    )
    forward = 1 + (2 if cell == "lstm" else 1)
    for index, (one, other) in enumerate(zip(results, expected, strict=True)):
        assert one.dtype == dtype
        bound = FORWARD[dtype] if index < forward else GRADIENT[dtype]
        assert np.linalg.norm(one - other) <= bound * np.linalg.norm(other), index


@pytest.mark.cuda
@pytest.mark.parametrize("outputs", ["all", "last"])
@pytest.mark.parametrize("lengths", [None, [2, 0, 5, 3]], ids=["full", "lengths"])
@pytest.mark.parametrize("cell", CELLS)
def test_deep_and_in_both_directions(cell: str, lengths: list[int] | None, outputs: str) -> None:
    options = {"num_layers": 3, "bidirectional": True, "dropout": 0.3}
    assert_equal_runs(cell, lengths=lengths, outputs=outputs, **options)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("cell", CELLS)
def test_all_masks_at_once(cell: str, dtype: str) -> None:
    options = {"dropout": 0.3, "recurrent_dropout": 0.2, "zoneout": 0.25, "lengths": [5, 1, 0, 4]}
    assert_equal_runs(cell, dtype, num_layers=2, bidirectional=True, **options)


@pytest.mark.cuda
@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_has_no_kernel_is_served_by_the_reference(name: str) -> None:
    cell, options, word = UNSUPPORTED[name]
    stack = CELLS[cell](INPUTS, HIDDEN, device="cuda", **options)
    plan = str(stack.explain(STEPS, ROWS, training=True))
    assert "engine: reference" in plan
    assert f"not cuda: no kernel for {word}" in plan
    assert_equal_runs(cell, num_layers=2, lengths=[5, 1, 0, 4], **options)
    with pytest.raises(EngineError, match=f"'cuda' was asked for but cannot serve this call: no kernel for {word}"):
        run(CELLS[cell](INPUTS, HIDDEN, dtype="float64", device="cuda", engine="cuda", **options))


@pytest.mark.cuda
def test_several_reasons_are_all_named() -> None:
    stack = gl.LSTM(INPUTS, HIDDEN, device="cuda", peepholes=True, proj_size=2, clip=3.0)
    assert "not cuda: no kernel for peepholes, proj_size, clip" in str(stack.explain(1, 1))


@pytest.mark.cuda
@pytest.mark.parametrize("engine", ["reference", "cuda"])
def test_a_forced_engine_runs(engine: str, set_variable: SetVariable) -> None:
    by_argument = gl.LSTM(INPUTS, HIDDEN, device="cuda", engine=engine)
    assert by_argument.explain(STEPS, ROWS).engine.name == engine
    set_variable("GPULSTM_ENGINE", engine)
    by_variable = gl.LSTM(INPUTS, HIDDEN, device="cuda")
    assert by_variable.explain(STEPS, ROWS).engine.name == engine
    for one, other in zip(run(by_argument, dtype="float32"), run(by_variable, dtype="float32"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_on_the_cpu_the_plan_says_why_not_cuda() -> None:
    layer = gl.GRU(INPUTS, HIDDEN, 2, bidirectional=True, zoneout=0.1, device="cpu")
    lines = str(layer.explain(7, 2)).splitlines()
    assert lines[0] == "GRU  T=7 B=2 I=3 H=6 L=2 D=2  float32 on cpu, inference"
    assert lines[1].startswith("  engine: ")
    assert lines[2] == "  not cuda: the model is on the CPU"


def test_a_forced_engine_that_cannot_serve_is_an_error(set_variable: SetVariable) -> None:
    x = np.zeros((2, 1, INPUTS))
    forced = gl.LSTM(INPUTS, HIDDEN, device="cpu", engine="cuda")
    with pytest.raises(
        EngineError, match="engine 'cuda' was asked for but cannot serve this call: the model is on the"
    ):
        forced(x)
    stack = gl.LSTM(INPUTS, HIDDEN, device="cpu")
    set_variable("GPULSTM_ENGINE", "cuda")
    with pytest.raises(EngineError, match="the model is on the CPU"):
        stack(x)
    set_variable("GPULSTM_ENGINE", "fast")
    with pytest.raises(ConfigError, match="GPULSTM_ENGINE is 'fast', expected one of cuda, cpu, reference"):
        stack(x)
    assert gl.LSTM(INPUTS, HIDDEN, device="cpu", engine="reference")(x)[0].shape == (2, 1, HIDDEN)


@pytest.mark.cuda
def test_lengths_on_the_device_are_bounded_by_the_sequence() -> None:
    """Their values are not looked at, that would wait for the device: beyond T counts as T, below 0 as 0."""
    stack, backend = gl.LSTM(INPUTS, HIDDEN, 2, bidirectional=True, device="cuda"), resolve("cuda")
    for outputs in ("all", "last"):
        beyond = run(stack, backend.from_host(np.array([9, -3, 2, 5])), outputs, "float32")
        stack.calls = 0
        within = run(stack, [5, 0, 2, 5], outputs, "float32")
        for one, other in zip(beyond, within, strict=True):
            np.testing.assert_array_equal(one, other)


# ---- what arrays may be handed in and taken out ------------------------------------------------------------------
class Interface:
    """An object of some other library that knows only `__cuda_array_interface__`."""

    def __init__(self, array: Any) -> None:
        self.held = array  # keeps the memory alive
        self.__cuda_array_interface__ = array.__cuda_array_interface__


class Capsule:
    """An object of some other library that knows only DLPack."""

    def __init__(self, array: Any) -> None:
        self.held = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.held.__dlpack_device__()

    def __dlpack__(self, **options: Any) -> Any:
        return self.held.__dlpack__(**options)


@pytest.mark.cuda
@pytest.mark.parametrize("wrap", [Interface, Capsule])
def test_device_arrays_of_other_libraries_come_in_without_a_copy(wrap: type) -> None:
    stack, backend = gl.LSTM(INPUTS, HIDDEN, device="cuda"), resolve("cuda")
    x = backend.from_host(np.random.default_rng(0).normal(size=(STEPS, ROWS, INPUTS)), "float32")
    taken = backend.asarray(wrap(x), name="x")
    assert taken.data.ptr == x.data.ptr
    np.testing.assert_array_equal(to_host(stack(wrap(x))[0]), to_host(stack(x)[0]))


def test_results_go_out_by_dlpack(backend: Backend) -> None:
    """Outputs and parameters, taken over by the library's own `from_dlpack`, are the same memory."""
    stack = gl.LSTM(INPUTS, HIDDEN, device=backend)
    y, _ = stack(backend.zeros((STEPS, ROWS, INPUTS), "float32"))
    for array in (y, stack.params["W_h_l0"]):
        other = backend.xp.from_dlpack(Capsule(array))
        assert backend.owns(other)
        np.testing.assert_array_equal(to_host(other), to_host(array))
    assert hasattr(y, "__cuda_array_interface__") == backend.is_cuda


def test_host_arrays_come_in_by_dlpack() -> None:
    stack, x = gl.LSTM(INPUTS, HIDDEN, device="cpu"), np.ones((STEPS, ROWS, INPUTS), "float32")
    np.testing.assert_array_equal(stack(Capsule(x))[0], stack(x)[0])
    np.testing.assert_array_equal(stack(x.tolist())[0], stack(x)[0])


@pytest.mark.cuda
def test_views_and_other_dtypes_come_in() -> None:
    """Strided, transposed and integer inputs give what contiguous float32 gives."""
    stack, backend = gl.LSTM(INPUTS, HIDDEN, 2, device="cuda"), resolve("cuda")
    x = backend.from_host(np.arange(STEPS * ROWS * INPUTS).reshape(ROWS, STEPS, INPUTS) % 7)
    plain = backend.xp.ascontiguousarray(x.transpose(1, 0, 2)).astype("float32")
    expected = to_host(stack(plain)[0])
    np.testing.assert_array_equal(to_host(stack(x.transpose(1, 0, 2))[0]), expected)
    np.testing.assert_array_equal(to_host(stack(x.astype("float64").transpose(1, 0, 2))[0]), expected)
    _, _, tape = stack.forward(x.transpose(1, 0, 2))
    dy = backend.xp.ones((ROWS, STEPS, HIDDEN)).transpose(1, 0, 2)
    one = stack.backward(tape, dy)[2].flat
    other = stack.backward(tape, backend.xp.ones((STEPS, ROWS, HIDDEN), "float32"))[2].flat
    np.testing.assert_array_equal(to_host(one), to_host(other))


def test_an_engine_result_is_not_changed_by_the_next_call(backend: Backend) -> None:
    """No buffer is handed out twice: outputs and tapes of one call outlive another."""
    stack = gl.LSTM(INPUTS, HIDDEN, 2, device=backend)
    rng = np.random.default_rng(2)
    first, second = (to_device(rng.normal(size=(STEPS, ROWS, INPUTS)), backend) for _ in range(2))
    y, state, tape = stack.forward(first)
    kept = [to_host(value).copy() for value in (y, *state)]
    grads = to_host(stack.backward(tape, backend.xp.ones_like(y))[2].flat).copy()
    stack.forward(second)
    for value, expected in zip((y, *state), kept, strict=True):
        np.testing.assert_array_equal(to_host(value), expected)
    np.testing.assert_array_equal(to_host(stack.backward(tape, backend.xp.ones_like(y))[2].flat), grads)
