"""The process that measures a training step on a long sequence: its peak memory and its times."""

from __future__ import annotations

import numpy as np

from gpulstm.bench.long_sequences_worker import peak_of


def test_the_peak_is_that_of_the_call_alone() -> None:
    """64 MiB that are touched and freed again show in the peak, and not in what the next measurement starts from."""
    size = 64 << 20
    first = peak_of(lambda: np.ones(size, np.int8), rounds=2)
    assert len(first["seconds"]) == 2 and min(first["seconds"]) > 0
    assert size / 2 < first["peak"] - first["start"] < 4 * size
    second = peak_of(lambda: None, rounds=1)
    assert second["peak"] - second["start"] < size / 2
