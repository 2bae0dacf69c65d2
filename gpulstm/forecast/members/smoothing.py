"""Theta and damped Holt for all windows at once.

Exponential smoothing is the linear recurrence `e_t = y_t - w'x_t`, `x_{t+1} = F x_t + g e_t` (Hyndman et al. 2008,
"Forecasting with Exponential Smoothing", equation 2.12).  With its parameters fixed, the errors of a block of rows are
one matrix product of the block's values and the state before it, so a window costs a product a block instead of a
Python step a row, for all parameters of a grid together.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np

from gpulstm.forecast.members.passes import in_passes

BLOCK = 16  # rows that a product takes
RUN, LANES = 256, 8  # windows that a product takes, and what their number is a multiple of
ALPHAS = (0.02, 0.05, *(round(0.1 * k, 1) for k in range(1, 10)), 0.98)
HOLT = tuple(product((0.05, 0.15, 0.3, 0.5, 0.7, 0.9, 0.99), (0.0, 0.05, 0.15, 0.4), (0.8, 0.9, 0.96)))
SIGNIFICANT = 1.645  # of the test for seasonality, at the 90 % level


@lru_cache(maxsize=64)
def _products(kind: str, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What a block of `rows` rows does, for all P parameters of a grid and states of d numbers.

    Returns:
        from values to errors `(P*rows, rows)`, from state to errors `(P, rows, d)`, from values to the next state
        `(P*d, rows)`, from state to state `(P, d, d)`.
    """
    if kind == "level":
        read = np.ones((len(ALPHAS), 1))
        move = np.ones((len(ALPHAS), 1, 1))
        gain = np.array(ALPHAS)[:, None]
    else:
        grid = np.array(HOLT)
        alpha, beta, phi = grid.T
        read = np.stack([np.ones_like(phi), phi], axis=1)
        move = np.zeros((len(grid), 2, 2))
        move[:, 0, 0], move[:, 0, 1], move[:, 1, 1] = 1.0, phi, phi
        gain = np.stack([alpha, alpha * beta], axis=1)
    count, size = read.shape
    closed = move - gain[:, :, None] * read[:, None, :]
    from_values = np.zeros((count, rows, rows))
    from_state = np.zeros((count, rows, size))
    to_state = np.zeros((count, size, rows))
    power = np.broadcast_to(np.eye(size), (count, size, size)).copy()
    for row in range(rows):
        # the state before this row is `power x + to_state y`
        from_state[:, row] = -np.einsum("pd,pde->pe", read, power)
        from_values[:, row] = -np.einsum("pd,pdr->pr", read, to_state)
        from_values[:, row, row] += 1.0
        to_state = closed @ to_state
        to_state[:, :, row] += gain
        power = closed @ power
    return from_values.reshape(count * rows, rows), from_state, to_state.reshape(count * size, rows), power


def smooth(kind: str, values: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Run the recurrence over windows with every parameter of a grid, and keep the best by one-step squared error.

    Args:
        kind: "level" (`ALPHAS`) or "holt" (`HOLT`).
        values: `(N, rows)`.
        start: `(N, d)` the state before the first row: level, and slope for "holt".

    Returns:
        index of the best parameters `(N,)` int64 and the state after the last row `(N, d)` with them.
    """
    best, state = in_passes(lambda rows, first: _smooth(kind, rows.T, first.T), RUN, LANES, values, start)
    return best, state


def _smooth(kind: str, values: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows, count = values.shape
    grid = len(ALPHAS) if kind == "level" else len(HOLT)
    state = np.broadcast_to(start, (grid, *start.shape))
    total = np.zeros((grid, count))
    stops = list(range(rows % BLOCK or BLOCK, rows + 1, BLOCK))
    begin = 0
    for stop in stops:
        block = values[begin:stop]
        from_values, from_state, to_state, power = _products(kind, stop - begin)
        errors = (from_values @ block).reshape(grid, stop - begin, count)
        errors += from_state @ state
        total += np.einsum("prn,prn->pn", errors, errors)
        state = (to_state @ block).reshape(grid, -1, count) + power @ state
        begin = stop
    best = total.argmin(axis=0)
    return best, state[best, :, np.arange(count)]


def seasonal_factors(windows: np.ndarray, season: int, multiply: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Classical decomposition of windows of at least `2 * season + 1` rows.

    Args:
        multiply: whether factors may multiply; logarithms are always added to.

    Returns:
        factor of each phase `(N, season)`, that of the first step ahead first, and whether factors multiply `(N,)`
        (all values of the window above zero) or are added.
    """
    count, rows = windows.shape
    sums = np.cumsum(np.concatenate([np.zeros((count, 1)), windows], axis=1), axis=1)
    moving = (sums[:, season:] - sums[:, :-season]) / season  # mean of rows i to i + season - 1
    if season % 2 == 0:
        moving = (moving[:, 1:] + moving[:, :-1]) / 2
    half = season // 2
    inner = windows[:, half : half + moving.shape[1]]
    ratio = np.asarray((windows > 0).all(axis=1)) if multiply else np.zeros(count, bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        detrended = np.where(ratio[:, None], inner / moving, inner - moving)
    phases = (half + np.arange(moving.shape[1]) - rows) % season
    factors = np.empty((count, season))
    for phase in range(season):
        factors[:, phase] = detrended[:, phases == phase].mean(axis=1)
    mean = factors.mean(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = np.where(ratio[:, None], factors / mean, factors - mean)
    return factors, ratio


def is_seasonal(windows: np.ndarray, season: int) -> np.ndarray:
    """The test for seasonality of the M competitions, at the 90 % level: `(N,)` bool."""
    rows = windows.shape[1]
    centered = windows - windows.mean(axis=1, keepdims=True)
    energy = np.einsum("nt,nt->n", centered, centered)
    safe = np.where(energy > 0, energy, 1.0)
    squares = np.zeros(len(windows))
    for lag in range(1, season + 1):
        r = np.einsum("nt,nt->n", centered[:, lag:], centered[:, :-lag]) / safe
        if lag < season:
            squares += r * r
    return (np.abs(r) > SIGNIFICANT * np.sqrt((1 + 2 * squares) / rows)) & (energy > 0)


def adjusted(
    windows: np.ndarray, season: int, horizon: int, test: bool, multiply: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Windows without their season, and what brings it back.

    Args:
        test: leave windows as they are whose season is not significant.
        multiply: whether factors may multiply; logarithms are always added to.

    Returns:
        the adjusted windows `(N, rows)`, factors `(N, H)` and terms `(N, H)`: a forecast f of the adjusted series is
        `f * factor + term`.
    """
    count, rows = windows.shape
    factor, term = np.ones((count, horizon)), np.zeros((count, horizon))
    if season == 1 or rows < 2 * season + 1:
        return windows, factor, term
    use = is_seasonal(windows, season) if test else np.ones(count, bool)
    if not use.any():
        return windows, factor, term
    phases, ratio = seasonal_factors(windows[use], season, multiply)
    behind = phases[:, (np.arange(rows) - rows) % season]
    ahead = phases[:, np.arange(horizon) % season]
    windows = windows.copy()
    with np.errstate(divide="ignore", invalid="ignore"):
        windows[use] = np.where(ratio[:, None], windows[use] / behind, windows[use] - behind)
    factor[use] = np.where(ratio[:, None], ahead, 1.0)
    term[use] = np.where(ratio[:, None], 0.0, ahead)
    return windows, factor, term


def theta(windows: np.ndarray, season: int, horizon: int, *, test: bool = True, multiply: bool = True) -> np.ndarray:
    """The theta forecast: half the slope of the trend, from the smoothed level on.

    Source: Assimakopoulos & Nikolopoulos (2000), "The theta model", Int. J. of Forecasting 16(4), in the form of
    Hyndman & Billah (2003), "Unmasking the Theta method", equation 5.

    Args:
        windows: `(N, rows)`.
        season: m; windows of at least 2m + 1 rows are adjusted for it.
        test: only where the season is significant.
        multiply: whether seasonal factors may multiply.

    Returns:
        `(N, horizon)`.
    """
    rows = windows.shape[1]
    values, factor, term = adjusted(windows, season, horizon, test, multiply)
    best, level = smooth("level", values, values[:, :1])
    steps = np.arange(rows) - (rows - 1) / 2
    slope = (values * steps).sum(axis=1) / max(1.0, float(steps @ steps))
    alpha = np.array(ALPHAS)[best][:, None]
    ahead = np.arange(horizon) + (1 - (1 - alpha) ** rows) / alpha
    return (level + slope[:, None] / 2 * ahead) * factor + term


def damped(windows: np.ndarray, season: int, horizon: int, *, test: bool = True, multiply: bool = True) -> np.ndarray:
    """Holt's forecast with a damped trend (Gardner & McKenzie 1985, "Forecasting trends in time series", Management
    Science 31(10)); arguments as `theta`.
    """
    rows = windows.shape[1]
    values, factor, term = adjusted(windows, season, horizon, test, multiply)
    first = min(rows - 1, max(4, season))
    slope = (values[:, first] - values[:, 0]) / first if first else np.zeros(len(values))
    best, state = smooth("holt", values, np.stack([values[:, 0], slope], axis=1))
    phi = np.array(HOLT)[best, 2][:, None]
    return (state[:, :1] + state[:, 1:] * np.cumsum(phi ** np.arange(1, horizon + 1), axis=1)) * factor + term
