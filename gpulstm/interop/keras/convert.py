"""Weights and models from and to Keras 3; Keras is not imported.

Keras stores `kernel (I, G*H)`, `recurrent_kernel (H, G*H)` and `bias (G*H,)` like this library, in the order i f c o
(LSTM) and z r h (GRU); a GRU with `reset_after` has two biases, `(2, 3*H)`.  Keras's arrays are `(B, T, I)`, here they
are `(T, B, I)`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpulstm.arrays.backend import Backend
from gpulstm.arrays.files import damaged
from gpulstm.engines.spec import StackSpec
from gpulstm.errors import InteropError
from gpulstm.interop.arrays import common_dtype, host, refuse_options, reorder, two_biases
from gpulstm.interop.keras import files
from gpulstm.interop.keras.chain import ACTIVATIONS, CELLS, GATES, Chain, shapes_of
from gpulstm.interop.keras.files import Described
from gpulstm.interop.keras.net import KerasNet
from gpulstm.model.network import Network
from gpulstm.model.stack import Recurrent

_NAMES = {cell: name for name, cell in CELLS.items()}
_NOT_THERE = ("peepholes", "layer_norm", "coupled", "zoneout", "proj_size", "clip")


def from_keras(
    source: Any,
    *,
    bidirectional: bool = False,
    reset_after: bool = True,
    device: str | Backend = "auto",
    seed: int = 0,
    engine: str | None = None,
    limit: int = files.LIMIT,
) -> Recurrent | KerasNet:
    """A Keras layer or model, with the same weights and dtype.

    Args:
        source: an LSTM, GRU, SimpleRNN or Bidirectional layer; a Sequential or functional model that is a chain of
            those and Dense, TimeDistributed(Dense), Activation, Masking, RepeatVector and dropout layers; the list that
            `get_weights()` of such a layer or model gives; or the path of a `.keras` or `.weights.h5` file.
        bidirectional: of a list: the recurrent layers are Bidirectional.
        reset_after: of a list or a `.weights.h5` file: of a GRU without biases, which do not say it.
        device, seed, engine: as for `LSTM`.
        limit: bytes that the weights of a packed file may take beyond its own length.

    Returns:
        For one recurrent layer, and a stack as a list: a `Recurrent`, which can be trained.  For a model, a file, or a
        layer that no stack is equal to (go_backwards, results merged other than by concatenation): a `KerasNet`, whose
        `trainable()` gives a stack or network where there is an equal one.  A list and a `.weights.h5` file do not hold
        options, and are taken to have Keras's defaults, with every recurrent layer but the last before a dense layer
        giving sequences.

    Raises:
        InteropError: a layer or option that there is not, by name; a file that is damaged.
        ShapeError, DTypeError: weights that do not fit.
    """
    options = {"device": device, "seed": seed, "engine": engine}
    single = False
    is_file = isinstance(source, (str, os.PathLike))
    if is_file:
        layers = files.read(source, limit)
    elif isinstance(source, (list, tuple)):
        layers = _from_list([host(value, f"weights[{index}]") for index, value in enumerate(source)], bidirectional)
        single = all(layer.kind != "Dense" for layer in layers)
    elif callable(getattr(source, "get_config", None)) and callable(getattr(source, "get_weights", None)):
        layers = _from_object(source)
        single = "layers" not in source.get_config()
    else:
        kind = type(source).__name__
        raise InteropError(f"source is a {kind}, expected a Keras layer or model, its get_weights(), or a path")
    with damaged(f"{source} is damaged", InteropError, own=False) if is_file else contextlib.nullcontext():
        _fill_in(layers, reset_after)
        weights = {f"{index}[{n}]": array for index, one in enumerate(layers) for n, array in enumerate(one.weights)}
        chain = Chain(layers, common_dtype(weights), options)
        if single and (stack := chain.stack()) is not None:
            return stack
        return chain.net()


def to_keras(model: Recurrent | Network, path: str | os.PathLike[str] | None = None) -> list[np.ndarray]:
    """The weights in Keras's order, on the host.

    Args:
        model: a stack, for a Sequential of L layers LSTM, GRU or SimpleRNN with `return_sequences=True`, each in
            a Bidirectional where the stack is; or a network, for one whose last recurrent layer gives its last output,
            followed by a Dense layer.
        path: also write them to this `.weights.h5` file, for `load_weights`.

    Returns:
        A list for `set_weights`; of one layer, that of the layer as well.

    Raises:
        InteropError: an option that Keras's layers do not have: peepholes, layer_norm, coupled, zoneout, proj_size,
            clip, an activation of another kind.
    """
    stack = model.rnn if isinstance(model, Network) else model
    spec, params = stack.spec, stack.params.host()
    refuse_options(spec, _NOT_THERE, "Keras")
    unknown = [name for name, *numbers in spec.activations if (name, *numbers) not in ACTIVATIONS.values()]
    if unknown:
        raise InteropError(
            f"Keras has no activation that computes the same as {unknown[0]} of this {spec.cell.upper()}"
        )
    more = isinstance(model, Network) and (model.config.future_size or model.config.categories)
    if more or (isinstance(model, Network) and spec.bidirectional):
        unread = "covariates of the horizon or learned categories" if more else "bidirectional layers' last outputs"
        raise InteropError(f"no Sequential of Keras reads {unread} as this network does")
    layers = []
    for layer in range(spec.num_layers):
        suffixes = spec.suffixes[layer * spec.directions : (layer + 1) * spec.directions]
        weights = [value for suffix in suffixes for value in _keras_weights(spec, params, suffix)]
        kind = _NAMES[spec.cell]
        wrapped = Described("Bidirectional", {"layer": {"class_name": kind}}, weights)
        layers.append(wrapped if spec.bidirectional else Described(kind, {}, weights))
    if isinstance(model, Network):
        head = model.head.params.host()
        layers.append(Described("Dense", {}, [head["W"], head["b"]]))
    if path is not None:
        files.write(path, layers)
    return [value for layer in layers for value in layer.weights]


# -- descriptions ----------------------------------------------------------------------------------------------------
def _from_object(source: Any) -> list[Described]:
    config = source.get_config()
    old = type(source).__module__.partition(".")[0] == "tf_keras"  # Keras 2 under the name that it has next to Keras 3
    if "layers" not in config:
        alone = [Described(type(source).__name__, config, _object_weights(source))]
        if old:
            files.of_keras_2(alone)
        return alone
    layers = files.chain(config)
    if old:
        files.of_keras_2(layers)
    named = {layer.name: layer for layer in source.layers}
    for layer in layers:
        name = layer.config.get("name")
        if name in named:
            layer.weights = _object_weights(named[name])
    return layers


def _object_weights(layer: Any) -> list[np.ndarray]:
    return [host(value, f"weight {index} of {layer.name!r}") for index, value in enumerate(layer.get_weights())]


def _from_list(weights: list[np.ndarray], bidirectional: bool) -> list[Described]:
    """The layers that a flat list of weights is made of, by their shapes."""
    layers: list[Described] = []
    left = list(weights)
    while left:
        kind = _cell_of(left)
        if kind is None:
            if left[0].ndim != 2:
                raise InteropError(
                    f"the list of weights is not one of recurrent and dense layers: {shapes_of(weights)}"
                )
            layers.append(Described("Dense", {}, _take(left, 1)))
        elif bidirectional:
            parts = [part for _ in range(2) if _cell_of(left) == kind for part in _take(left, 2)]
            layers.append(Described("Bidirectional", {"layer": {"class_name": kind, "config": {}}}, parts))
        else:
            layers.append(Described(kind, {}, _take(left, 2)))
    if not layers:
        raise InteropError("the list of weights is empty")
    return layers


def _cell_of(left: Sequence[np.ndarray]) -> str | None:
    """The recurrent layer that a list begins with: its second matrix says it, `(H, G*H)`."""
    if len(left) < 2 or left[0].ndim != 2 or left[1].ndim != 2 or left[0].shape[1] != left[1].shape[1]:
        return None
    rows, columns = left[1].shape
    return {4: "LSTM", 3: "GRU", 1: "SimpleRNN"}.get(columns // rows) if rows and columns % rows == 0 else None


def _take(left: list[np.ndarray], matrices: int) -> list[np.ndarray]:
    """The first matrices of a list, and the bias after them if there is one, cut off."""
    count, width = matrices, left[0].shape[1]
    if len(left) > count and left[count].shape in ((width,), (2, width)) and (left[count].ndim == 1 or matrices == 2):
        is_bias = left[count].ndim == 1 or width % 3 == 0
        count += is_bias
    taken = left[:count]
    del left[:count]
    return taken


def _fill_in(layers: list[Described], reset_after: bool) -> None:
    """Keras's defaults for what descriptions without a config leave open, and what shapes say."""
    recurrent = [layer for layer in layers if layer.kind in CELLS or layer.kind == "Bidirectional"]
    for layer in recurrent:
        if not layer.weights:
            raise InteropError(f"the {layer} has no weights; build the model first, by calling it once")
        configs = [layer.config]
        if layer.kind == "Bidirectional":
            inner = layer.config.setdefault("layer", {}).setdefault("config", {})
            backward = layer.config.get("backward_layer") or {"class_name": layer.config["layer"]["class_name"]}
            layer.config["backward_layer"] = backward
            configs = [inner, backward.setdefault("config", dict(inner, go_backwards=True))]
        biased = len(layer.weights) == 3 * len(configs)
        for index, config in enumerate(configs):
            part = layer.weights[index * len(layer.weights) // len(configs) :]
            bias_rank = part[2].ndim if biased and len(part) > 2 else None
            config.setdefault("use_bias", biased)
            config.setdefault("reset_after", reset_after if bias_rank is None else bias_rank == 2)
            config.setdefault("return_sequences", layer is not recurrent[-1] or layers[-1].kind != "Dense")
            config.setdefault("units", part[1].shape[0] if len(part) > 1 and part[1].ndim == 2 else 0)


def _keras_weights(spec: StackSpec, params: Mapping[str, np.ndarray], suffix: str) -> list[np.ndarray]:
    weights = [params[f"W_x{suffix}"], params[f"W_h{suffix}"]]
    if spec.bias:
        biases = two_biases(spec, params, suffix)
        weights.append(np.stack(biases) if f"b_hn{suffix}" in params else biases[0])
    return [reorder(value, spec.gate_names, GATES[spec.cell], -1) for value in weights]
