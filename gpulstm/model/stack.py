"""A stack of recurrent layers: its parameters, its state, and the way of a batch through it and back.

A stack's `forward` gives `(y, state, tape)`, its `backward` takes the tape; nothing is recorded behind the scenes.  How
the data flows: layer l reads the whole output sequence (h_1 .. h_T) of layer l-1, each layer and direction has its own
state, and the last layer's sequence is the output.  Who computes a layer is decided per call (`explain`).
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from gpulstm import validate
from gpulstm.arrays.backend import Array, Backend, foreign_device
from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.devices import resolve
from gpulstm.arrays.gemm import own_kernels, uses_own_kernels
from gpulstm.arrays.params import ParamDict
from gpulstm.engines import cpu
from gpulstm.engines.dispatch import by_name, choose
from gpulstm.engines.spec import Call, StackSpec, State
from gpulstm.errors import ConfigError, DeviceError, DTypeError, ShapeError
from gpulstm.model.chunks import USUAL, Chunks, cut_up
from gpulstm.model.initializers import check_chrono, stack_values
from gpulstm.model.memory import Memory, training_bytes
from gpulstm.model.plan import Plan, Way, Ways
from gpulstm.model.scan import ChainTape, Pass, chains, cut
from gpulstm.model.stream import Stream

if TYPE_CHECKING:
    from gpulstm.engines.cuda.graph import Recording
    from gpulstm.engines.cuda.replay import Replays

StackState = Any  # (h, c) for the LSTM, h for GRU and RNN, each (L*D, B, H)


@dataclass
class Tape:
    """What `Recurrent.forward` keeps for `Recurrent.backward`; opaque, usable more than once."""

    owner: Recurrent | None  # None for the one that a recording keeps
    run: Pass
    batch: int
    outputs: str
    chains: list[list[ChainTape]]
    own: bool = False  # whether products go through this project's kernels
    replay: Recording | None = None  # the recording whose buffers it lies in


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
        chrono: int | None = None,
        engine: str | None = None,
        params: ParamDict | None = None,
        initial: bool = True,
    ) -> None:
        self.spec = spec
        self.backend = resolve(device)
        self.seed = validate.count("seed", seed, at_least=0)
        self.calls = 0
        self._call_on_device: Array | None = None
        self._passed = 0  # training passes since that number
        self._ways = Ways()
        self._recorded: Replays | None = None
        self._whole: cpu.Whole | None = None
        self.engine = None if engine is None else by_name(engine).name
        validate.real("forget_bias", forget_bias)
        check_chrono(spec, chrono)
        if spec.dtype == "float16" and not self.backend.is_cuda:
            raise DTypeError("dtype is 'float16', which is storage on CUDA; on the cpu expected 'float32' or 'float64'")
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
        way = self._way(steps, batch, training, lengths, memory, outputs)
        peak = training_bytes(way.choice.engine, way.call, cut(steps, way.segment), outputs)
        graph = f"none: {way.refusal}" if way.refusal is not None else str(self._replays)
        if way.refusal is None and self.spec.num_layers > 1:
            wave = f"in chunks of {way.chunk} steps" if isinstance(way.chunk, int) else f"none, as {way.chunk}"
            graph += f"; wavefront over the layers: {wave}"
        return Plan(way.call, way.choice, way.segment, peak, graph if self.backend.is_cuda else None)

    def forward(
        self,
        x: Any,
        state: StackState = None,
        lengths: Any = None,
        training: bool = True,
        memory: Memory = None,
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
            memory: bound on what a training step takes besides the parameters: bytes, "256MiB" or the like, or "sqrt"
                for segments of about sqrt(T) steps.  The sequence is then cut into segments that are computed again
                in `backward`; results and gradients are the same bits.  None keeps everything.
            outputs: "all" gives every step, "last" only the last valid step of each row.

        Returns:
            y `(T, B, D*H)`, zero past a row's length, or `(B, D*H)` with `outputs="last"` (zero for a row of length 0);
            the state after each row's last step, of the form of `state`; the tape, None unless training.  The tape
            holds x and y, not copies of them: change neither before `backward`.

        Raises:
            ShapeError, DTypeError, DeviceError, EngineError: one sentence each, before anything is computed.
        """
        x = self.as_input(x)
        if outputs not in ("all", "last"):
            raise ConfigError(f"outputs is {outputs!r}, expected 'all' or 'last'")
        spec, (steps, batch, _) = self.spec, x.shape
        with self.backend.activate():
            h, c = self._state_parts("state", state, batch)
            rows = None if lengths is None else self._lengths(lengths, steps, batch)
            way = self._way(steps, batch, training, rows is not None, memory, outputs)
            alone = not (training or spec.bidirectional) and memory is None and outputs == "all"
            if alone and way.choice.engine is cpu:
                return self._infer(x, h, c, rows)
            number = self._number_of_pass(training)
            compute = functools.partial(self._compute, way, outputs)
            if not self._replayed(way):
                with own_kernels() if way.refusal is None or self._nested() else contextlib.nullcontext():
                    y, h, c, tape = compute(x, h, c, rows, number)
                return y, self._state(h, c), tape and replace(tape, owner=self)
            key = (training, outputs, way.settings)
            inputs = {"x": x, "h": h, "c": c, "lengths": rows, "call": None}
            if not training:
                y, h, c = self._replays.run(self.backend, key, compute, inputs)
                return y, self._state(h, c), None
            if self.spec.dropout or self.spec.recurrent_dropout or any(self.spec.zoneout):
                inputs["call"] = self.backend.xp.full((1,), number & 0xFFFFFFFF, dtype="uint32")
            y, h, c, tape = self._replays.record(
                self.backend, key, compute, inputs, lambda kept, lent: replace(kept, owner=self, replay=lent)
            )
            return y, self._state(h, c), tape

    def _compute(
        self, way: Way, outputs: str, x: Array, h: Array | None, c: Array | None, lengths: Array | None, call: Any
    ) -> tuple[Array, Array, Array | None, Tape | None]:
        """y, h, c and the tape from arrays that were checked."""
        (steps, batch, _), training = x.shape, way.call.training
        states, segments = self._split(h, c, batch), cut(steps, way.segment)
        run = Pass(self.spec, self.backend, way.choice.engine, self.params, self.seed, call, steps, training, lengths)
        if isinstance(way.chunk, int):
            from gpulstm.engines.cuda import graph

            run.chunk = way.chunk if graph.recording() else 0
        tape = Tape(None, run, batch, outputs, [], uses_own_kernels())
        final: dict[int, State] = {}
        groups = chains(self.spec)
        for group in groups:
            parts: list[Array] = []
            kept: list[ChainTape] = []
            for chain in group:
                at, last = chain.indices(self.spec), outputs == "last" and group is groups[-1]
                y, ends, saved = chain.forward(
                    run, x, [states[index] for index in at], segments, last=last, tape=training
                )
                final |= dict(zip(at, ends, strict=True))
                parts.append(y)
                if saved is not None:
                    kept.append(saved)
            x = parts[0] if len(parts) == 1 else self.backend.xp.concatenate(parts, axis=-1)
            tape.chains.append(kept)
        return x, *self._join([final[index] for index in sorted(final)]), tape if training else None

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
        spec, batch = self.spec, tape.batch
        dy = self.backend.asarray(dy, spec.dtype, name="dy")
        shape = (batch, spec.output_size)
        expected = shape if tape.outputs == "last" else (tape.run.steps, *shape)
        if dy.shape != expected:
            raise ShapeError(f"dy has shape {dy.shape}, expected {expected}, the shape of y")
        grads = None if grads is None else self._gradients(grads)
        with self.backend.activate():
            dh, dc = self._state_parts("dstate", dstate, batch)
            if tape.replay is not None and not self._nested():
                inputs = {"dy": dy, "h": dh, "c": dc, "grads": None if grads is None else grads.flat}
                compute = functools.partial(self._compute_again, replace(tape, replay=None))
                found = self._replays.backward(self.backend, tape.replay, compute, inputs)
                if found is not None:
                    dx, h, c, flat = found
                    return dx, self._state(h, c), self.params.over(flat) if grads is None else grads
            grads = self.params.like() if grads is None else grads
            with own_kernels() if tape.own else contextlib.nullcontext():
                dx, dh, dc = self._compute_backward(tape, dy, dh, dc, grads)
            return dx, self._state(dh, dc), grads

    def _compute_again(
        self, tape: Tape, dy: Array, h: Array | None, c: Array | None, grads: Array | None
    ) -> tuple[Array, Array, Array | None, Array]:
        """`_compute_backward` without writing to its arguments, as a recording needs it."""
        work = self.params.like()
        if grads is not None:
            work.flat[...] = grads
        return *self._compute_backward(tape, dy, h, c, work), work.flat

    def _compute_backward(
        self, tape: Tape, dy: Array, dh: Array | None, dc: Array | None, grads: ParamDict
    ) -> tuple[Array, Array, Array | None]:
        """dx and the gradient of the initial state from arrays that were checked; adds to `grads`."""
        spec = self.spec
        dstates = self._split(dh, dc, tape.batch)
        for group, kept in zip(reversed(chains(spec)), reversed(tape.chains), strict=True):
            parts = []
            for chain, saved in zip(group, kept, strict=True):
                at, first = chain.indices(spec), chain.direction * spec.state_size
                part = dy[..., first : first + spec.state_size]
                dx, starts = chain.backward(tape.run, saved, part, [dstates[index] for index in at], grads)
                for index, start in zip(at, starts, strict=True):
                    dstates[index] = start
                parts.append(dx)
            dy = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        return dy, *self._join(dstates)

    @property
    def _replays(self) -> Replays:
        """The stack's recordings; what they need is imported by the first call on a GPU."""
        if self._recorded is None:
            from gpulstm.engines.cuda.replay import Replays

            self._recorded = Replays()
        return self._recorded

    def _way(self, steps: int, batch: int, training: bool, lengths: bool, memory: Memory, outputs: str) -> Way:
        call = Call(self.spec, self.backend.device, steps, batch, training, lengths)
        return self._ways.find(call, self.engine, memory, outputs)

    def _replayed(self, way: Way) -> bool:
        """Whether a pass is replayed as a graph of its own: not within another one, nor where segments bound memory."""
        return way.refusal is None and way.segment >= way.call.steps > 0 and not self._nested()

    def _nested(self) -> bool:
        """Whether a pass is a part of something that is recorded."""
        if not self.backend.is_cuda:
            return False
        from gpulstm.engines.cuda import graph

        return uses_own_kernels() or graph.capturing(cast(CupyBackend, self.backend))

    def _number_of_pass(self, training: bool) -> Any:
        """The number that keys the masks of this pass; training passes are counted."""
        number, start = self.calls, self._call_on_device
        self.calls += bool(training)
        if start is None:
            return number
        passed, self._passed = self._passed, self._passed + bool(training)
        return start + passed if passed else start

    @contextlib.contextmanager
    def masks_of_pass(self, call: Array) -> Iterator[None]:
        """Within this context masks are those of the passes from that one on whose number `call (1,)` uint32 holds."""
        self._call_on_device, self._passed = call, 0
        try:
            yield
        finally:
            self._call_on_device = None

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
            call = Call(self.spec, self.backend.device, steps or USUAL, batch)
            return choose(call, self.engine).engine.block_steps(batch)

        parts = cut_up(x, self.backend, self.spec.dtype, self.spec.input_size, steps, block)
        return Chunks(parts, self, state)

    def stream(self, batch_size: int = 1) -> Stream:
        """A stateful step function: `y_t = step(x_t)` with x_t `(B, I)` and y_t `(B, H)`; see `Stream`."""
        return Stream(self, batch_size)

    def zero_state(self, batch: int) -> StackState:
        """The state of zeros for `batch` rows."""
        return self.as_state(None, validate.count("batch", batch))

    # -- arguments ---------------------------------------------------------------------------------------------------
    def as_input(self, x: Any) -> Array:
        """`x` as the `(T, B, I)` array that `forward` reads, or the error that says why it is none."""
        x = self.backend.asarray(x, self.spec.dtype, name="x")
        inputs = self.spec.input_size
        if x.ndim != 3 or x.shape[2] != inputs or x.shape[1] < 1:
            raise ShapeError(f"x has shape {tuple(x.shape)}, expected (T, B, {inputs}) with B of at least 1")
        return x

    def as_state(self, state: StackState, batch: int) -> StackState:
        """`state` checked, and copied; zeros for None."""
        with self.backend.activate():
            return self._state(*self._join(self._split(*self._state_parts("state", state, batch), batch)))

    def _lengths(self, lengths: Any, steps: int, batch: int) -> Array:
        # Values on a GPU are not looked at, that would wait for it: beyond T counts as T, below 0 as 0.
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
        return self.backend.xp.clip(values, 0, steps).astype("int64")

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

    def _infer(self, x: Array, h: Array | None, c: Array | None, lengths: Array | None) -> tuple[Array, Any, None]:
        """All layers in one native call."""
        if self._whole is None or self._whole.params is not self.params:
            self._whole = cpu.Whole(self.spec, self.params)
        y, h_end, c_end = self._whole(x, h, c, lengths)
        return y, (h_end if c_end is None else (h_end, c_end)), None

    def _state_parts(self, name: str, state: StackState, batch: int) -> tuple[Array | None, Array | None]:
        """h `(L*D, B, P)` and, for the LSTM, c `(L*D, B, H)`; None for zeros."""
        spec, count = self.spec, self.spec.num_layers * self.spec.directions
        if state is None:
            return None, None
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
        return h, self._state_part(f"c of {name}", c, (count, batch, spec.hidden_size)) if spec.has_memory else None

    def _split(self, h: Array | None, c: Array | None, batch: int) -> list[State]:
        """The state of each layer and direction."""
        spec, count = self.spec, self.spec.num_layers * self.spec.directions
        if h is None:
            zeros = self.backend.xp.zeros
            h = zeros((count, batch, spec.state_size), spec.dtype)
            c = zeros((count, batch, spec.hidden_size), spec.dtype) if spec.has_memory else None
        return [State(h[index], None if c is None else c[index]) for index in range(count)]

    def _state_part(self, name: str, value: Any, shape: tuple[int, ...]) -> Array:
        value = self.backend.asarray(value, self.spec.dtype, name=name)
        if value.shape != shape:
            raise ShapeError(f"{name} has shape {tuple(value.shape)}, expected {shape} (layers * directions, B, units)")
        return value

    def _join(self, states: list[State]) -> tuple[Array, Array | None]:
        stack = self.backend.xp.stack
        return stack([state.h for state in states]), stack(
            [state.c for state in states]
        ) if self.spec.has_memory else None

    def _state(self, h: Array, c: Array | None) -> StackState:
        """The state as it is given away."""
        return (h, c) if self.spec.has_memory else h
