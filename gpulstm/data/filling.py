"""What stands where a value is missing, without a loop over series: the last value, a line, or zero."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def fill(
    values: np.ndarray, offsets: np.ndarray, rule: str, cuts: Sequence[np.ndarray] = ()
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """A copy of `(rows, features)` values without NaN.

    `"interpolate"` draws a straight line between the neighbors of a gap and carries the last value over a gap at the
    end; `"zero"` puts 0; every other rule carries the last value on.  A gap at the start of a series takes the first
    value after it, and a column without any value in a series takes its mean over all series, or 0.

    Args:
        offsets: `(series + 1,)` int64.
        cuts: arrays `(series,)` of absolute rows.  No value before a cut is made from rows after it, unless nothing
            comes before it in its series.

    Returns:
        the filled copy, and the `(series, column)` pairs that have no value at all.
    """
    result = values.copy()
    empty: list[tuple[int, int]] = []
    missing = np.isnan(values)
    if rule == "zero":
        result[missing] = 0.0
        return result, empty
    rows = np.arange(len(values))
    lengths = np.diff(offsets)
    start = np.repeat(offsets[:-1], lengths)
    for column in np.flatnonzero(missing.any(axis=0)):
        absent, cells = missing[:, column], result[:, column]
        before = np.maximum.accumulate(np.where(absent, -1, rows))
        after = np.minimum.accumulate(np.where(absent, len(rows), rows)[::-1])[::-1]
        stop = np.repeat(offsets[1:], lengths)
        has_before, has_after = before >= start, after < stop
        gap = np.flatnonzero(absent)
        left, right = before[gap], after[gap]
        known, ahead = has_before[gap], has_after[gap]
        original = values[:, column]
        forward = np.where(known, original[np.maximum(left, 0)], np.nan)
        filled = np.where(known, forward, np.where(ahead, original[np.minimum(right, len(rows) - 1)], np.nan))
        if rule == "interpolate":
            filled = _lines(original, gap, (left, right), (known, ahead), filled, _edges(offsets, cuts))
        nothing = ~known & ~ahead
        if nothing.any():
            mean = float(original[~absent].mean()) if not absent.all() else 0.0
            filled[nothing] = mean
            series = np.unique(np.searchsorted(offsets, gap[nothing], side="right") - 1)
            empty += [(int(one), int(column)) for one in series]
        cells[gap] = filled
    return result, empty


def _edges(offsets: np.ndarray, cuts: Sequence[np.ndarray]) -> np.ndarray:
    """All rows at which a part begins, sorted."""
    inside = [np.clip(cut, offsets[:-1], offsets[1:]) for cut in cuts]
    return np.unique(np.concatenate([offsets, *inside]))


def _lines(
    original: np.ndarray,
    gap: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray],
    known: tuple[np.ndarray, np.ndarray],
    filled: np.ndarray,
    edges: np.ndarray,
) -> np.ndarray:
    """Straight lines through the gaps, from the last value or what was carried into a part to the next of the part."""
    left, right = ends
    part = np.searchsorted(edges, gap, side="right") - 1
    first, last = edges[part], edges[np.minimum(part + 1, len(edges) - 1)]
    inside = known[0] & known[1] & (right < last)
    origin = np.where(left >= first, left, first - 1)  # from before the part its last value is carried to its start
    span = np.maximum(right - origin, 1)
    low, high = original[np.maximum(left, 0)], original[np.minimum(right, len(original) - 1)]
    line = low + (high - low) * ((gap - origin) / span)
    return np.where(inside, line, filled)
