"""Cuts of series into parts, by fraction, number and date."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from gpulstm.data.loading import load_series
from gpulstm.data.splits import chronological_cuts, parse_amount
from gpulstm.errors import ConfigError


@pytest.mark.parametrize(("text", "value"), [("52", 52), ("0", 0), ("0.25", 0.25), ("2024-01-01", "2024-01-01")])
def test_amounts(text: str, value: object) -> None:
    assert parse_amount(text) == value
    assert type(parse_amount(text)) is type(value)


def test_cuts_by_fraction_count_and_date() -> None:
    time = np.arange("2024-01-01", "2024-01-21", dtype="datetime64[D]")
    series = load_series({"t": time, "y": np.arange(20.0)}, time="t")
    for validation, test in (
        (0.25, 0.1),
        (5, 2),
        ("2024-01-14", "2024-01-19"),
        (date(2024, 1, 14), np.datetime64("2024-01-19")),
    ):
        cuts = chronological_cuts(series, validation, test)
        assert (cuts.train[0], cuts.validation[0]) == (13, 18)
    for amount, message in (
        (1.5, "expected a fraction"),
        (-1, "at least 0"),
        ("soon", "expected a fraction, a number of rows or an ISO date"),
        (True, "expected a fraction"),
        (20, "leave no training rows"),
    ):
        with pytest.raises(ConfigError, match=message):
            chronological_cuts(series, amount)
    with pytest.raises(ConfigError, match="no column of dates"):
        chronological_cuts(load_series(np.ones(9)), "2024-01-01")


def test_a_part_is_never_longer_than_its_series() -> None:
    series = load_series({"y": np.arange(30.0), "id": ["a"] * 25 + ["b"] * 5}, series="id")
    cuts = chronological_cuts(series, 1, 3)
    np.testing.assert_array_equal(cuts.validation, [22, 27])
    np.testing.assert_array_equal(cuts.train, [21, 26])
    np.testing.assert_array_equal(chronological_cuts(series, 2, 3).train, [20, 25])  # none of b, and that is no mistake
    with pytest.raises(ConfigError, match="validation=20 and test=5 leave no training rows of any series"):
        chronological_cuts(series, 20, 5)
