"""Plain arrays as numbers: NumPy, masked, lists, tensors; without pandas."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpulstm.errors import DataError, option


def is_array(data: Any) -> bool:
    """Whether data are a plain array and no table."""
    if hasattr(data, "__cuda_array_interface__"):
        return True
    if isinstance(data, (np.ndarray, list, tuple)):
        return getattr(getattr(data, "dtype", None), "names", None) is None
    return hasattr(data, "detach") or (hasattr(data, "__dlpack__") and not hasattr(data, "columns"))


def is_masked(data: Any) -> bool:
    """Whether data are a masked array; NumPy imports what it needs for those when it is first asked for them."""
    return hasattr(data, "mask") and isinstance(data, np.ma.MaskedArray)


def numbers_of(data: Any) -> np.ndarray:
    """An array as float64; what is masked is NaN.

    Raises:
        DataError: it holds something else than real numbers, or lies on a CUDA device.
    """
    if hasattr(data, "__cuda_array_interface__"):
        raise DataError(
            "the series is an array on a CUDA device; tables are read on the host, pass gpulstm.to_host(series)"
        )
    if is_masked(data):
        return np.ma.filled(data.astype(np.float64), np.nan)
    if hasattr(data, "detach"):  # a tensor of PyTorch
        data = data.detach().cpu()
        data = (data.float() if not data.dtype.is_floating_point or data.element_size() < 4 else data).numpy()
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise DataError(f"the series is a {type(data).__name__} that is no array of numbers: {error}") from None
    if array.dtype.kind not in "fiubO":
        raise DataError(f"the series has dtype {array.dtype}, expected real numbers")
    try:
        return array.astype(np.float64)  # None is NaN
    except (TypeError, ValueError):
        raise DataError(f"the series has dtype {array.dtype}, expected real numbers") from None


def refuse_mask(data: Any, what: str, missing: str) -> None:
    """Refuse a masked array where no rule was chosen: a mask says that values do not count, and not why."""
    if missing == "auto" and is_masked(data) and np.ma.is_masked(data):
        count = int(np.ma.getmaskarray(data).sum())
        raise DataError(
            f"{what} is a masked array with {count} masked values; say what stands in their place, as "
            f"{option('missing', 'forward')}, interpolate, mask or zero"
        )
