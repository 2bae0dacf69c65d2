"""A small layer on a GPU and the bytes of what it computes: for tests of calls that are replayed."""

from __future__ import annotations

from typing import Any

import numpy as np

import gpulstm
from gpulstm.arrays.devices import to_host


def bits(*values: Any) -> list[bytes]:
    """The bytes of arrays, those in tuples too."""
    parts = [part for value in values for part in (value if isinstance(value, tuple) else (value,))]
    return [to_host(part).tobytes() for part in parts]


def small(**options: Any) -> tuple[Any, Any]:
    """A layer and an input for it."""
    layer = gpulstm.LSTM(3, 8, 2, device="cuda", seed=4, **options)
    return layer, layer.backend.from_host(np.random.default_rng(1).normal(size=(6, 4, 3)).astype("f"))
