"""ONNX's LSTM, GRU and RNN, with every attribute, as single directions that this library's engines serve.

ONNX stores weights per direction, `W (D, G*H, I)` and `R (D, G*H, H)`, two biases `B (D, 2*G*H)` and peepholes
`P (D, 3*H)`, gates in the order i o f c (LSTM) and z r h (GRU); they are put into this library's form when a node is
first met with them, and kept.  Inference only.  The equations are those of the operators' schemas
(onnx.ai/onnx/operators).  Where these leave something open it is done as ONNX Runtime does: `clip` bounds the inputs of
the gates' and the candidate's activations and not that of the memory read, and alpha and beta go to those activations
that take them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gpulstm.arrays.backend import Array
from gpulstm.engines import activations
from gpulstm.engines.spec import CellName, StackSpec, State
from gpulstm.errors import ConfigError, InteropError
from gpulstm.interop.arrays import one_bias, reorder
from gpulstm.interop.direction import Direction
from gpulstm.interop.onnx.graph import Node
from gpulstm.interop.onnx.operators import Context, operator

GATES = {"lstm": "iofg", "gru": "zrn", "rnn": "h"}  # ONNX's order, in this library's letters
PEEPHOLES = "iof"
_REVERSED = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
_COMMON = "activation_alpha activation_beta activations clip direction hidden_size layout"


class Inputs(NamedTuple):
    """The inputs of the operators LSTM, GRU and RNN in ONNX's order; only the LSTM has `c` and `p`.

    Attributes:
        x: X `(T, B, I)`, or `(B, T, I)` with layout 1.
        w, r: W `(D, G*H, I)` and R `(D, G*H, H)`.
        b: B `(D, 2*G*H)`.
        lengths: sequence_lens `(B,)`, on the host.
        h, c: initial_h and initial_c `(D, B, H)`, or `(B, D, H)` with layout 1.
        p: P `(D, 3*H)`.
    """

    x: Array
    w: Array
    r: Array
    b: Array | None = None
    lengths: Array | None = None
    h: Array | None = None
    c: Array | None = None
    p: Array | None = None


class Layer:
    """One recurrent node: checks its attributes when made, holds its weights in this library's form."""

    def __init__(self, node: Node, engine: str | None = None) -> None:
        self.node, self.engine = node, engine
        self.cell: CellName = {"LSTM": "lstm", "GRU": "gru", "RNN": "rnn"}[node.op]  # type: ignore[assignment]
        self.gates = GATES[self.cell]
        direction = node.get("direction", "forward")
        if direction not in _REVERSED:
            raise InteropError(f"the {node} has direction {direction!r}, expected forward, reverse or bidirectional")
        self.reversed = _REVERSED[direction]
        self.batch_first = bool(node.get("layout", 0))
        self.coupled = bool(node.get("input_forget", 0))
        self.activations = self._activations()
        self.seen: tuple[Any, ...] = ()
        self.directions: list[Direction] = []

    def _activations(self) -> list[tuple[activations.Named, ...]]:
        """For each direction the activations; alphas and betas go, in order, to those that take them."""
        node, count = self.node, activations.COUNT[self.cell]
        names = node.get("activations") or list(activations.DEFAULTS[self.cell]) * len(self.reversed)
        if len(names) != count * len(self.reversed):
            raise InteropError(f"the {node} has {len(names)} activations, expected {count * len(self.reversed)}")
        known = {name.lower(): name for name in activations.ACTIVATIONS}
        unknown = [name for name in names if name.lower() not in known]
        if unknown:
            raise InteropError(f"the {node} has activation {unknown[0]!r}, expected one of {', '.join(known.values())}")
        left = {key: list(node.get(f"activation_{key}", [])) for key in ("alpha", "beta")}
        chosen = []
        for name in (known[name.lower()] for name in names):
            takes = activations.ACTIVATIONS[name].takes
            numbers = {key: left[key].pop(0) for key in takes if left[key]}
            chosen.append(activations.named(name, **numbers))
        return [tuple(chosen[start : start + count]) for start in range(0, len(chosen), count)]

    # -- weights ---------------------------------------------------------------------------------------------------
    def prepare(self, context: Context, dtype: str, weights: tuple[Array | None, ...]) -> None:
        """Take over W, R, B, P unless they are those of the last call."""
        if len(weights) == len(self.seen) and all(a is b for a, b in zip(weights, self.seen, strict=True)):
            return
        w, r, b, p = (None if value is None else context.backend.to_host(value) for value in weights)
        assert w is not None
        assert r is not None
        count, width = len(self.reversed), len(self.gates)
        hidden = int(self.node.get("hidden_size", r.shape[-1]))
        inputs = w.shape[-1] if w.ndim else 0
        shapes = {"W": (w, (count, width * hidden, inputs)), "R": (r, (count, width * hidden, hidden))}
        shapes |= {"B": (b, (count, 2 * width * hidden)), "P": (p, (count, 3 * hidden))}  # type: ignore[dict-item]
        for name, (value, shape) in shapes.items():
            if value is not None and value.shape != shape:
                raise InteropError(f"the {self.node} has {name} of shape {value.shape}, expected {shape}")
        self.directions = []
        for side, reverse in enumerate(self.reversed):
            spec = self._spec(side, inputs, hidden, dtype, b is not None, p is not None)
            parts = [None if value is None else value[side] for value in (w, r, b, p)]
            values = self._values(spec, *parts)
            self.directions.append(Direction(spec, values, context.backend, reverse=reverse, engine=self.engine))
        self.seen = weights

    def _spec(self, side: int, inputs: int, hidden: int, dtype: str, bias: bool, peepholes: bool) -> StackSpec:
        named, relu = self.activations[side], self.cell == "rnn" and self.activations[side][0][0] == "Relu"
        clip = self.node.get("clip")
        try:
            return StackSpec(
                self.cell,
                inputs,
                hidden,
                bias=bias,
                dtype=dtype,
                peepholes=peepholes,
                coupled=self.coupled,
                reset_after=self.cell != "gru" or bool(self.node.get("linear_before_reset", 0)),
                nonlinearity="relu" if relu else "tanh",
                clip=clip or None,
                activations=() if relu else named,
            )
        except ConfigError as error:
            raise InteropError(f"the {self.node} cannot run here: {error}") from error

    def _values(self, spec: StackSpec, w: Any, r: Any, b: Any, p: Any) -> dict[str, np.ndarray]:
        """One direction's parameters, gates in this library's order and weights transposed."""
        values = {"W_x": reorder(w, self.gates, spec.gate_names).T, "W_h": reorder(r, self.gates, spec.gate_names).T}
        if b is not None:
            values |= one_bias(spec, *(reorder(part, self.gates, spec.gate_names) for part in np.split(b, 2)))
        if p is not None:
            values["p"] = reorder(p, PEEPHOLES, "io" if spec.coupled else "ifo")
        return values

    # -- a call ----------------------------------------------------------------------------------------------------
    def run(self, context: Context, inputs: Inputs) -> tuple[Array, ...]:
        """The operator's outputs Y, Y_h and, for the LSTM, Y_c."""
        node, backend, xp = self.node, context.backend, context.backend.xp
        x, h, c = inputs.x, inputs.h, inputs.c
        if x.dtype.kind != "f" or x.ndim != 3:
            raise InteropError(
                f"the {node} has X of shape {x.shape} and dtype {x.dtype}, expected three axes of floats"
            )
        outer = x.dtype.name  # of the model's values
        dtype = "float32" if outer == "float16" and not backend.is_cuda else outer  # the CPU has no half arithmetic
        self.prepare(context, dtype, (inputs.w, inputs.r, inputs.b, inputs.p))
        x = xp.asarray(x, dtype=dtype)
        if self.batch_first:
            x, h, c = (None if value is None else xp.swapaxes(value, 0, 1) for value in (x, h, c))
        x = xp.ascontiguousarray(x)
        (steps, batch, features), hidden = x.shape, self.directions[0].spec.hidden_size
        if features != self.directions[0].spec.input_size:
            raise InteropError(
                f"the {node} has X of {features} features, but W is for {self.directions[0].spec.input_size}"
            )
        context.room(node, (steps, len(self.directions), batch, hidden), x.itemsize)
        rows = self._lengths(context, inputs.lengths, steps, batch)
        starts = self._starts(xp, dtype, batch, h, c)
        results = [direction.run(x, start, rows) for direction, start in zip(self.directions, starts, strict=True)]
        y = xp.stack([y for y, _ in results], axis=1)
        ends = [xp.stack([end.h for _, end in results])]
        if self.cell == "lstm":
            ends.append(xp.stack([end.c for _, end in results]))
        if rows is not None:  # the last state of a row of length 0 is zero, as ONNX Runtime has it, and not its first
            ends = [end * (rows > 0)[None, :, None].astype(end.dtype) for end in ends]
        if self.batch_first:
            y, ends = xp.transpose(y, (2, 0, 1, 3)), [xp.swapaxes(end, 0, 1) for end in ends]
        return tuple(value.astype(outer, copy=False) for value in (y, *ends))

    def _lengths(self, context: Context, lengths: Array | None, steps: int, batch: int) -> Array | None:
        if lengths is None:
            return None
        values = context.backend.to_host(lengths)
        if values.shape != (batch,) or values.dtype.kind not in "iu" or ((values < 0) | (values > steps)).any():
            raise InteropError(
                f"the {self.node} has sequence_lens {values}, expected {batch} integers from 0 to {steps}"
            )
        return context.backend.from_host(values, dtype="int64")

    def _starts(self, xp: Any, dtype: str, batch: int, h: Array | None, c: Array | None) -> list[State]:
        hidden = self.directions[0].spec.hidden_size
        shape = (len(self.directions), batch, hidden)
        parts = []
        for name, value in (("initial_h", h), ("initial_c", c)):
            if value is not None and value.shape != shape:
                raise InteropError(f"the {self.node} has {name} of shape {value.shape}, expected {shape}")
            parts.append(xp.zeros(shape, dtype) if value is None else xp.asarray(value, dtype=dtype))
        memory = self.cell == "lstm"
        return [State(parts[0][side], parts[1][side] if memory else None) for side in range(shape[0])]


def _not_prepared(context: Context, node: Node, *inputs: Any) -> Any:
    raise AssertionError(f"the {node} runs as a Layer, which keeps its weights")


operator("LSTM", f"{_COMMON} input_forget output_sequence", inputs=(3, 8), outputs=3, host=(4,))(_not_prepared)
operator("GRU", f"{_COMMON} linear_before_reset output_sequence", inputs=(3, 6), outputs=2, host=(4,))(_not_prepared)
operator("RNN", f"{_COMMON} output_sequence", inputs=(3, 6), outputs=2, host=(4,))(_not_prepared)
RECURRENT = ("LSTM", "GRU", "RNN")
