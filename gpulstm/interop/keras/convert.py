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

from gpulstm.arrays.backend import Array, Backend
from gpulstm.arrays.devices import resolve
from gpulstm.arrays.files import damaged
from gpulstm.engines import activations
from gpulstm.engines.spec import CellName, StackSpec
from gpulstm.errors import InteropError
from gpulstm.interop.arrays import common_dtype, expect_shape, host, refuse_options
from gpulstm.interop.direction import Direction
from gpulstm.interop.keras import files
from gpulstm.interop.keras.files import Described
from gpulstm.interop.keras.net import KerasNet, Layer, Masking, Step, no_equal
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.model.stack import Recurrent

_CELLS: dict[str, CellName] = {"LSTM": "lstm", "GRU": "gru", "SimpleRNN": "rnn"}
_NAMES = {cell: name for name, cell in _CELLS.items()}
_GATES = {"lstm": "ifgo", "gru": "zrn", "rnn": "h"}  # Keras's order, in this library's letters
_NOTHING = {"InputLayer", "Dropout", "SpatialDropout1D", "GaussianDropout", "GaussianNoise", "AlphaDropout"}
_MERGES = ("concat", "sum", "mul", "ave")
_NOT_THERE = ("peepholes", "layer_norm", "coupled", "zoneout", "proj_size", "clip")
ACTIVATIONS: dict[str, activations.Named] = {
    "tanh": activations.named("Tanh"),
    "sigmoid": activations.named("Sigmoid"),
    "relu": activations.named("Relu"),
    "linear": activations.named("Affine", 1.0, 0.0),
    "softplus": activations.named("Softplus"),
    "softsign": activations.named("Softsign"),
    "elu": activations.named("Elu", 1.0),
    "leaky_relu": activations.named("LeakyRelu", 0.2),
    "hard_sigmoid": activations.named("HardSigmoid", 1 / 6, 0.5),
}
_OF_KERAS_2 = {"hard_sigmoid of Keras 2": activations.named("HardSigmoid", 0.2, 0.5)}


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
        chain = _Chain(layers, common_dtype(weights), options)
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
        what = "covariates of the horizon or learned categories" if more else "bidirectional layers' last outputs"
        raise InteropError(f"no Sequential of Keras reads {what} as this network does")
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
                raise InteropError(f"the list of weights is not one of recurrent and dense layers: {_shapes(weights)}")
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


def _shapes(weights: Sequence[np.ndarray]) -> str:
    return ", ".join(str(value.shape) for value in weights)


def _fill_in(layers: list[Described], reset_after: bool) -> None:
    """Keras's defaults for what descriptions without a config leave open, and what shapes say."""
    recurrent = [layer for layer in layers if layer.kind in _CELLS or layer.kind == "Bidirectional"]
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


# -- one direction ---------------------------------------------------------------------------------------------------
def _spec(kind: str, config: Mapping[str, Any], inputs: int, dtype: str, what: str) -> StackSpec:
    cell = _CELLS.get(kind)
    if cell is None:
        raise InteropError(f"the {what} wraps a {kind}, expected one of {', '.join(_CELLS)}")
    shown = _activation(config.get("activation", "tanh"), what)
    gates = _activation(config.get("recurrent_activation", "sigmoid"), what)
    relu = cell == "rnn" and shown[0] == "Relu"
    named = {"lstm": (gates, shown, shown), "gru": (gates, shown), "rnn": () if relu else (shown,)}[cell]
    return StackSpec(
        cell,
        inputs,
        int(config["units"]),
        bias=bool(config["use_bias"]),
        dtype=dtype,
        recurrent_dropout=float(config.get("recurrent_dropout", 0.0)),
        reset_after=cell != "gru" or bool(config["reset_after"]),
        nonlinearity="relu" if relu else "tanh",
        activations=named,
    )


def _activation(value: Any, what: str) -> activations.Named:
    name = value.get("class_name") if isinstance(value, Mapping) else value
    if name in _OF_KERAS_2:
        return _OF_KERAS_2[name]
    if name not in ACTIVATIONS:
        raise InteropError(f"the {what} has activation {name!r}, expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _values(spec: StackSpec, weights: Sequence[np.ndarray], what: str) -> dict[str, np.ndarray]:
    """One direction's parameters from Keras's kernel, recurrent kernel and bias."""
    size, width = spec.hidden_size, spec.gates * spec.hidden_size
    expected: list[tuple[int, ...]] = [(spec.input_size, width), (size, width)]
    if spec.bias:
        expected.append((2, width) if spec.cell == "gru" and spec.reset_after else (width,))
    if len(weights) != len(expected):
        raise InteropError(f"the {what} has {len(weights)} arrays for a direction, expected {len(expected)}")
    for index, (value, shape) in enumerate(zip(weights, expected, strict=True)):
        expect_shape(f"weight {index} of the {what}", value, shape)
    order = [_GATES[spec.cell].index(gate) for gate in spec.gate_names]

    def columns(value: np.ndarray) -> np.ndarray:
        parts = np.split(value, spec.gates, axis=-1)
        return np.concatenate([parts[index] for index in order], axis=-1)

    values = {"W_x": columns(weights[0]), "W_h": columns(weights[1])}
    if spec.bias:
        bias = columns(weights[2])
        if bias.ndim == 2:
            cut = 2 * size
            values["b"] = np.concatenate([bias[0, :cut] + bias[1, :cut], bias[0, cut:]])
            values["b_hn"] = bias[1, cut:]
        else:
            values["b"] = bias
    return values


def _keras_weights(spec: StackSpec, params: Mapping[str, np.ndarray], suffix: str) -> list[np.ndarray]:
    order = [spec.gate_names.index(gate) for gate in _GATES[spec.cell]]

    def columns(value: np.ndarray) -> np.ndarray:
        parts = np.split(value, spec.gates, axis=-1)
        return np.concatenate([parts[place] for place in order], axis=-1)

    weights = [columns(params[f"W_x{suffix}"]), columns(params[f"W_h{suffix}"])]
    if spec.bias:
        bias = columns(params[f"b{suffix}"])
        if f"b_hn{suffix}" in params:
            second = np.zeros_like(bias)
            second[2 * spec.hidden_size :] = params[f"b_hn{suffix}"]
            bias = np.stack([bias, second])
        weights.append(bias)
    return weights


# -- the chain -------------------------------------------------------------------------------------------------------
class _Chain:
    """Descriptions on the way to a `KerasNet`, a `Recurrent` or a `Network`."""

    def __init__(self, layers: list[Described], dtype: str, options: dict[str, Any]) -> None:
        self.layers, self.dtype, self.options = layers, dtype, options

    def directions(self, layer: Described) -> list[tuple[StackSpec, dict[str, np.ndarray], Mapping[str, Any]]]:
        """Spec, parameters and config of each direction of a recurrent layer."""
        inner = [(layer.kind, layer.config)]
        if layer.kind == "Bidirectional":
            wrapped = (layer.config["layer"], layer.config["backward_layer"])
            inner = [(str(part.get("class_name")), part["config"]) for part in wrapped]
        described: list[tuple[StackSpec, dict[str, np.ndarray], Mapping[str, Any]]] = []
        for side, (kind, config) in enumerate(inner):
            size = len(layer.weights) // len(inner)
            weights = layer.weights[side * size : (side + 1) * size]
            if not weights or weights[0].ndim != 2:
                raise InteropError(
                    f"the {layer} has weights of shapes {_shapes(layer.weights)}, expected a matrix first"
                )
            spec = _spec(kind, config, weights[0].shape[0], self.dtype, str(layer))
            described.append((spec, _values(spec, weights, str(layer)), config))
        return described

    # -- for values --------------------------------------------------------------------------------------------------
    def net(self) -> KerasNet:
        """The chain as it is."""
        backend = resolve(self.options["device"])
        steps = [self._step(layer, backend) for layer in self.layers]
        return KerasNet([step for step in steps if step is not None], backend, self.dtype, self.trainable)

    def _step(self, layer: Described, backend: Backend) -> Step | Layer | None:
        config, kind = layer.config, layer.kind
        if kind in _NOTHING:
            return None
        if kind == "Masking":
            return Masking(str(layer), float(config.get("mask_value", 0.0)))
        if kind in _CELLS or kind == "Bidirectional":
            return self._recurrent(layer, backend)
        if kind == "TimeDistributed":
            inner = config.get("layer", {"class_name": "Dense", "config": {}})
            if inner.get("class_name") != "Dense":
                raise InteropError(f"the {layer} wraps a {inner.get('class_name')}, expected a Dense")
            return self._dense(
                Described("Dense", {**inner["config"], "name": config.get("name")}, layer.weights), backend
            )
        if kind == "Dense":
            return self._dense(layer, backend)
        if kind == "Activation":
            return Step(str(layer), _function(config.get("activation", "linear"), str(layer)))
        if kind == "RepeatVector":
            count = int(config["n"])
            return Step(str(layer), lambda xp, x: xp.repeat(x[None], count, axis=0), keeps_mask=False)
        raise InteropError(f"the model has a {layer}, which is not supported")

    def _recurrent(self, layer: Described, backend: Backend) -> Layer:
        both = self.directions(layer)
        merge = layer.config.get("merge_mode", "concat") if layer.kind == "Bidirectional" else None
        if layer.kind == "Bidirectional" and merge not in _MERGES:
            raise InteropError(f"the {layer} has merge_mode {merge!r}, expected one of {', '.join(_MERGES)}")
        if merge is not None and [bool(config.get("go_backwards")) for _, _, config in both] != [False, True]:
            raise InteropError(f"the {layer} does not read forwards first and then backwards")
        engine = self.options["engine"]
        directions = [
            Direction(spec, values, backend, reverse=bool(config.get("go_backwards", False)), engine=engine)
            for spec, values, config in both
        ]
        zero = [bool(config.get("zero_output_for_mask", False)) for _, _, config in both]
        return Layer(str(layer), directions, merge, bool(both[0][2].get("return_sequences", False)), zero)

    def _dense(self, layer: Described, backend: Backend) -> Step:
        matrix, bias = _dense_weights(layer)
        w, b = (None if value is None else backend.from_host(value) for value in (matrix, bias))
        function = _function(layer.config.get("activation", "linear"), str(layer))

        def dense(xp: Any, x: Array) -> Array:
            y = xp.matmul(x, w)
            return function(xp, y if b is None else y + b)

        return Step(str(layer), dense)

    # -- for training ------------------------------------------------------------------------------------------------
    def stack(self) -> Recurrent | None:
        """The recurrent layers as one stack, or None where they are not one."""
        try:
            return self.trainable(None, alone=True)
        except InteropError as error:
            if "no equal that can be trained" not in str(error):
                raise
            return None

    def trainable(self, shape: tuple[int, int, int] | None, alone: bool = False) -> Any:
        """A `Recurrent`, or a `Network` where a dense layer comes last."""
        layers = [layer for layer in self.layers if layer.kind not in _NOTHING]
        head = layers.pop() if layers and layers[-1].kind == "Dense" else None
        strange = next((layer for layer in layers if layer.kind not in _CELLS and layer.kind != "Bidirectional"), None)
        if strange is not None or not layers:
            raise no_equal(f"it has a {strange}" if strange else "it has no recurrent layer")
        directions = [self.directions(layer) for layer in layers]
        spec = self._stack_spec(layers, directions, head is not None, alone)
        values = {
            f"{name}{suffix}": value
            for suffix, (_, part, _) in zip(
                spec.suffixes, [entry for layer in directions for entry in layer], strict=True
            )
            for name, value in part.items()
        }
        if head is None:
            stack = Recurrent(spec, initial=False, **self.options)
            stack.params.load(values)
            return stack
        if head.config.get("activation", "linear") != "linear":
            raise no_equal(f"the {head} is not linear")
        matrix, bias = _dense_weights(head)
        outputs = matrix.shape[1]
        network = Network(NetworkConfig(spec, *(shape or (outputs, 1, 1))), initial=False, **self.options)
        network.params.load(
            {
                **{f"rnn.{name}": value for name, value in values.items()},
                "head.W": matrix,
                "head.b": np.zeros(outputs, matrix.dtype) if bias is None else bias,
            }
        )
        return network

    def _stack_spec(self, layers: list[Described], directions_of: list[Any], headed: bool, alone: bool) -> StackSpec:
        """The spec of all recurrent layers as one stack."""
        first = directions_of[0][0][0]
        sides = 2 if layers[0].kind == "Bidirectional" else 1
        for index, (layer, directions) in enumerate(zip(layers, directions_of, strict=True)):
            width = first.input_size if not index else sides * first.hidden_size
            for side, (spec, _, config) in enumerate(directions):
                if spec != _with_input(first, width) or len(directions) != sides:
                    raise no_equal(f"the {layer} differs from the first layer in cell, size or options")
                if bool(config.get("go_backwards", False)) != (side == 1):
                    raise no_equal(f"the {layer} reads backwards")
                last = index == len(layers) - 1
                if not alone and bool(config.get("return_sequences", False)) == (last and headed):
                    raise no_equal(f"the {layer} gives {'every step' if last else 'its last output alone'}")
            if sides == 2 and layer.config.get("merge_mode", "concat") != "concat":
                raise no_equal(f"the {layer} merges its directions by {layer.config['merge_mode']!r}")
        if headed and sides == 2:
            raise no_equal(
                "a network reads both directions at the last step, Keras each at the last step that it reads"
            )
        rates = {float(layer.config.get("rate", 0.0)) for layer in self._between(layers)}
        return StackSpec(**{
            **vars(first),
            "num_layers": len(layers),
            "bidirectional": sides == 2,
            "dropout": rates.pop() if len(rates) == 1 and len(layers) > 1 else 0.0,
        })  # fmt: skip

    def _between(self, layers: list[Described]) -> list[Described]:
        """The Dropout layers between the first and the last recurrent layer."""
        indices = [index for index, layer in enumerate(self.layers) if any(layer is other for other in layers)]
        return [layer for layer in self.layers[indices[0] : indices[-1]] if layer.kind == "Dropout"]


def _with_input(spec: StackSpec, inputs: int) -> StackSpec:
    return StackSpec(**{**vars(spec), "input_size": inputs})


def _dense_weights(layer: Described) -> tuple[np.ndarray, np.ndarray | None]:
    if not 1 <= len(layer.weights) <= 2 or layer.weights[0].ndim != 2:
        raise InteropError(f"the {layer} has weights of shapes {_shapes(layer.weights)}, expected a matrix and a bias")
    matrix = layer.weights[0]
    bias = expect_shape(f"bias of the {layer}", layer.weights[1], matrix.shape[1:]) if len(layer.weights) == 2 else None
    return matrix, bias


def _function(activation: Any, what: str) -> Any:
    """Keras's activation of that name as a function of a namespace and values."""
    if activation == "softmax":

        def softmax(xp: Any, x: Array) -> Array:
            e = xp.exp(x - x.max(axis=-1, keepdims=True))
            return e / e.sum(axis=-1, keepdims=True)

        return softmax
    if activation in ("linear", None):
        return lambda xp, x: x
    return activations.make(_activation(activation, what))
