"""The forms of the CUDA engine as contenders, and the tuning file that the fastest of them go into."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpulstm.arrays.devices import resolve
from gpulstm.bench.cases import Case, Contender, Result
from gpulstm.engines.cuda import planner, tuning
from gpulstm.engines.spec import Call, StackSpec

KINDS = ("inference", "training")  # of case, for which there are choices
WAYS: dict[str, dict[str, Any]] = {
    "first": {"form": "first", "graph": False, "wavefront": False},
    "first, graph": {"form": "first", "graph": True, "wavefront": False},
    "fused": {"form": "fused", "graph": False, "wavefront": False},
    "fused, graph": {"form": "fused", "graph": True, "wavefront": False},
    "fused, graph, wavefront": {"form": "fused", "graph": True, "wavefront": True},
    "persistent": {"form": "persistent", "graph": False, "wavefront": False},
    "persistent, graph": {"form": "persistent", "graph": True, "wavefront": False},
}


def contenders() -> list[Contender]:
    """The CUDA engine in each of its ways."""
    found = []
    for name, way in WAYS.items():
        names = (planner.FORM, planner.GRAPH, planner.WAVEFRONT)
        values = (way["form"], str(int(way["graph"])), str(int(way["wavefront"])))
        variables = tuple(zip(names, values, strict=True))
        found.append(Contender(name, "gpulstm", sys.executable, "cuda", kinds=KINDS, variables=variables))
    return found


def entries(results: Sequence[Result], card: str) -> dict[tuple[Any, ...], tuning.Entry]:
    """For each case the fastest way, as an entry of a tuning file; cases that no way served are left out."""
    found: dict[tuple[Any, ...], tuning.Entry] = {}
    for case in dict.fromkeys(result.case for result in results):
        ran = [result for result in results if result.case == case and result.seconds and not result.wrong]
        if not ran:
            continue
        best = min(ran, key=lambda result: result.median)
        entry = {
            **tuning.shape_of(_call(case), card),
            **WAYS[best.contender],
            "steps": case.steps,
            "milliseconds": {result.contender: round(1e3 * result.median, 4) for result in ran},
        }
        found[tuple(entry[name] for name in tuning.SHAPE)] = entry
    return found


def write(path: str | os.PathLike[str], results: Sequence[Result]) -> int:
    """Put the fastest ways into a tuning file, beside what it holds for other shapes and cards; how many there were.

    Raises:
        ConfigError: the file is there and is no tuning file.
    """
    device = resolve("cuda").device
    fresh = entries(results, planner.card_of(device).name)
    there = dict(tuning.load(path)) if Path(path).exists() else {}
    tuning.save(path, {**there, **fresh})
    return len(fresh)


def _call(case: Case) -> Call:
    spec = StackSpec("lstm", case.inputs, case.hidden, case.layers)
    return Call(spec, resolve("cuda").device, case.steps, case.batch, training=case.kind == "training")
