"""What the timings say: ratios to the best peer and to the machine's limit, means over shapes; all of it as JSON."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.devices import processor, resolve
from gpulstm.bench.cases import Case, Result, device_of, simulated

BEST = "best peer"
COMPUTED = ("step", "inference", "training")  # kinds whose time is that of products


def baseline(results: Sequence[Result]) -> str:
    """What all are divided by: the best peer of each case where any ran, else the last of this package's engines."""
    if any(result.seconds for result in results if result.side == "peer"):
        return BEST
    ran = [result.contender for result in results if result.seconds and result.side == "own"]
    return ran[-1] if ran else ""


def base_times(results: Sequence[Result]) -> dict[Case, tuple[float, str]]:
    """Seconds that a case's times are divided by, and whose they are; cases without any are left out."""
    name, times = baseline(results), dict[Case, tuple[float, str]]()
    for result in results:
        chosen = result.side == "peer" if name == BEST else result.contender == name
        if chosen and result.seconds and result.median < times.get(result.case, (math.inf, ""))[0]:
            times[result.case] = result.median, result.contender
    return times


def speedups(results: Sequence[Result]) -> dict[str, dict[Case, float]]:
    """How many times as fast as the baseline each contender is on each case, by contender; above 1 is faster."""
    base = base_times(results)
    ratios: dict[str, dict[Case, float]] = {}
    for result in results:
        if result.seconds and result.case in base:
            ratios.setdefault(result.contender, {})[result.case] = base[result.case][0] / result.median
    return ratios


def geometric_mean(values: Sequence[float]) -> float:
    """The geometric mean, NaN of nothing."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def gflops(result: Result) -> float:
    """10^9 operations a second of the products; NaN where it was not run or time is not that of products."""
    return result.case.flops / result.median / 1e9 if result.case.kind in COMPUTED else math.nan


def share(result: Result, limits: Mapping[str, float]) -> float:
    """The rate over that of the machine's matrix product; NaN where either is not known."""
    return gflops(result) / limits["sgemm_gflops"] if "sgemm_gflops" in limits else math.nan


def best_of(limits: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The highest figure of several measurements of the machine's limits."""
    return {name: max(one[name] for one in limits) for name in limits[0]} if limits else {}


def machine(suite: str) -> dict[str, Any]:
    """What the numbers were taken on."""
    import numpy

    facts: dict[str, Any] = {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": numpy.__version__,
    }
    backend = resolve(device_of(suite))
    if isinstance(backend, CupyBackend):
        facts |= {"device": backend.device_name, "cupy": backend.xp.__version__, "simulated": simulated()}
    return facts


def as_json(
    suite: str,
    results: Sequence[Result],
    *,
    facts: Mapping[str, Any] | None = None,
    limits: Mapping[str, float] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> str:
    """Everything that was measured, to be kept and compared later; times in seconds.

    Args:
        suite: "cpu", "cuda" or "long".
        results: of the run.
        facts: of the machine, taken before the run; taken now if None.
        limits: of the machine.
        settings: of the run: rounds, seconds, threads.
    """
    limits = limits or {}
    base, faster = base_times(results), speedups(results)
    rows = []
    for result in results:
        row = {name: value for name, value in asdict(result).items() if name != "seconds"}
        numbers = {
            "error": result.error,
            "median": result.median,
            "fastest": min(result.seconds, default=math.nan),
            "speedup": faster.get(result.contender, {}).get(result.case, math.nan),
            "gflops": gflops(result),
            "share_of_sgemm": share(result, limits),
            "mebibytes": result.mebibytes,
        }
        row |= {name: None if math.isnan(value) else float(f"{value:.4g}") for name, value in numbers.items()}
        row |= {"calls": len(result.seconds), "base": base.get(result.case, (0.0, ""))[1]}
        rows.append(row)
    means = {
        kind: {
            contender: round(geometric_mean([value for case, value in by_case.items() if case.kind == kind]), 3)
            for contender, by_case in faster.items()
            if any(case.kind == kind for case in by_case)
        }
        for kind in dict.fromkeys(result.case.kind for result in results)
    }
    document = {
        "suite": suite,
        "machine": dict(facts or machine(suite)),
        "limits": dict(limits),
        "settings": dict(settings or {}),
        "baseline": baseline(results),
        "geometric_mean_speedup": means,
        "results": rows,
    }
    return json.dumps(document, indent=1)
