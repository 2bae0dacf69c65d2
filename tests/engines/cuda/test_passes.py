"""What the step kernels are handed: structs of the fields that their source names, weights in their order."""

from __future__ import annotations

import re

import numpy as np
import pytest

from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.devices import resolve, to_host
from gpulstm.arrays.kernel_source import kernel_source
from gpulstm.engines.cuda import passes
from gpulstm.engines.spec import CellName, StackSpec, Task


@pytest.mark.parametrize(("name", "fields"), [("GlForward", passes.FORWARD), ("GlBackward", passes._BACKWARD)])
def test_the_fields_are_those_of_the_kernels_struct(name: str, fields: tuple[str, ...]) -> None:
    text = re.sub(r"//[^\n]*", "", kernel_source("cuda/step.cuh"))
    body = re.search(rf"struct {name} \{{(.*?)\n\}};", text, re.DOTALL)
    assert body is not None
    declared = re.findall(r"(\w+)(?=[,;])", body.group(1))
    assert tuple(declared) == fields


def test_a_struct_holds_numbers_and_addresses_in_eight_bytes_each() -> None:
    class OnDevice:
        data = type("Memory", (), {"ptr": 2**40 + 8})

    values = {"rows": 7, "hold_h": 0.25, "packed": OnDevice, "mask": None}
    struct = passes.struct(("rows", "hold_h", "packed", "mask"), values)
    assert struct.tobytes() == b"".join(np.array(value).tobytes() for value in (7, 0.25, 2**40 + 8, 0))


@pytest.mark.parametrize(("value", "step", "expected"), [(0, 4, 0), (1, 4, 4), (4, 4, 4), (5, 4, 8)])
def test_rounding_up(value: int, step: int, expected: int) -> None:
    assert passes.round_up(value, step) == expected == 4 * passes.ceil_divide(value, step)


@pytest.mark.cuda
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_packed_weights_have_the_gates_of_a_unit_next_to_each_other(cell: CellName) -> None:
    backend, units = resolve("cuda"), 5
    assert isinstance(backend, CupyBackend)
    spec = StackSpec(cell, 2, units)
    w = np.random.default_rng(0).normal(size=(units, spec.gates * units)).astype("float32")
    task = Task(spec, 0, False, {"W_h": backend.from_host(w)})
    packed, pitch = passes.packed_forward(backend, task, "float32")
    packed.fill(np.nan)
    passes.pack_forward(backend, task, "float32", packed)
    wide = passes.columns(task) // units
    expected = np.zeros((units, pitch), "float32")
    expected[:, : wide * units].reshape(units, units, wide)[:, :, : spec.gates] = w.reshape(
        units, spec.gates, units
    ).swapaxes(1, 2)
    np.testing.assert_array_equal(to_host(packed), expected)
