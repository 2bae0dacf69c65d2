"""The options of layers in native code: those that change a cell's equations or its products (kernels/cpu/variant.h).

Plain layers have a pass of their own; a `variant` serves every other spec.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpulstm.arrays.backend import Array
from gpulstm.engines import activations
from gpulstm.engines.cells import LAYER_NORM_EPSILON
from gpulstm.engines.spec import StackSpec, Task, unsupported

CELLS = {"lstm": 0, "gru": 1, "rnn": 2}  # as in kernels/cpu/layer.h
KINDS = {name: kind for kind, name in enumerate(activations.ACTIVATIONS)}  # as variant_call.h lists them
OPTIONS = ("p", "W_p", "gain_x", "gain_h", "gain_c", "b_c")  # parameters that only options have
BLOCK_ROWS = 1024  # GRADIENT_BLOCK in kernels/cpu/plan.h


def is_plain(spec: StackSpec) -> bool:
    """Whether no option changes the layer's equations."""
    return not (any(spec.zoneout) or unsupported(spec))


def variant(native: Any, spec: StackSpec, params: Mapping[str, Array]) -> Any:
    """The native object that holds a layer's options; parameters by their names without suffix."""
    kind = native.VariantDouble if spec.dtype == "float64" else native.VariantFloat
    options = [params.get(name) for name in OPTIONS]
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


def variant_of_zeros(native: Any, spec: StackSpec) -> Any:
    """The native object for weights of zeros, to ask it for sizes in training."""
    params = {name: np.zeros(shape, spec.dtype) for name, shape in spec.layer_shapes(0).items()}
    options = variant(native, spec, params)
    options.zoneout_in_training(bool(spec.zoneout[1]))
    return options


def with_zoneout(native: Any, task: Task, steps: int, rows: int) -> Any:
    """The native object of a task's layer, with its masks or expectations of zoneout."""
    options = variant(native, task.spec, task.params)
    hold = (0.0, 0.0) if task.training else task.spec.zoneout
    masks = (None if mask is None else np.ascontiguousarray(mask) for mask in (task.keep_h, task.keep_c))
    options.zoneout(*hold, *masks, steps, rows)
    return options


def refuse_without_slope(spec: StackSpec) -> None:
    """Raise `ConfigError` where an activation has no gradient."""
    for entry in spec.activations:
        activations.make(entry).slope(np, np.ones(1))
