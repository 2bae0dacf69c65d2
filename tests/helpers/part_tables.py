"""Tables in parts, with whole series in each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd


def table(part: int, series: int = 3, rows: int = 60) -> pd.DataFrame:
    """Weekly seasons with noise, in columns id, t and y."""
    rng = np.random.default_rng(part)
    names = np.repeat([f"s{part}-{number}" for number in range(series)], rows)
    times = np.tile(pd.date_range("2020-01-01", periods=rows), series)
    values = 10 + np.sin(2 * np.pi * np.arange(rows) / 7)[None] * rng.uniform(1, 5, (series, 1))
    return pd.DataFrame({"id": names, "t": times, "y": (values + rng.normal(0, 0.1, values.shape)).ravel()})


def written(folder: Path, parts: int) -> Path:
    """The folder, with a Parquet file a part."""
    for part in range(parts):
        table(part).to_parquet(folder / f"{part}.parquet")
    return folder
