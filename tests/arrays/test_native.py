"""The native module: what it says of itself and of the machine, and what is said where it is missing."""

from __future__ import annotations

import pytest

from gpulstm.arrays import native
from gpulstm.errors import ConfigError


@pytest.fixture
def caches() -> object:
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


def test_blocks_follow_the_caches(caches: object) -> None:
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
