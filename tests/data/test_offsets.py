"""Dates of offsets, against calendars counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from gpulstm.data.offsets import aliases_of_months, dates_of, own_rule

LOW, HIGH = np.datetime64("2024-01-01"), np.datetime64("2024-03-31")


@pytest.mark.parametrize(
    ("alias", "days"),
    [
        ("BMS#2", ["2024-01-02", "2024-02-02", "2024-03-04"]),  # 1 January is a business day here, 2 March a Saturday
        ("BME#1", ["2024-01-31", "2024-02-29", "2024-03-29"]),
        ("LWOM-SUN", ["2024-01-28", "2024-02-25", "2024-03-31"]),
        ("WOM-3FRI", ["2024-01-19", "2024-02-16", "2024-03-15"]),
        ("QS-FEB", ["2024-02-01"]),
    ],
)
def test_dates_of_three_months(alias: str, days: list[str]) -> None:
    assert dates_of(alias, LOW, HIGH, 0).astype("datetime64[D]").astype(str).tolist() == days


def test_more_dates_follow_the_last_one() -> None:
    assert dates_of("LWOM-SUN", LOW, HIGH, 1).astype("datetime64[D]").astype(str).tolist()[-1] == "2024-04-28"
    friday = np.datetime64("2024-03-29")
    assert dates_of("B", friday, friday, 2).astype("datetime64[D]").astype(str).tolist()[:3] == [
        "2024-03-29",
        "2024-04-01",
        "2024-04-02",
    ]


def test_rules_of_its_own() -> None:
    assert all(own_rule(alias) for alias in ("BMS#1", "BME#20", "LWOM-TUE"))
    assert not any(own_rule(alias) for alias in ("BMS", "BMS#0", "BME#21", "BMS#1_0", "LWOM-XYZ", "WOM-1MON"))


def test_what_a_day_may_be_called() -> None:
    assert aliases_of_months(np.datetime64("2024-01-29"), 1)[-2:] == ["BME#3", "LWOM-MON"]
    assert "QS-JAN" in aliases_of_months(np.datetime64("2024-01-01"), 3)
    assert "WOM-2TUE" in aliases_of_months(np.datetime64("2024-01-09"), 12)
