"""Seasons of time steps: how many rows make a day, a week or a year."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from gpulstm.data.seasons import seasons_of
from gpulstm.data.time_axis import infer_step
from gpulstm.data.times import TimeForm

SEASONS = {
    "s": (3600, 86400),
    "10s": (360, 8640),
    "min": (1440, 10080),
    "5min": (288, 2016),
    "15min": (96, 672),
    "30min": (48, 336),
    "h": (24, 168),
    "2h": (12, 84),
    "6h": (4, 28),
    "12h": (2, 14),
    "D": (7, 365),
    "B": (5, 261),
    "bh": (8, 40),
    "W-SUN": (52,),
    "2W": (26,),
    "SMS": (24,),
    "MS": (12,),
    "ME": (12,),
    "BME": (12,),
    "QS": (4,),
    "6MS": (2,),
    "YS": (),
    "20ms": (180000, 4320000),
    "WOM-3FRI": (12,),
}


@pytest.mark.parametrize("freq", SEASONS)
def test_seasons_of_every_step(freq: str) -> None:
    time = pd.date_range("2024-01-15", periods=60, freq=freq).to_numpy().astype("M8[us]")
    step = infer_step(time, np.array([0, 60]), TimeForm())
    assert seasons_of(step, 10**8) == SEASONS[freq]


def test_a_season_has_to_fit_twice() -> None:
    time = pd.date_range("2024-01-01", periods=60, freq="h").to_numpy().astype("M8[us]")
    step = infer_step(time, np.array([0, 60]), TimeForm())
    assert seasons_of(step, 335) == (24,)
    assert seasons_of(step, 336) == (24, 168)
    assert seasons_of(step, 47) == ()


def test_a_day_of_the_month_and_numbers() -> None:
    days = np.arange("2020-01", "2024-01", dtype="M8[M]").astype("M8[D]") + np.timedelta64(27, "D")
    step = infer_step(days.astype("M8[us]"), np.array([0, 48]), TimeForm())
    assert step.kind == "months"
    assert seasons_of(step, 48) == (12,)
    assert seasons_of(infer_step(np.arange(50), np.array([0, 50]), TimeForm()), 50) == ()
