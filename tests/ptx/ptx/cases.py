"""One layer through a form of the CUDA engine on the interpreter, against the reference engine in float64."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import nvrtc
from tolerance import FEW_STEPS

from gpulstm.arrays.dtypes import dtype_of
from gpulstm.arrays.gemm import TENSOR_TILES, TILES, is_tensor
from gpulstm.engines import reference
from gpulstm.engines.cuda import fused, persistent, stepwise
from gpulstm.engines.spec import Call, Engine, Plan, StackSpec, State, Task
from ptx.device import PtxBackend, installed
from ptx.machine import Settings

ALL_TILES = TILES + TENSOR_TILES


@dataclass(frozen=True)
class Case:
    """What is run.

    Attributes:
        form: "fused", "persistent" or "stepwise".
        sizes: T, B, I, H.
        tile: of the fused form, an index into ALL_TILES.
        tensor: whether the persistent form uses tensor cores.
        reverse: whether time runs backward.
        lengths: whether rows have lengths of their own.
        masks: recurrent dropout and zoneout in training.
        hold: zoneout outside training: forward alone.
        own: whether the products over time are the engine's own kernels.
        limits: fields of the device, as (name, value).
        seed, late: settings of the launches.
    """

    form: str
    cell: str
    dtype: str
    sizes: tuple[int, int, int, int] = (2, 5, 3, 21)
    tile: int = 0
    tensor: bool = False
    reverse: bool = False
    lengths: bool = False
    masks: bool = False
    hold: bool = False
    own: bool = False
    relu: bool = False
    limits: tuple[tuple[str, int], ...] = ()
    capability: int = 90
    seed: int | None = None
    late: bool = False

    def __str__(self) -> str:
        kind = f"tile{self.tile}" if self.form == "fused" else "tensor" if self.tensor else "plain"
        on = ("reverse", "lengths", "masks", "hold", "own", "relu", "late")
        words = [self.form, self.cell, self.dtype, kind, "x".join(map(str, self.sizes)), f"sm{self.capability}"]
        words += [name for name in on if getattr(self, name)] + [f"{name}_{value}" for name, value in self.limits]
        return "-".join(words + ([] if self.seed is None else [f"seed{self.seed}"]))

    @property
    def tolerance(self) -> float:
        """The largest error, relative to the largest value of an array."""
        tensor = is_tensor(ALL_TILES[self.tile]) if self.form == "fused" else self.tensor
        return FEW_STEPS["TF32" if tensor and self.dtype == "float32" else self.dtype]


@dataclass
class Result:
    """What came of it.

    Attributes:
        values: of the engine, by name.
        errors: of each, relative to the reference's largest.
        backend: the device, with its faults and launches.
    """

    values: dict[str, np.ndarray] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    backend: Any = None


def launch(case: Case, backend: PtxBackend) -> dict[str, Any]:
    """Run a case on a device; all results by name."""
    for name, value in case.limits:
        setattr(backend, name, value)
    with installed(backend):
        return _pass(case, _place(_host(case), backend.memory.array), backend, _engine(case, backend))


def run(case: Case, toolkit: nvrtc.Toolkit, mutate: Any = None) -> Result:
    """Run a case on the interpreter and compare it with the reference engine."""
    backend = PtxBackend(toolkit, case.capability, Settings(seed=case.seed, late=case.late), mutate=mutate)
    values, host = launch(case, backend), _host(case)
    wide = {name: value.astype(np.float64) if value.dtype.kind in "fV" else value for name, value in host.items()}
    expected = _pass(case, wide, None, (reference.forward, reference.backward))
    result = Result(values, backend=backend)
    for name, value in expected.items():
        scale = max(float(np.abs(value).max(initial=0)), 1e-30)
        difference = np.abs(np.asarray(values[name], np.float64) - value).max(initial=0)
        result.errors[name] = float(difference / scale) if np.isfinite(difference) else float("inf")
    return result


def _host(case: Case) -> dict[str, np.ndarray]:
    """All arrays of a case on the host, by name."""
    steps, rows, inputs, units = case.sizes
    rng, spec = np.random.default_rng(7), StackSpec(case.cell, inputs, units)
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("h", "c", "dh", "dc"), (rows, units))
    shapes |= {"x": (steps, rows, inputs), "dy": (steps, rows, units)}
    shapes |= {f"param {name}": shape for name, shape in spec.layer_shapes(0).items()}
    arrays, dtype = {}, dtype_of(case.dtype)
    for name, shape in shapes.items():
        scale = 1.5 / np.sqrt(units) if name.startswith("param W") else 0.5
        arrays[name] = (rng.normal(size=shape) * scale).astype(dtype)
    if case.masks:
        arrays["mask"] = (rng.random((rows, units)) < 0.7).astype(dtype) * dtype.type(1.25)
        arrays |= {name: rng.random((steps, rows, units)) < 0.8 for name in ("keep_h", "keep_c")}
    if case.lengths:
        arrays["lengths"] = rng.integers(0, steps + 1, rows)
        arrays["valid"] = (np.arange(steps)[:, None] < arrays["lengths"])[:, :, None]
        arrays["x"] = np.where(arrays["valid"], arrays["x"], 0).astype(dtype)
    return arrays


def _place(host: dict[str, np.ndarray], array: Any) -> dict[str, np.ndarray]:
    return {name: array(value) for name, value in host.items()}


def _engine(case: Case, backend: PtxBackend) -> tuple[Any, Any]:
    """(forward, backward) of a form, with the arguments of the reference's."""
    block = 1024
    if case.form == "stepwise":
        return (
            lambda task, x, state: stepwise.forward(task, x, state, block),
            lambda task, tape, dy, dstate, grads: stepwise.backward(task, tape, dy, dstate, grads, block),
        )
    if case.form == "fused":
        shape: Any = ALL_TILES[case.tile]
        form: Any = fused
    else:
        limits = backend.processors, backend.shared_memory, backend.registers
        shape = persistent.layout(case.cell, case.dtype, case.sizes[1], case.sizes[3], *limits, case.tensor)
        assert not isinstance(shape, str), shape
        form = persistent
    return (
        lambda task, x, state: form.forward(task, x, state, shape, block),
        lambda task, tape, dy, dstate, grads: form.backward(task, tape, dy, dstate, grads, shape, block),
    )


def _pass(case: Case, arrays: dict[str, Any], backend: PtxBackend | None, engine: tuple[Any, Any]) -> dict[str, Any]:
    """A forward and a backward pass; all results by name."""
    dtype, zoneout = arrays["x"].dtype.name, (0.2, 0.3 if case.cell == "lstm" else 0.0) if case.hold else (0.0, 0.0)
    spec = StackSpec(
        case.cell,
        case.sizes[2],
        case.sizes[3],
        dtype=dtype,
        zoneout=zoneout,
        nonlinearity="relu" if case.relu else "tanh",
    )
    params = {name.removeprefix("param "): value for name, value in arrays.items() if name.startswith("param ")}
    task = Task(spec, 0, case.reverse, params, training=not case.hold, save=not case.hold)
    task.lengths, task.valid, task.recurrent_mask = (arrays.get(name) for name in ("lengths", "valid", "mask"))
    task.keep_h, task.keep_c = arrays.get("keep_h"), arrays.get("keep_c") if case.cell == "lstm" else None
    pair = case.cell == "lstm"
    call = Call(spec, "cuda:0", case.sizes[0], case.sizes[1], not case.hold, case.lengths)
    task.plan = Plan(call, cast(Engine, reference), products="own" if case.own else "cublas")
    forward, backward = engine
    y, end, tape = forward(task, arrays["x"], State(arrays["h"], arrays["c"] if pair else None))
    results = {"y": y, "end h": end.h} | ({"end c": end.c} if pair else {})
    if not case.hold:
        make = np.zeros if backend is None else backend.zeros
        grads = {name: make(value.shape, dtype) for name, value in params.items()}
        dstate = State(arrays["dh"], arrays["dc"] if pair else None)
        dx, start = backward(task, tape, arrays["dy"], dstate, grads)
        results |= {"dx": dx, "start h": start.h} | ({"start c": start.c} if pair else {})
        results |= {f"d{name}": value for name, value in grads.items()}
    return results
