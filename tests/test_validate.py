"""Checks of options, texts of bytes and shapes, and what a class of options says of itself."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pytest

from gpulstm import validate
from gpulstm.errors import ConfigError
from gpulstm.validate import parse_shape


@pytest.mark.parametrize("text", ["", "1,2,3,4", "1,2,3,4,0", "1,2,3,4,x", "1,2,3,4,5,6", "1, 2, 3, 4, -5"])
def test_a_shape_is_five_whole_numbers(text: str) -> None:
    with pytest.raises(ConfigError, match="expected five whole numbers T,B,I,H,L"):
        parse_shape(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [("800000", 800_000), (4096, 4096), ("256MiB", 256 << 20), ("1.5 GB", 1_500_000_000), (" 2 kib ", 2048), ("3B", 3)],
)
def test_bytes_as_text(text: str | int, count: int) -> None:
    assert validate.parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "many", "-3", "0", "1 parsec", "MiB", True, 0])
def test_what_is_no_number_of_bytes(text: Any) -> None:
    with pytest.raises(ConfigError, match="expected a number of bytes, a string like '256MiB', 'sqrt' or None"):
        validate.parse_bytes(text)


@pytest.mark.parametrize(("text", "number"), [("5", 5.0), ("-.5", -0.5), ("1e3", 1000.0), ("5.", 5.0), ("+2", 2.0)])
def test_numbers_that_a_text_spells(text: str, number: float) -> None:
    assert validate.number_of(text) == number


@pytest.mark.parametrize(
    "text", ["", "1_000", " 5", "5\n", "nan", "inf", "infinity", "٣", "１", "0x10", "1,5", "1e", "--5"]
)
def test_texts_that_spell_no_number(text: str) -> None:
    assert validate.number_of(text) is None
    assert validate.whole_of(text) is None


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (282 << 20, "282.0 MiB"), (1 << 42, "4096.0 GiB")],
)
def test_bytes_for_people(count: int, text: str) -> None:
    assert validate.format_bytes(count) == text


def test_numbers_keep_their_bounds() -> None:
    assert validate.real("rate", np.float32(0.5), above=0, at_most=1) == 0.5
    assert validate.real("rate", 1, at_least=1, below=2) == 1.0
    for value, bounds, words in (
        (0, {"above": 0}, "above 0"),
        (2, {"at_most": 1, "above": 0}, "above 0 and at most 1"),
        (math.nan, {}, "expected a finite number"),
        ("1", {}, "rate is '1'"),
        (True, {}, "rate is True"),
    ):
        with pytest.raises(ConfigError, match=words):
            validate.real("rate", value, **bounds)


def test_whole_numbers_and_flags() -> None:
    assert validate.count("size", np.int32(3)) == 3 and type(validate.count("size", np.int32(3))) is int
    assert validate.seed(0) == 0 and validate.seed(2**100) == 2**100
    with pytest.raises(ConfigError, match="size is a number of 64 bits, expected at most 9007199254740992"):
        validate.count("size", 2**63)
    assert validate.flag("on", True) is True
    for value in (0, 1.0, True, "3", None):
        with pytest.raises(ConfigError, match=r"size is .*, expected a whole number of at least 1"):
            validate.count("size", value)
    with pytest.raises(ConfigError, match="on is 1, expected True or False"):
        validate.flag("on", 1)


def test_levels_rise_between_nought_and_one() -> None:
    assert validate.levels("levels", [0.1, 0.5]) == (0.1, 0.5)
    for value in ((0.5, 0.5), (0.5, 0.1), (0.0,), (1.0,), "0.5", 0.5):
        with pytest.raises(ConfigError, match="levels"):
            validate.levels("levels", value)


@dataclass
class Rule:
    """A thing with a name and options."""

    size: int = 3
    parts: tuple[int, ...] = (1, 2)
    counter: int = field(default=0, init=False)
    name = "rule"


def test_an_object_from_the_dict_of_a_checkpoint() -> None:
    config = validate.to_config(Rule(5, (7,)))
    assert config == {"name": "rule", "size": 5, "parts": [7]}
    rule = validate.from_config("kind", [Rule], config)
    assert (rule.size, rule.parts) == (5, [7])
    with pytest.raises(ConfigError, match="kind is 'law', expected one of: rule"):
        validate.from_config("kind", [Rule], {"name": "law"})
    with pytest.raises(ConfigError, match="kind 'rule' has no option 'color'; it has: size, parts"):
        validate.from_config("kind", [Rule], {"name": "rule", "color": 1})


def test_a_shape_as_five_numbers() -> None:
    assert parse_shape("50, 32,8,64,2") == (50, 32, 8, 64, 2)


def test_a_field_that_describes_itself() -> None:
    @validate.documented
    @dataclass
    class Options:
        """Some options."""

        size: int = validate.described(3, "how large", "Sizes", aliases=("--big",))

    assert Options().size == 3
    assert fields(Options)[0].metadata["option"] == validate.Described("how large", "Sizes", ("--big",))
    assert Options.__doc__ == "Some options.\n\n    Args:\n        size: how large.\n    "
