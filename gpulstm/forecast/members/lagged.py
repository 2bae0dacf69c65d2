"""A regression of each window on its own values a day, a week and two days before, drawn to their usual weights.

Windows of few weeks tell the weights only roughly, so the least squares are a ridge around `USUAL` (Hoerl & Kennard
1970, "Ridge regression", Technometrics 12(1)), and all days of the horizon share their weights.
"""

from __future__ import annotations

import numpy as np

from gpulstm.forecast.members.passes import in_passes

RUN, LANES = 256, 8  # windows of a pass, and what their number is a multiple of
USUAL = np.array([0.4, 0.4, 0.2])  # of the day, the week and the two days before
PENALTY = 1e-4  # times the mean square of what is regressed on


def lagged(windows: np.ndarray, season: int, week: int, horizon: int) -> np.ndarray:
    """The forecast `(N, horizon)` of windows `(N, rows)`.

    Args:
        season, week: rows in a day and in a week, which windows are longer than.
    """
    return in_passes(lambda run: [_lagged(run, season, week, horizon)], RUN, LANES, windows)[0]


def _lagged(windows: np.ndarray, season: int, week: int, horizon: int) -> np.ndarray:
    count, rows = windows.shape
    mean = windows.mean(axis=1, keepdims=True)
    values = windows - mean
    days = -(-horizon // season)
    lags = [(season * day, week * -(-season * day // week), season * (day + 1)) for day in range(1, days + 1)]
    square, cross = np.zeros((count, 3, 3)), np.zeros((count, 3))
    for own in lags:
        first = max(own)
        if first >= rows:
            continue
        x = np.stack([values[:, first - lag : rows - lag] for lag in own], axis=1)
        square += np.einsum("nit,njt->nij", x, x)
        cross += np.einsum("nit,nt->ni", x, values[:, first:])
    size = np.maximum(np.einsum("nii->n", square) / 3, 1e-300)[:, None, None]
    off = cross - square @ USUAL
    weights = USUAL + np.linalg.solve(square + PENALTY * size * np.eye(3), off[..., None])[..., 0]
    steps = np.arange(horizon)
    at = np.array(lags)[steps // season]  # (horizon, 3)
    ahead = values[:, np.maximum(rows + steps[:, None] - at, 0)]
    return mean + np.einsum("nhk,nk->nh", ahead, weights)
