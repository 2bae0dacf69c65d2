"""What "auto" means for series of some length and season."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpulstm.data.loading import load_series
from gpulstm.data.series import SeriesSet
from gpulstm.forecast import decisions
from gpulstm.forecast.config import ForecasterConfig
from gpulstm.forecast.decisions import (
    LONGEST_HORIZON,
    SINGLE,
    automatic_horizon,
    automatic_test,
    planned,
    resolved,
    season_notes,
    seasons_for,
    single_notes,
    with_test,
)


def daily(rows: int = 100) -> SeriesSet:
    days = np.datetime64("2024-01-01") + np.arange(rows)
    return load_series({"day": days, "y": np.arange(rows) + 0.0}, target="y", time="day")


@pytest.mark.parametrize(
    ("season", "rows", "horizon"),
    [(7, 100, 7), (1, 100, 6), (1, 12, 2), (7, 3, 1), (1000, 10**6, LONGEST_HORIZON)],
)
def test_a_horizon_is_a_season_within_a_sixth_of_the_rows(season: int, rows: int, horizon: int) -> None:
    assert automatic_horizon(season, rows) == horizon


@pytest.mark.parametrize(("horizon", "rows", "test"), [(4, 100, 12), (4, 40, 8), (4, 19, 0), ("auto", 100, 20)])
def test_a_test_is_three_horizons_within_a_fifth_of_the_rows(horizon: Any, rows: int, test: int) -> None:
    assert automatic_test(horizon, 7, rows) == test


def test_seasons_are_those_asked_for_or_those_of_the_step() -> None:
    assert seasons_for(ForecasterConfig(season=5), daily()) == (5,)
    assert seasons_for(ForecasterConfig(), daily())[0] == 7
    assert seasons_for(ForecasterConfig(), load_series(np.arange(30.0))) == (1,)


def test_a_test_that_is_automatic_becomes_a_number_of_rows() -> None:
    config = with_test(ForecasterConfig(4, test="auto"), daily())
    assert config.test == 12
    rows = decisions.test_rows(config, daily())
    assert rows is not None and rows.tolist() == [88]
    assert decisions.test_rows(ForecasterConfig(4, test=0), daily()) is None


def test_options_of_a_single_network_are_decided_from_its_rows() -> None:
    config = resolved(ForecasterConfig(members=("network",)), 7, 100)
    assert {name: getattr(config, name) for name in SINGLE} == SINGLE
    assert (config.horizon, config.validation, config.context) == (7, 0.1, 24)
    short = resolved(ForecasterConfig(4, members=("network",)), 1, 12)
    assert short.context == 2 and short.validation == 4
    named = resolved(ForecasterConfig(4, 9, members=("network",), epochs=3, validation=2), 1, 50)
    assert (named.horizon, named.context, named.epochs, named.validation) == (4, 9, 3, 2)


def test_a_mixture_decides_later() -> None:
    config = ForecasterConfig()
    assert planned(config, daily()).horizon == config.horizon
    assert planned(ForecasterConfig(members=("network",)), daily()).horizon == 7


def test_notes_say_what_the_user_did_not() -> None:
    assert single_notes(ForecasterConfig(members=("network",))) == []
    assert single_notes(ForecasterConfig()) == []
    assert any("is of a single network" in note for note in single_notes(ForecasterConfig(strategy="recursive")))
    assert season_notes(ForecasterConfig(season=7), daily()) == []
    assert season_notes(ForecasterConfig(), daily()) == []
