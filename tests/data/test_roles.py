"""Which column plays which role: as asked for, and as told from the table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpulstm.data.frames import frame_source
from gpulstm.data.options import TableOptions
from gpulstm.data.roles import Roles, decide, guess_series
from gpulstm.errors import ConfigError, DataError

DAYS = pd.date_range("2024-01-01", periods=4)


def table(**more: Any) -> pd.DataFrame:
    return pd.DataFrame({"day": DAYS, "y": np.arange(4.0), "x": np.ones(4), "kind": list("abab"), **more})


def roles_of(frame: pd.DataFrame, known: tuple[str, ...] = (), **options: Any) -> Roles:
    return decide(frame_source(frame), TableOptions(**options), known)


def names(roles: Roles, positions: list[int]) -> list[str]:
    return [roles.names[at] for at in positions]


def test_the_only_dates_are_the_times_and_all_numbers_are_targets() -> None:
    roles = roles_of(table())
    assert roles.time == 0 and any(note.startswith("times are those of column") for note in roles.notes)
    assert names(roles, roles.targets) == ["y", "x"]
    assert roles.ignored == ["kind"]


def test_roles_that_were_asked_for() -> None:
    roles = roles_of(table(), target="y", past="x", static="kind", time="day")
    assert names(roles, roles.numbers) == ["y", "x", "kind"]
    assert roles.categories == {3}
    assert roles.kinds() == {1: "number", 2: "number", 3: "category", 0: "time"}


def test_two_columns_of_dates_are_not_guessed() -> None:
    roles = roles_of(table(sent=DAYS), target="y")
    assert roles.time is None
    assert any("several columns hold dates (day, sent)" in note for note in roles.notes)


def test_an_index_of_dates_is_the_time_and_another_level_the_series() -> None:
    index = pd.MultiIndex.from_product([["a", "b"], DAYS[:2]], names=["shop", "day"])
    roles = roles_of(pd.DataFrame({"y": np.arange(4.0)}, index=index))
    assert roles.time is not None and roles.names[roles.time] == "day"
    assert names(roles, roles.series) == ["shop"]


def test_a_column_that_numbers_the_rows_is_no_target() -> None:
    frame = pd.DataFrame({"": range(1, 4), "y": [1.0, 5.0, 2.0]})
    roles = roles_of(frame)
    assert names(roles, roles.targets) == ["y"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": "y", "past": "y"}, ConfigError, "column 'y' is given two roles, target and past"),
        ({"target": "none"}, DataError, "no column 'none'"),
        ({"target": ("y", "x"), "past": "weekly"}, DataError, "no column 'weekly'"),
        ({"past": ("y", "x")}, DataError, "no column left to forecast: column 'kind', position 0 holds 'a'"),
    ],
)
def test_mistakes(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        roles_of(table(), **options)


def test_names_of_covariates_that_are_made_are_taken() -> None:
    with pytest.raises(ConfigError, match="column 'x' has the name of a calendar covariate; rename it"):
        roles_of(table(), known=("x",), target="y", past="x")


def test_the_column_that_tells_series_apart_is_found() -> None:
    frame = pd.DataFrame({"day": list(DAYS) * 2, "shop": ["a"] * 4 + ["b"] * 4, "y": np.arange(8.0)})
    source = frame_source(frame)
    roles = decide(source, TableOptions(target="y"), ())
    assert names(roles, guess_series(source, roles)) == ["shop"]
    alone = frame_source(frame[:4])
    assert guess_series(alone, decide(alone, TableOptions(target="y"), ())) == []
