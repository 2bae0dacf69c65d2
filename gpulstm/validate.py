"""Checks for options, what options say about themselves, and objects rebuilt from a checkpoint's dict.

Every check gives the value back in its plain Python type, or raises `ConfigError` with one sentence that names the
option, what came and what was expected.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import numbers
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from gpulstm.errors import ConfigError

MOST = 2**53  # of what is counted: sums of a few such numbers have room in 64 bits
_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


_WHOLE = re.compile(r"[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")


def whole_of(text: str) -> int | None:
    """The whole number that a text spells in the digits 0 to 9; None where it is none, as `1_000` or `٣`."""
    return int(text) if _WHOLE.fullmatch(text) else None


def number_of(text: str) -> float | None:
    """The number that a text spells in such digits; None where it is none, as `1_000`, ` 5`, `nan` or `infinity`."""
    return float(text) if _NUMBER.fullmatch(text) else None


def parse_bytes(memory: str | int) -> int:
    """Bytes from an integer or a string like "256MiB", "1.5 GB" or "800000".

    Raises:
        ConfigError: it is neither, or not positive.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*", str(memory))
    unit = _UNITS.get(match.group(2).upper() or "B") if match and not isinstance(memory, bool) else None
    if match is None or unit is None or float(match.group(1)) <= 0:
        raise ConfigError(f"memory is {memory!r}, expected a number of bytes, a string like '256MiB', 'sqrt' or None")
    return int(float(match.group(1)) * unit)


def format_bytes(count: int) -> str:
    """A number of bytes for people: "282.0 MiB"."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def parse_shape(text: str) -> tuple[int, int, int, int, int]:
    """`"T,B,I,H,L"` as five numbers.

    Raises:
        ConfigError: they are not five whole numbers of at least 1.
    """
    sizes = [whole_of(part.strip()) or 0 for part in text.split(",")]
    if len(sizes) != 5 or not all(sizes):
        raise ConfigError(f"shape is {text!r}, expected five whole numbers T,B,I,H,L such as 50,32,8,64,2")
    steps, batch, inputs, hidden, layers = sizes
    return steps, batch, inputs, hidden, layers


def real(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> float:
    """`value` as a finite float within the bounds given."""
    bounds = [
        (above, "above", lambda bound: value > bound),
        (at_least, "at least", lambda bound: value >= bound),
        (below, "below", lambda bound: value < bound),
        (at_most, "at most", lambda bound: value <= bound),
    ]
    stated = [(bound, word, holds) for bound, word, holds in bounds if bound is not None]
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not all(holds(bound) for bound, _, holds in stated):
        expected = " and ".join(f"{word} {bound:g}" for bound, word, _ in stated)
        raise ConfigError(f"{name} is {value!r}, expected a finite number{' ' + expected if expected else ''}")
    return float(value)


def count(name: str, value: Any, *, at_least: int = 1, at_most: float = MOST) -> int:
    """`value` as an int within the bounds given."""
    if isinstance(value, numbers.Integral) and int(value) > at_most:
        raise ConfigError(f"{name} is a number of {int(value).bit_length()} bits, expected at most {at_most}")
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < at_least:
        raise ConfigError(f"{name} is {value!r}, expected a whole number of at least {at_least}")
    return int(value)


def seed(value: Any) -> int:
    """A seed of random numbers, of any size, as an int of at least 0."""
    return count("seed", value, at_least=0, at_most=math.inf)


def flag(name: str, value: Any) -> bool:
    """`value` as a bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise ConfigError(f"{name} is {value!r}, expected True or False")
    return bool(value)


def levels(name: str, value: Any) -> tuple[float, ...]:
    """Quantile levels: strictly rising numbers between 0 and 1, both ends left out."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ConfigError(f"{name} is {value!r}, expected a sequence of numbers between 0 and 1, as (0.1, 0.5, 0.9)")
    numbers = tuple(real(f"{name}[{index}]", level, above=0, below=1) for index, level in enumerate(value))
    if any(later <= earlier for earlier, later in itertools.pairwise(numbers)):
        raise ConfigError(f"{name} is {numbers}, expected levels that rise strictly")
    return numbers


def plain_numbers(options: Any) -> None:
    """Put Python's numbers in the place of NumPy's in a dataclass of options: a checkpoint holds plain ones."""
    for one in dataclasses.fields(options):
        value = getattr(options, one.name)
        if isinstance(value, (np.number, np.bool_)):
            object.__setattr__(options, one.name, value.item())


def mapping(name: str, value: Any) -> Mapping[str, Any]:
    """`value` as named values, as a JSON object gives them."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{name} is a {type(value).__name__}, expected named values")
    return value


def scalars(name: str, value: Any, now: Mapping[str, Any]) -> Mapping[str, Any]:
    """Saved numbers under the names of `now`; where `now` has None, a number or None."""
    checked = mapping(name, value)
    if checked.keys() != now.keys():
        raise ConfigError(f"{name} has the entries {sorted(checked) or 'none'}, expected {sorted(now) or 'none'}")
    for key, entry in checked.items():
        if isinstance(now[key], bool):
            flag(f"{name}.{key}", entry)
        elif isinstance(now[key], int):
            count(f"{name}.{key}", entry, at_least=0)
        elif entry is not None:
            real(f"{name}.{key}", entry)
    return checked


def to_config(value: Any) -> dict[str, Any]:
    """The name of a dataclass object and the options it was built with, as JSON can hold them."""
    config = {"name": value.name}
    for field in dataclasses.fields(value):
        if field.init:
            option = getattr(value, field.name)
            config[field.name] = list(option) if isinstance(option, tuple) else option
    return config


def from_config(kind: str, classes: Sequence[type], config: Mapping[str, Any]) -> Any:
    """The object that `to_config` described.

    Args:
        kind: what it is, for the message: `"loss"`, `"optimizer"`, `"schedule"`.
        classes: the classes to choose from, each with a `name`.
        config: `{"name": ..., option: value, ...}`.

    Raises:
        ConfigError: no class has that name, or it has no such option.
    """
    known = {getattr(cls, "name"): cls for cls in classes}  # noqa: B009
    name = config.get("name")
    if name not in known:
        raise ConfigError(f"{kind} is {name!r}, expected one of: {', '.join(known)}")
    options = {key: value for key, value in config.items() if key != "name"}
    allowed = [field.name for field in dataclasses.fields(known[name]) if field.init]
    unknown = sorted(options.keys() - set(allowed))
    if unknown:
        raise ConfigError(f"{kind} {name!r} has no option {unknown[0]!r}; it has: {', '.join(allowed) or 'none'}")
    return known[name](**options)


@dataclasses.dataclass(frozen=True)
class Described:
    """What a dataclass field says about the option that it is, for its docstring and for the command line.

    Attributes:
        text: what the option means: lower case, no full stop at the end.
        group: heading under which the command line lists it.
        aliases: further spellings on the command line, such as `"--layers"`.
        many: whether the command line takes it several times, each time with one text.
        parse: from the command line's text to the value, where the annotation does not say it.
    """

    text: str
    group: str
    aliases: tuple[str, ...] = ()
    many: bool = False
    parse: Callable[[str], Any] | None = None


def described(
    default: Any,
    text: str,
    group: str,
    *,
    aliases: tuple[str, ...] = (),
    many: bool = False,
    parse: Callable[[str], Any] | None = None,
) -> Any:
    """A field of a dataclass of options: its default, and a `Described` of the other arguments."""
    return dataclasses.field(default=default, metadata={"option": Described(text, group, aliases, many, parse)})


Options = TypeVar("Options", bound=type)


def documented(options: Options) -> Options:
    """A dataclass of options whose docstring lists them under "Args", each with its own text."""
    lines = [f"        {one.name}: {one.metadata['option'].text}." for one in dataclasses.fields(options)]
    options.__doc__ = f"{(options.__doc__ or '').rstrip()}\n\n    Args:\n" + "\n".join(lines) + "\n    "
    return options
