"""Steps of time indices, the times that follow, and calendar covariates."""

from __future__ import annotations

import numpy as np
import pytest

from gpulstm.data.calendars import calendar_columns, continue_time, format_time, season_of, step_of
from gpulstm.errors import ConfigError, DataError


def dates(*texts: str) -> np.ndarray:
    return np.array(texts, dtype="datetime64[us]")


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (dates("2024-02-27", "2024-02-28"), dates("2024-02-29", "2024-03-01", "2024-03-02")),
        (dates("2024-01-01T22", "2024-01-01T23"), dates("2024-01-02T00", "2024-01-02T01", "2024-01-02T02")),
        (dates("2024-01-15", "2024-02-15", "2024-03-15"), dates("2024-04-15", "2024-05-15", "2024-06-15")),
        (dates("2023-11-30", "2023-12-31", "2024-01-31"), dates("2024-02-29", "2024-03-31", "2024-04-30")),
        (dates("2023-07-01", "2023-10-01", "2024-01-01"), dates("2024-04-01", "2024-07-01", "2024-10-01")),
        (dates("2020-01-01", "2021-01-01", "2022-01-01"), dates("2023-01-01", "2024-01-01", "2025-01-01")),
        (np.array([1.0, 3.0, 5.0]), np.array([7.0, 9.0, 11.0])),
    ],
)
def test_times_that_follow(time: np.ndarray, expected: np.ndarray) -> None:
    assert step_of(time).regular
    np.testing.assert_array_equal(continue_time(time, 3), expected)


def test_irregular_steps_take_the_most_frequent() -> None:
    step = step_of(dates("2024-01-01", "2024-01-02", "2024-01-03", "2024-01-06", "2024-01-07"))
    assert not step.regular
    assert step.amount == 86_400_000_000
    with pytest.raises(DataError, match="one row"):
        step_of(dates("2024-01-01"))


def test_calendar_columns_are_on_the_circle_and_return() -> None:
    time = dates("2024-01-01T00", "2024-01-01T06", "2024-01-08T00", "2024-03-01T00")
    columns = calendar_columns(time, ("yearly", "monthly", "weekly", "daily"))
    np.testing.assert_allclose(columns[:, 0::2] ** 2 + columns[:, 1::2] ** 2, 1)
    np.testing.assert_allclose(columns[0, 4:6], columns[2, 4:6], atol=1e-12)  # two Mondays
    np.testing.assert_allclose(columns[0, 2:4], columns[3, 2:4], atol=1e-12)  # two firsts of a month
    np.testing.assert_allclose(columns[1, 6:8], [1, 0], atol=1e-12)  # six in the morning
    assert abs(np.arctan2(columns[0, 0], columns[0, 1])) < 0.02  # the new year is near 0
    with pytest.raises(ConfigError, match="twice"):
        calendar_columns(time, ("weekly", "weekly"))


def test_times_as_text() -> None:
    assert format_time(np.datetime64("2024-01-01", "us")) == "2024-01-01"
    assert format_time(np.datetime64("2024-01-01T01:30", "us")) == "2024-01-01T01:30:00"
    assert format_time(np.float64(3.0)) == "3"


@pytest.mark.parametrize(
    ("time", "season"),
    [
        (dates("2024-01-01T00", "2024-01-01T01"), 24),
        (dates("2024-01-01", "2024-01-02"), 7),
        (dates("2024-01-01", "2024-01-08"), 52),
        (dates("2024-01-01", "2024-02-01", "2024-03-01"), 12),
        (dates("2024-03-31", "2024-06-30"), 4),
        (dates("2023-01-01", "2024-01-01"), 1),
        (np.array([1.0, 2.0]), 1),
    ],
)
def test_seasons_of_steps(time: np.ndarray, season: int) -> None:
    assert season_of(step_of(time)) == season
