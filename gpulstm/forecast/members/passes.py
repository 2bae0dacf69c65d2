"""Windows in runs of fixed sizes: what is said of one does not depend on how many are asked for.

A matrix product rounds by its shape, so that a window alone would differ from the same window among others in its last
bits, and a network in float32 by more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def in_passes(
    rule: Callable[..., Sequence[np.ndarray]], most: int, least: int, *arrays: np.ndarray
) -> list[np.ndarray]:
    """What `rule` gives of arrays of N rows each, run by run.

    Args:
        rule: from `(k, ...)` arrays to others of k rows.
        most: rows of a run while there are so many.
        least: what the rows of the last run are a multiple of; it is filled up with zeros.
    """
    count, first = len(arrays[0]), 0
    parts: list[list[np.ndarray]] = []
    while not parts or first < count:
        left = min(count - first, most)
        run = [array[first : first + left] for array in arrays]
        empty = -left % least if left else least
        if empty:
            run = [np.concatenate([array, np.zeros((empty, *array.shape[1:]), array.dtype)]) for array in run]
        parts.append([result[:left] for result in rule(*run)])
        first += left
    return [np.concatenate(results) for results in zip(*parts, strict=True)]
