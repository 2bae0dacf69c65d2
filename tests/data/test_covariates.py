"""Covariates made from times: points on circles, holidays."""

from __future__ import annotations

import numpy as np
import pytest

from gpulstm.data.covariates import made_columns, made_names
from gpulstm.errors import ConfigError, DataError


def test_points_on_circles() -> None:
    days = np.array(["2024-01-01", "2024-01-08", "2024-01-01T12:00", "2024-02-15T12:00"], "M8[us]")
    columns = made_columns(days, ("weekly", "daily", "monthly"), None)
    np.testing.assert_allclose(columns[:, :2] ** 2 @ [1, 1], 1, atol=1e-12)
    np.testing.assert_allclose(columns[0, :2], [0, 1], atol=1e-12)  # 2024-01-01 was a Monday
    np.testing.assert_allclose(columns[1, :2], columns[0, :2], atol=1e-12)
    np.testing.assert_allclose(columns[2, 2:4], [0, -1], atol=1e-12)  # noon
    np.testing.assert_allclose(columns[3, 4:6], [0, -1], atol=1e-12)  # the middle of a February of 29 days
    year = made_columns(np.array(["1970-01-01", "1970-07-02T14:54:36"], "M8[us]"), ("yearly",), None)
    np.testing.assert_allclose(year, [[0, 1], [0, -1]], atol=1e-4)


def test_holidays() -> None:
    days = np.arange("2024-12-23", "2025-01-03", dtype="M8[D]").astype("M8[us]")
    assert made_names((), "DE") == ("holiday",)
    np.testing.assert_array_equal(made_columns(days, (), "DE")[:, 0], [0, 0, 1, 1, 0, 0, 0, 0, 0, 1, 0])
    np.testing.assert_array_equal(made_columns(days[:1], (), "DE", days=7), [[2]])  # 25 and 26 December
    with pytest.raises(ConfigError, match="holidays is 'Atlantis', expected a country"):
        made_columns(days, (), "Atlantis")


def test_mistakes() -> None:
    with pytest.raises(ConfigError, match="calendar has 'moon'"):
        made_names(("moon",), None)
    with pytest.raises(ConfigError, match="names something twice"):
        made_names(("weekly", "weekly"), None)
    with pytest.raises(DataError, match="needs dates in the time column, and it holds numbers"):
        made_columns(None, ("weekly",), None)
