"""The dtypes of storage: float32 and float64 everywhere; on a GPU also two of 16 bits, whose arithmetic is in float32.

bfloat16 is a type that NumPy does not have: CuPy has it from `ml_dtypes`.  It stays on the device: arrays come to the
host as float32, which holds every bfloat16, and are rounded on the way back.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpulstm.errors import DTypeError, missing_extra

NAMES = ("float16", "bfloat16", "float32", "float64")
HALF = ("float16", "bfloat16")


def is_half(dtype: Any) -> bool:
    """Whether a dtype, or a name of one, has 16 bits."""
    return str(dtype) in HALF


def where(xp: Any, condition: Any, chosen: Any, other: Any) -> Any:
    """`xp.where` in the dtype of `chosen`: CuPy's own makes float32 of two arrays of bfloat16."""
    return xp.where(condition, chosen, other).astype(chosen.dtype, copy=False)


def is_real(dtype: Any) -> bool:
    """Whether a dtype holds real numbers: floats, integers or truth values."""
    return dtype.kind in "fiub" or dtype.name == "bfloat16"


def dtype_of(dtype: Any) -> np.dtype:
    """A dtype by its name, bfloat16 among them.

    Raises:
        DTypeError: it is None or not a dtype.
        MissingExtraError: bfloat16 is asked for, and `ml_dtypes` is not installed.
    """
    if str(dtype) == "bfloat16":
        try:
            from ml_dtypes import bfloat16
        except ImportError as error:
            raise missing_extra("ml_dtypes", "bfloat16") from error
        return np.dtype(bfloat16)
    try:
        if dtype is None:  # NumPy takes it for float64
            raise TypeError
        return np.dtype(dtype)
    except TypeError as error:
        raise DTypeError(f"dtype is {dtype!r}, expected one of {', '.join(NAMES)}") from error


def check(dtype: str, device: str, capability: int | None) -> None:
    """Raise unless arrays of a dtype can be computed with on a device.

    Args:
        dtype: by name.
        device: as the user knows it.
        capability: compute capability times ten, or None for the CPU.

    Raises:
        DTypeError: they cannot.
    """
    if dtype not in NAMES:
        raise DTypeError(f"dtype is {dtype!r}, expected one of {', '.join(NAMES)}")
    if is_half(dtype) and capability is None:
        raise DTypeError(f"dtype is {dtype!r}, which is storage on CUDA; on the cpu expected 'float32' or 'float64'")
    if dtype == "bfloat16" and capability is not None and capability < 80:
        raise DTypeError(
            f"dtype is 'bfloat16', which needs compute capability 8.0; {device} has {capability / 10}, expected "
            "'float16' or 'float32'"
        )
    dtype_of(dtype)
