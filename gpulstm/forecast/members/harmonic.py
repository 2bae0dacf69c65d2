"""Harmonic least squares: sines and cosines of known periods, and a trend, fitted to each window's last rows.

Periods are counted from the origin, so that all windows of a length share one pseudo-inverse.  What the fit leaves is
taken to die out as an autoregression of order one, or to stay at its last level.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from gpulstm.forecast.members.passes import in_passes

RUN, LANES = 256, 8  # windows of a pass, and what their number is a multiple of
Waves = tuple[tuple[float, int], ...]  # periods in rows, and how many harmonics of each


def _columns(steps: np.ndarray, waves: Waves, trend: bool, rows: int) -> np.ndarray:
    parts = [np.ones_like(steps)]
    if trend:
        parts.append(steps / rows)
    for period, harmonics in waves:
        for k in range(1, harmonics + 1):
            angle = 2 * np.pi * k * steps / period
            parts += [np.sin(angle), np.cos(angle)]
    return np.stack(parts, axis=1)


@lru_cache(maxsize=64)
def _solver(rows: int, horizon: int, waves: Waves, trend: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Design of the window `(rows, k)`, its pseudo-inverse `(k, rows)` and the design ahead `(horizon, k)`."""
    behind = _columns(np.arange(-rows, 0.0), waves, trend, rows)
    q, r = np.linalg.qr(behind)
    return behind, np.linalg.solve(r, q.T), _columns(np.arange(0.0, horizon), waves, trend, rows)


def harmonic(
    windows: np.ndarray, horizon: int, waves: Sequence[tuple[float, int]], trend: bool, level: int
) -> np.ndarray:
    """The forecast `(N, horizon)` of windows `(N, rows)`.

    Args:
        waves: periods in rows, and harmonics of each.
        trend: whether a straight line is fitted, too.
        level: rows at the end whose mean residual stays; 0 lets the last residual die out with the residuals'
            correlation from row to row.
    """
    design = _solver(windows.shape[1], horizon, tuple(waves), trend)
    return in_passes(lambda rows: [_ahead(rows, design, level)], RUN, LANES, windows)[0]


def _ahead(windows: np.ndarray, design: tuple[np.ndarray, np.ndarray, np.ndarray], level: int) -> np.ndarray:
    behind, inverse, ahead = design
    coefficients = windows @ inverse.T
    residual = windows - coefficients @ behind.T
    forecast = coefficients @ ahead.T
    if level:
        return forecast + residual[:, -level:].mean(axis=1, keepdims=True)
    energy = np.einsum("nt,nt->n", residual[:, :-1], residual[:, :-1])
    energy = np.where(energy > 0, energy, 1.0)
    phi = np.clip(np.einsum("nt,nt->n", residual[:, 1:], residual[:, :-1]) / energy, 0.0, 0.99)[:, None]
    return forecast + residual[:, -1:] * phi ** np.arange(1, len(ahead) + 1)
