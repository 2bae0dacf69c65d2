"""How a table is to be read: names as text, and options out of range."""

from __future__ import annotations

from typing import Any

import pytest

from gpulstm.data.options import TableOptions, column_name, names
from gpulstm.errors import ConfigError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", ["a"]),
        (3, ["3"]),
        (["a", 2], ["a", "2"]),
        ([("a", "b"), ("c", "")], ["a b", "c"]),
        ((), []),
        (None, ["None"]),
    ],
)
def test_one_name_or_several(value: Any, expected: list[str]) -> None:
    assert names(value) == expected


def test_names_become_tuples_of_text() -> None:
    options = TableOptions(target=0, past=["a", "b"], time=1)
    assert (options.target, options.past, options.time) == (("0",), ("a", "b"), "1")
    assert TableOptions().target is None


def test_the_levels_of_a_column_stand_one_after_another() -> None:
    assert column_name(("price", "mean")) == "price mean"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"missing": "guess"}, "missing.* is 'guess', expected any of 'auto', 'refuse'"),
        ({"duplicates": "all"}, "duplicates.* is 'all', expected any of 'refuse', 'first'"),
        ({"decimal": "a"}, "decimal.* is 'a', expected one mark"),
        ({"decimal": ",", "thousands": ","}, "are both ','"),
        ({"sep": ";;"}, "sep.* is ';;', expected one mark"),
        ({"dayfirst": "yes"}, "dayfirst.* is 'yes', expected True, False or None"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TableOptions(**options)
