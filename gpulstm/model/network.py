"""The network: a recurrent stack that reads a window, and a dense head that turns its last output into the targets.

The head sees the last valid output of the last layer and, next to it, the covariates that are known for the horizon:

    raw (B, horizon, targets, P) = [ y_last (B, D*H) | future (B, horizon*K) ] W + b

Columns that hold the codes of categories are replaced by learned vectors before, in x and in future alike.
What the P numbers of each target and step mean is the loss's matter: a point, quantiles, a mean and a scale, classes.
All parameters, of the stack and the head, lie in one flat buffer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from gpulstm import validate
from gpulstm.arrays.backend import Array, Backend
from gpulstm.arrays.devices import resolve
from gpulstm.arrays.gemm import Products
from gpulstm.arrays.params import ParamDict
from gpulstm.engines.spec import Plan, StackSpec
from gpulstm.errors import ConfigError, ShapeError
from gpulstm.model.embedding import Categories, Category
from gpulstm.model.initializers import check_chrono
from gpulstm.model.layers import Dense
from gpulstm.model.memory import Memory
from gpulstm.model.scan import Tape
from gpulstm.model.stack import Recurrent
from gpulstm.model.state import StackState


@dataclass(frozen=True)
class NetworkConfig:
    """Everything that fixes a network's shape; goes into a checkpoint as JSON.

    Args:
        stack: the recurrent layers.
        horizon: steps ahead that the head gives.
        targets: series that it gives them for.
        outputs: P, numbers per target and step (`Loss.outputs`).
        future_size: K, covariates known for each step of the horizon.
        forget_bias: initial bias of the LSTM's forget gate.
        chrono: T_max of chrono initialization, or None; see `LSTM`.
        categories: columns of codes in x and in the covariates of the horizon, which the stack and the head read as
            vectors: `stack.input_size` counts their E numbers in the place of one code.
    """

    stack: StackSpec
    horizon: int = 1
    targets: int = 1
    outputs: int = 1
    future_size: int = 0
    forget_bias: float = 1.0
    chrono: int | None = None
    categories: tuple[Category, ...] = ()

    def __post_init__(self) -> None:
        for name, least in (("horizon", 1), ("targets", 1), ("outputs", 1), ("future_size", 0)):
            validate.count(name, getattr(self, name), at_least=least)
        check_chrono(self.stack, self.chrono)
        places = (
            [one.column for one in self.categories],
            [one.future for one in self.categories if one.future is not None],
        )
        for taken, width in zip(places, (self.input_size, self.future_size), strict=True):
            if len(set(taken)) < len(taken) or any(column >= width for column in taken):
                raise ConfigError(f"categories are in the columns {taken}, expected different ones of {width}")

    @property
    def input_size(self) -> int:
        """I: features of x."""
        return self.stack.input_size - sum(one.size - 1 for one in self.categories)

    @property
    def head_inputs(self) -> int:
        """Features that the head reads."""
        more = sum(one.size - 1 for one in self.categories if one.future is not None)
        return self.stack.output_size + self.horizon * (self.future_size + more)

    @property
    def head_outputs(self) -> int:
        """Numbers that the head gives per row."""
        return self.horizon * self.targets * self.outputs

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Parameter shapes of the network by name, `rnn.*`, `categories.*` and `head.*`, in stored order."""
        head = Dense.shapes(self.head_inputs, self.head_outputs)
        return {
            **{f"rnn.{name}": shape for name, shape in self.stack.shapes().items()},
            **{f"categories.{name}": shape for name, shape in Categories.shapes(self.categories).items()},
            **{f"head.{name}": shape for name, shape in head.items()},
        }

    def check_weights(self, values: Mapping[str, Any]) -> None:
        """Raise unless arrays are those of such a network, before any memory is taken for one.

        Raises:
            ShapeError: a name is missing or unknown, or a shape differs.
        """
        layers = self.stack.num_layers * self.stack.directions
        if layers > len(values):  # a config may ask for millions
            raise ShapeError(f"the config asks for {layers} layers, but there are {len(values)} arrays of weights")
        shapes = self.shapes()
        odd = sorted(shapes.keys() ^ values.keys())
        if odd:
            raise ShapeError(f"parameter {odd[0]!r} is in only one of config and weights")
        for name, shape in shapes.items():
            if tuple(values[name].shape) != shape:
                raise ShapeError(f"parameter {name!r} has shape {tuple(values[name].shape)}, expected {shape}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NetworkConfig:
        """The config that `to_dict` described.

        Raises:
            ConfigError: a key is missing or unknown, or a value is out of range.
        """
        stack = dict(_known(StackSpec, values.get("stack", {}), "stack"))
        stack["zoneout"] = tuple(stack.get("zoneout", (0.0, 0.0)))
        categories = tuple(Category(**_known(Category, one, "category")) for one in values.get("categories", ()))
        return cls(**{**_known(cls, values, "network"), "stack": StackSpec(**stack), "categories": categories})


@dataclass
class NetworkTape:
    """What `Network.forward` keeps for `Network.backward`; opaque."""

    stack: Tape
    read: Array  # (N, D*H + horizon*K), the head's input
    products: Products  # who computed the head's
    steps: int | None = None  # how many of the last steps the head read; None: each row's last valid step
    before: Tape | None = None  # of the steps before those of `stack`, where the state was taken out between
    codes: tuple[list[Array], list[Array]] = ((), ())  # type: ignore[assignment] # of categories in x and in future


@dataclass(frozen=True)
class Reading:
    """How a network goes over a window.

    Args:
        memory: bound on what a training step takes, as `Recurrent.forward`.
        last: how many of the last steps the head reads; None: each row's last valid step.
        state_at: the number of steps after which the state is taken out; None: at the end.
    """

    memory: Memory = None
    last: int | None = None
    state_at: int | None = None

    def passes(self, steps: int) -> int:
        """Passes through the stack for T `steps`: two where the state is taken out in between."""
        return 1 if self.state_at is None or self.state_at >= steps else 2


class Network:
    """A recurrent stack and a dense head over one flat buffer of parameters.

    Args:
        config: shapes and options.
        device: "auto", "cpu", "cuda" or "cuda:N".
        seed: of the initial weights and of the dropout masks.
        engine: force an engine for the stack; None chooses.
        initial: draw initial weights; False leaves zeros, for parameters about to be loaded.

    Attributes:
        params: names `rnn.*` and `head.*`, views into `params.flat`.
    """

    def __init__(
        self,
        config: NetworkConfig,
        *,
        device: str | Backend = "auto",
        seed: int = 0,
        engine: str | None = None,
        initial: bool = True,
    ) -> None:
        self.config, self.seed = config, seed
        self.backend = resolve(device)
        self.params = ParamDict.allocate(self.backend, config.shapes(), config.stack.dtype)
        self.rnn = Recurrent(
            config.stack,
            device=self.backend,
            seed=seed,
            forget_bias=config.forget_bias,
            chrono=config.chrono,
            engine=engine,
            params=self.params.sub("rnn."),
            initial=initial,
        )
        self.categories = Categories(config.categories, self.params.sub("categories."), seed, initial)
        self.head = Dense(
            config.head_inputs,
            config.head_outputs,
            dtype=config.stack.dtype,
            device=self.backend,
            seed=seed,
            params=self.params.sub("head."),
            initial=initial,
        )

    def __repr__(self) -> str:
        config = self.config
        shape = f"horizon={config.horizon}, targets={config.targets}, outputs={config.outputs}"
        return f"Network({self.rnn!r} -> Dense({config.head_inputs}, {config.head_outputs}), {shape})"

    @property
    def calls(self) -> int:
        """Training forward passes so far; keys the dropout masks and belongs into a checkpoint."""
        return self.rnn.calls

    @calls.setter
    def calls(self, value: int) -> None:
        self.rnn.calls = value

    def quantize(self, kind: str | None) -> None:
        """Compute the stack from now on with weights of fewer bits, "int8" or "bfloat16": `Recurrent.quantize`.

        The head stays as it is.
        """
        self.rnn.quantize(kind)

    def explain(
        self, steps: int, batch: int, *, training: bool = False, memory: Memory = None, read: int | None = None
    ) -> Plan:
        """Which engine will run the stack, why no faster one, and what a training step takes; print it."""
        outputs = "last" if read is None else "all"
        return self.rnn.explain(steps, batch, training=training, memory=memory, outputs=outputs)

    def forward(
        self,
        x: Any,
        future: Any = None,
        state: StackState = None,
        lengths: Any = None,
        training: bool = False,
        memory: Memory = None,
        *,
        read: int | None = None,
        state_at: int | None = None,
    ) -> tuple[Array, StackState, NetworkTape | None]:
        """Read windows, give what the loss reads.

        Args:
            x: `(T, B, I)`.
            future: `(B, horizon, K)` covariates known for the horizon; None when K is 0.
            state, lengths, memory: as `Recurrent.forward`.
            training: apply dropout and keep a tape.
            read: let the head read each of the last `read` steps; raw and future are `(read*B, ...)` then, step after
                step.  None: each row's last valid step.
            state_at: return the state after the first `state_at` steps instead of that at the end, for a next call
                that begins there; gradients flow through all steps.

        Returns:
            raw `(B, horizon, targets, P)`, the stack's state, the tape (None unless training).
        """
        return self.run(x, future, state, lengths, training, Reading(memory, read, state_at))

    def run(
        self,
        x: Any,
        future: Any,
        state: StackState,
        lengths: Any,
        training: bool,
        reading: Reading,
        number: int | Array | None = None,
    ) -> tuple[Array, StackState, NetworkTape | None]:
        """`forward`; with `number`, of the pass, as a part of a larger piece of work that is recorded as a whole."""
        config, rnn = self.config, self.rnn
        x, codes = self._inputs(x)
        memory, state_at = reading.memory, reading.state_at
        self._check_reading(x.shape[0], lengths, reading)
        products: Products = "cublas" if number is None else "own"
        with self.backend.activate():
            before, state_taken = None, None
            if reading.passes(x.shape[0]) > 1:
                if memory is not None and memory != "sqrt":
                    memory = validate.parse_bytes(memory) // 2  # for each part
                _, state, before = rnn.forward(x[:state_at], state, None, training, memory, "last", number=number)
                x, state_taken, number = x[state_at:], state, None if number is None else number + 1
            outputs = "last" if reading.last is None else "all"
            y, state, tape = rnn.forward(x, state, lengths, training, memory, outputs, number=number)
            inputs = y if reading.last is None else y[-reading.last :].reshape(-1, config.stack.output_size)
            ahead: list[Array] = []
            if config.future_size or future is not None:
                future, ahead = self._future(future, inputs.shape[0])
                inputs = self.backend.xp.concatenate([inputs, future], axis=1)
            raw = self.head.forward(inputs, products=products).reshape(
                -1, config.horizon, config.targets, config.outputs
            )
        kept = None if tape is None else NetworkTape(tape, inputs, products, reading.last, before, (codes, ahead))
        return raw, state if state_taken is None else state_taken, kept

    def backward(self, tape: NetworkTape, draw: Any, grads: ParamDict | None = None) -> ParamDict:
        """The gradients of all parameters from that of raw.

        Args:
            tape: what `forward(..., training=True)` returned.
            draw: `(B, horizon, targets, P)`, gradient of raw; `(read*B, ...)` with `read`.
            grads: added to; new zeros if None.

        Returns:
            `grads`, named as `params`.
        """
        config, grads = self.config, self.params.like() if grads is None else grads
        draw = self.backend.asarray(draw, config.stack.dtype, name="draw")
        expected = (tape.read.shape[0], config.horizon, config.targets, config.outputs)
        if draw.shape != expected:
            raise ShapeError(f"draw has shape {draw.shape}, expected {expected}, the shape of raw")
        xp, part, rows = self.backend.xp, grads.sub("rnn."), (tape.stack.batch, config.stack.output_size)
        with self.backend.activate():
            dhead, head = draw.reshape(expected[0], -1), grads.sub("head.")
            dread, _ = self.head.backward(tape.read, dhead, head, products=tape.products)
            dy = dread[:, : config.stack.output_size]
            if tape.steps is not None:
                dy, after = xp.zeros((tape.stack.run.plan.call.steps, *rows), dread.dtype), dy
                dy[-tape.steps :] = after.reshape(tape.steps, *rows)
            dx, dstate, _ = self.rnn.backward(tape.stack, dy, grads=part)
            if tape.before is not None:
                earlier, _, _ = self.rnn.backward(tape.before, xp.zeros(rows, dread.dtype), dstate, part)
                dx = xp.concatenate([earlier, dx]) if config.categories else dx
            if config.categories:
                tables, (codes, ahead) = grads.sub("categories."), tape.codes
                self.categories.add_gradients(codes, dx, False, tables, tape.products)
                dfuture = dread[:, config.stack.output_size :].reshape(expected[0], config.horizon, -1)
                self.categories.add_gradients(ahead, dfuture, True, tables, tape.products)
        return grads

    def _check_reading(self, steps: int, lengths: Any, reading: Reading) -> None:
        last, state_at = reading.last, reading.state_at
        if last is None and state_at is None:
            return
        if lengths is not None:
            raise ConfigError("lengths cannot be combined with read or state_at: rows would end in the middle")
        if state_at is not None and self.config.stack.bidirectional:
            raise ConfigError("state_at needs bidirectional=False: the second direction starts at the sequence's end")
        if state_at is not None and not 1 <= state_at <= steps:
            raise ConfigError(f"state_at is {state_at!r}, expected 1 to T = {steps}")
        most = steps if state_at is None or state_at == steps else steps - state_at
        if last is not None and not 1 <= last <= most:
            raise ConfigError(f"read is {last!r}, expected 1 to {most}, the steps after those of state_at")

    def _inputs(self, x: Any) -> tuple[Array, list[Array]]:
        """x as the stack reads it, and the codes of its categories."""
        config = self.config
        if not config.categories:
            return self.rnn.as_input(x), []
        x = self.backend.asarray(x, name="x")
        if x.ndim != 3 or x.shape[2] != config.input_size or x.shape[1] < 1:
            raise ShapeError(f"x has shape {tuple(x.shape)}, expected (T, B, {config.input_size}) with B of at least 1")
        with self.backend.activate():
            return self.categories.replace(x, False, config.stack.dtype)

    def _future(self, future: Any, batch: int) -> tuple[Array, list[Array]]:
        """The covariates of the horizon as the head reads them, `(batch, ...)`, and the codes of their categories."""
        config = self.config
        expected = (batch, config.horizon, config.future_size)
        if future is None:
            raise ShapeError(f"future is missing, expected an array of shape {expected}")
        ahead = any(one.future is not None for one in config.categories)
        future = self.backend.asarray(future, None if ahead else config.stack.dtype, name="future")
        if future.shape != expected:
            raise ShapeError(f"future has shape {tuple(future.shape)}, expected {expected}")
        codes: list[Array] = []
        if ahead:
            future, codes = self.categories.replace(future, True, config.stack.dtype)
        return future.reshape(batch, -1), codes


def _known(kind: type, values: Mapping[str, Any], what: str) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    unknown = sorted(values.keys() - names)
    if unknown:
        raise ConfigError(f"the {what} config has unknown entries: {', '.join(unknown)}")
    return dict(values)
