"""The values that parameters start from, drawn on the host so that they are the same on every device."""

from __future__ import annotations

import math

import numpy as np

from gpulstm.backend import host_generator
from gpulstm.engines.spec import StackSpec

_DENSE_STREAM = 1_000_000  # apart from the streams of a stack's layers, which count from 0


def stack_values(spec: StackSpec, seed: int, forget_bias: float = 1.0) -> dict[str, np.ndarray]:
    """Initial parameters of a stack on the host, float64, the same on every device.

    W_x and W_p: Glorot uniform (Glorot & Bengio 2010) per gate; W_h: orthogonal per gate (Saxe, McClelland & Ganguli
    2014); gains 1; biases and peepholes 0, but `forget_bias` for the forget gate.
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
            values[name + suffix] = value
    return values


def dense_values(inputs: int, outputs: int, seed: int) -> dict[str, np.ndarray]:
    """Initial W `(inputs, outputs)`, Glorot uniform, and zero b of a dense layer, on the host, float64."""
    draw = host_generator(seed, _DENSE_STREAM)
    return {"W": _glorot(draw, (inputs, outputs), inputs, outputs), "b": np.zeros(outputs)}


def _glorot(draw: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int) -> np.ndarray:
    limit = math.sqrt(6.0 / (fan_in + fan_out))
    return draw.uniform(-limit, limit, shape)


def _orthogonal(draw: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """A matrix with orthonormal rows or columns, whichever are fewer."""
    q, r = np.linalg.qr(draw.normal(size=(max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diagonal(r))  # makes the distribution uniform
    return q if rows >= columns else q.T
