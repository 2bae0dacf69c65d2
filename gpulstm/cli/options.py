"""Command-line options from dataclasses of options: one field of `described` is one option.

A parameter of a command that is annotated with such a class becomes all of the class's options, and the command gets
the object made of them:

    @polite
    @with_options
    def train(data: Table, config: ForecasterConfig) -> None: ...

How a field appears, by its annotation:

- a number, text or flag as itself; `--hidden-size` for `hidden_size`, and its aliases;
- a number or None: 0 stands for None, in the help text too;
- a flag or None: `--name` and `--no-name`, neither for None;
- a sequence of numbers, and what is `many`: given several times, and not at all for the default;
- everything else as text, which the field's `parse` or the class itself reads.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from gpulstm.validate import Described, number_of, whole_of

Command = TypeVar("Command", bound=Callable[..., None])


class PlainCommand(TyperCommand):
    """A command whose help shows no type behind a flag, and whose lines are as long as the terminal is wide."""

    def __init__(self, *arguments: Any, help: str | None = None, **named: Any) -> None:
        paragraphs = inspect.cleandoc(help or "").split("\n\n")
        super().__init__(*arguments, help="\n\n".join(" ".join(text.split()) for text in paragraphs), **named)

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters in their order."""
        return _bare_flags(super().get_params(ctx))


class PlainGroup(TyperGroup):
    """A group of commands, likewise."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters in their order."""
        return _bare_flags(super().get_params(ctx))


def _bare_flags(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters


_PLAIN = (bool, int, float, str)


def with_options(command: Command, defaults: Mapping[str, Any] | None = None) -> Command:
    """The command with the options of its dataclasses in their place.

    Args:
        defaults: of options whose default on the command line is not that of Python.
    """
    hints = _evaluated(command)
    parameters: list[inspect.Parameter] = []
    classes: dict[str, type] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        if dataclasses.is_dataclass(hints[name]):
            classes[name] = hints[name]
            parameters += options_of(hints[name], defaults or {})
        else:
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(parameter.replace(kind=kind, annotation=hints[name]))

    @functools.wraps(command)
    def run(**values: Any) -> None:
        built = {name: from_line(options, values) for name, options in classes.items()}
        command(**built, **values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run  # type: ignore[return-value]


def _evaluated(command: Command) -> dict[str, Any]:
    """The annotations of a command's parameters, as they are written.

    Python 3.10 puts `Optional` around one whose default is None, and what is asked of typer within it is lost.
    """
    hints = get_type_hints(command, include_extras=True)
    for name, hint in hints.items():
        written = [member for member in get_args(hint) if get_origin(member) is Annotated]
        if get_origin(hint) is Union and written:
            hints[name] = written[0]
    return hints


def hints_of(options: type) -> dict[str, Any]:
    """The annotations of a dataclass's fields, evaluated.

    Without the mark `KW_ONLY`, which `get_type_hints` of Python 3.10 takes for a mistake.
    """
    hints: dict[str, Any] = {}
    for base in reversed(options.__mro__):
        own = {name: kind for name, kind in inspect.get_annotations(base).items() if name != "_"}
        hints |= get_type_hints(types.SimpleNamespace(__annotations__=own), vars(sys.modules[base.__module__]))
    return hints


def exact(command: Command) -> Command:
    """The command, whose numbers have to be spelled as people do: `1_000`, ` 5` or `nan` is a wrong command line."""
    hints = _evaluated(command)
    for annotation in hints.values():
        kind, *asked = get_args(annotation) or (None,)
        kinds = {inner for member in _members(kind) for inner in (member, *get_args(member))}
        if asked and isinstance(asked[0], typer.models.ParameterInfo) and kinds & {int, float}:
            asked[0].parser = integer if int in kinds else real
    signature = inspect.signature(command)
    asked_for = [one.replace(annotation=hints[one.name]) for one in signature.parameters.values()]
    command.__signature__ = signature.replace(parameters=asked_for)  # type: ignore[attr-defined]
    command.__annotations__ = hints  # made once: each reading of an annotation's text would make others
    return command


def integer(text: Any) -> int:
    """A whole number of the command line."""
    digits = str(text).removeprefix("-")
    number = whole_of(digits)
    if number is None:
        raise typer.BadParameter(f"{text!r} is not a whole number")
    return -number if digits != str(text) else number


def real(text: Any) -> float:
    """A number of the command line."""
    number = number_of(str(text))
    if number is None:
        raise typer.BadParameter(f"{text!r} is not a number")
    return number


def options_of(options: type, defaults: Mapping[str, Any] | None = None) -> list[inspect.Parameter]:
    """A parameter for typer for each field of a dataclass of options, in their order; `defaults` replace its own."""
    hints, own = hints_of(options), defaults or {}
    return [_parameter(one, hints[one.name], own.get(one.name, one.default)) for one in dataclasses.fields(options)]


def from_line(options: type, values: dict[str, Any]) -> Any:
    """The object of a dataclass of options from the values of a command line, which it takes out of `values`."""
    hints = hints_of(options)
    return options(
        **{one.name: _value(one, hints[one.name], values.pop(one.name)) for one in dataclasses.fields(options)}
    )


def _parameter(option: dataclasses.Field[Any], kind: Any, default: Any) -> inspect.Parameter:
    """How typer is to ask for one field whose annotation is `kind`."""
    described: Described = option.metadata["option"]
    members = _members(kind)
    annotation: Any
    text = described.text
    shown: bool | str = True
    if element := _element(described, kind):
        several = (default,) if isinstance(default, str) else default or ()
        shown = " ".join(str(value) for value in several) or False
        annotation, default = list[element] | None, None  # type: ignore[valid-type]
    elif _zero_is_none(members):
        number = int if int in members else float
        annotation, default = number, number() if default is None else default
        text = text.replace("None", "0")
        shown = default != 0
    elif members - {type(None)} <= {*_PLAIN} and len(members - {type(None)}) == 1:
        annotation = kind
    else:
        annotation, default = str | None, None if default is None else str(default)
    flag = f"--{option.name.replace('_', '-')}"
    spellings = [flag, *described.aliases]
    if bool in members and default is not False:
        spellings[0] = f"{flag}/--no-{flag[2:]}"
    asked = typer.Option(*spellings, help=_sentence(text), rich_help_panel=described.group, show_default=shown)
    return inspect.Parameter(
        option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, asked]
    )


def _value(option: dataclasses.Field[Any], kind: Any, value: Any) -> Any:
    """The value of a field from that of its option."""
    described: Described = option.metadata["option"]
    if _element(described, kind):
        return tuple(value) if value else option.default
    if _zero_is_none(_members(kind)):
        return value or None
    return described.parse(value) if described.parse is not None and value is not None else value


def _members(kind: Any) -> set[Any]:
    """The types of a union, or the one type that an annotation is."""
    return set(get_args(kind)) if get_origin(kind) in (Union, types.UnionType) else {kind}


def _element(described: Described, kind: Any) -> Any:
    """The type of one of several values, or None where an option is given once."""
    if described.many:
        return str
    return get_args(kind)[0] if get_origin(kind) in (Sequence, list, tuple) else None


def _zero_is_none(members: set[Any]) -> bool:
    return members in ({int, type(None)}, {float, type(None)})


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
