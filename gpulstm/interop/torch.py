"""Weights from and to PyTorch's `LSTM`, `GRU` and `RNN`, with or without a `Linear` behind; PyTorch is not imported.

PyTorch stores `weight_ih (G*H, I)`, `weight_hh (G*H, H)` and two biases, in the gate order of this library, so weights
are transposed and the two biases added up; of the GRU the candidate's recurrent bias stays apart (`b_hn`), because the
reset gate multiplies it.  On the way back the second bias is zero but for that one.  So this library's weights come
back from PyTorch bit for bit, and PyTorch's come back as weights of the same function.

PyTorch's `batch_first` is about the caller's arrays, not about weights: here x is always `(T, B, I)`.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpulstm.arrays import files
from gpulstm.arrays.backend import Backend
from gpulstm.engines.spec import CellName, StackSpec
from gpulstm.errors import ConfigError, InteropError, ShapeError
from gpulstm.interop.arrays import (
    common_dtype,
    expect_shape,
    host,
    one_bias,
    read_safetensors,
    refuse_options,
    two_biases,
)
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.model.stack import Recurrent

_KEY = re.compile(r"(.*\.)?(weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)(?:_l([0-9]{1,6})(_reverse)?)?")
_CELLS: dict[int, CellName] = {4: "lstm", 3: "gru", 1: "rnn"}
_NOT_THERE = ("peepholes", "layer_norm", "coupled", "zoneout", "reset_after", "clip", "activations")

Weights = dict[str, np.ndarray]


def from_torch(
    source: Any,
    *,
    prefix: str | None = None,
    head: str | None = None,
    shape: tuple[int, int, int] | None = None,
    nonlinearity: str | None = None,
    dropout: float | None = None,
    device: str | Backend = "auto",
    engine: str | None = None,
) -> Recurrent | Network:
    """A PyTorch recurrent network as one of this library, with the same weights and dtype.

    Args:
        source: a `torch.nn.LSTM`, `GRU`, `RNN`, one of their `Cell`s, a module that contains one; its `state_dict()`;
            or the path of a .safetensors file of that.  Values are NumPy arrays or anything with DLPack or `numpy()`.
        prefix: what the names of the recurrent weights begin with, where there are several, as "encoder.rnn."; the
            rest of the dict is then left alone.  None: there is one, and nothing else but the dense layer.
        head: what the names of the dense layer begin with, as "fc."; None: the only one there is, if any (with a
            `prefix`: none).
        shape: (horizon, targets, P) of the network's result; None: (outputs of the dense layer, 1, 1).
        nonlinearity: of an RNN, "tanh" or "relu"; a state_dict does not say it.  None: what the module says, or "tanh".
        dropout: rate between the layers when training goes on here; None: what the module says, or 0.
        device, engine: as for `LSTM`.

    Returns:
        The stack, or with a dense layer the network that applies it to the last step's output (PyTorch:
        `linear(rnn(x)[0][-1])`).  Nothing is drawn here; the dropout masks of later training are those of seed 0, or of
        what the stack's `seed` is set to before its first pass.

    Raises:
        InteropError: the file is a pickle or damaged; there is no recurrent layer, or several, or weights are left
            over.
        ShapeError, DTypeError: weights that do not fit each other.

    Warns:
        UserWarning: the module has `batch_first=True`; here x is `(T, B, I)`: hand over `x.swapaxes(0, 1)`.
    """
    weights = _weights(source)
    start, keys = _recurrent_keys(weights, prefix)
    said = _module_options(source, start)
    if said.get("batch_first"):
        warnings.warn(
            "the PyTorch module has batch_first=True, x (B, T, I); here x is (T, B, I): hand over x.swapaxes(0, 1)",
            stacklevel=2,
        )
    nonlinearity = nonlinearity or said.get("nonlinearity", "tanh")
    dropout = said.get("dropout", 0.0) if dropout is None else dropout
    dense = _dense_prefix(weights, keys, prefix, head)
    recurrent = {short: weights[key] for short, key in keys.items()}
    used = dict(recurrent) if dense is None else {**recurrent, "weight": weights[f"{dense}weight"]}
    spec = _spec(recurrent, common_dtype(used), nonlinearity, dropout)
    values = _stack_values(recurrent, spec)
    if dense is None:
        if shape is not None:
            raise ConfigError(f"shape is {shape!r}, but there is no dense layer whose result could have it")
        stack = Recurrent(spec, device=device, engine=engine, initial=False)
        stack.params.load(values)
        return stack
    return _network(weights, dense, spec, values, shape, device, engine)


def to_torch(model: Recurrent | Network, path: str | os.PathLike[str] | None = None) -> Weights:
    """The weights as PyTorch's `state_dict` has them, on the host.

    Args:
        model: a stack, for `torch.nn.LSTM`, `GRU` or `RNN` of the same sizes; or a network, for a module that has such
            a one as `rnn` and a `Linear` as `head`.
        path: also write them to this .safetensors file.

    Returns:
        NumPy arrays by name, for `load_state_dict({name: torch.from_numpy(value) ...})`.

    Raises:
        InteropError: an option that PyTorch's layers do not have: peepholes, layer_norm, coupled, zoneout, clip,
            activations, reset_after=False.
    """
    if isinstance(model, Network):
        if model.config.categories:
            raise InteropError(
                "the network reads learned vectors of categories, which a stack and a Linear do not hold"
            )
        values = {f"rnn.{name}": value for name, value in to_torch(model.rnn).items()}
        params = model.head.params.host()
        values |= {"head.weight": np.ascontiguousarray(params["W"].T), "head.bias": params["b"]}
    else:
        refuse_options(model.spec, _NOT_THERE, "PyTorch")
        values = _state_dict(model)
    if path is not None:
        from safetensors.numpy import save

        files.write(path, save(values), InteropError)
    return values


# -- reading ---------------------------------------------------------------------------------------------------------
def _weights(source: Any) -> Weights:
    if isinstance(source, (str, os.PathLike)):
        return read_safetensors(source)[0]
    if callable(getattr(source, "state_dict", None)):
        source = source.state_dict()
    if not isinstance(source, Mapping):
        kind = type(source).__name__
        raise InteropError(f"source is a {kind}, expected a PyTorch module, a state_dict or a .safetensors path")
    source = _inside_checkpoint(source)
    return {
        plain: host(value, str(name))
        for name, value in source.items()
        if (plain := _plain_name(str(name), source)) != "n_averaged"  # of averaged modules: how many there were
    }


def _inside_checkpoint(source: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """A state_dict, or the only one among the entries of a training checkpoint.

    Raises:
        InteropError: there are several.
    """
    if any(_KEY.fullmatch(str(name)) for name in source):
        return source
    inside = {
        name: value
        for name, value in source.items()
        if isinstance(value, Mapping) and any(_KEY.fullmatch(str(key)) for key in value)
    }
    if len(inside) > 1:
        raise InteropError(
            f"source is a checkpoint with several state_dicts, {', '.join(map(repr, inside))}; hand over one, as "
            f"checkpoint[{next(iter(inside))!r}]"
        )
    modules = [value for value in source.values() if callable(getattr(value, "state_dict", None))]
    if not inside and len(modules) == 1 and callable(getattr(modules[0], "named_modules", None)):
        return modules[0].state_dict()
    return next(iter(inside.values()), source)


def _plain_name(name: str, source: Mapping[Any, Any]) -> str:
    """A weight's name without what compiled, averaged and data-parallel modules put before it."""
    name = name.replace("_orig_mod.", "")
    wrapped = all(str(key).replace("_orig_mod.", "").startswith(("module.", "n_averaged")) for key in source)
    return name.removeprefix("module.") if wrapped else name


def _recurrent_keys(weights: Weights, prefix: str | None) -> tuple[str, dict[str, str]]:
    """The prefix of the one recurrent group, and its names: short form `weight_ih_l0_reverse` -> full name."""
    groups: dict[str, dict[str, str]] = {}
    for key in weights:
        match = _KEY.fullmatch(key)
        if match:
            start, name, layer, reverse = match.groups(default="")
            groups.setdefault(start, {})[f"{name}_l{layer or 0}{reverse}"] = key
    if prefix is not None:
        if prefix not in groups:
            raise InteropError(f"no recurrent weights begin with {prefix!r}; there are: {_names(groups)}")
        return prefix, groups[prefix]
    if len(groups) != 1:
        raise InteropError(
            f"expected one recurrent network, found {len(groups)} ({_names(groups)}); name one by prefix="
        )
    return next(iter(groups.items()))


def _names(groups: Mapping[str, object]) -> str:
    return ", ".join(repr(start) for start in groups) or "none"


def _dense_prefix(weights: Weights, keys: Mapping[str, str], prefix: str | None, head: str | None) -> str | None:
    if head is not None:
        if f"{head}weight" not in weights or weights[f"{head}weight"].ndim != 2:
            raise InteropError(f"there is no dense layer {head!r}: no matrix named {head}weight")
        return head
    if prefix is not None:
        return None
    rest = [key for key in weights if key not in keys.values()]
    starts = {key.removesuffix("weight").removesuffix("bias") for key in rest}
    start = next(iter(starts), "")
    if not rest:
        return None
    if len(starts) > 1 or f"{start}weight" not in rest or weights[f"{start}weight"].ndim != 2:
        raise InteropError(
            f"besides the recurrent weights there is more than one dense layer: {', '.join(rest)}; "
            "take what you want by prefix= and head="
        )
    return start


def _module_options(source: Any, prefix: str) -> dict[str, Any]:
    """What a module says that its weights do not: nonlinearity, dropout, batch_first."""
    if not callable(getattr(source, "named_modules", None)):
        return {}
    modules = {name.replace("_orig_mod", "").strip(".").replace("..", "."): one for name, one in source.named_modules()}
    name = prefix.rstrip(".")
    module = modules.get(name, modules.get(f"module.{name}".rstrip(".")))
    said: dict[str, Any] = {}
    if isinstance(getattr(module, "mode", None), str) and "RELU" in module.mode:  # type: ignore[union-attr]
        said["nonlinearity"] = "relu"
    if isinstance(getattr(module, "nonlinearity", None), str):
        said["nonlinearity"] = module.nonlinearity  # type: ignore[union-attr]
    said["dropout"] = float(getattr(module, "dropout", 0.0))
    said["batch_first"] = bool(getattr(module, "batch_first", False))
    return said


def _spec(recurrent: Weights, dtype: str, nonlinearity: Any, dropout: float) -> StackSpec:
    for name in ("weight_ih_l0", "weight_hh_l0"):
        if name not in recurrent or recurrent[name].ndim != 2 or 0 in recurrent[name].shape:
            raise InteropError(f"expected a matrix {name}, found {', '.join(sorted(recurrent))}")
    projection = recurrent.get("weight_hr_l0")
    if projection is not None and (projection.ndim != 2 or 0 in projection.shape):
        raise ShapeError(f"weight_hr_l0 has shape {projection.shape}, expected a matrix")
    rows, columns = recurrent["weight_hh_l0"].shape
    hidden = columns if projection is None else projection.shape[-1]
    cell = _CELLS.get(rows // hidden) if rows % hidden == 0 else None
    if cell is None:
        raise ShapeError(
            f"weight_hh_l0 has shape {(rows, columns)}, expected 4 (LSTM), 3 (GRU) or 1 (RNN) times {hidden} rows"
        )
    layers = 1 + max(int(re.search(r"_l(\d+)", name).group(1)) for name in recurrent)  # type: ignore[union-attr]
    if layers > len(recurrent):  # a name may count to any number
        raise InteropError(
            f"the names of the weights go up to layer {layers - 1}, but there are {len(recurrent)} of them"
        )
    return StackSpec(
        cell,
        recurrent["weight_ih_l0"].shape[1],
        hidden,
        layers,
        bidirectional=any(name.endswith("_reverse") for name in recurrent),
        bias="bias_ih_l0" in recurrent,
        dtype=dtype,
        dropout=dropout,
        proj_size=0 if projection is None else projection.shape[0],
        nonlinearity=nonlinearity if cell == "rnn" else "tanh",
    )


def _torch_shapes(spec: StackSpec) -> dict[str, tuple[int, ...]]:
    rows = spec.gates * spec.hidden_size
    shapes: dict[str, tuple[int, ...]] = {}
    for index, suffix in enumerate(spec.suffixes):
        shapes[f"weight_ih{suffix}"] = (rows, spec.layer_input_size(index // spec.directions))
        shapes[f"weight_hh{suffix}"] = (rows, spec.state_size)
        if spec.bias:
            shapes[f"bias_ih{suffix}"] = shapes[f"bias_hh{suffix}"] = (rows,)
        if spec.proj_size:
            shapes[f"weight_hr{suffix}"] = (spec.proj_size, spec.hidden_size)
    return shapes


def _stack_values(recurrent: Weights, spec: StackSpec) -> Weights:
    """The parameters of a stack from PyTorch's, names without prefix."""
    shapes = _torch_shapes(spec)
    missing, unknown = sorted(shapes.keys() - recurrent.keys()), sorted(recurrent.keys() - shapes.keys())
    if missing or unknown:
        raise InteropError(
            f"the weights are not those of one stack: missing {missing or 'none'}, left {unknown or 'none'}"
        )
    for name, shape in shapes.items():
        expect_shape(name, recurrent[name], shape)
    values: Weights = {}
    for suffix in spec.suffixes:
        values[f"W_x{suffix}"] = recurrent[f"weight_ih{suffix}"].T
        values[f"W_h{suffix}"] = recurrent[f"weight_hh{suffix}"].T
        if spec.proj_size:
            values[f"W_p{suffix}"] = recurrent[f"weight_hr{suffix}"].T
        if spec.bias:
            biases = one_bias(spec, recurrent[f"bias_ih{suffix}"], recurrent[f"bias_hh{suffix}"])
            values |= {f"{name}{suffix}": value for name, value in biases.items()}
    return values


def _network(
    weights: Weights,
    dense: str,
    spec: StackSpec,
    values: Weights,
    shape: tuple[int, int, int] | None,
    device: str | Backend,
    engine: str | None,
) -> Network:
    matrix = weights[f"{dense}weight"]
    outputs = matrix.shape[0]
    horizon, targets, numbers = (outputs, 1, 1) if shape is None else shape
    if horizon * targets * numbers != outputs:
        raise ShapeError(
            f"shape is {shape}, {horizon * targets * numbers} numbers, but the dense layer gives {outputs}"
        )
    expect_shape(f"{dense}weight", matrix, (outputs, spec.output_size))
    bias = weights.get(f"{dense}bias", np.zeros(outputs, matrix.dtype))
    network = Network(NetworkConfig(spec, horizon, targets, numbers), device=device, engine=engine, initial=False)
    network.params.load(
        {
            **{f"rnn.{name}": value for name, value in values.items()},
            "head.W": matrix.T,
            "head.b": expect_shape(f"{dense}bias", bias, (outputs,)),
        }
    )
    return network


# -- writing ---------------------------------------------------------------------------------------------------------
def _state_dict(stack: Recurrent) -> Weights:
    spec, params = stack.spec, stack.params.host()
    values: Weights = {}
    for suffix in spec.suffixes:
        values[f"weight_ih{suffix}"] = np.ascontiguousarray(params[f"W_x{suffix}"].T)
        values[f"weight_hh{suffix}"] = np.ascontiguousarray(params[f"W_h{suffix}"].T)
        if spec.bias:
            values[f"bias_ih{suffix}"], values[f"bias_hh{suffix}"] = two_biases(spec, params, suffix)
        if spec.proj_size:
            values[f"weight_hr{suffix}"] = np.ascontiguousarray(params[f"W_p{suffix}"].T)
    return values
