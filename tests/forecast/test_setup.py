"""Windows, where learning starts, and where members are judged."""

from __future__ import annotations

import numpy as np
import pytest

from gpulstm.forecast.panel import Panel, Seasons
from gpulstm.forecast.setup import HOURS, JUDGED, SEEN, WINDOWS, Setup, seasons_of, training_origins, validation_origins


def panel(*rows: int) -> Panel:
    return Panel.of(np.arange(float(sum(rows))), np.concatenate([[0], np.cumsum(rows)]))


@pytest.mark.parametrize(
    ("seasons", "rows", "length"),
    [(Seasons(12), 200, 25), (Seasons(1), 60, 12), (Seasons(24, 168), 2000, 192), (Seasons(400), 3000, SEEN)],
)
def test_a_window_holds_two_seasons_or_a_part_of_the_rows(seasons: Seasons, rows: int, length: int) -> None:
    setup = Setup.of(4, seasons, np.array([rows]), 12)
    assert setup.length == length
    assert setup.limit <= rows and setup.first >= 2
    assert Setup.of(4, seasons, np.array([rows]), 12, context=7).length == 7


def test_hours_have_weeks_where_there_are_enough_of_them() -> None:
    assert seasons_of(24, 4 * 168).long == 168 and seasons_of(24, 4 * 168 - 1).long == 0
    assert seasons_of(12, 10_000).long == 0
    assert Setup.of(24, Seasons(24, 168), np.array([3000]), 100).limit == HOURS


def test_members_are_judged_within_the_rows_that_may_be_seen() -> None:
    stops = np.array([90])
    origins, age, cut = validation_origins(panel(100), stops, 4, None, 0)
    assert origins.max() == 86 and (origins == 86 - age).all()
    assert cut[0] == origins.min()
    few, _, _ = validation_origins(panel(100), stops, 4, 4, 0)
    assert few.tolist() == [86]


def test_members_are_judged_by_rows_that_were_observed() -> None:
    values = np.arange(100.0)
    values[50:95] = np.nan
    gap = Panel.of(values, np.array([0, 100]))
    origins, _, cut = validation_origins(gap, np.array([100]), 4, None, 0)
    assert cut[0] == origins.min() == 43  # 12 observed rows: the last 5, and 7 before the gap
    whole, _, _ = validation_origins(panel(100), np.array([100]), 4, None, 0)
    assert whole.min() == 80
    long, _, _ = validation_origins(panel(200_000), np.array([200_000]), 4, None, 0)
    assert len(long) <= JUDGED and long.min() == pytest.approx(160_000, abs=50)


def test_of_many_series_a_sample_is_judged() -> None:
    rows = [12] * (JUDGED + 50)
    many = panel(*rows)
    origins, _, _ = validation_origins(many, many.offsets[1:], 2, 2, 0)
    again, _, _ = validation_origins(many, many.offsets[1:], 2, 2, 0)
    assert len(origins) == JUDGED and (origins == again).all()


def test_series_that_are_too_short_are_not_judged() -> None:
    origins, age, cut = validation_origins(panel(3, 50), np.array([3, 53]), 4, 4, 0)
    assert len(origins) == len(age) == 1
    assert cut.tolist() == [3, 49]


def test_windows_end_before_their_stops() -> None:
    setup = Setup(4, Seasons(), 4, 8, 4)
    origins = training_origins(panel(20, 10), np.array([15, 30]), setup, 5, 0)
    assert sorted(origins) == [*range(5, 12), 25, 26]


def test_of_too_many_windows_a_sample_is_taken() -> None:
    setup = Setup(4, Seasons(), 4, 8, 4)
    origins = training_origins(panel(WINDOWS + 500), np.array([WINDOWS + 500]), setup, 5, 0)
    assert len(origins) == len(set(origins)) == WINDOWS
