"""Environment variables are read once, and switches are 0 or 1."""

from __future__ import annotations

import os

import pytest
from variables import SetVariable

from gpulstm.arrays.variables import switch, variables
from gpulstm.errors import ConfigError


def test_they_are_read_once(set_variable: SetVariable, monkeypatch: pytest.MonkeyPatch) -> None:
    set_variable("GPULSTM_EXAMPLE", "a")
    assert variables()["GPULSTM_EXAMPLE"] == "a"
    monkeypatch.setitem(os.environ, "GPULSTM_EXAMPLE", "b")
    assert variables()["GPULSTM_EXAMPLE"] == "a"
    set_variable("GPULSTM_EXAMPLE", "c")  # forgets them
    assert variables()["GPULSTM_EXAMPLE"] == "c"
    assert "PATH" not in variables()


def test_a_switch_is_on_off_or_not_set(set_variable: SetVariable) -> None:
    for value, on in ((None, None), ("", None), ("0", False), ("1", True)):
        set_variable("GPULSTM_EXAMPLE", value)
        assert switch("GPULSTM_EXAMPLE") is on
    set_variable("GPULSTM_EXAMPLE", "yes")
    with pytest.raises(ConfigError, match="GPULSTM_EXAMPLE is 'yes', expected 0 or 1"):
        switch("GPULSTM_EXAMPLE")
