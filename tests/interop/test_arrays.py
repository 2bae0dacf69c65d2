"""Arrays and files of other libraries: taken as they are, or refused with what is wrong with them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from gpulstm.engines.spec import StackSpec
from gpulstm.errors import ConfigError, DTypeError, InteropError, ShapeError
from gpulstm.interop.arrays import common_dtype, expect_shape, host, read_safetensors, refuse_options


class Foreign:
    """An array of a library that knows `numpy()` alone."""

    def __init__(self, values: np.ndarray, dtype: str = "float32") -> None:
        self.values, self.dtype = values, dtype

    def numpy(self) -> np.ndarray:
        return self.values


def test_values_come_as_they_are() -> None:
    values = np.arange(3.0)
    assert host(values, "w") is values
    assert host(Foreign(values), "w") is values
    np.testing.assert_array_equal(host([1, 2], "w"), [1, 2])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Foreign(np.zeros(2), "torch.bfloat16"), "w has dtype bfloat16, which NumPy does not have"),
        (np.array(["a"]), "w has dtype <U1, expected real numbers"),
        (np.zeros(2, complex), "w has dtype complex128, expected real numbers"),
    ],
)
def test_values_that_no_weight_can_have(value: Any, message: str) -> None:
    with pytest.raises(DTypeError, match=message):
        host(value, "w")


def test_all_weights_have_one_dtype() -> None:
    assert common_dtype({"a": np.zeros(1, "f4"), "b": np.ones(2, "f4")}) == "float32"
    for weights in ({"a": np.zeros(1, "f4"), "b": np.zeros(1)}, {"a": np.zeros(1, int)}):
        with pytest.raises(DTypeError, match=r"expected one of .*float64.* for all"):
            common_dtype(weights)


def test_shapes_and_options_are_refused_by_name() -> None:
    value = np.zeros((2, 3))
    assert expect_shape("w", value, (2, 3)) is value
    with pytest.raises(ShapeError, match=r"w has shape \(2, 3\), expected \(3, 2\)"):
        expect_shape("w", value, (3, 2))
    spec = StackSpec("gru", 2, 3, dropout=0.5)
    refuse_options(spec, ("layer_norm",), "Keras")
    with pytest.raises(InteropError, match=r"Keras has no layer that computes the same as this GRU with dropout=0\.5"):
        refuse_options(spec, ("dropout",), "Keras")


def test_a_file_of_arrays_there_and_back(tmp_path: Path) -> None:
    save_file({"w": np.arange(3.0), "n": np.array([1])}, tmp_path / "w.safetensors", {"made": "here"})
    arrays, notes = read_safetensors(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(arrays["w"], np.arange(3.0))
    assert (sorted(arrays), notes) == (["n", "w"], {"made": "here"})
    data = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[:-4])
    with pytest.raises(InteropError, match=r"is not a whole \.safetensors file"):
        read_safetensors(tmp_path / "cut.safetensors")


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(pickle.dumps([1], protocol=4))
    (tmp_path / "w.pt").write_bytes(b"anything")
    for name in ("w.safetensors", "w.pt"):
        with pytest.raises(InteropError, match="is a pickle, which runs code when it is loaded"):
            read_safetensors(tmp_path / name)
    with pytest.raises(ConfigError, match="there is no file"):
        read_safetensors(tmp_path / "none.bin")
