"""The compiled module: the instruction set that it is told to use, and an installation without it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from gpulstm.arrays import native
from gpulstm.errors import ConfigError


@pytest.fixture
def fresh() -> Iterator[None]:
    """The module as it is first asked for, before the test and after it."""
    native.load.cache_clear()
    yield
    native.load.cache_clear()


def test_the_instruction_set_can_be_named(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    module = native.load()
    assert module is not None
    best, sets = module.instruction_set(), module.instruction_sets()
    assert best in sets
    try:
        for name in sets:
            native.load.cache_clear()
            monkeypatch.setenv(native.VARIABLE, name)
            assert native.load() is module
            assert module.instruction_set() == name
            assert native.describe() == f"native, {name} instructions"
    finally:
        module.use(best)


def test_one_that_the_machine_does_not_have_is_refused(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.VARIABLE, "sse1")
    with pytest.raises(ConfigError, match="GPULSTM_CPU_ISA is 'sse1', expected one that this machine has: "):
        native.load()


def test_an_installation_without_it_says_so(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert native.load() is None
    assert native.describe() == f"NumPy; {native.MISSING}"
