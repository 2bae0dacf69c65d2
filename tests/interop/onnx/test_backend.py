"""The interface of ONNX's own tools; its test cases are run by `tests/peers/test_onnx_backend.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_models import LAYERS, node

from gpulstm.interop import to_onnx
from gpulstm.interop.onnx.backend import make_backend


@pytest.mark.parametrize("engine", [None, "reference"])
def test_a_prepared_model_takes_and_gives_host_arrays(engine: str | None, rng: np.random.Generator) -> None:
    layer, x = LAYERS["gru"], rng.normal(size=(4, 2, 3)).astype("f4")
    prepared: Any = make_backend(engine).prepare(to_onnx(layer), "CPU")
    expected = layer(x)
    for inputs in (x, [x], {"x": x}):
        y, h = prepared.run(inputs)
        np.testing.assert_allclose(y, expected[0], rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(h, expected[1], rtol=1e-6, atol=1e-7)
    (y,) = make_backend(engine).run_model(to_onnx(layer), [x])[:1]
    np.testing.assert_allclose(y, expected[0], rtol=1e-6, atol=1e-7)


def test_one_node_is_run_on_the_inputs_that_it_names() -> None:
    x, low = np.array([-3.0, 5.0], np.float32), np.array(-1.0, np.float32)
    (y,) = make_backend().run_node(node("Clip", "x low", "y"), [x, low])
    np.testing.assert_array_equal(y, [-1, 5])


def test_devices() -> None:
    backend = make_backend()
    assert backend.supports_device("CPU")
    assert not backend.supports_device("TPU")


@pytest.mark.cuda
def test_a_gpu() -> None:
    assert make_backend().supports_device("CUDA") and make_backend().supports_device("CUDA:0")
