"""Tables by the minute and by the second, whose seasons are longer than any window, and wide panels: bounded memory."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from gpulstm.data.loading import load_series
from gpulstm.forecast import setup
from gpulstm.forecast.forecaster import Forecaster
from gpulstm.forecast.results import MODEL, SEASONAL

MEBI = 1 << 20


def clock(unit: str, rows: int) -> dict[str, np.ndarray]:
    """A season of a day, and noise."""
    day = {"m": 1440, "s": 86_400}[unit]
    steps = np.arange(rows)
    noise = np.random.default_rng(0).normal(0, 0.5, rows)
    return {"t": np.datetime64("2024-01-01", unit) + steps, "y": 20 + 5 * np.sin(2 * np.pi * steps / day) + noise}


@pytest.mark.slow
@pytest.mark.parametrize(("unit", "rows"), [("m", 30 * 1440), ("s", 4 * 86_400)])
def test_long_seasons_take_bounded_memory(unit: str, rows: int) -> None:
    series = load_series(clock(unit, rows), target="y", time="t")
    model = Forecaster(60, members=("simple", "ridge"), device="cpu", test=600)
    tracemalloc.start()
    try:
        model.fit(series, progress=False)
        result = model.backtest(stride=60)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 512 * MEBI, peak / MEBI
    errors = result.metrics()
    assert errors[MODEL]["MASE"] < errors[SEASONAL]["MASE"]
    fitted: Any = model.fitted
    assert fitted.mixed.ensemble.setup.limit <= setup.LONGEST


@pytest.mark.slow
def test_a_wide_panel_takes_bounded_memory() -> None:
    count, rows = 20_000, 40
    steps = np.tile(np.arange(rows), count)
    values = 50 + np.repeat(np.random.default_rng(0).normal(0, 5, count), rows) + 3 * np.sin(steps * np.pi / 2)
    table = {"id": np.repeat(np.arange(count), rows), "t": steps, "y": values}
    series = load_series(table, target="y", time="t", series="id")
    tracemalloc.start()
    try:
        forecast = Forecaster(4, season=4, device="cpu").fit(series, progress=False).predict()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert forecast.median.shape == (count, 4, 1) and np.isfinite(forecast.quantiles).all()
    assert peak < 512 * MEBI, peak / MEBI
