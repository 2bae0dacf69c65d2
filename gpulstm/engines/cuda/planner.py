"""Which form of the CUDA engine serves a call: the one that the cost model finds fastest, unless the user names one.

`GPULSTM_CUDA_FORM`, `GPULSTM_CUDA_TILE` and `GPULSTM_CUDA_GRAPH` override the choice, and a tuning file goes before the
cost model (`tuning.py`).  The choice is a function of the
call and the card alone, so the same run takes the same path, and gives the same bits, every time.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, replace
from typing import cast

from gpulstm.arrays.backend import Array
from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.devices import backend_of, resolve
from gpulstm.arrays.gemm import TENSOR_TILES, TILES, Tile, is_tensor, wants_tensor
from gpulstm.engines.cuda import cost, persistent, tuning
from gpulstm.engines.spec import Call, StackSpec, Task
from gpulstm.errors import ConfigError

FORM = "GPULSTM_CUDA_FORM"
TILE = "GPULSTM_CUDA_TILE"
GRAPH = "GPULSTM_CUDA_GRAPH"
FORMS = ("first", "fused", "persistent")
MARGIN = 1.25  # a graph may be predicted to be slower by this factor: it leaves the host free for the next batch
AROUND = {True: 20, False: 6}  # launches for each layer beside its products and steps: loss, head, sums, copies
WAVEFRONT = "GPULSTM_CUDA_WAVEFRONT"
SETTINGS = (  # what a choice depends on
    *(FORM, TILE, GRAPH, WAVEFRONT, persistent.BARRIER, tuning.TUNING),
    *("CUPY_TF32", "GPULSTM_ENGINE"),
)


@dataclass(frozen=True)
class CudaPlan:
    """How a layer of a call is computed; print it.

    Attributes:
        form: "first", "fused" or "persistent".
        forward_tile, backward_tile: tiles of the fused step (`kernels/cuda/tile.cuh`).
        layout: of the persistent kernel, None for the other forms.
        seconds: what the model predicts for the recurrence of the stack, by form.
        declined: why there is no persistent kernel, if there is none.
        tuned: the choice of a tuning file that is followed, or why the file is not, or None where none is named.
    """

    form: str
    forward_tile: Tile
    backward_tile: Tile
    layout: persistent.Layout | None
    seconds: tuple[tuple[str, float], ...]
    declined: str | None
    tuned: tuning.Tuned | str | None = None

    def __str__(self) -> str:
        if self.form == "first":
            how = "a product and a fused gate kernel a step"
        elif self.layout is not None:
            how = f"all steps in one persistent kernel, {self.layout}"
        else:
            rows, columns = self.forward_tile[:2]
            tensor = " on tensor cores" if is_tensor(self.forward_tile) else ""
            how = f"one fused kernel a step, tiles {rows}x{columns}{tensor}"
        others = ", ".join(f"{form} {1e3 * seconds:.3g} ms" for form, seconds in self.seconds)
        declined = f"; not persistent: {self.declined}" if self.declined else ""
        source = "" if self.tuned is None else f"; tuning file not used: {self.tuned}"
        if isinstance(self.tuned, tuning.Tuned):
            source = f"; chosen by the tuning file {self.tuned.path}"
        return f"hoisted input product, then {how}; predicted for the recurrence: {others}{declined}{source}"


def graph_refusal(call: Call, engine: str) -> str | None:
    """Why a call is not replayed as a CUDA graph, or None where it is; GPULSTM_CUDA_GRAPH=0 or 1 overrides.

    A graph can hold no cuBLAS call, so where the products are large own kernels cost more than the launches saved.
    """
    asked = os.environ.get(GRAPH)
    if asked not in (None, "", "0", "1"):
        raise ConfigError(f"{GRAPH} is {asked!r}, expected 0 or 1")
    if asked == "0":
        return f"{GRAPH} is 0"
    if engine != "cuda":
        return f"the {engine} engine's work cannot be recorded"
    if asked == "1":
        return None
    found, card = plan(call), card_of(call.device)
    if isinstance(found.tuned, tuning.Tuned):
        return None if found.tuned.graph else f"the tuning file {found.tuned.path} says that launches are faster"
    replayed, launched = graph_seconds(call.spec, call.steps, call.batch, found, card, call.training)
    if replayed <= MARGIN * launched:
        return None
    return f"replayed as a graph it is predicted to take {1e3 * replayed:.3g} ms, launched {1e3 * launched:.3g} ms"


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
    found = plan(call)
    if os.environ.get(FORM) == "persistent" and found.layout is None:
        return f"{FORM} is 'persistent', but {found.declined}"
    return None


def plan(call: Call) -> CudaPlan:
    """The form for a call."""
    form, tile = os.environ.get(FORM) or None, os.environ.get(TILE) or None
    tensor, card = wants_tensor(cast(CupyBackend, resolve(call.device)), call.spec.dtype), card_of(call.device)
    tuned = None if form else tuning.find(call, card.name)
    asked = tuned.form if isinstance(tuned, tuning.Tuned) else form
    found = _plan(call.spec, call.steps, call.batch, call.training, card, tensor, asked, tile)
    if isinstance(tuned, tuning.Tuned) and found.form == "persistent" and found.layout is None:
        tuned = f"it asks for the persistent form, but {found.declined}"
        found = _plan(call.spec, call.steps, call.batch, call.training, card, tensor, None, tile)
    return found if tuned is None else replace(found, tuned=tuned)


@functools.cache
def card_of(device: str) -> cost.Card:
    """What the cost model knows of a device."""
    return cost.card(cast(CupyBackend, resolve(device)))


def plan_for(
    spec: StackSpec, steps: int, batch: int, training: bool, card: cost.Card, tensor: bool = False
) -> CudaPlan:
    """The plan that a card would get, which need not be there."""
    return _plan(spec, steps, batch, training, card, tensor, None, None)


def tiles_of(dtype: str) -> tuple[Tile, ...]:
    """The tiles of a dtype by number, those of tensor cores behind the others."""
    return TILES if dtype == "float64" else TILES + TENSOR_TILES


def layers(spec: StackSpec, steps: int, batch: int) -> list[cost.Layer]:
    """Every layer and direction of a stack, as the cost model sees them."""
    sizes = [spec.layer_input_size(layer) for layer in range(spec.num_layers) for _ in range(spec.directions)]
    return [cost.Layer(steps, batch, inputs, spec.hidden_size, spec.gates, spec.dtype) for inputs in sizes]


def graph_asked() -> bool:
    """Whether GPULSTM_CUDA_GRAPH=1 asks for graphs whatever is predicted."""
    return os.environ.get(GRAPH) == "1"


def graph_switched_off() -> bool:
    """Whether GPULSTM_CUDA_GRAPH=0 forbids graphs."""
    return os.environ.get(GRAPH) == "0"


def settings() -> tuple[str | None, ...]:
    """The variables of the environment that a choice depends on, as they are now."""
    return tuple(map(os.environ.get, SETTINGS))


def graph_seconds(
    spec: StackSpec, steps: int, batch: int, plan: CudaPlan, card: cost.Card, training: bool = True
) -> tuple[float, float]:
    """(replayed as a graph, launched piece by piece): predicted seconds of a pass through the stack."""
    replayed = launched = 0.0
    tensor = is_tensor(plan.forward_tile)
    for layer in layers(spec, steps, batch):
        device, host = cost.around(card, layer, training=training, own=False, tensor=tensor)
        steps_launched = _recurrence(card, layer, plan, training=training, recorded=False)
        launched += max(device, host) + steps_launched + AROUND[training] * cost.HOST_KERNEL
        device, _ = cost.around(card, layer, training=training, own=True, tensor=tensor)
        replayed += device + _recurrence(card, layer, plan, training, recorded=True) + AROUND[training] * cost.GAP
    return replayed, launched


def _recurrence(card: cost.Card, layer: cost.Layer, plan: CudaPlan, training: bool, recorded: bool) -> float:
    """Predicted seconds of the steps of one layer and direction."""
    total = 0.0
    for backward in (False, True)[: 1 + training]:
        if plan.form == "first":
            step = cost.step_first(card, layer, backward)
        elif plan.layout is not None:
            step = cost.step_persistent(card, layer, plan.layout, backward)
        else:
            tile = plan.backward_tile if backward else plan.forward_tile
            step = cost.step_fused(card, layer, tile, backward, recorded)
        total += layer.steps * step
    return total


@functools.lru_cache(maxsize=1024)
def _cached(
    spec: StackSpec, steps: int, batch: int, training: bool, card_name: str, tensor: bool, form: str, tile: str
) -> CudaPlan:
    return _decide(spec, steps, batch, training, _CARDS[card_name], tensor, form or None, tile or None)


_CARDS: dict[str, cost.Card] = {}


def _plan(
    spec: StackSpec,
    steps: int,
    batch: int,
    training: bool,
    card: cost.Card,
    tensor: bool,
    form: str | None,
    tile: str | None,
) -> CudaPlan:
    _CARDS.setdefault(card.name, card)  # a card holds a dict and cannot be a key itself
    return _cached(spec, steps, batch, training, card.name, tensor, form or "", tile or "")


def _decide(
    spec: StackSpec,
    steps: int,
    batch: int,
    training: bool,
    card: cost.Card,
    tensor: bool,
    form: str | None,
    tile: str | None,
) -> CudaPlan:
    if form and form not in FORMS:
        raise ConfigError(f"{FORM} is {form!r}, expected one of {', '.join(FORMS)}")
    all_layers, tiles = layers(spec, steps, batch), tiles_of(spec.dtype)
    choice: tuple[Tile, ...]
    if tile is not None:
        if not tile.isdigit() or int(tile) >= len(tiles):
            raise ConfigError(f"{TILE} is {tile!r}, expected 0 to {len(tiles) - 1} for {spec.dtype}")
        choice = (tiles[int(tile)],)
    else:
        choice = TENSOR_TILES if tensor else TILES
    best = [
        min(choice, key=lambda shape: cost.step_fused(card, all_layers[0], shape, backward, recorded=True))
        for backward in (False, True)
    ]
    found: persistent.Layout | str
    if card.cooperative:
        limits = card.processors, card.shared, card.registers
        found = persistent.layout(spec.cell, spec.dtype, batch, spec.hidden_size, *limits, tensor)
    else:
        found = "the card cannot launch cooperatively"
    where = None if isinstance(found, str) else found

    def candidate(name: str) -> CudaPlan:
        return CudaPlan(name, best[0], best[1], where if name == "persistent" else None, (), None)

    names = [name for name in FORMS if name != "persistent" or where is not None]
    seconds = {
        name: sum(_recurrence(card, layer, candidate(name), training, recorded=False) for layer in all_layers)
        for name in names
    }
    chosen = form or min(names, key=lambda name: seconds[name])
    declined = found if isinstance(found, str) else None
    layout = where if chosen == "persistent" else None
    return CudaPlan(chosen, best[0], best[1], layout, tuple(seconds.items()), declined)
