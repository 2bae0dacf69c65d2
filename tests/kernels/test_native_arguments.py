"""Arguments of the native module, right and wrong ones: refused or computed with, and never a crash."""

from __future__ import annotations

import random
from typing import Any

import native_calls
import numpy as np
import pytest

import gpulstm as gl
from gpulstm.arrays import native

CALLS = 1500


def test_no_call_ends_the_process_or_gives_another_error() -> None:
    rng = random.Random(0)
    for _ in range(CALLS):
        native_calls.call(rng.randbytes(200))


def test_calls_end_in_all_ways() -> None:
    """The generator makes calls that compute and calls that are refused."""
    rng, ends = random.Random(1), set()
    for _ in range(300):
        ends.add(native_calls.call(rng.randbytes(200)))
    assert ends == {"", "TypeError", "ValueError"} or ends == {"", "TypeError", "ValueError", "MemoryError"}


def options(module: Any, cell: int, coupled: bool = False, reset_before: bool = False, kind: int = 0) -> Any:
    """The native object of a layer's options."""
    return module.VariantFloat(cell, 4, 4, coupled, reset_before, [(kind, 0.0, 0.0)] * 3, 0.0, 1e-5, *[None] * 6)


def streamed(module: Any, layers: list[Any], batch: int = 1) -> Any:
    """A stream of layers with options, of which one has weights."""
    row = 16 if layers and layers[0] is not None else 4
    weights = [np.zeros((4, row), "f4")]
    return module.variant_stream_float(layers, batch, 4, weights, weights, [], [], 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda module: module.saved_sizes(4, 3, False), "cell is 4, expected 0 to 3"),
        (lambda module: module.saved_sizes(0, 0, False), "hidden is 0, expected 1 to"),
        (lambda module: module.working_room(0, 1, 1, 1, 2**40, True, 1), "an extent is 1099511627776, expected 1 to"),
        (lambda module: module.working_room(0, 1, 1, 1, 1, True, 0), "threads is 0, expected 1 to 1024"),
        (lambda module: module.StackFloat(0, 1, 1, [], [], [], [], 0), "layers is 0, expected 1 to"),
        (lambda module: options(module, 2, reset_before=True), "reset_before is the GRU's"),
        (lambda module: options(module, 1, coupled=True), "coupled gates, peepholes, projection"),
        (lambda module: options(module, 3), "cell is 3, expected 0 to 2"),
        (lambda module: options(module, 0, kind=11), "an activation is 11, expected 0 to 10"),
        (lambda module: streamed(module, []), "options has not one object a layer"),
        (
            lambda module: streamed(module, [options(module, 0), options(module, 0)]),
            "options has not one object a layer",
        ),
        (lambda module: streamed(module, [options(module, 1)], batch=0), "batch is 0, expected 1 to"),
        (
            lambda module: module.keep(np.zeros((1, 4), bool), 0, 0, 0, 0, 0, 0, 1, 2**63 - 1),
            "first is 9223372036854775807",
        ),
        (lambda module: module.squares_float(np.ones(3, "f4"), 1025), "threads is 1025, expected 1 to 1024"),
    ],
)
def test_numbers_out_of_range_are_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(native.load())  # type: ignore[operator]


def test_extents_whose_product_overflows_are_no_memory() -> None:
    module = native.load()
    for shape in ([2**40], [2**33, 2**33], [2**62, 4, 0]):
        with pytest.raises(MemoryError):
            module.empty_float(shape)  # type: ignore[union-attr]


def test_arrays_at_odd_addresses_are_copied() -> None:
    model = gl.LSTM(2, 3, device="cpu")
    x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(4, 3, 2)
    odd = np.frombuffer(b"." + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    assert not odd.flags.aligned
    np.testing.assert_array_equal(model(odd)[0], model(x)[0])
