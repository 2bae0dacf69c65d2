"""Which form of the CUDA engine serves a call."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import cast

from gpulstm.backend import Array, CupyBackend, backend_of, resolve
from gpulstm.engines.cuda import persistent
from gpulstm.engines.spec import Call, Task
from gpulstm.errors import ConfigError
from gpulstm.products import TENSOR_TILES, TILES, Tile, choose_tile, wants_tensor

FORM = "GPULSTM_CUDA_FORM"
TILE = "GPULSTM_CUDA_TILE"
GRAPH = "GPULSTM_CUDA_GRAPH"
FORMS = ("first", "fused", "persistent")


@dataclass(frozen=True)
class CudaPlan:
    """How a layer of a call is computed; print it.

    Attributes:
        form: "first", "fused" or "persistent".
        forward_tile, backward_tile: tiles of the fused step (`kernels/cuda/tile.cuh`).
        layout: of the persistent kernel.
    """

    form: str
    forward_tile: Tile
    backward_tile: Tile
    layout: persistent.Layout | None = None

    def __str__(self) -> str:
        if self.form == "first":
            return "hoisted input product, then a product and a fused gate kernel a step"
        return (
            f"hoisted input product, then one fused kernel a step, tiles {self.forward_tile[0]}x{self.forward_tile[1]}"
        )


def graph_refusal(call: Call, engine: str) -> str | None:
    """Why a training pass is not replayed as a CUDA graph, or None where it is; GPULSTM_CUDA_GRAPH=0 or 1 overrides."""
    asked = os.environ.get(GRAPH)
    if asked not in (None, "", "0", "1"):
        raise ConfigError(f"{GRAPH} is {asked!r}, expected 0 or 1")
    if asked == "0":
        return f"{GRAPH} is 0"
    return None if engine == "cuda" else f"the {engine} engine's work cannot be recorded"


def call_of(task: Task, x: Array) -> Call:
    """The call that a task belongs to."""
    return Call(task.spec, backend_of(x).device, x.shape[0], x.shape[1], task.training, task.lengths is not None)


def never(form: str, cell: str, dtype: str) -> str | None:
    """Why a form serves no call of a cell and dtype, or None where it serves some."""
    if form == "persistent" and dtype == "float64":
        return "the persistent kernel has no float64"
    return None


def refusal(call: Call) -> str | None:
    """Why the form that GPULSTM_CUDA_FORM asks for cannot serve a call, or None."""
    form = os.environ.get(FORM)
    if form == "persistent":
        found = layout(call)
        if isinstance(found, str):
            return f"{FORM} is 'persistent', but {found}"
    plan(call)
    return None


def layout(call: Call) -> persistent.Layout | str:
    """Where the weights of a call's layers can stay on the card, or why they cannot."""
    backend = cast(CupyBackend, resolve(call.device))
    if not backend.cooperative:
        return "the card cannot launch cooperatively"
    spec = call.spec
    card = backend.processors, backend.shared_memory
    return persistent.layout(spec.cell, spec.dtype, call.batch, spec.hidden_size, *card)


def plan(call: Call) -> CudaPlan:
    """The form for a call; GPULSTM_CUDA_FORM and GPULSTM_CUDA_TILE override it."""
    return _plan(call, os.environ.get(FORM), os.environ.get(TILE), os.environ.get("CUPY_TF32"))


@functools.lru_cache(maxsize=1024)
def _plan(call: Call, form: str | None, tile: str | None, tf32: str | None) -> CudaPlan:
    if form and form not in FORMS:
        raise ConfigError(f"{FORM} is {form!r}, expected one of {', '.join(FORMS)}")
    backend = cast(CupyBackend, resolve(call.device))
    wide = 1 if call.spec.cell == "rnn" else 4
    hidden, tensor = call.spec.hidden_size, wants_tensor(backend, call.spec.dtype)
    tiles = [choose_tile(call.batch, n, backend.processors, tensor) for n in (hidden * wide, hidden)]
    if tile:
        allowed = tiles_of(call.spec.dtype)
        if not tile.isdigit() or int(tile) >= len(allowed):
            raise ConfigError(f"{TILE} is {tile!r}, expected 0 to {len(allowed) - 1} for {call.spec.dtype}")
        tiles = [allowed[int(tile)]] * 2
    form = form or "fused"
    where = layout(call) if form == "persistent" else None
    return CudaPlan(form, tiles[0], tiles[1], None if isinstance(where, str) else where)


def tiles_of(dtype: str) -> tuple[Tile, ...]:
    """The tiles of a dtype by number, those of tensor cores behind the others."""
    return TILES if dtype == "float64" else TILES + TENSOR_TILES
