"""Which dtypes there are, on which devices, and what an array of bfloat16 is on the host."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

from gpulstm.arrays import dtypes
from gpulstm.arrays.devices import resolve
from gpulstm.errors import DTypeError, MissingExtraError


@pytest.mark.parametrize(
    ("dtype", "capability", "message"),
    [
        ("float32", None, None),
        ("float16", 61, None),
        ("bfloat16", 80, None),
        ("int64", 80, "dtype is 'int64', expected one of float16, bfloat16, float32, float64"),
        ("float16", None, "dtype is 'float16', which is storage on CUDA; on the cpu expected 'float32' or 'float64'"),
        ("bfloat16", None, "dtype is 'bfloat16', which is storage on CUDA; on the cpu expected 'float32' or 'float64'"),
        (
            "bfloat16",
            75,
            "dtype is 'bfloat16', which needs compute capability 8.0; cuda:1 has 7.5, expected 'float16' or 'float32'",
        ),
    ],
)
def test_where_a_dtype_can_be_used(dtype: str, capability: int | None, message: str | None) -> None:
    if message is None:
        dtypes.check(dtype, "cuda:1", capability)
        return
    with pytest.raises(DTypeError, match=re.escape(message)):
        dtypes.check(dtype, "cuda:1", capability)


def test_names_and_kinds() -> None:
    assert [name for name in dtypes.NAMES if dtypes.is_half(name)] == list(dtypes.HALF)
    assert dtypes.dtype_of("bfloat16").name == "bfloat16"
    assert dtypes.dtype_of("float16") == np.float16
    assert dtypes.is_half(dtypes.dtype_of("bfloat16"))
    assert dtypes.is_real(dtypes.dtype_of("bfloat16"))
    assert not dtypes.is_real(np.dtype(complex))
    for wrong in (None, "float99"):
        with pytest.raises(DTypeError, match=f"dtype is {wrong!r}, expected one of float16, "):
            dtypes.dtype_of(wrong)


def test_bfloat16_needs_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(MissingExtraError, match="bfloat16 needs ml_dtypes, which is not installed"):
        dtypes.dtype_of("bfloat16")


@pytest.mark.cuda
def test_bfloat16_is_rounded_on_the_device_and_comes_back_as_float32() -> None:
    backend = resolve("cuda")
    rounded = backend.from_host(
        [1.0, 1.00390625, -2.5], "bfloat16"
    )  # the second lies half way, and goes to the even one
    assert rounded.dtype.name == "bfloat16"
    assert backend.asarray(backend.from_host([3.0], "float32"), "bfloat16").dtype.name == "bfloat16"
    back = backend.to_host(rounded)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, np.array([1.0, 1.0, -2.5], np.float32))
