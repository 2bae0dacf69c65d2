"""A stack of recurrent layers: its parameters, and the way of a batch through it and back.

A stack's `forward` gives `(y, state, tape)`, its `backward` takes the tape; nothing is recorded behind the scenes.  How
the data flows: layer l reads the whole output sequence (h_1 .. h_T) of layer l-1, each layer and direction has its own
state, and the last layer's sequence is the output.  Who computes a layer is decided once for a shape (`explain`).
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from gpulstm import validate
from gpulstm.arrays import dtypes
from gpulstm.arrays.backend import Array, Backend, foreign_device
from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.devices import resolve
from gpulstm.arrays.params import ParamDict
from gpulstm.engines import quantized
from gpulstm.engines.dispatch import by_name
from gpulstm.engines.spec import Inference, Plan, StackSpec
from gpulstm.errors import ConfigError, DeviceError, DTypeError, ShapeError
from gpulstm.model import scan
from gpulstm.model import state as states
from gpulstm.model.chunks import USUAL, Chunks, cut_up
from gpulstm.model.initializers import check_chrono, stack_values
from gpulstm.model.memory import Memory, training_bytes
from gpulstm.model.plan import Plans, Role
from gpulstm.model.scan import Tape, Weights, cut
from gpulstm.model.state import StackState
from gpulstm.model.stream import Stream

if TYPE_CHECKING:
    from gpulstm.engines.cuda.graph import Recording
    from gpulstm.engines.cuda.replay import Replays


class Recurrent:
    """A stack of recurrent layers; made by `LSTM`, `GRU` and `RNN`, which document the options.

    Attributes:
        spec: sizes, options and dtype.
        backend: array library and device.
        params: dict of views into one flat buffer (`params.flat`), names in docs/architecture.md.
        seed: of the initial weights and of the dropout masks.
        calls: training forward passes so far; with the seed it fixes the next dropout mask.
        first_row: which row of a batch that several processes share is row 0 here; the masks are those of its rows.
    """

    def __init__(
        self,
        spec: StackSpec,
        *,
        device: str | Backend = "auto",
        seed: int = 0,
        forget_bias: float = 1.0,
        chrono: int | None = None,
        engine: str | None = None,
        params: ParamDict | None = None,
        initial: bool = True,
    ) -> None:
        self.spec = spec
        self.backend = resolve(device)
        self.seed = validate.seed(seed)
        self.calls, self.first_row = 0, 0
        self._plans = Plans(spec, self.backend.device, None if engine is None else by_name(engine).name)
        self._recorded: Replays | None = None
        self._inference: tuple[Any, ParamDict | None, Inference | None] = (None, None, None)  # who, what it reads, it
        validate.real("forget_bias", forget_bias)
        check_chrono(spec, chrono)
        dtypes.check(spec.dtype, self.backend.device, self.backend.capability)
        if spec.dropout and spec.num_layers == 1:
            warnings.warn(
                f"dropout={spec.dropout} has no effect with num_layers=1: it acts between layers", stacklevel=3
            )
        self.params = ParamDict.allocate(self.backend, spec.shapes(), spec.dtype) if params is None else params
        if initial:
            self.params.load(stack_values(spec, seed, forget_bias, chrono))

    def __repr__(self) -> str:
        default = StackSpec(self.spec.cell, self.spec.input_size, self.spec.hidden_size)
        options = [
            f"{name}={value!r}"
            for name, value in vars(self.spec).items()
            if name not in ("cell", "input_size", "hidden_size") and value != getattr(default, name)
        ]
        sizes = [str(self.spec.input_size), str(self.spec.hidden_size)]
        return f"{self.spec.cell.upper()}({', '.join(sizes + options)}, device={self.backend.device!r})"

    @property
    def engine(self) -> str | None:
        """The engine that the stack is held to, or None."""
        return self._plans.engine

    @property
    def quantized(self) -> str | None:
        """What the weights are rounded to, or None."""
        return self._plans.quantize

    def quantize(self, kind: str | None) -> None:
        """Compute from now on with weights of fewer bits; `params` stay as they are, and training is refused.

        Args:
            kind: "int8" (whole numbers and a scale a column; x and h are rounded row by row at each step), "bfloat16",
                or None.  States, gates and outputs stay float32; see `engines/quantized.py`.  Streams go on as made.

        Raises:
            ConfigError, DTypeError, DeviceError: as `quantized.check`.
        """
        quantized.check(kind, self.spec, self.backend.device)
        self._plans.quantize = kind

    def __call__(self, x: Any, state: StackState = None, lengths: Any = None) -> tuple[Array, StackState]:
        """The outputs without anything kept for a gradient: `forward` with `training=False`, as `(y, state)`."""
        y, state, _ = self.forward(x, state, lengths, training=False)
        return y, state

    def explain(
        self,
        steps: int,
        batch: int,
        *,
        training: bool = False,
        lengths: bool = False,
        memory: Memory = None,
        outputs: str = "all",
    ) -> Plan:
        """What will serve a call of T `steps` and B `batch` rows: engine, path, why no faster one, memory; print it."""
        steps, batch = validate.count("steps", steps, at_least=0), validate.count("batch", batch)
        plan = self.plan(steps, batch, training, lengths, memory, outputs)
        peak = training_bytes(plan.engine, plan.call, cut(steps, plan.segment), outputs)
        return replace(plan, memory=peak, recorded=str(self._replays) if self.backend.is_cuda else "")

    def plan(
        self,
        steps: int,
        batch: int,
        training: bool = False,
        lengths: bool = False,
        memory: Memory = None,
        outputs: str = "all",
        role: Role = "call",
    ) -> Plan:
        """The plan for a shape; arguments as `Plans.find`."""
        return self._plans.find(steps, batch, training, lengths, memory, outputs, role)

    def forward(
        self,
        x: Any,
        state: StackState = None,
        lengths: Any = None,
        training: bool = True,
        memory: Memory = None,
        outputs: str = "all",
        *,
        number: int | Array | None = None,
    ) -> tuple[Array, StackState, Tape | None]:
        """Run the stack over a batch of sequences.

        Args:
            x: `(T, B, I)` real numbers on this device, converted to the model's dtype.  What lies past a row's length
                is not read, so padding may hold anything.
            state: initial `(h, c)` for the LSTM, `h` for GRU and RNN, each `(L*D, B, H)` (h `(L*D, B, P)` with
                projection); zeros if None.
            lengths: `(B,)` integers in 0..T, in any order; None means T for all.
            training: apply dropout and zoneout masks and keep a tape.
            memory: bound on what a training step takes besides the parameters: bytes, "256MiB" or the like, or "sqrt"
                for segments of about sqrt(T) steps.  The sequence is then cut into segments that are computed again
                in `backward`; results and gradients are the same bits.  None keeps everything.
            outputs: "all" gives every step, "last" only the last valid step of each row.
            number: of the pass, where it is a part of a larger piece of work that is recorded as a whole: an integer,
                or `(1,)` uint32 on the device.  With the seed it keys the dropout masks.  None counts in `calls`.

        Returns:
            y `(T, B, D*H)`, zero past a row's length, or `(B, D*H)` with `outputs="last"` (zero for a row of length 0);
            the state after each row's last step, of the form of `state`; the tape, None unless training.  The tape
            holds x and y, not copies of them: change neither before `backward`.

        Raises:
            ShapeError, DTypeError, DeviceError, EngineError: one sentence each, before anything is computed.
        """
        x = self.as_input(x)
        if training and self.quantized:
            raise ConfigError(
                f"training needs float32 weights, but these are in {self.quantized}; call quantize(None) first"
            )
        if outputs not in ("all", "last"):
            raise ConfigError(f"outputs is {outputs!r}, expected 'all' or 'last'")
        spec, backend, (steps, batch, _) = self.spec, self.backend, x.shape
        with backend.activate():
            h, c = states.check("state", state, spec, backend, batch)
            rows = None if lengths is None else _lengths(lengths, steps, batch, backend)
            role: Role = "call" if number is None and not (backend.is_cuda and _capturing(backend)) else "part"
            plan = self._plans.find(steps, batch, training, rows is not None, memory, outputs, role)
            infer = self._infer(plan) if plan.at_once else None
            if infer is not None:
                y, h, c = infer(x, h, c, rows)
                return y, states.of_parts(h, c), None
            if number is None:
                number, self.calls = self.calls, self.calls + bool(training)
            weights = Weights(backend, self.params, self.seed, self.first_row)
            if plan.no_graph is not None:
                y, h, c, tape = scan.forward(plan, weights, x, h, c, rows, number)
                return y, states.of_parts(h, c), tape
            from gpulstm.engines.cuda.replay import replay

            masks = training and spec.draws_masks
            number = backend.xp.full((1,), number & 0xFFFFFFFF, dtype="uint32") if masks else None
            inputs = {"x": x, "h": h, "c": c, "lengths": rows, "number": number}
            recordings = self._replays.tapes if training else self._replays.passes
            y, h, c, tape = replay(plan, functools.partial(scan.forward, plan, weights), inputs, recordings, _take)
            return y, states.of_parts(h, c), tape

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
        if not isinstance(tape, Tape) or tape.run.weights.params is not self.params:
            came = "another model's" if isinstance(tape, Tape) else repr(tape)
            raise ConfigError(f"tape is {came}, expected what forward(..., training=True) of this model returned")
        spec, backend, batch, plan = self.spec, self.backend, tape.batch, tape.run.plan
        dy = backend.asarray(dy, spec.dtype, name="dy")
        shape = (batch, spec.output_size)
        expected = shape if plan.outputs == "last" else (plan.call.steps, *shape)
        if dy.shape != expected:
            raise ShapeError(f"dy has shape {dy.shape}, expected {expected}, the shape of y")
        if grads is not None:
            _check_gradients(grads, self.params)
        with backend.activate():
            dh, dc = states.check("dstate", dstate, spec, backend, batch)
            if tape.recording is None or _capturing(backend):
                grads = self.params.like() if grads is None else grads
                dx, dh, dc = scan.backward(tape, grads, dy, dh, dc)
                return dx, states.of_parts(dh, dc), grads
            from gpulstm.engines.cuda.replay import replay

            inputs = {"dy": dy, "h": dh, "c": dc, "grads": None if grads is None else grads.flat}
            compute = functools.partial(scan.backward_apart, replace(tape, recording=None))
            take = functools.partial(_take_gradients, None if grads is None else grads.flat)
            order, parts = tape.recording.order, tape.recording.parts
            dx, dh, dc, flat = replay(plan, compute, inputs, parts, take, order=order)
            return dx, states.of_parts(dh, dc), self.params.over(flat) if grads is None else grads

    def _infer(self, plan: Plan) -> Inference | None:
        """All layers in one call of the engine; None where it has no such function."""
        who, params, infer = self._inference
        asked = plan.engine.name, plan.call.quantize
        if who != asked or params is not self.params:
            infer = plan.engine.infer(plan, self.params)
            self._inference = asked, self.params, infer
        return infer

    @property
    def _replays(self) -> Replays:
        """The stack's recordings; what they need is imported by the first call on a GPU."""
        if self._recorded is None:
            from gpulstm.engines.cuda.replay import Replays

            self._recorded = Replays()
        return self._recorded

    def chunks(self, x: Any, steps: int | None = None, state: StackState = None, lengths: None = None) -> Chunks:
        """Read a sequence that may be longer than memory, and give its outputs chunk by chunk.

            for y in lstm.chunks(numpy.load("long.npy", mmap_mode="r"), steps=4096): ...

        Args:
            x: an array `(T, B, I)`, a memory-mapped one for example, of which one chunk is read at a time; or an
                iterable of arrays `(t, B, I)` of any lengths, taken one by one.  With a model on CUDA, chunks of host
                arrays are uploaded, each while the one before is computed.
            steps: of each chunk given back (the last may be shorter); None for about a thousand.
            state: before the first step; zeros if None.
            lengths: not possible here, for rows end in other chunks than they begin.

        Returns:
            an iterator over y `(steps, B, D*H)` on the model's device, whose attribute `state` is the state after the
            last of them.  All chunks together are what one call gives: to the bit where `steps` is a multiple of the
            engine's block of steps, as it is by default, else to rounding.

        Raises:
            ConfigError: the stack is bidirectional, or there are lengths.
            ShapeError, DTypeError, DeviceError: as `forward`; of a part of an iterable when it is reached.
        """
        if self.spec.bidirectional:
            raise ConfigError("chunks needs bidirectional=False: the second direction starts at the sequence's end")
        if lengths is not None:
            raise ConfigError("chunks takes no lengths; leave it None, or read rows of one length at a time")
        steps = None if steps is None else validate.count("steps", steps)

        def block(batch: int) -> int:
            return self.plan(steps or USUAL, batch).engine.block_steps(batch)

        parts = cut_up(x, self.backend, self.spec.dtype, self.spec.input_size, steps, block)
        return Chunks(parts, self, state)

    def stream(self, batch_size: int = 1) -> Stream:
        """A stateful step function: `y_t = step(x_t)` with x_t `(B, I)` and y_t `(B, H)`; see `Stream`."""
        return Stream(self, batch_size)

    def zero_state(self, batch: int) -> StackState:
        """The state of zeros for `batch` rows."""
        return self.as_state(None, validate.count("batch", batch))

    def as_input(self, x: Any) -> Array:
        """`x` as the `(T, B, I)` array that `forward` reads, or the error that says why it is none."""
        x = self.backend.asarray(x, self.spec.dtype, name="x")
        inputs = self.spec.input_size
        if x.ndim != 3 or x.shape[2] != inputs or x.shape[1] < 1:
            raise ShapeError(f"x has shape {tuple(x.shape)}, expected (T, B, {inputs}) with B of at least 1")
        return x

    def as_state(self, state: StackState, batch: int) -> StackState:
        """`state` checked, and copied; zeros for None."""
        spec, backend = self.spec, self.backend
        with backend.activate():
            h, c = states.check("state", state, spec, backend, batch)
            return states.of_parts(*states.join(states.split(h, c, spec, backend, batch), backend))


def _capturing(backend: Backend) -> bool:
    """Whether the caller records a graph of its own."""
    from gpulstm.engines.cuda import graph

    return graph.capturing(cast(CupyBackend, backend))


def _take(outputs: Any, recording: Recording | None) -> Any:
    """y, h, c and the tape of the caller's own; buffers of a recording are copied, or lent to the tape."""
    *arrays, tape = outputs
    if recording is None:
        return outputs
    if tape is not None:
        tape = replace(tape, recording=recording)
        recording.lend(tape)
    return (*_copies(arrays), tape)


def _take_gradients(grads: Array | None, outputs: Any, recording: Recording | None) -> Any:
    """dx, h, c and the flat gradients of the caller's own; the latter go to `grads` where that is given."""
    *arrays, flat = outputs if recording is None or grads is not None else _copies(outputs)
    if grads is None:
        return (*arrays, flat)
    grads[...] = flat
    return (*(arrays if recording is None else _copies(arrays)), grads)


def _copies(arrays: Any) -> list[Array | None]:
    return [None if array is None else array.copy() for array in arrays]


def _lengths(lengths: Any, steps: int, batch: int, backend: Backend) -> Array:
    """`lengths` as `(B,)` int64 on the device.

    Values on a GPU are not looked at, that would wait for it: beyond T counts as T, below 0 as 0.
    """
    values = (backend if foreign_device(lengths) else resolve("cpu")).asarray(lengths, name="lengths")
    if values.shape != (batch,):
        raise ShapeError(f"lengths has shape {tuple(values.shape)}, expected ({batch},), one for each row of x")
    if values.dtype.kind not in "iu":
        raise DTypeError(f"lengths has dtype {values.dtype}, expected integers")
    if not isinstance(values, np.ndarray):
        return backend.xp.clip(values, 0, steps).astype("int64")
    outside = (values < 0) | (values > steps)
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise ShapeError(f"lengths[{row}] is {values[row]}, expected 0 to T = {steps}")
    return backend.from_host(values, dtype="int64")


def _check_gradients(grads: Any, params: ParamDict) -> None:
    if not isinstance(grads, ParamDict):
        raise DTypeError(f"grads is a {type(grads).__name__}, expected a ParamDict, as params.like() gives it")
    if grads.shapes != params.shapes:
        raise ShapeError(f"grads has the shapes {grads.shapes}, expected those of params, {params.shapes}")
    if grads.backend is not params.backend:
        raise DeviceError(f"grads lives on {grads.backend.device} but the model is on {params.backend.device}")
    if grads.flat.dtype != params.flat.dtype:
        raise DTypeError(f"grads has dtype {grads.flat.dtype}, expected {params.flat.dtype}, that of params")
