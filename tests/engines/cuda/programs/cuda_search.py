"""Random configurations of the CUDA engine against the reference in float64: cells, sizes, dtypes, options, forms.

    python tests/engines/cuda/programs/cuda_search.py FIRST COUNT

Each number is the seed of one configuration.  Forward and backward are called three times, so that with graphs they
run piece by piece once and are replayed twice; all calls must give the same bits, and numbers as close to the
reference as rounding lets them be.  How close that is, the reference says itself: it is run once more with every
number of its input and weights moved by a rounding of the storage type, since a deep stack in 16 bits may amplify that.
Ends with status 1 when a configuration does not agree.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "helpers"))

import numpy as np
from stacks import CELLS
from tolerance import FEW_STEPS

from gpulstm.arrays.devices import to_host
from gpulstm.arrays.dtypes import dtype_of, is_half
from gpulstm.engines.cuda import planner
from gpulstm.errors import EngineError
from gpulstm.model.plan import forget_plans

ROUNDING = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
STEPS_OF_ROUNDING = 16  # each step, layer and pass rounds again


@dataclass(frozen=True)
class Configuration:
    """What is computed; see the module."""

    seed: int
    cell: str
    dtype: str
    sizes: tuple[int, int, int, int]  # T, B, I, H
    layers: int
    both_ways: bool
    lengths: bool
    masks: bool
    form: str
    graph: bool

    def __str__(self) -> str:
        on = [name for name in ("both_ways", "lengths", "masks", "graph") if getattr(self, name)]
        sizes = "x".join(map(str, self.sizes))
        return " ".join([f"{self.seed}: {self.cell} {self.dtype} {sizes} L={self.layers} {self.form or 'auto'}", *on])


def configuration(seed: int) -> Configuration:
    """The configuration of a seed."""
    rng = np.random.default_rng(seed)

    def one_of(*values: Any) -> Any:
        return values[rng.integers(len(values))]

    return Configuration(
        seed,
        one_of(*CELLS),
        one_of(*ROUNDING),
        (one_of(1, 2, 5, 9), one_of(1, 3, 5, 17), one_of(1, 3, 8), one_of(1, 8, 21, 40)),
        one_of(1, 1, 2, 3, 5, 9, 12),
        bool(rng.integers(2)),
        bool(rng.integers(2)),
        one_of(False, False, True),
        one_of("", *planner.FORMS),
        bool(rng.integers(2)),
    )


def values_of(one: Configuration) -> dict[str, np.ndarray]:
    """Input, gradient and lengths, in numbers that the storage type has."""
    rng, (steps, rows, inputs, units) = np.random.default_rng(one.seed), one.sizes
    width = units * (1 + one.both_ways)
    shapes = {"x": (steps, rows, inputs), "dy": (steps, rows, width)}
    kind = dtype_of(one.dtype)
    values = {name: rng.normal(size=shape).astype(kind).astype("f8") for name, shape in shapes.items()}
    return values | {"lengths": rng.integers(0, steps + 1, rows)}


def passes(one: Configuration, device: str, dtype: str, times: int, moved: float = 0.0) -> list[dict[str, np.ndarray]]:
    """All results of each of several calls, on the host; `moved`: by how much the numbers are, relative."""
    values, rng = values_of(one), np.random.default_rng(one.seed + 1)
    options: dict[str, Any] = {"recurrent_dropout": 0.3, "zoneout": 0.2} if one.masks else {}
    options |= {"num_layers": one.layers, "bidirectional": one.both_ways, "dtype": dtype, "device": device, "seed": 3}
    layer = CELLS[one.cell](one.sizes[2], one.sizes[3], engine="cuda" if device == "cuda" else "reference", **options)
    kind = dtype_of(one.dtype)
    weights = {name: value.astype(kind).astype("f8") for name, value in layer.params.host().items()}
    for group in (weights, values):
        for name, value in group.items():
            if name != "lengths":
                group[name] = value * (1 + moved * rng.uniform(-1, 1, value.shape))
    wide = "float32" if is_half(dtype) else dtype  # NumPy has no bfloat16
    layer.params.load({name: value.astype(wide) for name, value in weights.items()})
    put = layer.backend.from_host
    results = []
    for _ in range(times):
        layer.calls = 0  # the same masks each time
        y, state, tape = layer.forward(put(values["x"], dtype), None, values["lengths"] if one.lengths else None)
        dx, dstate, grads = layer.backward(tape, put(values["dy"], dtype))
        found = {"y": y, "dx": dx, **{f"d{name}": value for name, value in grads.items()}}
        for name, parts in (("end", state), ("start", dstate)):
            found |= {
                f"{name}{index}": part for index, part in enumerate(parts if isinstance(parts, tuple) else (parts,))
            }
        results.append({name: np.asarray(to_host(value)).copy() for name, value in found.items()})
        del tape
    return results


def disagreement(one: Configuration) -> str | None:
    """What does not agree, or None."""
    os.environ[planner.GRAPH] = str(int(one.graph))
    os.environ[planner.FORM] = one.form
    forget_plans()
    try:
        got = passes(one, "cuda", one.dtype, 3)
    except EngineError as error:
        if one.form == "persistent" and "is 'persistent', but" in str(error):  # float64
            return None
        return str(error)
    (expected,) = passes(one, "cpu", "float64", 1)
    (moved,) = passes(one, "cpu", "float64", 1, ROUNDING[one.dtype])
    for name, want in expected.items():
        for other in got[1:]:
            if other[name].tobytes() != got[0][name].tobytes():
                return f"{name} differs between calls"
        scale = max(1.0, float(np.abs(want).max(initial=0)))
        error = float(np.abs(got[0][name].astype("f8") - want).max(initial=0)) / scale
        response = float(np.abs(moved[name] - want).max(initial=0)) / scale
        allowed = max(FEW_STEPS[one.dtype], STEPS_OF_ROUNDING * response)
        if not error <= allowed:
            return f"{name} is off by {error:.2e} of its largest number; {allowed:.2e} is allowed"
    return None


def main(first: int, count: int) -> int:
    """Try configurations; how many do not agree."""
    wrong = 0
    for seed in range(first, first + count):
        one = configuration(seed)
        reason = disagreement(one)
        wrong += reason is not None
        print(f"{'ok ' if reason is None else 'BAD'} {one}{'' if reason is None else ': ' + reason}", flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(1 if main(*map(int, sys.argv[1:3])) else 0)
