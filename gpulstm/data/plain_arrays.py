"""Series that come as plain arrays: NumPy, masked, lists, tensors; read without pandas."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpulstm.data.labels import Labels
from gpulstm.data.options import TableOptions
from gpulstm.data.series import Origin, SeriesSet
from gpulstm.errors import ConfigError, DataError, option


def is_array(data: Any) -> bool:
    """Whether data are a plain array and no table."""
    if hasattr(data, "__cuda_array_interface__"):
        return True
    if isinstance(data, (np.ndarray, list, tuple)):
        return getattr(getattr(data, "dtype", None), "names", None) is None
    return hasattr(data, "detach") or (hasattr(data, "__dlpack__") and not hasattr(data, "columns"))


def numbers_of(data: Any) -> np.ndarray:
    """An array as float64; what is masked is NaN.

    Raises:
        DataError: it holds something else than real numbers, or lies on a CUDA device.
    """
    if hasattr(data, "__cuda_array_interface__"):
        raise DataError(
            "the series is an array on a CUDA device; tables are read on the host, pass gpulstm.to_host(series)"
        )
    if isinstance(data, np.ma.MaskedArray):
        return np.ma.filled(data.astype(np.float64), np.nan)
    if hasattr(data, "detach"):  # a tensor of PyTorch
        data = data.detach().cpu()
        data = (data.float() if not data.dtype.is_floating_point or data.element_size() < 4 else data).numpy()
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise DataError(f"the series is a {type(data).__name__} that is no array of numbers: {error}") from None
    if array.dtype.kind == "O":
        try:
            array = array.astype(np.float64)  # None is NaN
        except (TypeError, ValueError):
            raise DataError(f"the series has dtype {array.dtype}, expected real numbers") from None
    if array.dtype.kind not in "fiub":
        raise DataError(f"the series has dtype {array.dtype}, expected real numbers")
    return array.astype(np.float64)


def refuse_mask(data: Any, what: str, missing: str) -> None:
    """Refuse a masked array where no rule was chosen: a mask says that values do not count, and not why."""
    if missing == "auto" and np.ma.is_masked(data):
        count = int(np.ma.getmaskarray(data).sum())
        raise DataError(
            f"{what} is a masked array with {count} masked values; say what stands in their place, as "
            f"{option('missing', 'forward')}, interpolate, mask or zero"
        )


def from_array(data: Any, options: TableOptions) -> SeriesSet:
    """Series of an array `(time,)`, `(time, features)` or `(series, time, features)`, whose columns are numbered.

    Raises:
        DataError: another shape, or a column that is not there.
        ConfigError: a column has two roles.
    """
    refuse_mask(data, "the series", options.missing)
    array = numbers_of(data)
    if array.ndim not in (1, 2, 3):
        raise DataError(
            f"the series has shape {array.shape}, expected (time,), (time, features) or (series, time, features)"
        )
    if array.size == 0:
        raise DataError(f"the series has shape {array.shape}, expected at least one value")
    count = array.shape[0] if array.ndim == 3 else 1
    table = array.reshape(-1, 1 if array.ndim == 1 else array.shape[-1])
    known = [str(column) for column in range(table.shape[1])]
    others = [*options.past, *options.future, *options.static]
    targets = [name for name in known if name not in others] if options.target is None else list(options.target)
    names = [*targets, *others]
    for name in names:
        if name not in known:
            raise DataError(f"the array has no column {name!r}; it has {', '.join(known)}")
    if len(set(names)) < len(names):
        raise ConfigError("a column of the array is given two roles; a column has one")
    if not targets:
        raise DataError("the array has no column left to forecast")
    order = [int(name) for name in names]
    values = table if order == list(range(table.shape[1])) else np.ascontiguousarray(table[:, order])
    ids = tuple((index,) for index in range(count)) if count > 1 else ()
    return SeriesSet(
        values=values,
        offsets=np.arange(count + 1, dtype=np.int64) * (len(table) // count),
        columns=tuple(names),
        targets=len(targets),
        past=len(options.past),
        future=len(options.future) + len(options.static),
        static=len(options.static),
        names=tuple(str(index) for index in range(count)) if count > 1 else ("series",),
        missing=options.missing,
        labels=Labels(ids=ids),
        origin=Origin(
            {"target": tuple(targets), "past": options.past, "future": options.future, "static": options.static}
        ),
    )
