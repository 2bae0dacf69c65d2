"""Errors: all are of one family, and each is also the built-in error that a NumPy user would expect."""

from __future__ import annotations

import inspect

import pytest

from gpulstm import errors
from gpulstm.errors import GpulstmError, missing_extra

ERRORS = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, Exception) and value.__module__ == errors.__name__
]


@pytest.mark.parametrize("error", [one for one in ERRORS if one is not GpulstmError])
def test_each_is_of_the_family_and_a_built_in_error(error: type[Exception]) -> None:
    assert issubclass(error, GpulstmError)
    builtin = error.__bases__[1]
    assert builtin.__module__ == "builtins"
    with pytest.raises(builtin, match="a sentence"):
        raise error("a sentence")


def test_a_missing_library_comes_with_the_command_that_installs_it() -> None:
    error = missing_extra("h5py", "a weights file")
    assert isinstance(error, ImportError)
    assert str(error) == "a weights file needs h5py, which is not installed; run: pip install h5py"
