"""The compiled module: what it is told to use, the caches that it knows of, and an installation without it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest

from gpulstm.arrays import native
from gpulstm.errors import ConfigError


@pytest.fixture
def caches() -> Iterator[Any]:
    module = native.load()
    assert module is not None
    before = module.caches()
    yield module
    module.give_caches(*before[:3])


def test_caches_of_this_machine_are_read() -> None:
    module = native.load()
    assert module is not None
    first, second, third, source = module.caches()
    assert 8 << 10 <= first <= 1 << 20
    assert first < second
    assert third == 0 or third >= second
    assert source in ("/sys", "sysconf", "assumed", "given")


def test_blocks_follow_the_caches(caches: Any) -> None:
    for second in (256 << 10, 512 << 10, 2 << 20):
        caches.give_caches(32 << 10, second, 0)
        block, resident, ahead = caches.cache_model()
        assert block == min(64 << 10, second // 8)
        assert resident == second * 3 // 4
        assert ahead == min(256 << 10, second // 4)
    assert "L1 32 KiB, L2 2048 KiB (given)" in str(native.describe_caches())


def test_sizes_given_by_hand() -> None:
    assert native._cache_sizes("32K, 1M,0") == [32 << 10, 1 << 20, 0]
    for wrong in ("32K", "32K,1M", "0,1M,2M", "32K,x,2M", "32K,1M,2G"):
        with pytest.raises(ConfigError, match=r"GPULSTM_CPU_CACHES is .* expected three sizes"):
            native._cache_sizes(wrong)


def test_what_is_missing_comes_with_a_command() -> None:
    assert "no native code" in native.missing()
    assert "un: " in native.missing() or "Start Python" in native.missing()


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
    assert native.describe() == f"NumPy; {native.missing()}"
