"""What the machine can do at most."""

from __future__ import annotations

from gpulstm.bench import limits


def test_limits_of_this_machine() -> None:
    assert 1e8 < limits.sgemm(0.01, side=128) < 1e14
    assert 1e7 < limits.copy(1 << 16, 2, 0.01) < 1e13
