"""What a recurrent stack is (`StackSpec`), how a call of it is computed (`Plan`), and who computes it (`Engine`).

A spec is checked when it is made: a combination of options that no cell implements is refused there, in one sentence,
so that every engine can rely on the rest.  A plan is made once for a shape (`model/plan.py`) and handed down to the
engine in each `Task`.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from gpulstm import validate
from gpulstm.arrays import dtypes
from gpulstm.arrays.backend import Array
from gpulstm.arrays.gemm import Products, Tile
from gpulstm.arrays.params import ParamDict
from gpulstm.engines import activations
from gpulstm.errors import ConfigError, DTypeError

Grads = MutableMapping[str, Array]  # gradients by the parameters' names, added to in place

CellName = Literal["lstm", "gru", "rnn"]
_LSTM_ONLY = ("peepholes", "proj_size", "coupled")


@dataclass(frozen=True)
class StackSpec:
    """A stack of recurrent layers: sizes, options and dtype, with nothing of device or call.

    Args:
        cell: "lstm", "gru" or "rnn".
        input_size: I, features per time step.
        hidden_size: H, units per layer and direction.
        num_layers: L.
        bidirectional: a second direction per layer that reads the sequence backwards; outputs are concatenated.
        bias: whether gates have biases.
        dtype: "float32", "float64", or "float16" or "bfloat16" (storage on CUDA; arithmetic in float32 where the CUDA
            engine serves the call, while the reference rounds each operation).
        dropout: rate on the sequence between two layers (Zaremba et al. 2014, arXiv:1409.2329).
        recurrent_dropout: rate on h_{t-1} inside the recurrent product, one mask for all steps of a pass
            (Gal & Ghahramani 2016, arXiv:1512.05287, eq. 7).
        zoneout: rates for (h, c): the probability that a unit keeps its old state (Krueger et al. 2017,
            arXiv:1606.01305, eq. 5); outside training the expectation is used.
        peepholes: diagonal weights from the cell state to the gates (Gers & Schmidhuber 2000).
        layer_norm: normalize the input product, the recurrent product and the cell state before its tanh
            (Ba, Kiros & Hinton 2016, arXiv:1607.06450, eq. 20-22; eq. 19 for the RNN).
        proj_size: P > 0 projects h to P units (LSTMP, Sak, Senior & Beaufays 2014, arXiv:1402.1128).
        coupled: f_t = 1 - i_t (CIFG, Greff et al. 2017, arXiv:1503.04069).
        reset_after: GRU: apply the reset gate to the recurrent product (cuDNN, PyTorch) or before it (Cho et al. 2014).
        nonlinearity: RNN: "tanh" or "relu".
        clip: bound of the inputs of all activations of the gates (ONNX's `clip`), None for none.
        activations: others than the cell's own, by ONNX's names, each a name or `(name, alpha, beta)`: for the LSTM of
            the gates, the candidate and the memory read; for the GRU of the first two; for the RNN its one.
            Empty for the cell's own.
    """

    cell: CellName
    input_size: int
    hidden_size: int
    num_layers: int = 1
    bidirectional: bool = False
    bias: bool = True
    dtype: str = "float32"
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    zoneout: tuple[float, float] = (0.0, 0.0)
    peepholes: bool = False
    layer_norm: bool = False
    proj_size: int = 0
    coupled: bool = False
    reset_after: bool = True
    nonlinearity: Literal["tanh", "relu"] = "tanh"
    clip: float | None = None
    activations: tuple[activations.Named, ...] = ()

    def __post_init__(self) -> None:
        validate.plain_numbers(self)
        if self.cell not in ("lstm", "gru", "rnn"):
            raise ConfigError(f"cell is {self.cell!r}, expected 'lstm', 'gru' or 'rnn'")
        for name in ("input_size", "hidden_size", "num_layers"):
            validate.count(name, getattr(self, name))
        validate.count("proj_size", self.proj_size, at_least=0)
        for name in ("dropout", "recurrent_dropout"):
            _check_rate(name, getattr(self, name))
        if not isinstance(self.zoneout, tuple) or len(self.zoneout) != 2:
            raise ConfigError(f"zoneout is {self.zoneout!r}, expected one rate or a pair of rates (h, c)")
        for rate in self.zoneout:
            _check_rate("zoneout", rate)
        if self.dtype not in dtypes.NAMES:
            raise DTypeError(f"dtype is {self.dtype!r}, expected one of {', '.join(dtypes.NAMES)}")
        for name in ("bidirectional", "bias", "peepholes", "layer_norm", "coupled", "reset_after"):
            validate.flag(name, getattr(self, name))
        if self.clip is not None:
            validate.real("clip", self.clip, above=0)
        if self.nonlinearity not in ("tanh", "relu"):
            raise ConfigError(f"nonlinearity is {self.nonlinearity!r}, expected 'tanh' or 'relu'")
        object.__setattr__(self, "activations", activations.check(self.cell, self.activations))
        if self.proj_size >= self.hidden_size:
            raise ConfigError(
                f"proj_size is {self.proj_size}, expected less than hidden_size ({self.hidden_size}), or 0 for none"
            )
        self._check_combination()

    def _check_combination(self) -> None:
        if self.cell != "lstm":
            for name in _LSTM_ONLY:
                if getattr(self, name):
                    raise ConfigError(f"{name} is an option of the LSTM; the {self.cell.upper()} has none")
            if self.zoneout[1]:
                raise ConfigError(f"zoneout has a rate for c ({self.zoneout[1]}), but the {self.cell.upper()} has no c")
        if self.layer_norm and (self.peepholes or self.coupled):
            raise ConfigError("layer_norm cannot be combined with peepholes or coupled gates")
        if self.layer_norm and self.cell == "gru" and not self.reset_after:
            raise ConfigError("layer_norm needs reset_after=True: it normalizes the whole recurrent product")
        if self.layer_norm and not self.bias:
            raise ConfigError("layer_norm needs bias=True: the bias is the shift of the normalization")
        if not self.reset_after and self.cell != "gru":
            raise ConfigError(f"reset_after is an option of the GRU; the {self.cell.upper()} has no reset gate")
        if self.nonlinearity != "tanh" and self.activations:
            raise ConfigError("nonlinearity and activations both name the RNN's activation; expected one of them")
        if self.nonlinearity != "tanh" and self.cell != "rnn":
            raise ConfigError(f"nonlinearity is an option of the RNN; the {self.cell.upper()} has fixed ones")

    @property
    def data_dtype(self) -> str:
        """The dtype that windows and targets are kept in: float32 for a stack of 16 bits, whose passes round x."""
        return "float32" if dtypes.is_half(self.dtype) else self.dtype

    @property
    def gate_names(self) -> tuple[str, ...]:
        """The gates in stored order."""
        if self.cell == "lstm":
            return ("i", "g", "o") if self.coupled else ("i", "f", "g", "o")
        return ("r", "z", "n") if self.cell == "gru" else ("h",)

    @property
    def gates(self) -> int:
        """G, gates per cell."""
        return len(self.gate_names)

    @property
    def directions(self) -> int:
        """D, 1 or 2."""
        return 2 if self.bidirectional else 1

    @property
    def state_size(self) -> int:
        """Units of h: P with projection, else H."""
        return self.proj_size or self.hidden_size

    @property
    def output_size(self) -> int:
        """Features of the outputs: D times the units of h."""
        return self.directions * self.state_size

    @property
    def has_memory(self) -> bool:
        """Whether the state has a c in addition to h."""
        return self.cell == "lstm"

    @property
    def draws_masks(self) -> bool:
        """Whether training draws random masks: dropout or zoneout."""
        return bool(self.dropout or self.recurrent_dropout or any(self.zoneout))

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The endings of parameter names, in the order of the state's first axis: `_l0`, `_l0_reverse`, `_l1`, ..."""
        ends = ("", "_reverse")[: self.directions]
        return tuple(f"_l{layer}{end}" for layer in range(self.num_layers) for end in ends)

    def layer_input_size(self, layer: int) -> int:
        """Features that layer `layer` (from 0) reads."""
        return self.input_size if layer == 0 else self.output_size

    def layer_shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        """Parameter shapes of one direction of one layer, by name without suffix."""
        gates, hidden, state = self.gates * self.hidden_size, self.hidden_size, self.state_size
        shapes: dict[str, tuple[int, ...]] = {"W_x": (self.layer_input_size(layer), gates), "W_h": (state, gates)}
        if self.bias:
            shapes["b"] = (gates,)
            if self.cell == "gru" and self.reset_after:
                shapes["b_hn"] = (hidden,)
        if self.peepholes:
            shapes["p"] = ((2 if self.coupled else 3) * hidden,)
        if self.proj_size:
            shapes["W_p"] = (hidden, self.proj_size)
        if self.layer_norm:
            shapes["gain_x"] = shapes["gain_h"] = (gates,)
            if self.cell == "lstm":
                shapes["gain_c"] = shapes["b_c"] = (hidden,)
        return shapes

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Parameter shapes of the whole stack, by full name, in stored order."""
        return {
            name + suffix: shape
            for index, suffix in enumerate(self.suffixes)
            for name, shape in self.layer_shapes(index // self.directions).items()
        }


@dataclass(frozen=True)
class Call:
    """What an engine needs to know of a call to say whether, and how, it serves it.

    Args:
        spec: the stack.
        device: "cpu" or "cuda:N".
        steps: T.
        batch: B.
        training: whether a tape is kept (and dropout is active).
        lengths: whether rows have lengths of their own.
        quantize: "int8" or "bfloat16", what the weights are rounded to; None leaves them (`quantized.py`).
    """

    spec: StackSpec
    device: str
    steps: int
    batch: int
    training: bool = False
    lengths: bool = False
    quantize: str | None = None

    @property
    def on_cuda(self) -> bool:
        """Whether the arrays live on a CUDA device."""
        return self.device != "cpu"


class State(NamedTuple):
    """The state of one layer and direction: h `(B, P)` and, for the LSTM, c `(B, H)`."""

    h: Array
    c: Array | None


@dataclass(frozen=True)
class Footprint:
    """Bytes that one layer and direction takes in training, for a given batch.

    Args:
        saved: kept for backward per time step.
        outputs: y per time step, where it is not among what is saved.
        work: needed by backward in addition, per time step, without dy and dx.
        fixed: needed by backward whatever the number of steps.
    """

    saved: int
    outputs: int
    work: int
    fixed: int


@dataclass(frozen=True, eq=False)
class Plan:
    """How calls of one shape are computed; print it.  `model/plan.py` makes it once, and every `Task` has it.

    Attributes:
        call: the shape.
        engine: who computes it.
        refused: name and reason of each faster engine that does not serve the call.
        form: of the CUDA engine, "first", "fused" or "persistent"; "" for the other engines.
        tiles: of the fused step, forward and backward (`kernels/cuda/tile.cuh`).
        layout: where the persistent kernel keeps its weights; None for the other forms.
        remarks: why this form, in a few words.
        products: who computes matrix products on a GPU; a graph needs "own".
        no_graph: why the call is not replayed as a CUDA graph; None where it is.
        wavefront: steps of a slice where the layers of a graph run side by side, else 0.
        no_wavefront: why they do not.
        outputs: "all" or "last".
        at_once: whether `Engine.infer` may serve the call: all outputs of one direction, no tape.
        segment: steps whose tape is kept at a time.
        memory: predicted peak of a training step in bytes, over what is held before it; filled in by `explain`.
        recorded: what the stack's graphs hold, in words; filled in by `explain`.
    """

    call: Call
    engine: Engine
    refused: tuple[tuple[str, str], ...] = ()
    form: str = ""
    tiles: tuple[Tile, Tile] = ((), ())
    layout: Any = None
    remarks: str = ""
    products: Products = "cublas"
    no_graph: str | None = "the model is on the CPU"
    wavefront: int = 0
    no_wavefront: str = ""
    outputs: str = "all"
    at_once: bool = False
    segment: int = 0
    memory: int = 0
    recorded: str = ""

    @property
    def path(self) -> str:
        """How the engine computes a layer, in a few words."""
        return self.engine.describe(self)

    def __str__(self) -> str:
        spec, call = self.call.spec, self.call
        name = spec.cell.upper() if spec.cell != "rnn" else f"RNN ({spec.nonlinearity})"
        sizes = {"T": call.steps, "B": call.batch, "I": spec.input_size, "H": spec.hidden_size, "L": spec.num_layers}
        shape = " ".join(f"{letter}={size}" for letter, size in sizes.items()) + f" D={spec.directions}"
        lines = [
            f"{name}  {shape}  {spec.dtype} on {call.device}, {'training' if call.training else 'inference'}",
            f"  engine: {self.engine.name} ({self.path})",
        ]
        lines += [f"  not {engine}: {reason}" for engine, reason in self.refused]
        if call.on_cuda:
            graph = self.recorded if self.no_graph is None else f"none: {self.no_graph}"
            if self.no_graph is None and spec.num_layers > 1:
                slices = f"in slices of {self.wavefront} steps" if self.wavefront else f"none, as {self.no_wavefront}"
                graph += f"; wavefront over the layers: {slices}"
            lines.append(f"  graph: {graph}")
        if call.training:
            segments = -(-call.steps // max(self.segment, 1))
            how = "kept whole" if segments <= 1 else f"{segments} segments of {self.segment} steps, computed twice"
            lines.append(f"  memory of a training step: {self.memory / 2**20:.1f} MiB over the parameters ({how})")
        return "\n".join(lines)


@dataclass
class Task:
    """One layer, one direction, one call: all that an engine is handed besides the input and the state.

    Args:
        spec: the stack that the layer belongs to.
        layer: which layer, from 0.
        reverse: whether time runs from T-1 to 0.
        params: arrays by name without suffix, shapes as `spec.layer_shapes(layer)`.
        lengths: `(B,)` int64 on the device, or None.
        valid: `(T, B, 1)` bool, where a step lies within its row; None with `lengths` None.
        recurrent_mask: `(B, P)` factor on h_{t-1} in the recurrent product, or None.
        keep_h, keep_c: zoneout in training: `(T, B, P)` and `(T, B, H)` bool, where the new state replaces the old
            one; None for everywhere.
        training: whether zoneout is by its masks, not by its expectation.
        save: whether `forward` saves what `backward` needs.
        plan: of the call; the CUDA engine needs it.
    """

    spec: StackSpec
    layer: int
    reverse: bool
    params: Mapping[str, Array]
    lengths: Array | None = None
    valid: Array | None = None
    recurrent_mask: Array | None = None
    keep_h: Array | None = None
    keep_c: Array | None = None
    training: bool = False
    save: bool = False
    plan: Plan | None = None

    def blocks(self, count: int, length: int) -> list[tuple[int, int]]:
        """Blocks (first step, step after the last) of `length` steps, in the order in which the layer reads them.

        Products and sums over time are taken block by block, so that a sequence that is cut at multiples of `length`
        gives the same bits as the whole.
        """
        blocks = [(start, min(start + length, count)) for start in range(0, count, length)]
        return blocks[::-1] if self.reverse else blocks

    def steps(self, start: int, stop: int) -> range:
        """The time indices of a block in the order in which the layer reads them."""
        return range(stop - 1, start - 1, -1) if self.reverse else range(start, stop)


class Inference(Protocol):
    """All layers of a stack in one direction, without a tape; its weights are read at each call."""

    def __call__(self, x: Array, h: Array | None, c: Array | None, lengths: Array | None) -> tuple[Any, Any, Any]:
        """x `(T, B, I)` and the state, each `(L, B, H)`, None for zeros -> y `(T, B, H)` and the state after it."""


class Steps(Protocol):
    """A stack of one direction that keeps its state and reads one time step a call; `str` says how."""

    @property
    def state(self) -> Any:
        """(h, c) or h, each `(L, B, H)`; copies.  Assigned, the next step goes on from there."""

    @state.setter
    def state(self, state: Any) -> None: ...

    def __call__(self, x: Array, out: Array | None) -> Array:
        """One step: x `(B, I)` -> y `(B, H)`, an array of its own or `out`."""

    def reset(self) -> None:
        """The weights as they are now, and the state of zeros."""


class Layers(Protocol):
    """Several layers of one direction, from below; a mask is on each layer's input, the first is None."""

    def forward(
        self, tasks: Sequence[Task], masks: Sequence[Array | None], x: Array, states: Sequence[State]
    ) -> tuple[Array, list[State], Sequence[Any]]:
        """y of the last layer, the states and the tapes of all; see `Engine.forward`."""

    def backward(
        self,
        tasks: Sequence[Task],
        masks: Sequence[Array | None],
        tapes: Sequence[Any],
        dy: Array,
        dstates: Sequence[State],
        grads: Sequence[Grads],
    ) -> tuple[Array, list[State]]:
        """dx and the gradients of the initial states; adds to `grads`, those of each layer."""


class Engine(Protocol):
    """Who computes layers: the modules `reference`, `cpu` and `cuda.engine`.

    `infer`, `stream` and `side_by_side` are optional: an engine without them answers None.
    """

    name: str

    def supports(self, call: Call) -> str | None:
        """Why this engine cannot serve a call, or None when it can."""

    def complete(self, plan: Plan) -> Plan:
        """The plan of a call that this engine serves, with all that the engine decides."""

    def describe(self, plan: Plan) -> str:
        """How a layer is computed, in a few words."""

    def block_steps(self, batch: int) -> int:
        """Time steps whose products, and whose part of the weights' gradients, are taken at once."""

    def footprint(self, spec: StackSpec, layer: int, batch: int) -> Footprint:
        """What a layer takes in training."""

    def forward(self, task: Task, x: Array, state: State) -> tuple[Array, State, Any]:
        """All time steps of one layer and direction.

        Args:
            task: the layer, its parameters and masks.
            x: `(T, B, I)`; zero outside rows' lengths.
            state: h `(B, P)` and c `(B, H)` (None without memory) before the first step.

        Returns:
            y `(T, B, P)`, zero outside rows' lengths; the state after each row's last step; the tape, None unless the
            task says to save.
        """

    def backward(self, task: Task, tape: Any, dy: Array, dstate: State, grads: Grads) -> tuple[Array, State]:
        """The gradient of `forward`: backpropagation through time (Werbos 1990).

        Args:
            task: as given to `forward`.
            tape: what it returned; left as it is.
            dy: `(T, B, P)`, gradient of the outputs.
            dstate: gradient of the final state.
            grads: the gradients of the parameters are added to these, by name.

        Returns:
            dx `(T, B, I)` and the gradient of the initial state.
        """

    def infer(self, plan: Plan, params: ParamDict) -> Inference | None:
        """A stack of one direction as one function, for calls of the plan's precision."""

    def stream(self, plan: Plan, params: ParamDict) -> Steps | None:
        """A stack of one direction, step by step: its weights as they are now, from the state of zeros."""

    def side_by_side(self, plan: Plan) -> Layers | None:
        """Who computes several layers of one direction at once; None: they are computed one after the other."""


def plan_of(task: Task) -> Plan:
    """The plan that a task was handed."""
    assert task.plan is not None, "a task on CUDA has a plan"
    return task.plan


def unsupported(spec: StackSpec) -> list[str]:
    """The options of a stack that change its equations or products, except zoneout: no CUDA kernel has them."""
    options = {
        "peepholes": spec.peepholes,
        "coupled gates": spec.coupled,
        "layer_norm": spec.layer_norm,
        "proj_size": bool(spec.proj_size),
        "clip": spec.clip is not None,
        "activations": bool(spec.activations),
        "reset_after=False": not spec.reset_after,
    }
    return [option for option, used in options.items() if used]


def _check_rate(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating)) or not 0 <= value < 1:
        raise ConfigError(f"{name} is {value!r}, expected a probability in [0, 1)")
