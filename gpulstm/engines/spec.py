"""How a call of a stack is computed (`Plan`), and who computes it (`Engine`); what a stack is, is in `stack_spec`.

A plan is made once for a shape (`model/plan.py`) and handed down to the engine in each `Task`.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from gpulstm.arrays.backend import Array
from gpulstm.arrays.gemm import Products, Tile
from gpulstm.arrays.params import ParamDict
from gpulstm.engines.stack_spec import CellName as CellName
from gpulstm.engines.stack_spec import StackSpec as StackSpec
from gpulstm.engines.stack_spec import unsupported as unsupported

Grads = MutableMapping[str, Array]  # gradients by the parameters' names, added to in place


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
