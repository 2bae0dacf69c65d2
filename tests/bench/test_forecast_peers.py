"""Forecasting libraries in processes of their own."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from bench_cases import WAVES, monthly

from gpulstm.bench import forecast_peers, forecasts


def test_a_library_that_is_not_installed_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecasts, "read", lambda task, folder: monthly())
    known = forecasts.truth(monthly(), 12, 6)
    reason = forecasts.peer(WAVES, monthly(), known, 0, "nixtla", sys.executable)
    assert reason == "nixtla has no answer for waves: ModuleNotFoundError: No module named 'nixtla'"
    reasons: list[str] = []
    scores = forecasts.run([WAVES], None, [], peers=["nixtla"], skipped=reasons.append)
    assert len(scores) == 2 and len(reasons) == 1


def test_columns_of_quantiles_are_told_apart_by_either_way_to_name_them() -> None:
    for low, middle, high in (
        ("NHITS_ql0.1", "NHITS_ql0.5", "NHITS_ql0.9"),
        ("NHITS-lo-80.0", "NHITS-median", "NHITS-hi-80.0"),
    ):
        assert sorted([high, middle, low], key=forecast_peers._level) == [low, middle, high]


def test_missing_values_are_carried_forward_within_a_series() -> None:
    value = np.array([1, np.nan, np.nan, 4, np.nan, 6, np.nan])
    np.testing.assert_array_equal(forecast_peers.filled(value, np.array([0, 4, 7])), [1, 1, 1, 4, np.nan, 6, 6])
