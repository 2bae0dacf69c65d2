"""How many threads the native code may use on the CPU.

The default is what the process may use: the CPUs of its affinity mask, or fewer where a cgroup (a container, a service)
has a quota of CPU time, rounded up to whole CPUs.  GPULSTM_NUM_THREADS names another number, and `set_num_threads` goes
before both.  Results do not depend on the number.  NumPy's own BLAS has a setting of its own; it is held to one thread
where array code takes the small products of a step (`one_blas_thread`).
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from gpulstm.errors import ConfigError

VARIABLE = "GPULSTM_NUM_THREADS"
MOST = 1024  # more than any machine serves well, and few enough that starting them fails nowhere

_chosen: int | None = None


def get_num_threads() -> int:
    """The number of threads that the next native call may use."""
    global _chosen
    if _chosen is None:
        _chosen = _default()
    return _chosen


def set_num_threads(count: int | None) -> None:
    """Let native code use `count` threads from the next call on; None goes back to the default.

    Raises:
        ConfigError: `count` is not an integer from 1 to 1024.
    """
    global _chosen
    if count is None:
        _chosen = None
        return
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or not 1 <= count <= MOST:
        raise ConfigError(f"count is {count!r}, expected an integer of 1 to {MOST}, or None for the default")
    _chosen = int(count)


def processors() -> tuple[int, ...]:
    """The processors that this process may run on; empty where the system does not say."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def share(processes: int) -> None:
    """Let this process use its share of what `processes` of them have together, in native code and NumPy's BLAS.

    A number of threads that was set, here or by GPULSTM_NUM_THREADS, stays.
    """
    if processes > 1 and _chosen is None and not os.environ.get(VARIABLE):
        set_num_threads(max(1, get_num_threads() // processes))
        _blas().limit(limits=get_num_threads())


SMALL_PRODUCT = 1e8  # multiply-adds of a product up to which threads of BLAS wait for one another longer than they save


@contextlib.contextmanager
def one_blas_thread(products: float) -> Iterator[None]:
    """While active, NumPy's BLAS works on the calling thread alone; nothing where a product is large.

    Args:
        products: multiply-adds of the largest product.
    """
    libraries = () if products > SMALL_PRODUCT else _blas().lib_controllers
    counts = [(library, count) for library in libraries if (count := library.num_threads) > 1]
    for library, _ in counts:
        library.set_num_threads(1)
    try:
        yield
    finally:
        for library, count in counts:
            library.set_num_threads(count)


@functools.cache
def _blas() -> Any:
    """NumPy's BLAS, and what else of the kind is loaded, as `threadpoolctl` sees them."""
    import threadpoolctl

    return threadpoolctl.ThreadpoolController().select(user_api="blas")


def _default() -> int:
    text = os.environ.get(VARIABLE)
    if text:
        if not re.fullmatch(r"\s*[0-9]{1,9}\s*", text) or not 1 <= int(text) <= MOST:
            raise ConfigError(f"{VARIABLE} is {text!r}, expected an integer of 1 to {MOST}")
        return int(text)
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return count if quota is None else max(1, min(count, math.ceil(quota)))


def cpu_quota(membership: str = "/proc/self/cgroup", mount: str = "/sys/fs/cgroup") -> float | None:
    """The CPUs' worth of time that cgroups allow this process, or None without a quota (and outside of Linux).

    The least of all quotas counts, since that of a group bounds the groups in it (Linux, Documentation/admin-guide:
    `cpu.max` in cgroup-v2.rst, `cpu.cfs_quota_us` over `cpu.cfs_period_us` in version 1).

    Args:
        membership: the file that names the groups of the process, `hierarchy:controllers:/path` a line.
        mount: where the groups are mounted.
    """
    quotas = []
    for folder in _groups(membership, mount):
        pair = _words(f"{folder}/cpu.max") or [
            word for name in ("quota", "period") for word in _words(f"{folder}/cpu.cfs_{name}_us")
        ]
        if len(pair) == 2 and all(word.isdecimal() for word in pair) and int(pair[1]):  # else "max", or -1: no quota
            quotas.append(int(pair[0]) / int(pair[1]))
    return min(quotas, default=None)


def _groups(membership: str, mount: str) -> Iterator[str]:
    """Folders of the groups that the process is in, and of all above them, where a quota may stand."""
    lines = [line.split(":", 2) for line in _text(membership).splitlines()]
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers == "":
            roots = [mount, f"{mount}/unified"]  # version 2, alone or next to version 1
        elif "cpu" in controllers.split(","):
            roots = [f"{mount}/{controllers}", f"{mount}/cpu"]
        else:
            continue
        parts = [part for part in path.split("/") if part]
        for root in roots:
            yield from ("/".join([root, *parts[:depth]]) for depth in range(len(parts) + 1))


def _words(path: str) -> list[str]:
    return _text(path).split()


def _text(path: str) -> str:
    """What a file of the kernel holds; empty where it is not there or not to be read, as in many containers."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
