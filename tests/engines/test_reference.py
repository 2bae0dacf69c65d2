"""The reference on other libraries: array-api-strict and CuPy give what NumPy gives, for every cell and option."""

from __future__ import annotations

from typing import Any

import array_api_strict
import numpy as np
import pytest
from engine_cases import Around, EngineCase, Shape, assert_close

from gpulstm.arrays.devices import resolve
from gpulstm.engines import reference

OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("lstm", {}),
    "lstm-no-bias": ("lstm", {"bias": False}),
    "lstm-peepholes": ("lstm", {"peepholes": True}),
    "lstm-coupled": ("lstm", {"coupled": True}),
    "lstm-coupled-peepholes": ("lstm", {"coupled": True, "peepholes": True}),
    "lstm-layer-norm": ("lstm", {"layer_norm": True}),
    "lstm-projection": ("lstm", {"proj_size": 3}),
    "lstm-projection-layer-norm": ("lstm", {"proj_size": 3, "layer_norm": True}),
    "lstm-clip": ("lstm", {"clip": 0.5}),
    "gru": ("gru", {}),
    "gru-no-bias": ("gru", {"bias": False}),
    "gru-reset-before": ("gru", {"reset_after": False}),
    "gru-layer-norm": ("gru", {"layer_norm": True}),
    "gru-clip": ("gru", {"clip": 0.5}),
    "rnn": ("rnn", {}),
    "rnn-relu": ("rnn", {"nonlinearity": "relu"}),
    "rnn-relu-clip": ("rnn", {"nonlinearity": "relu", "clip": 0.5}),
    "rnn-layer-norm": ("rnn", {"layer_norm": True}),
}
SHAPE = Shape(4, 3, 2, 5)


def cases(name: str) -> list[EngineCase]:
    """Training and inference, plain and with all that is around a cell; also no step at all."""
    cell, options = OPTIONS[name]
    everything = Around(True, True, True)
    return [
        EngineCase.make(cell, SHAPE, **options),
        EngineCase.make(cell, SHAPE, around=everything, reverse=True, **options),
        EngineCase.make(cell, SHAPE, around=everything, training=False, **options),
        EngineCase.make(cell, SHAPE._replace(steps=0), **options),
    ]


@pytest.mark.parametrize("name", OPTIONS)
def test_on_array_api_strict(name: str) -> None:
    for case in cases(name):
        results = case.results(reference, array_api_strict.asarray, np.asarray)
        assert_close(results, case.results(reference), "float64")


@pytest.mark.cuda
@pytest.mark.parametrize("name", OPTIONS)
def test_on_cupy(name: str) -> None:
    backend = resolve("cuda")
    for case in cases(name):
        results = case.results(reference, backend.from_host, backend.to_host)
        assert_close(results, case.results(reference), "float64")


@pytest.mark.cuda
@pytest.mark.parametrize("name", OPTIONS)
def test_in_float16(name: str) -> None:
    """What serves float16 where the CUDA engine has no kernel."""
    backend, (cell, options) = resolve("cuda"), OPTIONS[name]
    case = EngineCase.make(cell, SHAPE, dtype="float16", around=Around(True, True, True), **options)
    results = case.results(reference, backend.from_host, backend.to_host)
    assert {value.dtype.name for value in results.values()} == {"float16"}
    assert_close(results, case.astype("float64").results(reference), "half")
