"""How many threads the native CPU engine may use.

The default is what the process may use: the CPUs of its affinity mask, or GPULSTM_NUM_THREADS.  Results do not depend
on the number.  NumPy's own BLAS has a setting of its own, which this leaves alone.
"""

from __future__ import annotations

import os

import numpy as np

from gpulstm.errors import ConfigError

VARIABLE = "GPULSTM_NUM_THREADS"

_chosen: int | None = None


def get_num_threads() -> int:
    """The number of threads that the next call of the CPU engine may use."""
    global _chosen
    if _chosen is None:
        _chosen = _default()
    return _chosen


def set_num_threads(count: int | None) -> None:
    """Let the CPU engine use `count` threads from the next call on; None goes back to the default.

    Raises:
        ConfigError: `count` is not an integer of at least 1.
    """
    global _chosen
    if count is None:
        _chosen = None
        return
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise ConfigError(f"count is {count!r}, expected an integer of at least 1, or None for the default")
    _chosen = int(count)


def _default() -> int:
    text = os.environ.get(VARIABLE)
    if text:
        if not text.strip().isdecimal() or int(text) < 1:
            raise ConfigError(f"{VARIABLE} is {text!r}, expected an integer of at least 1")
        return int(text)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
