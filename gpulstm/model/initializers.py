"""The values that parameters start from, drawn on the host so that they are the same on every device."""

from __future__ import annotations

import math

import numpy as np

from gpulstm import validate
from gpulstm.arrays.random import host_generator
from gpulstm.engines.spec import StackSpec
from gpulstm.errors import ConfigError

_EMBEDDING = 2_000_000
_DENSE = 1_000_000  # purpose of random numbers; those of a stack's layers count from 0
_CHRONO = 0xC420  # next to a layer's own number, so that the other weights do not depend on the option


def stack_values(
    spec: StackSpec, seed: int, forget_bias: float = 1.0, chrono: int | None = None
) -> dict[str, np.ndarray]:
    """Initial parameters of a stack on the host, float64, the same on every device.

    W_x and W_p: Glorot uniform (Glorot & Bengio 2010) per gate; W_h: orthogonal per gate (Saxe, McClelland & Ganguli
    2014); gains 1; biases and peepholes 0, but `forget_bias` for the forget gate, or with `chrono` those of
    `chrono_bias` for the gates that keep and write.
    """
    values: dict[str, np.ndarray] = {}
    for index, suffix in enumerate(spec.suffixes):
        draw, hidden = host_generator(seed, index), spec.hidden_size
        for name, shape in spec.layer_shapes(index // spec.directions).items():
            if name == "W_x":
                value = _glorot(draw, shape, shape[0], hidden)
            elif name == "W_p":
                value = _glorot(draw, shape, *shape)
            elif name == "W_h":
                value = np.concatenate([_orthogonal(draw, shape[0], hidden) for _ in range(spec.gates)], axis=1)
            else:
                value = np.ones(shape) if name.startswith("gain") else np.zeros(shape)
            if name == "b" and "f" in spec.gate_names:
                gate = spec.gate_names.index("f")
                value[gate * hidden : (gate + 1) * hidden] = forget_bias
            if name == "b" and chrono is not None:
                value = chrono_bias(spec, chrono, host_generator(seed, index, _CHRONO))
            values[name + suffix] = value
    return values


def check_chrono(spec: StackSpec, chrono: int | None) -> int | None:
    """`chrono` if a stack can start so.

    Raises:
        ConfigError: it is no number of steps, or the cell has no gate or no bias for it.
    """
    if chrono is None:
        return None
    if spec.cell == "rnn":
        raise ConfigError(f"chrono is {chrono!r}, but the RNN has no gate that keeps the past; expected None")
    if not spec.bias:
        raise ConfigError(f"chrono is {chrono!r}, but bias=False leaves no bias to start from it")
    return validate.count("chrono", chrono, at_least=2)


def chrono_bias(spec: StackSpec, longest: int, draw: np.random.Generator) -> np.ndarray:
    """Gate biases `(G*H,)` with which the units forget over 2 to `longest` steps (chrono initialization).

    A gate that keeps sigmoid(b) of the past at each step forgets over about 1 + exp(b) steps.  So b_f = log(u) with u
    uniform on [1, longest - 1], and b_i = -b_f (Tallec & Ollivier 2018, arXiv:1804.11188, eq. 16).  A coupled LSTM has
    b_i alone; in the GRU z keeps the past here, so b_z = log(u).  All other biases are 0.
    """
    hidden, names = spec.hidden_size, spec.gate_names
    keep = np.log(draw.uniform(1.0, longest - 1.0, hidden))
    parts = {"f": keep, "i": -keep, "z": keep}
    return np.concatenate([parts.get(name, np.zeros(hidden)) for name in names])


def embedding_values(count: int, size: int, seed: int) -> dict[str, np.ndarray]:
    """Initial vectors of `count` categories, `(count, size)` float64: normal, of a length about 1."""
    draw = host_generator(seed, _EMBEDDING)
    return {"W": draw.standard_normal((count, size)) / math.sqrt(size)}


def dense_values(inputs: int, outputs: int, seed: int) -> dict[str, np.ndarray]:
    """Initial W `(inputs, outputs)`, Glorot uniform, and zero b of a dense layer, on the host, float64."""
    draw = host_generator(seed, _DENSE)
    return {"W": _glorot(draw, (inputs, outputs), inputs, outputs), "b": np.zeros(outputs)}


def _glorot(draw: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int) -> np.ndarray:
    limit = math.sqrt(6.0 / (fan_in + fan_out))
    return draw.uniform(-limit, limit, shape)


def _orthogonal(draw: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """A matrix with orthonormal rows or columns, whichever are fewer."""
    q, r = np.linalg.qr(draw.normal(size=(max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diagonal(r))  # makes the distribution uniform
    return q if rows >= columns else q.T
