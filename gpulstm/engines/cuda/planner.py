"""How the CUDA engine computes a call: in which form, as a graph or not, and with its layers side by side or not.

Three thresholds name up to three ways, the best guess first.  Which of them is right and fastest is found out on the
card, once for a kind of problem (`verdicts.py`); where that is switched off, the best guess is taken.  So the same call
takes the same path, and gives the same bits, as long as the card and its verdicts are the same.  `GPULSTM_CUDA_FORM`,
`GPULSTM_CUDA_TILE`, `GPULSTM_CUDA_GRAPH` and `GPULSTM_CUDA_WAVEFRONT` go before both.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.devices import resolve
from gpulstm.arrays.gemm import TENSOR_TILES, TILES, Tile, choose_tile, is_deep, is_tensor, tensor_refusal, wants_tensor
from gpulstm.arrays.variables import switch, variables
from gpulstm.engines.cuda import persistent, verdicts
from gpulstm.engines.cuda.graph import capturing, recording
from gpulstm.engines.cuda.verdicts import Way
from gpulstm.engines.spec import Call, Plan, StackSpec
from gpulstm.errors import ConfigError

FORM = "GPULSTM_CUDA_FORM"
TILE = "GPULSTM_CUDA_TILE"
GRAPH = "GPULSTM_CUDA_GRAPH"
WAVEFRONT = "GPULSTM_CUDA_WAVEFRONT"
FORMS = ("first", "fused", "persistent")
CANDIDATES = 3

# The thresholds.  None has been measured; each is where one kind of work would by count begin to outweigh another.
PERSISTENT_ROWS = 64  # B up to which the persistent kernel is the best guess: more rows hide a launch in their products
BLAS_NUMBERS = 1 << 16  # B * H from which a product of cuBLAS a step is: it fills the card, and outweighs its launch
GRAPH_PRODUCTS = 1 << 36  # multiply-adds of a pass up to which a graph is: they are ours in it, and not cuBLAS's
SLICES = 8  # of time, where the layers of a graph run side by side


@dataclass(frozen=True)
class Card:
    """What the choice of a form depends on.

    Attributes:
        processors: multiprocessors.
        shared: bytes of shared memory that a block may ask for.
        registers: that a block may have.
        capability: compute capability times ten.
        cooperative: whether all blocks of a launch can be on the card at once.
    """

    processors: int
    shared: int
    registers: int
    capability: int
    cooperative: bool = True


@dataclass(frozen=True)
class Forms:
    """The forms that may serve a call.

    Attributes:
        tiles: of the fused step, forward and backward.
        layout: of the persistent kernel, or why there is none.
    """

    tiles: tuple[Tile, Tile]
    layout: persistent.Layout | str

    @property
    def names(self) -> list[str]:
        """Those that there are."""
        return [name for name in FORMS if name != "persistent" or not isinstance(self.layout, str)]


def refusal(call: Call) -> str | None:
    """Why no form, or not the one that GPULSTM_CUDA_FORM asks for, can serve a call, or None."""
    numbers = call.batch * call.spec.gates * call.spec.hidden_size
    if numbers >= 1 << 32:  # of a step: `state.cuh` counts them in 32 bits
        return f"a step has {numbers} numbers, and its kernels count to {(1 << 32) - 1}; use smaller batches"
    forms = forms_of(call)
    if variables().get(FORM) == "persistent" and isinstance(forms.layout, str):
        return f"{FORM} is 'persistent', but {forms.layout}"
    return None


def complete(plan: Plan) -> Plan:
    """The plan of a call with its form, its graph and its wavefront.

    Outside training they do not depend on T, as the bits must not.
    """
    call = plan.call
    forms = forms_of(call)
    ways = candidates(plan, forms)
    plans = {way: planned(plan, way, forms) for way in ways}
    remark = "by the thresholds"
    backend = cast(CupyBackend, resolve(call.device))
    if len(ways) > 1 and verdicts.mode() != "0" and not (recording() or capturing(backend)):
        from gpulstm.engines.cuda.trial import trial_of

        known, label = verdicts.of(backend), _label(call)
        choice = known.choose(call, label, ways, trial_of(plans))
        way, remark = choice
        wrong = [f"{form} is not used: {why}" for form in FORMS if (why := known.refusal(form, call, label))]
        remark = "; ".join([remark, *wrong])
    else:
        way = ways[0]
    if isinstance(forms.layout, str):
        remark += f"; not persistent: {forms.layout}"
    return replace(plans[way] if way in plans else planned(plan, way, forms), remarks=remark)


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


def candidates(plan: Plan, forms: Forms) -> list[Way]:
    """The ways to try, the thresholds' guess first; one alone where the environment leaves no other."""
    call = plan.call
    form, graph, wavefront = variables().get(FORM), switch(GRAPH), switch(WAVEFRONT)
    guess, second = _order(call, forms)[:2]
    if form:
        guess = second = form
    replayed = graph_guess(plan) if graph is None else graph
    side_by_side = wavefront is not False and no_wavefront(call) is None
    ways = [Way(guess, replayed), Way(second, replayed), Way(guess, not replayed)]
    if side_by_side and replayed and guess == "fused":
        ways.insert(0 if wavefront else 1, Way(guess, graph=True, wavefront=True))
    if wavefront:
        ways = [way for way in ways if way.wavefront or not (side_by_side and way.form == "fused" and way.graph)]
    if graph is not None:
        ways = [way for way in ways if way.graph == graph]
    ways = list(dict.fromkeys(ways))[:CANDIDATES]
    return ways[:1] if form else ways  # a form that the user names is taken as it is


def graph_guess(plan: Plan) -> bool:
    """Whether a call is replayed as a graph by the threshold."""
    call, spec = plan.call, plan.call.spec
    steps = call.steps if call.training else plan.engine.block_steps(call.batch)
    widths = [spec.layer_input_size(layer) + spec.hidden_size for layer in range(spec.num_layers)]
    products = steps * call.batch * spec.directions * spec.gates * spec.hidden_size * sum(widths)
    return products * (3 if call.training else 1) <= GRAPH_PRODUCTS


def no_wavefront(call: Call) -> str | None:
    """Why the layers of a call cannot be computed side by side, or None."""
    if call.spec.num_layers < 2:
        return "there is one layer"
    if call.spec.bidirectional:
        return "a layer reads both directions of the one below to their ends"
    if call.steps < 2:
        return "there is one step"
    return None


def forms_of(call: Call) -> Forms:
    """The forms that may serve a call on its device.

    Raises:
        ConfigError: there is no form, or no tile, as the environment asks for.
    """
    form = variables().get(FORM)
    if form and form not in FORMS:
        raise ConfigError(f"{FORM} is {form!r}, expected one of {', '.join(FORMS)}")
    return choose_forms(call.spec, call.batch, card_of(call.device), _tensor(call), variables().get(TILE))


def wrong(call: Call, form: str) -> str | None:
    """Why a form is not used on the call's device, as far as it is known, or None."""
    if verdicts.mode() == "0":
        return None
    return verdicts.of(cast(CupyBackend, resolve(call.device))).refusal(form, call, _label(call))


def memory_of(call: Call) -> int:
    """Bytes of memory of the call's device."""
    return cast(CupyBackend, resolve(call.device)).memory_total


def graph_asked() -> bool:
    """Whether GPULSTM_CUDA_GRAPH=1 asks for graphs whatever else is found."""
    return switch(GRAPH) is True


@functools.cache
def card_of(device: str) -> Card:
    """A device as the driver describes it."""
    backend = cast(CupyBackend, resolve(device))
    attributes: Mapping[str, int] = backend.xp.cuda.Device(backend.index).attributes
    return Card(
        backend.processors,
        backend.shared_memory,
        attributes["MaxRegistersPerBlock"],
        backend.capability,
        bool(attributes["CooperativeLaunch"]),
    )


def tiles_of(dtype: str) -> tuple[Tile, ...]:
    """The tiles of a dtype by number, those of tensor cores behind the others."""
    return TILES if dtype == "float64" else TILES + TENSOR_TILES


def step_sizes(gates: int, hidden: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(columns, depth) of the recurrent product of a forward and of a backward step."""
    return (hidden * (1 if gates == 1 else 4), hidden), (hidden, gates * hidden)


@functools.lru_cache(maxsize=1024)
def choose_forms(spec: StackSpec, batch: int, card: Card, tensor: bool, tile: str | None = None) -> Forms:
    """The forms for a stack on a card, which need not be there.

    Args:
        spec, batch: the stack and B.
        card: the card.
        tensor: whether the products are for tensor cores.
        tile: number of the fused step's tile as the user names it, or None for the one that is expected to be fastest.

    Raises:
        ConfigError: there is no such tile.
    """
    tiles = tiles_of(spec.dtype)
    if tile is None:
        forward, backward = (
            choose_tile(batch, columns, card.processors, tensor, deep=is_deep(spec.dtype, depth, columns))
            for columns, depth in step_sizes(spec.gates, spec.hidden_size)
        )
    else:
        if not tile.isdigit() or int(tile) >= len(tiles):
            raise ConfigError(f"{TILE} is {tile!r}, expected 0 to {len(tiles) - 1} for {spec.dtype}")
        forward = backward = tiles[int(tile)]
        refused = tensor_refusal(spec.dtype, card.capability) if is_tensor(forward) else None
        if refused:
            raise ConfigError(f"{TILE} is {tile!r}, but {refused}")
    layout: persistent.Layout | str = "the card cannot launch cooperatively"
    if card.cooperative:
        limits = card.processors, card.shared, card.registers
        layout = persistent.layout(spec.cell, spec.dtype, batch, spec.hidden_size, *limits, tensor)
    return Forms((forward, backward), layout)


def _order(call: Call, forms: Forms) -> list[str]:
    """The forms that there are, the thresholds' guess first."""
    names = forms.names
    large = call.batch * call.spec.hidden_size >= BLAS_NUMBERS
    guess = "persistent" if "persistent" in names and call.batch <= PERSISTENT_ROWS else "first" if large else "fused"
    rest = ("first", "fused", "persistent") if large else ("fused", "persistent", "first")
    return [guess, *(name for name in rest if name in names and name != guess)]


def planned(plan: Plan, way: Way, forms: Forms) -> Plan:
    """The plan of a call in one way."""
    layout = None if isinstance(forms.layout, str) or way.form != "persistent" else forms.layout
    no_graph = None if way.graph else f"{GRAPH} is 0" if switch(GRAPH) is False else "launches are faster"
    plan = replace(plan, form=way.form, tiles=forms.tiles, layout=layout, no_graph=no_graph)
    if way.graph:
        plan = replace(plan, products="own")
    if way.wavefront:
        return replace(plan, wavefront=-(-plan.call.steps // min(SLICES, plan.call.steps)))
    reason = no_wavefront(plan.call)
    if reason is None and way.form != "fused":
        reason = f"in the form {way.form!r} the steps of a layer stay together"
    return replace(plan, no_wavefront=reason or (f"{WAVEFRONT} is 0" if switch(WAVEFRONT) is False else "it is slower"))


def _tensor(call: Call) -> bool:
    return wants_tensor(cast(CupyBackend, resolve(call.device)), call.spec.dtype)


def _label(call: Call) -> str:
    """The dtype as the products take it."""
    return "float32 (TF32)" if call.spec.dtype == "float32" and _tensor(call) else call.spec.dtype
