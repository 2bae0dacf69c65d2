"""Series that come as plain arrays: what counts as one, and its numbers as float64."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpulstm.data.plain_arrays import is_array, numbers_of, refuse_mask
from gpulstm.errors import DataError


class Tensor:
    """What is used of a tensor of PyTorch."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.dtype = values, self
        self.is_floating_point = values.dtype.kind == "f"

    def detach(self) -> Tensor:
        return self

    def cpu(self) -> Tensor:
        return self

    def element_size(self) -> int:
        return self.values.itemsize

    def float(self) -> Tensor:
        return Tensor(self.values.astype("float32"))

    def numpy(self) -> np.ndarray:
        return self.values


@pytest.mark.parametrize("data", [np.ones(3), [1, 2], (1.0, 2.0), Tensor(np.ones(2)), np.ma.array([1.0])])
def test_arrays(data: Any) -> None:
    assert is_array(data)


@pytest.mark.parametrize("data", [pd.DataFrame({"a": [1]}), {"a": [1]}, "a.csv", np.array([(1,)], dtype=[("a", "i8")])])
def test_tables(data: Any) -> None:
    assert not is_array(data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([1, 2], [1.0, 2.0]),
        ([True, False], [1.0, 0.0]),
        (np.float32([1.5]), [1.5]),
        (np.ma.array([1.0, 2.0], mask=[False, True]), [1.0, np.nan]),
        ([1, None, Decimal("2.5")], [1.0, np.nan, 2.5]),
        (Tensor(np.array([1, 2])), [1.0, 2.0]),
    ],
)
def test_numbers_are_float64_and_what_is_missing_is_nan(data: Any, expected: list[float]) -> None:
    array = numbers_of(data)
    assert array.dtype == np.float64
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["a"], "the series has dtype <U1, expected real numbers"),
        ([1j], "the series has dtype complex128"),
        ([object()], "the series has dtype object"),
        ([[1, 2], [3]], "the series is a list that is no array of numbers"),
    ],
)
def test_what_holds_no_numbers(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        numbers_of(data)


def test_arrays_on_a_gpu_are_not_moved_in_silence() -> None:
    class OnDevice:
        __cuda_array_interface__ = None

    assert is_array(OnDevice())
    with pytest.raises(DataError, match=r"pass gpulstm.to_host\(series\)"):
        numbers_of(OnDevice())


def test_a_mask_needs_a_rule() -> None:
    masked = np.ma.array([1.0, 2.0], mask=[False, True])
    with pytest.raises(DataError, match="the series is a masked array with 1 masked values; say what stands"):
        refuse_mask(masked, "the series", "auto")
    refuse_mask(masked, "the series", "forward")
    refuse_mask(np.ma.array([1.0]), "the series", "auto")
