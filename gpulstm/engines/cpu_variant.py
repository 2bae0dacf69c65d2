"""Layers with options in native code: those that change a cell's equations or its products (kernels/cpu/variant.h).

`cpu` serves plain layers by a pass of their own; what is here takes every other spec.  Arguments and results are as in
`reference`, which states the equations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpulstm.arrays.backend import Array
from gpulstm.arrays.threads import get_num_threads
from gpulstm.engines import activations
from gpulstm.engines.cells import LAYER_NORM_EPSILON
from gpulstm.engines.spec import Footprint, Grads, StackSpec, State, Task, unsupported

CELLS = {"lstm": 0, "gru": 1, "rnn": 2}  # as in kernels/cpu/layer.h
KINDS = {name: kind for kind, name in enumerate(activations.ACTIVATIONS)}  # as variant_call.h lists them
BLOCK_ROWS = 1024  # GRADIENT_BLOCK in kernels/cpu/plan.h


@dataclass
class VariantTape:
    """What `backward` needs of a forward pass; `saved` is in the engine's own order."""

    x: Array
    state: State  # the initial one
    y: Array
    saved: Array


def is_plain(spec: StackSpec) -> bool:
    """Whether no option changes the layer's equations."""
    return not (any(spec.zoneout) or unsupported(spec))


def variant(native: Any, spec: StackSpec, params: Mapping[str, Array]) -> Any:
    """The native object that holds a layer's options; parameters by their names without suffix."""
    kind = native.VariantDouble if spec.dtype == "float64" else native.VariantFloat
    options = [params.get(name) for name in ("p", "W_p", "gain_x", "gain_h", "gain_c", "b_c")]
    return kind(
        CELLS[spec.cell],
        spec.hidden_size,
        spec.state_size,
        spec.coupled,
        not spec.reset_after,
        _activations(spec),
        spec.clip or 0.0,
        LAYER_NORM_EPSILON,
        *(None if option is None else np.ascontiguousarray(option) for option in options),
    )


def options_of_all(native: Any, spec: StackSpec, params: Mapping[str, Array], batch: int) -> list[Any]:
    """The options of each layer of a stream: zoneout by its expectation."""
    layers = []
    for layer, suffix in enumerate(spec.suffixes):
        options = variant(native, spec, {name: params[name + suffix] for name in spec.layer_shapes(layer)})
        options.zoneout(*spec.zoneout, None, None, 1, batch)
        layers.append(options)
    return layers


def _activations(spec: StackSpec) -> list[tuple[int, float, float]]:
    """(kind, alpha, beta) of the gates, the candidate and the memory read."""
    names = list(spec.activations) or [activations.named(name) for name in ("Sigmoid", "Tanh", "Tanh")]
    if not spec.activations and spec.nonlinearity == "relu":
        names[1] = activations.named("Relu")
    three = [names[0], names[min(1, len(names) - 1)], names[-1]]
    return [(KINDS[name], alpha, beta) for name, alpha, beta in three]


def working_room(native: Any, spec: StackSpec, inputs: int, steps: int, rows: int) -> int:
    """Bytes of working space that a layer's gradient takes."""
    params = {name: np.zeros(shape, spec.dtype) for name, shape in spec.layer_shapes(0).items()}
    return int(variant(native, spec, params).room(steps, rows, inputs, get_num_threads()))


def footprint(native: Any, spec: StackSpec, layer: int, batch: int, steps: int) -> Footprint:
    """What a layer takes in training; its working space is asked of the native code for `steps` steps and for twice."""
    size = np.dtype(spec.dtype).itemsize
    params = {name: np.zeros(shape, spec.dtype) for name, shape in spec.layer_shapes(layer).items()}
    options = variant(native, spec, params)
    options.zoneout_in_training(bool(spec.zoneout[1]))
    few, more = (
        options.room(count, batch, spec.layer_input_size(layer), get_num_threads()) for count in (steps, 2 * steps)
    )
    work = (more - few) // steps
    masks = spec.state_size * bool(spec.zoneout[0]) + spec.hidden_size * bool(spec.zoneout[1])
    saved = batch * (size * (options.saved_row() + spec.state_size) + masks)
    return Footprint(saved, 0, work, few - steps * work)


def forward(native: Any, empty: Any, task: Task, x: Array, state: State) -> tuple[Array, State, VariantTape | None]:
    """All time steps of one layer and direction; `empty` makes an array that is not cleared."""
    spec, (steps, rows, _), p = task.spec, x.shape, task.params
    options = _options(native, task, steps, rows)
    x, state = np.ascontiguousarray(x), State(*(_contiguous(part) for part in state))
    y = empty((steps, rows, spec.state_size), x.dtype)
    end = State(np.empty_like(state.h), None if state.c is None else np.empty_like(state.c))
    saved = empty((steps, rows, options.saved_row()), x.dtype) if task.save else None
    options.forward(
        *(task.reverse, x, *_weights(task), _contiguous(p.get("b")), _contiguous(p.get("b_hn")), *state),
        *(_contiguous(task.recurrent_mask), _contiguous(task.lengths), y, *end, saved, get_num_threads()),
    )
    return y, end, VariantTape(x, state, y, saved) if saved is not None else None


def backward(
    native: Any, empty: Any, task: Task, tape: VariantTape, dy: Array, dstate: State, grads: Grads
) -> tuple[Array, State]:
    """The gradient of `forward`."""
    for entry in task.spec.activations:
        activations.make(entry).slope(np, np.ones(1))  # raises where an activation has no gradient
    options = _options(native, task, *dy.shape[:2])
    dx = empty(tape.x.shape, tape.x.dtype)
    dstart = State(np.empty_like(dstate.h), None if dstate.c is None else np.empty_like(dstate.c))
    options.backward(
        *(task.reverse, tape.x, *_weights(task), *tape.state),
        *(_contiguous(task.recurrent_mask), _contiguous(task.lengths), tape.y, tape.saved),
        *(np.ascontiguousarray(dy), *(_contiguous(part) for part in dstate), dx, *dstart),
        *(grads["W_x"], grads["W_h"], grads.get("b"), grads.get("b_hn")),
        *(grads.get(name) for name in ("p", "W_p", "gain_x", "gain_h", "gain_c", "b_c")),
        get_num_threads(),
    )
    return dx, dstart


def _options(native: Any, task: Task, steps: int, rows: int) -> Any:
    options = variant(native, task.spec, task.params)
    hold = (0.0, 0.0) if task.training else task.spec.zoneout
    options.zoneout(*hold, _contiguous(task.keep_h), _contiguous(task.keep_c), steps, rows)
    return options


def _weights(task: Task) -> tuple[Array, Array]:
    return np.ascontiguousarray(task.params["W_x"]), np.ascontiguousarray(task.params["W_h"])


def _contiguous(value: Array | None) -> Any:
    return None if value is None else np.ascontiguousarray(value)
