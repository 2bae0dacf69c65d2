"""Layers with options on the CPU engine: the results of the reference; the same bits however the work is divided."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cpu_runs import both
from stacks import WITH_RELU

import gpulstm as gl

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("lstm", {"zoneout": (0.2, 0.3)}),
    ("lstm", {"peepholes": True}),
    ("lstm", {"coupled": True}),
    ("lstm", {"coupled": True, "peepholes": True}),
    ("lstm", {"layer_norm": True}),
    ("lstm", {"proj_size": 4}),
    ("lstm", {"clip": 0.5}),
    ("lstm", {"activations": ("HardSigmoid", "Softsign", "Relu")}),
    ("lstm", {"proj_size": 4, "layer_norm": True, "zoneout": (0.1, 0.2), "recurrent_dropout": 0.2}),
    ("lstm", {"num_layers": 2, "bidirectional": True, "peepholes": True, "proj_size": 4, "zoneout": (0.1, 0.1)}),
    ("gru", {"reset_after": False}),
    ("gru", {"reset_after": False, "recurrent_dropout": 0.3, "bidirectional": True, "num_layers": 2}),
    ("gru", {"layer_norm": True}),
    ("gru", {"zoneout": 0.2}),
    ("gru", {"activations": ("Sigmoid", ("Elu", 0.8, 0.0)), "clip": 0.9}),
    ("rnn", {"layer_norm": True, "zoneout": 0.2}),
    ("rnn", {"activations": ("Softplus",)}),
    ("rnn", {"activations": (("ScaledTanh", 1.5, 0.7),)}),
    ("rnn", {"activations": (("LeakyRelu", 0.2, 0.0),)}),
    ("rnn", {"activations": (("ThresholdedRelu", 0.1, 0.0),)}),
    ("rnn", {"activations": (("Affine", 0.3, 0.1),)}),
    ("relu", {"clip": 0.7}),
    ("relu", {"layer_norm": True}),
]


def name_of(variant: tuple[str, dict[str, Any]]) -> str:
    return "-".join([variant[0], *(f"{name}={value}" for name, value in variant[1].items())])


@pytest.fixture(autouse=True)
def _default_threads() -> Iterator[None]:
    yield
    gl.set_num_threads(None)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("lengths", [False, True], ids=["whole", "lengths"])
@pytest.mark.parametrize("variant", VARIANTS, ids=name_of)
def test_options_that_change_the_equations_agree_with_the_reference(
    variant: tuple[str, dict[str, Any]], lengths: bool, dtype: str
) -> None:
    cell, options = variant
    long = [(20, 60, 2, 16)] if dtype == "float64" else []  # float32's rounding adds up over so many steps
    for shape in [(6, 9, 5, 19), (4, 1, 3, 8), (3, 40, 7, 33), (0, 2, 3, 5), (2, 1030, 2, 6), *long]:
        both(cell, shape, dtype, lengths=lengths, **options)


@pytest.mark.parametrize(("steps", "batch"), [(11, 300), (90, 30)], ids=str)  # a step and several are summed at once
@pytest.mark.parametrize("variant", VARIANTS, ids=name_of)
def test_options_give_the_same_bits_with_any_threads_and_in_segments(
    variant: tuple[str, dict[str, Any]], steps: int, batch: int
) -> None:
    cell, options = variant
    rng = np.random.default_rng(2)
    model = WITH_RELU[cell](5, 21, device="cpu", engine="cpu", seed=1, **options)
    x = rng.standard_normal((steps, batch, 5)).astype("float32")
    dy = rng.standard_normal((steps, batch, model.spec.output_size)).astype("float32")
    results = []
    for threads, memory in [(1, None), (2, None), (3, None), (2, "sqrt")]:
        gl.set_num_threads(threads)
        again = copy.deepcopy(model)
        y, state, tape = again.forward(x, memory=memory)
        dx, dstate, grads = again.backward(tape, dy, state)
        results.append([y, dx, grads.flat, *_parts(state), *_parts(dstate)])
    for other in results[1:]:
        for result, expected in zip(other, results[0], strict=True):
            assert np.array_equal(result, expected)


@pytest.mark.parametrize("variant", [each for each in VARIANTS if "bidirectional" not in each[1]], ids=name_of)
def test_a_stream_with_options_gives_the_bits_of_the_whole_sequence(variant: tuple[str, dict[str, Any]]) -> None:
    cell, options = variant
    model = WITH_RELU[cell](6, 21, **{"num_layers": 2, **options}, device="cpu", engine="cpu")
    x = np.random.default_rng(4).standard_normal((7, 3, 6)).astype("float32")
    y, state = model(x)
    step = model.stream(3)
    assert np.array_equal(np.stack([step(x_t) for x_t in x]), y)
    for results, expected in zip(_parts(step.state), _parts(state), strict=True):
        assert np.array_equal(results, expected)
    step.reset()
    step.state = model(x[:4])[1]
    out = np.empty_like(y[0])
    for x_t, y_t in zip(x[4:], y[4:], strict=True):
        assert step(x_t, out=out) is out
        assert np.array_equal(out, y_t)


def test_a_stream_with_options_depends_on_no_number_of_threads() -> None:
    model = gl.LSTM(8, 300, 2, layer_norm=True, device="cpu", engine="cpu")
    x, results = np.random.default_rng(5).standard_normal((5, 8)).astype("float32"), []
    for threads in (1, 2, 3):
        gl.set_num_threads(threads)
        step = model.stream(5)
        results.append([step(x), step(x), *_parts(step.state)])
    for other in results[1:]:
        for result, expected in zip(other, results[0], strict=True):
            assert np.array_equal(result, expected)


@pytest.mark.parametrize("variant", VARIANTS, ids=name_of)
def test_gradients_are_central_differences(variant: tuple[str, dict[str, Any]]) -> None:
    cell, options = variant
    rng = np.random.default_rng(3)
    model = WITH_RELU[cell](3, 5, device="cpu", engine="cpu", dtype="float64", seed=2, **options)
    model.params.flat[...] += rng.normal(0, 0.2, model.params.flat.shape)
    x, lengths = rng.standard_normal((4, 3, 3)), np.array([4, 2, 3])
    state = tuple(rng.normal(0, 0.5, part.shape) for part in _parts(model.zero_state(3)))
    y, end, tape = model.forward(x, _whole(state), lengths, number=7)  # the number fixes all masks
    dy, dend = rng.standard_normal(y.shape), tuple(rng.standard_normal(part.shape) for part in _parts(end))
    dx, dstate, grads = model.backward(tape, dy, _whole(dend))

    def objective() -> float:
        y, end, _ = model.forward(x, _whole(state), lengths, number=7)
        return float((y * dy).sum() + sum((part * d).sum() for part, d in zip(_parts(end), dend, strict=True)))

    pairs = [(x, dx), *zip(state, _parts(dstate), strict=True), *((model.params[name], grads[name]) for name in grads)]
    for values, gradient in pairs:
        for index in rng.choice(values.size, min(values.size, 5), replace=False):
            at = np.unravel_index(index, values.shape)
            kept, slopes = values[at], []
            for step in (1e-6, -1e-6):
                values[at] = kept + step
                slopes.append(objective())
            values[at] = kept
            assert gradient[at] == pytest.approx((slopes[0] - slopes[1]) / 2e-6, rel=1e-6, abs=1e-6)


def _whole(parts: tuple[np.ndarray, ...]) -> Any:
    return parts if len(parts) > 1 else parts[0]


def _parts(state: Any) -> tuple[np.ndarray, ...]:
    return state if isinstance(state, tuple) else (state,)
