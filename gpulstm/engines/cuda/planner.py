"""How the CUDA engine computes a call: in which form, as a graph or not, and with its layers side by side or not.

The form is the one that the cost model finds fastest, unless `GPULSTM_CUDA_FORM` or a tuning file (`tuning.py`) names
one; `GPULSTM_CUDA_TILE`, `GPULSTM_CUDA_GRAPH` and `GPULSTM_CUDA_WAVEFRONT` override the rest.  A plan is a function of
the call and the card alone, so the same run takes the same path, and gives the same bits, every time.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import NamedTuple, cast

from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.devices import resolve
from gpulstm.arrays.gemm import TENSOR_TILES, TILES, Tile, is_tensor, wants_tensor
from gpulstm.arrays.variables import switch, variables
from gpulstm.engines.cuda import cost, engine, persistent, tuning
from gpulstm.engines.cuda.tuning import FORMS
from gpulstm.engines.spec import Call, Plan, StackSpec
from gpulstm.errors import ConfigError

FORM = "GPULSTM_CUDA_FORM"
TILE = "GPULSTM_CUDA_TILE"
GRAPH = "GPULSTM_CUDA_GRAPH"
WAVEFRONT = "GPULSTM_CUDA_WAVEFRONT"
MARGIN = 1.25  # a graph may be predicted to be slower by this factor: it leaves the host free for the next batch
AROUND = {True: 20, False: 6}  # launches for each layer in addition to its products and steps: loss, head, sums, copies


class Wish(NamedTuple):
    """What is asked of a form: its name, the number of a tile (None for the fastest), tensor cores or not."""

    form: str | None = None
    tile: str | None = None
    tensor: bool = False


class Form(NamedTuple):
    """How a layer is computed.

    Attributes:
        name: "first", "fused" or "persistent".
        tiles: of the fused step, forward and backward (`kernels/cuda/tile.cuh`).
        layout: of the persistent kernel, None for the other forms.
        seconds: what the model predicts for the recurrence of the stack, by form.
        declined: why there is no persistent kernel, if there is none.
    """

    name: str
    tiles: tuple[Tile, Tile]
    layout: persistent.Layout | None
    seconds: tuple[tuple[str, float], ...]
    declined: str | None


def refusal(call: Call) -> str | None:
    """Why the form that GPULSTM_CUDA_FORM asks for cannot serve a call, or None."""
    form, _ = form_of(call)
    if variables().get(FORM) == "persistent" and form.layout is None:
        return f"{FORM} is 'persistent', but {form.declined}"
    return None


def complete(plan: Plan) -> Plan:
    """The plan of a call with its form, its graph and its wavefront.

    Outside training a graph must not depend on T, as the bits do not: it is decided for a block of steps.
    """
    from gpulstm.engines.cuda import wavefront

    call = plan.call
    form, tuned = form_of(call)
    remarks = ", ".join(f"{name} {1e3 * seconds:.3g} ms" for name, seconds in form.seconds)
    remarks = f"predicted for the recurrence: {remarks}"
    if form.declined:
        remarks += f"; not persistent: {form.declined}"
    if isinstance(tuned, tuning.Tuned):
        remarks += f"; chosen by the tuning file {tuned.path}"
    elif tuned is not None:
        remarks += f"; tuning file not used: {tuned}"
    plan = replace(plan, form=form.name, tiles=form.tiles, layout=form.layout, remarks=remarks)
    plan = replace(plan, no_graph=no_graph(call if call.training else block_of(call)))
    slices = wavefront.slice_steps(plan, tuned)
    if isinstance(slices, str):
        return replace(plan, no_wavefront=slices)
    return replace(plan, wavefront=slices)


def describe(plan: Plan) -> str:
    """How a layer is computed, in a few words."""
    if plan.form == "first":
        how = "a product and a fused gate kernel a step"
    elif plan.layout is not None:
        how = f"all steps in one persistent kernel, {plan.layout}"
    else:
        rows, columns = plan.tiles[0][:2]
        tensor = " on tensor cores" if is_tensor(plan.tiles[0]) else ""
        how = f"one fused kernel a step, tiles {rows}x{columns}{tensor}"
    return f"hoisted input product, then {how}; {plan.remarks}"


def block_of(call: Call) -> Call:
    """The same call for one block of steps."""
    return replace(call, steps=engine.block_steps(call.batch))


def no_graph(call: Call) -> str | None:
    """Why a call is not replayed as a CUDA graph, or None where it is; GPULSTM_CUDA_GRAPH=0 or 1 overrides.

    A graph can hold no cuBLAS call, so where the products are large own kernels cost more than the launches saved.
    """
    asked = switch(GRAPH)
    if asked is not None:
        return None if asked else f"{GRAPH} is 0"
    form, tuned = form_of(call)
    if isinstance(tuned, tuning.Tuned):
        return None if tuned.graph else f"the tuning file {tuned.path} says that launches are faster"
    replayed, launched = graph_seconds(call, form, card_of(call.device))
    if replayed <= MARGIN * launched:
        return None
    return f"replayed as a graph it is predicted to take {1e3 * replayed:.3g} ms, launched {1e3 * launched:.3g} ms"


def form_of(call: Call) -> tuple[Form, tuning.Tuned | str | None]:
    """The form for a call, and the choice of a tuning file that is followed, or why the file is not."""
    named, tile = variables().get(FORM), variables().get(TILE)
    tensor, card = wants_tensor(cast(CupyBackend, resolve(call.device)), call.spec.dtype), card_of(call.device)
    tuned = None if named else tuning.find(call, card.name)
    if isinstance(tuned, tuning.Tuned):
        form = choose_form(call, card, Wish(tuned.form, tile, tensor))
        if form.name != "persistent" or form.layout is not None:
            return form, tuned
        tuned = f"it asks for the persistent form, but {form.declined}"
    return choose_form(call, card, Wish(named, tile, tensor)), tuned


def graph_asked() -> bool:
    """Whether GPULSTM_CUDA_GRAPH=1 asks for graphs whatever is predicted."""
    return switch(GRAPH) is True


def never(form: str, cell: str, dtype: str) -> str | None:
    """Why a form serves no call of a cell and dtype, or None where it serves some."""
    if form == "persistent" and dtype == "float64":
        return "the persistent kernel has no float64"
    return None


@functools.cache
def card_of(device: str) -> cost.Card:
    """What the cost model knows of a device."""
    return cost.card(cast(CupyBackend, resolve(device)))


def tiles_of(dtype: str) -> tuple[Tile, ...]:
    """The tiles of a dtype by number, those of tensor cores behind the others."""
    return TILES if dtype == "float64" else TILES + TENSOR_TILES


def layers(spec: StackSpec, steps: int, batch: int) -> list[cost.Layer]:
    """Every layer and direction of a stack, as the cost model sees them."""
    sizes = [spec.layer_input_size(layer) for layer in range(spec.num_layers) for _ in range(spec.directions)]
    return [cost.Layer(steps, batch, inputs, spec.hidden_size, spec.gates, spec.dtype) for inputs in sizes]


def graph_seconds(call: Call, form: Form, card: cost.Card) -> tuple[float, float]:
    """(replayed as a graph, launched piece by piece): predicted seconds of a pass through the stack."""
    replayed = launched = 0.0
    tensor, training = is_tensor(form.tiles[0]), call.training
    for layer in layers(call.spec, call.steps, call.batch):
        device, host = cost.around(card, layer, training=training, own=False, tensor=tensor)
        steps_launched = _recurrence(card, layer, form, training=training, recorded=False)
        launched += max(device, host) + steps_launched + AROUND[training] * cost.HOST_KERNEL
        device, _ = cost.around(card, layer, training=training, own=True, tensor=tensor)
        replayed += device + _recurrence(card, layer, form, training, recorded=True) + AROUND[training] * cost.GAP
    return replayed, launched


def _recurrence(card: cost.Card, layer: cost.Layer, form: Form, training: bool, recorded: bool) -> float:
    """Predicted seconds of the steps of one layer and direction."""
    total = 0.0
    for backward in (False, True)[: 1 + training]:
        if form.name == "first":
            step = cost.step_first(card, layer, backward)
        elif form.layout is not None:
            step = cost.step_persistent(card, layer, form.layout, backward)
        else:
            step = cost.step_fused(card, layer, form.tiles[backward], backward, recorded)
        total += layer.steps * step
    return total


@functools.lru_cache(maxsize=1024)
def choose_form(call: Call, card: cost.Card, wish: Wish) -> Form:
    """The form that a call would get on a card, which need not be there.

    Raises:
        ConfigError: there is no form, or no tile, as is asked for.
    """
    spec = call.spec
    if wish.form and wish.form not in FORMS:
        raise ConfigError(f"{FORM} is {wish.form!r}, expected one of {', '.join(FORMS)}")
    all_layers, tiles = layers(spec, call.steps, call.batch), tiles_of(spec.dtype)
    allowed = TENSOR_TILES if wish.tensor else TILES
    if wish.tile is not None:
        if not wish.tile.isdigit() or int(wish.tile) >= len(tiles):
            raise ConfigError(f"{TILE} is {wish.tile!r}, expected 0 to {len(tiles) - 1} for {spec.dtype}")
        allowed = (tiles[int(wish.tile)],)
    forward, backward = (
        min(allowed, key=lambda tile: cost.step_fused(card, all_layers[0], tile, backward, recorded=True))
        for backward in (False, True)
    )
    layout: persistent.Layout | str = "the card cannot launch cooperatively"
    if card.cooperative:
        limits = card.processors, card.shared, card.registers
        layout = persistent.layout(spec.cell, spec.dtype, call.batch, spec.hidden_size, *limits, wish.tensor)
    kept, declined = (None, layout) if isinstance(layout, str) else (layout, None)
    forms = {
        name: Form(name, (forward, backward), kept if name == "persistent" else None, (), declined)
        for name in FORMS
        if name != "persistent" or kept is not None
    }
    seconds = {
        name: sum(_recurrence(card, layer, form, call.training, recorded=False) for layer in all_layers)
        for name, form in forms.items()
    }
    best = wish.form or min(forms, key=lambda name: seconds[name])
    form = forms.get(best, Form(best, (forward, backward), None, (), declined))
    return form._replace(seconds=tuple(seconds.items()))
