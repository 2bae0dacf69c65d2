"""Descriptions of Keras layers on the way to what runs here: a `KerasNet`, a `Recurrent` or a `Network`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpulstm.arrays.backend import Array, Backend
from gpulstm.arrays.devices import resolve
from gpulstm.engines import activations
from gpulstm.engines.spec import CellName, StackSpec
from gpulstm.errors import InteropError
from gpulstm.interop.arrays import expect_shape, one_bias, reorder
from gpulstm.interop.direction import Direction
from gpulstm.interop.keras.files import Described
from gpulstm.interop.keras.net import KerasNet, Layer, Masking, Step, no_equal
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.model.stack import Recurrent

CELLS: dict[str, CellName] = {"LSTM": "lstm", "GRU": "gru", "SimpleRNN": "rnn"}
GATES = {"lstm": "ifgo", "gru": "zrn", "rnn": "h"}  # Keras's order, in this library's letters
_NOTHING = {"InputLayer", "Dropout", "SpatialDropout1D", "GaussianDropout", "GaussianNoise", "AlphaDropout"}
_MERGES = ("concat", "sum", "mul", "ave")
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


def shapes_of(weights: Sequence[np.ndarray]) -> str:
    """Shapes for a message."""
    return ", ".join(str(value.shape) for value in weights)


def _spec(kind: str, config: Mapping[str, Any], inputs: int, dtype: str, what: str) -> StackSpec:
    cell = CELLS.get(kind)
    if cell is None:
        raise InteropError(f"the {what} wraps a {kind}, expected one of {', '.join(CELLS)}")
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
    own = [reorder(value, GATES[spec.cell], spec.gate_names, -1) for value in weights]
    values = {"W_x": own[0], "W_h": own[1]}
    if spec.bias:
        values |= one_bias(spec, *own[2]) if own[2].ndim == 2 else {"b": own[2]}
    return values


class Chain:
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
                    f"the {layer} has weights of shapes {shapes_of(layer.weights)}, expected a matrix first"
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
        if kind in CELLS or kind == "Bidirectional":
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
        strange = next((layer for layer in layers if layer.kind not in CELLS and layer.kind != "Bidirectional"), None)
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
        raise InteropError(
            f"the {layer} has weights of shapes {shapes_of(layer.weights)}, expected a matrix and a bias"
        )
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
