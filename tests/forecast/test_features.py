"""What a learned member knows besides its window."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpulstm.forecast.features import Features
from gpulstm.forecast.panel import Panel, View


def view(rows: int = 48, **columns: Any) -> View:
    panel = Panel.of(np.arange(float(rows)), np.array([0, rows]), **columns)
    return View(panel, np.array([24, 30]), 2, 1, 10)


def hours(rows: int = 48) -> np.ndarray:
    return np.datetime64("2024-01-01T00", "us") + np.arange(rows) * np.timedelta64(1, "h")  # a Monday


def test_without_any_there_are_no_columns() -> None:
    assert Features().columns(view()).shape == (2, 0)


def test_the_weekday_and_the_hour_of_the_origin() -> None:
    columns = Features(calendar=True).columns(view(time=hours()))
    assert columns.shape == (2, 23)
    assert columns[0, :7].tolist() == columns[1, :7].tolist() == [0, 1, 0, 0, 0, 0, 0]  # both on Tuesday
    np.testing.assert_allclose(columns[0, 7:9], [0.0, 1.0], atol=1e-12)  # midnight
    np.testing.assert_allclose(columns[1, 7:9], [1.0, 0.0], atol=1e-12)  # six in the morning


def test_the_day_of_the_year_goes_round() -> None:
    columns = Features(yearly=True).columns(view(time=hours()))
    assert columns.shape == (2, 4)
    np.testing.assert_allclose((columns[:, :2] ** 2).sum(axis=1), 1.0)


def test_known_covariates_are_scaled_by_the_rows_before_a_stop_and_read_ahead() -> None:
    known = np.concatenate([np.tile([0.0, 2.0], 12), np.full(24, 4.0)])[:, None]
    seen = view(known=known)
    features = Features(known=True, back=1).fitted(seen.panel, np.array([24]))
    np.testing.assert_allclose(features.scales["known"][:, 0], [1.0, 1.0])
    columns = features.columns(seen)
    np.testing.assert_allclose(columns[:, :3], [[1.0, 3.0, 3.0], [3.0, 3.0, 3.0]])


def test_static_covariates_are_those_of_the_series() -> None:
    panel = Panel.of(np.arange(8.0), np.array([0, 4, 8]), static=np.array([[1.0], [3.0]]))
    features = Features(static=True).fitted(panel, np.array([4, 8]))
    columns = features.columns(View(panel, np.array([2, 6]), 1, 1, 4))
    np.testing.assert_allclose(columns, [[-1.0], [1.0]])


def test_a_column_that_does_not_vary_is_not_divided_by_nothing() -> None:
    features = Features(known=True).fitted(view(known=np.full((48, 1), 7.0)).panel, np.array([24]))
    assert features.scales["known"][:, 0].tolist() == [7.0, 1.0]


def test_a_file_keeps_all_but_the_scales() -> None:
    features = Features(calendar=True, known=True, back=3)
    assert Features(**features.config()).config() == features.config()
