"""Every form of the CUDA engine against the reference on the CPU.

    python tests/engines/cuda/programs/cuda_forms.py [EVERY]

Run as a program it takes every EVERY-th case of each form (all without a number), prints the largest error of each and
ends with status 1 when one is too large, or when a second run gives other bits than the first.  Environment variables
of the simulator choose in which order blocks, threads and stream work run, and what uninitialized memory holds.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "helpers"))

import numpy as np
from stacks import CELLS
from tolerance import FEW_STEPS, FORWARD

from gpulstm.arrays.devices import resolve, to_host
from gpulstm.arrays.gemm import is_tensor, tensor_refusal
from gpulstm.engines.cuda import planner
from gpulstm.engines.spec import Call, StackSpec
from gpulstm.model.plan import forget_plans

DTYPES = ("float64", "float32", "float16")
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "both ways": {"bidirectional": True, "num_layers": 2},
    "masks": {"recurrent_dropout": 0.3, "zoneout": 0.2},
    "no bias": {"bias": False},
}


@dataclass(frozen=True)
class Case:
    """One comparison: a form (and a tile of it), a cell, sizes and options."""

    form: str
    tile: str
    cell: str
    dtype: str
    sizes: tuple[int, int, int, int] = (4, 5, 3, 21)  # T, B, I, H
    options: str = "plain"
    lengths: bool = False
    card: dict[str, int] = field(default_factory=dict, hash=False)  # limits of the card, other than it has
    tensor: bool | None = None  # whether tensor cores are used, None for the engine's choice

    def __str__(self) -> str:
        sizes = "x".join(map(str, self.sizes))
        label = f"{self.form}-{self.tile or 'auto'}-{self.cell}-{self.dtype}-{sizes}-{self.options.replace(' ', '_')}"
        label += "".join(f"-{value}_{limit}" for limit, value in self.card.items())
        label += "" if self.tensor is None else "-tensor" if self.tensor else "-no_tensor"
        return label + ("-lengths" if self.lengths else "")

    @property
    def tf32(self) -> bool:
        """Whether float32 is rounded to TF32."""
        behind = bool(self.tile) and int(self.tile) >= len(planner.TILES)
        return self.dtype == "float32" and bool(behind or self.tensor)


def cases(form: str) -> Iterator[Case]:
    """The cases of a form: each cell, dtype and tile once, with the options spread over them."""
    tiles = [str(index) for index in range(len(planner.tiles_of("float32")))] if form == "fused" else [""]
    options = list(OPTIONS)
    number = 0
    for tile in tiles:
        for cell in CELLS:
            for dtype in DTYPES:
                has_tile = not tile or int(tile) < len(planner.tiles_of(dtype))
                if has_tile and (form, dtype) != ("persistent", "float64"):  # of which there is no kernel
                    yield Case(form, tile, cell, dtype, options=options[number % 4], lengths=number % 3 == 0)
                    number += 1
    for sizes in ((0, 3, 2, 5), (1, 1, 1, 1), (3, 33, 2, 19), (2, 9, 4, 64), (2, 3, 2, 130), (3, 70, 2, 8)):
        yield Case(form, "", "lstm", "float32", sizes)
    if form == "persistent":
        yield from resident_cases()


# Registers of a block that leave room for no weights, for the first of two to ten steps of the depth, and for most.
REGISTERS = (32768, 256 * 143, 256 * 159)


def resident_cases() -> Iterator[Case]:
    """Weights in shared memory, in registers and in both, on both kinds of arithmetic units."""
    number, options = 0, list(OPTIONS)
    for dtype, tensor in (("float32", False), ("float16", False), ("float16", True), ("float32", True)):
        for cell in CELLS:
            for registers in REGISTERS[:: 1 if cell == "lstm" else 2]:
                sizes, option = (3, 37 if number % 2 else 3, 2, 150 + number % 2), options[number % 4]
                if option == "both ways":
                    sizes = (3, 9, 2, 100)
                yield Case(
                    "persistent", "", cell, dtype, sizes, option, number % 3 == 0, {"registers": registers}, tensor
                )
                number += 1
    wide = {"processors": 16}  # enough for a width at which all registers are taken
    yield Case("persistent", "", "lstm", "float32", (2, 5, 2, 300), "plain", False, wide, False)
    yield Case("persistent", "", "gru", "float32", (1, 2, 2, 1), "plain", True, {}, True)
    yield Case("persistent", "", "lstm", "float16", (0, 2, 2, 8), "plain", False, {}, True)


def run(
    case: Case, inputs: dict[str, np.ndarray], device: str, dtype: str, engine: str | None
) -> dict[str, np.ndarray]:
    """All results of a forward and a backward pass, by name, on the host."""
    kwargs = {**OPTIONS[case.options], "dtype": dtype, "device": device, "seed": 3, "engine": engine}
    layer = CELLS[case.cell](case.sizes[2], case.sizes[3], **kwargs)
    put = layer.backend.from_host
    layer.params.load({name: value.astype(case.dtype).astype(dtype) for name, value in layer.params.host().items()})
    x, dy = (put(inputs[name].astype(dtype)) for name in ("x", "dy"))
    state, dstate = ([put(inputs[f"{name}{part}"].astype(dtype)) for part in "hc"] for name in ("", "d"))
    pair = case.cell == "lstm"
    lengths = inputs["lengths"] if case.lengths else None
    y, end, tape = layer.forward(x, tuple(state) if pair else state[0], lengths)
    plain, _ = layer(x, tuple(state) if pair else state[0], lengths)
    dx, dstart, grads = layer.backward(tape, dy, tuple(dstate) if pair else dstate[0])
    results = {"y": y, "inference": plain, "dx": dx, **{f"d{name}": value for name, value in grads.items()}}
    for name, part in (("end", end), ("start", dstart)):
        results |= {f"{name}{index}": value for index, value in enumerate(part if pair else (part,))}
    return {name: to_host(value).copy() for name, value in results.items()}


def pretended(case: Case) -> ExitStack:
    """A context in which the planner sees the limits that a case asks for."""
    stack = ExitStack()
    if case.card:
        card = replace(planner.card_of("cuda:0"), **case.card)  # type: ignore[arg-type]
        stack.enter_context(mock.patch.object(planner, "card_of", return_value=card))
    if case.tensor is not None:
        stack.enter_context(mock.patch.object(planner, "wants_tensor", return_value=case.tensor))
    return stack


def impossible(case: Case) -> str | None:
    """Why the card at hand has no such form, or None."""
    capability = planner.card_of("cuda:0").capability
    if case.tensor or (case.tile and is_tensor(planner.tiles_of(case.dtype)[int(case.tile)])):
        refused = tensor_refusal(case.dtype, capability)
        if refused:
            return refused
    if case.form != "persistent":
        return None
    _, batch, inputs, hidden = case.sizes
    with pretended(case):
        spec = StackSpec(case.cell, inputs, hidden, dtype=case.dtype)  # type: ignore[arg-type]
        layout = planner.forms_of(Call(spec, "cuda:0", 1, batch)).layout
    return layout if isinstance(layout, str) else None


def compare(case: Case) -> tuple[float, str]:
    """The largest error in units of what is allowed, and where it is; raises if a repetition gives other bits."""
    steps, batch, inputs_size, hidden = case.sizes
    rng = np.random.default_rng(11)
    options = OPTIONS[case.options]
    ways, layers = 1 + options.get("bidirectional", False), options.get("num_layers", 1)
    shapes = dict.fromkeys(("h", "c", "dh", "dc"), (ways * layers, batch, hidden))
    shapes |= {"x": (steps, batch, inputs_size), "dy": (steps, batch, ways * hidden)}
    values = {name: rng.normal(size=shape).astype(case.dtype) for name, shape in shapes.items()}
    values["lengths"] = rng.integers(0, steps + 1, size=batch)
    wide = "float32" if case.dtype == "float16" else case.dtype
    expected = run(case, values, "cpu", wide, "reference")
    before = {name: os.environ.get(name) for name in (planner.FORM, planner.TILE)}
    os.environ[planner.FORM] = case.form
    os.environ.pop(planner.TILE, None)
    if case.tile:
        os.environ[planner.TILE] = case.tile
    forget_plans()
    try:
        with pretended(case):
            got, again = (run(case, values, "cuda", case.dtype, "cuda") for _ in range(2))
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        forget_plans()
    worst, where = 0.0, "nothing"
    for name, want in expected.items():
        assert got[name].shape == want.shape, (name, got[name].shape, want.shape)
        assert got[name].tobytes() == again[name].tobytes(), f"{case}: {name} differs between two runs"
        if not want.size:
            continue
        table = FORWARD if name in ("y", "inference") or name.startswith("end") else FEW_STEPS
        allowed = table["TF32" if case.tf32 else case.dtype]
        error = float(np.abs(got[name].astype(np.float64) - want).max()) / max(1.0, float(np.abs(want).max()))
        if not error / allowed <= worst:  # a NaN is the worst
            worst, where = error / allowed, name
    return worst, where


def check(case: Case) -> None:
    """The case holds, or the card says why it has no such form."""
    reason = impossible(case)
    if reason is not None:
        assert planner.card_of("cuda:0").capability < 90 or "the card has" in reason, reason
        return
    worst, name = compare(case)
    assert worst <= 1, name


def main(every: int) -> int:
    """Run every `every`-th case of each form; the number of those that fail."""
    backend = resolve("cuda")
    if os.environ.get("GPULSTM_TEST_POOL") == "none":  # each array an allocation of its own
        backend.xp.cuda.set_allocator(None)
    failed = 0
    for form in planner.FORMS:
        for case in list(cases(form))[::every]:
            if impossible(case):
                continue
            worst, where = compare(case)
            good = worst <= 1
            failed += not good
            print(f"{'ok ' if good else 'BAD'} {case}: {worst:.3f} of what is allowed, at {where}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(1 if main(int(sys.argv[1]) if sys.argv[1:] else 1) else 0)
