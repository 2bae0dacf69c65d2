"""A stack of recurrent layers: its parameters, its state, and the way of a batch through it and back.

A stack's `forward` gives `(y, state, tape)`, its `backward` takes the tape; nothing is recorded behind the scenes.  How
the data flows: layer l reads the whole output sequence (h_1 .. h_T) of layer l-1, each layer and direction has its own
state, and the last layer's sequence is the output.  Who computes a layer is decided per call (`explain`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpulstm import options, random
from gpulstm.backend import Array, Backend, foreign_device, resolve
from gpulstm.engines.choose import Choice, Plan, by_name, choose
from gpulstm.engines.spec import Call, StackSpec, State, Task
from gpulstm.errors import ConfigError, DeviceError, DTypeError, ShapeError
from gpulstm.initialise import stack_values
from gpulstm.params import ParamDict
from gpulstm.random import MaskKey, Purpose

StackState = Any  # (h, c) for the LSTM, h for GRU and RNN, each (L*D, B, H)


@dataclass
class Tape:
    """What `Recurrent.forward` keeps for `Recurrent.backward`; opaque, usable more than once."""

    owner: Recurrent
    choice: Choice
    shape: tuple[int, int]
    outputs: str
    lengths: Array | None
    layers: list[list[tuple[Task, Any]]]
    between: list[Array | None]


class Recurrent:
    """A stack of recurrent layers; made by `LSTM`, `GRU` and `RNN`, which document the options.

    Attributes:
        spec: sizes, options and dtype.
        backend: array library and device.
        params: dict of views into one flat buffer (`params.flat`), names in docs/architecture.md.
        seed: of the initial weights and of the dropout masks.
        calls: training forward passes so far; with the seed it fixes the next dropout mask.
    """

    def __init__(
        self,
        spec: StackSpec,
        *,
        device: str | Backend = "auto",
        seed: int = 0,
        forget_bias: float = 1.0,
        engine: str | None = None,
        params: ParamDict | None = None,
        initial: bool = True,
    ) -> None:
        self.spec = spec
        self.backend = resolve(device)
        self.seed = options.count("seed", seed, at_least=0)
        self.calls = 0
        self.engine = None if engine is None else by_name(engine).name
        options.real("forget_bias", forget_bias)
        if spec.dtype == "float16" and not self.backend.is_cuda:
            raise DTypeError("dtype is 'float16', which is storage on CUDA; on the cpu expected 'float32' or 'float64'")
        self.params = ParamDict.allocate(self.backend, spec.shapes(), spec.dtype) if params is None else params
        if initial:
            self.params.load(stack_values(spec, seed, forget_bias))

    def __repr__(self) -> str:
        default = StackSpec(self.spec.cell, self.spec.input_size, self.spec.hidden_size)
        options = [
            f"{name}={value!r}"
            for name, value in vars(self.spec).items()
            if name not in ("cell", "input_size", "hidden_size") and value != getattr(default, name)
        ]
        sizes = [str(self.spec.input_size), str(self.spec.hidden_size)]
        return f"{self.spec.cell.upper()}({', '.join(sizes + options)}, device={self.backend.device!r})"

    def __call__(self, x: Any, state: StackState = None, lengths: Any = None) -> tuple[Array, StackState]:
        """The outputs without anything kept for a gradient: `forward` with `training=False`, as `(y, state)`."""
        y, state, _ = self.forward(x, state, lengths, training=False)
        return y, state

    def explain(self, steps: int, batch: int, *, training: bool = False, lengths: bool = False) -> Plan:
        """Which engine and path will serve a call of T `steps` and B `batch` rows, and why no faster one; print it."""
        call = Call(self.spec, self.backend.device, steps, batch, training, lengths)
        return Plan(call, choose(call, self.engine))

    def forward(
        self,
        x: Any,
        state: StackState = None,
        lengths: Any = None,
        training: bool = True,
        memory: str | int | None = None,
        outputs: str = "all",
    ) -> tuple[Array, StackState, Tape | None]:
        """Run the stack over a batch of sequences.

        Args:
            x: `(T, B, I)` real numbers on this device, converted to the model's dtype.  What lies past a row's length
                is not read, so padding may hold anything.
            state: initial `(h, c)` for the LSTM, `h` for GRU and RNN, each `(L*D, B, H)` (h `(L*D, B, P)` with
                projection); zeros if None.
            lengths: `(B,)` integers in 0..T, in any order; None means T for all.
            training: apply dropout and zoneout masks and keep a tape.
            memory: None.  (A bound on the tape's memory is not in this version.)
            outputs: "all" gives every step, "last" only the last valid step of each row.

        Returns:
            y `(T, B, D*H)`, zero past a row's length, or `(B, D*H)` with `outputs="last"` (zero for a row of length 0);
            the state after each row's last step, of the form of `state`; the tape, None unless training.  The tape
            holds x and y, not copies of them: change neither before `backward`.

        Raises:
            ShapeError, DTypeError, DeviceError, EngineError: one sentence each, before anything is computed.
        """
        x = self._input(x)
        if memory is not None:
            raise ConfigError(f"memory is {memory!r}, expected None: bounded-memory training is not in this version")
        if outputs not in ("all", "last"):
            raise ConfigError(f"outputs is {outputs!r}, expected 'all' or 'last'")
        spec, (steps, batch, _) = self.spec, x.shape
        with self.backend.activate():
            states = self._states("state", state, batch)
            rows = None if lengths is None else self._lengths(lengths, steps, batch)
            choice = choose(Call(spec, self.backend.device, steps, batch, training, rows is not None), self.engine)
            valid = None
            if rows is not None:
                valid = (self.backend.xp.arange(steps)[:, None] < rows[None, :])[:, :, None]
                x = self.backend.xp.where(valid, x, self.backend.xp.zeros_like(x))
            call, self.calls = self.calls, self.calls + bool(training)
            tape = Tape(self, choice, (steps, batch), outputs, rows, [], [])
            final: list[State] = []
            for layer in range(spec.num_layers):
                mask = self._between(layer, x, call) if training else None
                x = x if mask is None else x * mask
                directions, parts = [], []
                for direction in range(spec.directions):
                    task = self._task(layer, direction, steps, batch, rows, valid, call, training)
                    y, end, saved = choice.engine.forward(task, x, states[layer * spec.directions + direction])
                    parts.append(y)
                    final.append(end)
                    directions.append((task, saved))
                x = parts[0] if len(parts) == 1 else self.backend.xp.concatenate(parts, axis=2)
                tape.layers.append(directions)
                tape.between.append(mask)
            y = x if outputs == "all" else self._last(x, rows)
            return y, self._join(final), tape if training else None

    def backward(
        self, tape: Tape, dy: Any, dstate: StackState = None, grads: ParamDict | None = None
    ) -> tuple[Array, StackState, ParamDict]:
        """The gradients of a scalar loss, from those of `forward`'s results.

        Args:
            tape: what `forward(..., training=True)` returned.
            dy: gradient of y, of its shape and dtype.
            dstate: gradient of the final state, of its form; zeros if None.
            grads: the parameters' gradients are added to these; new zeros if None.

        Returns:
            dx `(T, B, I)`, the gradient of the initial state, and `grads`, named as `params`.

        Raises:
            ConfigError: `tape` is None or another model's.
            ShapeError, DTypeError, DeviceError: one sentence each, before anything is computed.
        """
        if not isinstance(tape, Tape) or tape.owner is not self:
            what = "another model's" if isinstance(tape, Tape) else repr(tape)
            raise ConfigError(f"tape is {what}, expected what forward(..., training=True) of this model returned")
        spec, (steps, batch) = self.spec, tape.shape
        size = (spec.output_size,)
        dy = self.backend.asarray(dy, spec.dtype, name="dy")
        expected = (batch, *size) if tape.outputs == "last" else (steps, batch, *size)
        if dy.shape != expected:
            raise ShapeError(f"dy has shape {dy.shape}, expected {expected}, the shape of y")
        grads = self.params.like() if grads is None else self._gradients(grads)
        with self.backend.activate():
            ends = self._states("dstate", dstate, batch)
            starts: list[State] = list(ends)
            dy = dy if tape.outputs == "all" else self._last_backward(dy, tape)
            for layer in reversed(range(spec.num_layers)):
                parts = []
                for direction, (task, saved) in enumerate(tape.layers[layer]):
                    index = layer * spec.directions + direction
                    part = dy[:, :, direction * spec.state_size : (direction + 1) * spec.state_size]
                    named = _LayerView(grads, spec.suffixes[index])
                    dx, starts[index] = tape.choice.engine.backward(task, saved, part, ends[index], named)
                    parts.append(dx)
                dy = parts[0] if len(parts) == 1 else parts[0] + parts[1]
                mask = tape.between[layer]
                dy = dy if mask is None else dy * mask
            return dy, self._join(starts), grads

    def stream(self, batch_size: int = 1) -> Stream:
        """A stateful step function: `y_t = step(x_t)` with x_t `(B, I)` and y_t `(B, H)`; see `Stream`."""
        return Stream(self, batch_size)

    def zero_state(self, batch: int) -> StackState:
        """The state of zeros for `batch` rows."""
        with self.backend.activate():
            return self._join(self._states("state", None, batch))

    # -- arguments ---------------------------------------------------------------------------------------------------
    def _input(self, x: Any) -> Array:
        x = self.backend.asarray(x, self.spec.dtype, name="x")
        inputs = self.spec.input_size
        if x.ndim != 3 or x.shape[2] != inputs or x.shape[1] < 1:
            raise ShapeError(f"x has shape {tuple(x.shape)}, expected (T, B, {inputs}) with B of at least 1")
        return x

    def _lengths(self, lengths: Any, steps: int, batch: int) -> Array:
        # On a GPU the values are not looked at, that would wait for it: beyond T counts as T, below 0 as 0.
        source = self.backend if foreign_device(lengths) else resolve("cpu")
        values = source.asarray(lengths, name="lengths")
        if values.shape != (batch,):
            raise ShapeError(f"lengths has shape {tuple(values.shape)}, expected ({batch},), one for each row of x")
        if values.dtype.kind not in "iu":
            raise DTypeError(f"lengths has dtype {values.dtype}, expected integers")
        if isinstance(values, np.ndarray) and ((values < 0) | (values > steps)).any():
            wrong = int(np.flatnonzero((values < 0) | (values > steps))[0])
            raise ShapeError(f"lengths[{wrong}] is {values[wrong]}, expected 0 to T = {steps}")
        if isinstance(values, np.ndarray):
            return self.backend.from_host(values, dtype="int64")
        return values.astype("int64")

    def _gradients(self, grads: ParamDict) -> ParamDict:
        if not isinstance(grads, ParamDict):
            raise DTypeError(f"grads is a {type(grads).__name__}, expected a ParamDict, as params.like() gives it")
        if grads.shapes != self.params.shapes:
            raise ShapeError(f"grads has the shapes {grads.shapes}, expected those of params, {self.params.shapes}")
        if grads.backend is not self.params.backend:
            raise DeviceError(f"grads lives on {grads.backend.device} but the model is on {self.backend.device}")
        if grads.flat.dtype != self.params.flat.dtype:
            raise DTypeError(f"grads has dtype {grads.flat.dtype}, expected {self.params.flat.dtype}, that of params")
        return grads

    def _states(self, name: str, state: StackState, batch: int) -> list[State]:
        """The state of each layer and direction; zeros for None."""
        spec, count = self.spec, self.spec.num_layers * self.spec.directions
        if state is None:
            zeros = self.backend.xp.zeros
            return [
                State(
                    zeros((batch, spec.state_size), spec.dtype),
                    zeros((batch, spec.hidden_size), spec.dtype) if spec.has_memory else None,
                )
                for _ in range(count)
            ]
        if spec.has_memory:
            if not isinstance(state, (tuple, list)) or len(state) != 2:
                raise ShapeError(f"{name} is a {type(state).__name__}, expected the pair (h, c)")
            h, c = state
        else:
            if isinstance(state, (tuple, list)):
                cell = spec.cell.upper()
                raise ShapeError(f"{name} is a {type(state).__name__}, expected h alone: the {cell} has no c")
            h, c = state, None
        h = self._state_part(f"h of {name}", h, (count, batch, spec.state_size))
        if not spec.has_memory:
            return [State(h[index], None) for index in range(count)]
        c = self._state_part(f"c of {name}", c, (count, batch, spec.hidden_size))
        return [State(h[index], c[index]) for index in range(count)]

    def _state_part(self, name: str, value: Any, shape: tuple[int, ...]) -> Array:
        value = self.backend.asarray(value, self.spec.dtype, name=name)
        if value.shape != shape:
            raise ShapeError(f"{name} has shape {tuple(value.shape)}, expected {shape} (layers * directions, B, units)")
        return value

    def _join(self, states: list[State]) -> StackState:
        h = self.backend.xp.stack([state.h for state in states])
        return (h, self.backend.xp.stack([state.c for state in states])) if self.spec.has_memory else h

    # -- the parts of a pass -----------------------------------------------------------------------------------------
    def _task(
        self,
        layer: int,
        direction: int,
        steps: int,
        batch: int,
        lengths: Array | None,
        valid: Array | None,
        call: int,
        training: bool,
    ) -> Task:
        spec, index = self.spec, layer * self.spec.directions + direction
        task = Task(spec, layer, direction == 1, _LayerView(self.params, spec.suffixes[index]), lengths, valid)
        task.training = training
        if not training:
            return task
        units = (batch, spec.state_size)
        if spec.recurrent_dropout:
            key = MaskKey(self.seed, call, index, Purpose.RECURRENT)
            mask = random.dropout_mask(self.backend, spec.recurrent_dropout, (1, *units), spec.dtype, key)
            task.recurrent_mask = mask[0]
        if spec.zoneout[0]:
            key = MaskKey(self.seed, call, index, Purpose.ZONEOUT_H)
            task.keep_h = random.keep_mask(self.backend, spec.zoneout[0], (steps, *units), key)
        if spec.zoneout[1]:
            key = MaskKey(self.seed, call, index, Purpose.ZONEOUT_C)
            task.keep_c = random.keep_mask(self.backend, spec.zoneout[1], (steps, batch, spec.hidden_size), key)
        return task

    def _between(self, layer: int, x: Array, call: int) -> Array | None:
        if not layer or not self.spec.dropout:
            return None
        key = MaskKey(self.seed, call, layer * self.spec.directions, Purpose.BETWEEN_LAYERS)
        return random.dropout_mask(self.backend, self.spec.dropout, x.shape, self.spec.dtype, key)

    def _last(self, y: Array, lengths: Array | None) -> Array:
        """Each row's last valid step; zeros for rows of length 0."""
        xp = self.backend.xp
        if not y.shape[0]:
            return xp.zeros(y.shape[1:], y.dtype)
        if lengths is None:
            return y[-1]
        index = xp.clip(lengths - 1, 0, y.shape[0] - 1)  # y is zero there for a row of length 0
        return y[index, xp.arange(y.shape[1])]

    def _last_backward(self, dlast: Array, tape: Tape) -> Array:
        xp, (steps, batch) = self.backend.xp, tape.shape
        dy = xp.zeros((steps, batch, self.spec.output_size), dlast.dtype)
        if not steps:
            return dy
        if tape.lengths is None:
            dy[-1] = dlast
        else:
            index = xp.clip(tape.lengths - 1, 0, steps - 1)
            dy[index, xp.arange(batch)] = xp.where((tape.lengths > 0)[:, None], dlast, xp.zeros_like(dlast))
        return dy


class Stream:
    """A stack that keeps its state between calls, one time step a call.

    Attributes:
        state: the state after the last step; assign to it to continue from another.
    """

    def __init__(self, stack: Recurrent, batch_size: int) -> None:
        if stack.spec.bidirectional:
            raise ConfigError("stream needs bidirectional=False: the second direction starts at the sequence's end")
        self.stack, self.batch_size = stack, options.count("batch_size", batch_size)
        self.reset()

    def reset(self) -> None:
        """Back to the state of zeros."""
        self.state = self.stack.zero_state(self.batch_size)

    def __call__(self, x: Any) -> Array:
        """One step: x `(B, I)` -> y `(B, H)` (`(B, P)` with projection)."""
        x = self.stack.backend.asarray(x, self.stack.spec.dtype, name="x")
        expected = (self.batch_size, self.stack.spec.input_size)
        if x.shape != expected:
            raise ShapeError(f"x has shape {tuple(x.shape)}, expected {expected}")
        y, self.state = self.stack(x[None], self.state)
        return y[0]


class _LayerView(dict[str, Any]):
    """The arrays of one layer and direction, by name without suffix; `view[name] += value` writes through."""

    def __init__(self, params: Mapping[str, Array], suffix: str) -> None:
        super().__init__({name[: -len(suffix)]: array for name, array in params.items() if name.endswith(suffix)})
