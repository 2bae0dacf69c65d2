"""The errors a user can cause, each raised with one sentence: which argument, what came, what was expected.

Every class also derives from the built-in error that a NumPy user would expect, so `except ValueError` goes on working.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

MESSAGE = 300  # characters of a message: what a file says of itself may be megabytes
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")  # line ends, and what a terminal would obey


class GpulstmError(Exception):
    """Base of every error raised on purpose by this package; the CLI prints these without a traceback.

    A message is one line of at most 300 characters: of a longer one the middle is left out.

    Attributes:
        everywhere: whether every process of a parallel run raises it alike, so that the first says it for all.
    """

    everywhere = False

    def __init__(self, *args: object) -> None:
        super().__init__(*(one_line(arg) if isinstance(arg, str) else arg for arg in args))


def one_line(text: str) -> str:
    """`text` without control characters, and without its middle where it is longer than `MESSAGE`."""
    text = _CONTROL.sub(" ", text)
    if len(text) <= MESSAGE:
        return text
    return f"{text[: MESSAGE - 105]} ... {text[-100:]}"


class ConfigError(GpulstmError, ValueError):
    """An option, or a combination of options, that no model can have."""


class ShapeError(GpulstmError, ValueError):
    """An array of the wrong rank or extent."""


class DTypeError(GpulstmError, TypeError):
    """An array or option of the wrong element type."""


class DeviceError(GpulstmError, RuntimeError):
    """A device that is not there, or an array that lives on another one."""


class EngineError(GpulstmError, RuntimeError):
    """A forced engine that cannot serve the call; the message says which option stands in its way."""


class DataError(GpulstmError, ValueError):
    """A table, column, row or series that cannot be used as asked."""


class CheckpointError(GpulstmError, ValueError):
    """A file that is not a checkpoint of this package, is damaged, or belongs to another model."""


class InteropError(GpulstmError, ValueError):
    """A model of another library that has no equal here (or there), or a file of one that is damaged or not safe."""


class NotFittedError(GpulstmError, RuntimeError):
    """A forecaster was asked for results before `fit`."""


class TrainingError(GpulstmError, RuntimeError):
    """Training cannot go on, for example because the loss is no longer finite."""


class MissingExtraError(GpulstmError, ImportError):
    """An optional library is not installed; the message names the extra that brings it."""


_speaks_options = False  # whether messages name options as the command line has them


@contextlib.contextmanager
def speaking_options() -> Iterator[None]:
    """Within the block messages name options as `--missing zero`, for a person at a command line."""
    global _speaks_options
    before, _speaks_options = _speaks_options, True
    try:
        yield
    finally:
        _speaks_options = before


def option(name: str, value: object = None) -> str:
    """How to name an option to the user: `missing='zero'` in Python, `--missing zero` on the command line.

    Args:
        value: the value to recommend; `...` for one that only the user knows, None for the bare name.
    """
    if not _speaks_options:
        return name if value is None else f"{name}=..." if value is ... else f"{name}={value!r}"
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return flag if value else f"--no-{flag[2:]}"
    return flag if value is None or value is ... else f"{flag} {value}"


def missing_extra(package: str, purpose: str) -> MissingExtraError:
    """The error for an optional library that is not there: what needs it, and the command that installs it."""
    return MissingExtraError(f"{purpose} needs {package}, which is not installed; run: pip install {package}")
