"""Small forecasters and the tables that they learn from, for several test files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from gpulstm.forecast.forecaster import Forecaster

SMALL: dict[str, Any] = {
    "members": ("network",),
    "horizon": 4,
    "context": 12,
    "hidden_size": 8,
    "num_layers": 1,
    "device": "cpu",
    "epochs": 2,
    "batch_size": 32,
    "validation": 20,
}


def wave(rows: int = 150, seed: int = 0) -> np.ndarray:
    """A trend, a season of 8 and a little noise."""
    steps = np.arange(rows)
    return 0.05 * steps + 3 * np.sin(2 * np.pi * steps / 8) + np.random.default_rng(seed).normal(0, 0.1, rows)


def dated(rows: int = 150) -> dict[str, Any]:
    days = np.datetime64("2024-01-01", "D") + np.arange(rows)
    return {"day": days, "y": wave(rows), "k": np.cos(np.arange(rows) / 5), "z": wave(rows, 1)}


def small(data: Any = None, *, roles: dict[str, Any] | None = None, **changes: Any) -> Forecaster:
    return Forecaster(**{**SMALL, **changes}).fit(wave() if data is None else data, progress=False, **(roles or {}))


def many(lengths: tuple[int, ...] = (80, 120, 14)) -> pd.DataFrame:
    return pd.concat(
        pd.DataFrame({"id": f"s{number}", "t": np.arange(rows), "y": (number + 1) * wave(rows, number)})
        for number, rows in enumerate(lengths)
    )


def months(rows: int = 144, seed: int = 0) -> dict[str, np.ndarray]:
    """A trend and a season that grows with it."""
    steps = np.arange(rows)
    noise = np.random.default_rng(seed).normal(0, 0.03, rows)
    values = (100 + steps) * (1 + 0.3 * np.sin(2 * np.pi * steps / 12)) * np.exp(noise)
    return {"month": np.datetime64("2010-01", "M") + steps, "y": values}


def fitted_to(table: Any, **options: Any) -> Forecaster:
    """With all else as it is by default."""
    roles = {"time": "month"} if isinstance(table, dict) and "month" in table else {}
    return Forecaster(**{"device": "cpu", **options}).fit(table, progress=False, **roles)
