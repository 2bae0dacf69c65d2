"""What is measured: the cases of each suite, and the contenders."""

from __future__ import annotations

import math
import os
import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from gpulstm.arrays.devices import resolve
from gpulstm.engines.dispatch import ENGINES
from gpulstm.engines.spec import Call, StackSpec
from gpulstm.errors import ConfigError
from gpulstm.validate import parse_shape

KINDS = {
    "step": "one step of a stream that keeps its state",
    "inference": "outputs of all steps",
    "training": "forward, backward: gradients of all weights and x",
    "update": "a training step, then Adam",
    "cold": "fresh process to first forecast",
    "memory": "a training step, then Adam, with the loss on the last output, and its peak memory",
}


@dataclass(frozen=True)
class Case:
    """An LSTM stack and what is done with it, float32.

    Attributes:
        steps, batch, inputs, hidden, layers: T, B, I, H, L.
        kind: one of `KINDS`.
    """

    steps: int
    batch: int
    inputs: int
    hidden: int
    layers: int
    kind: str

    @property
    def shape(self) -> str:
        """`T,B,I,H,L`."""
        return f"{self.steps},{self.batch},{self.inputs},{self.hidden},{self.layers}"

    @property
    def name(self) -> str:
        """`T,B,I,H,L kind`, as in messages."""
        return f"{self.shape} {self.kind}"

    @property
    def flops(self) -> int:
        """Operations of the products, two for a multiplication and addition: T*B*(I + H)*4H a layer.

        A training step has three such products: forward, and backward those of the inputs and of the weights.
        """
        features = self.inputs + self.hidden + (self.layers - 1) * 2 * self.hidden
        forward = 2 * self.steps * self.batch * features * 4 * self.hidden
        return 3 * forward if self.kind in ("training", "update", "memory") else forward


@dataclass(frozen=True)
class Contender:
    """Who is measured.

    Attributes:
        name: as in tables.
        package: "gpulstm", or a name of `peers.PEERS`.
        python: the interpreter that runs it.
        engine: of this package, None for a peer.
        tf32: PyTorch's products in TF32: shown, but no peer to compare float32 with.
        quantize: "int8" or "bfloat16", what its weights are rounded to; "" for float32.
        kinds: the kinds of case that it serves.
        setting: of "memory": this package's `memory=`, or `FLUSH` for PyTorch; "" for none.
    """

    name: str
    package: str
    python: str
    engine: str | None = None
    tf32: bool = False
    quantize: str = ""
    kinds: tuple[str, ...] = ("step", "inference", "training", "update")
    setting: str = ""

    @property
    def side(self) -> str:
        """ "own", "peer", or "aside" where it is shown but not compared with."""
        return "own" if self.engine else "aside" if self.tf32 else "peer"


@dataclass
class Result:
    """A contender on a case.

    Attributes:
        side: as `Contender.side`.
        seconds: of each call; empty where it was not run, and then `reason` says why not.
        wrong: it computes something else, or its process ended in the middle: what happened.
        plan: what ran, in its own words.
        error: how far its results are from the reference: the norm of the difference over the norm, the largest one.
        counts: what one call asks of the device, under the simulator.
        start, peak: resident bytes before the first call of "memory", and the most during all.
    """

    case: Case
    contender: str
    side: str
    seconds: list[float] = field(default_factory=list)
    reason: str = ""
    wrong: str = ""
    plan: str = ""
    error: float = math.nan
    counts: dict[str, Any] = field(default_factory=dict)
    start: int = 0
    peak: int = 0

    @property
    def median(self) -> float:
        """Seconds, NaN where it was not run."""
        return statistics.median(self.seconds) if self.seconds else math.nan

    @property
    def mebibytes(self) -> float:
        """Peak over start, NaN where it was not measured."""
        return (self.peak - self.start) / 2**20 if self.peak else math.nan


_SHAPES = (
    (200, 1, 8, 64, 2),
    (50, 32, 8, 64, 2),
    (50, 256, 32, 128, 2),
    (100, 64, 64, 256, 2),
    (100, 64, 512, 1024, 1),
    (20, 8, 16, 32, 1),
    (100, 16, 64, 384, 3),
    (400, 4, 32, 512, 2),
)
_LONG = (1024, 16, 768, 768, 1)  # the shape of FlashRNN's published figures (Pöppel et al. 2024)
_STEP = (1, 1, 8, 128, 2)
_COLD = (156, 1, 1, 64, 2)

SHAPES: dict[str, dict[str, tuple[tuple[int, int, int, int, int], ...]]] = {
    "cpu": {"step": (_STEP,), "inference": _SHAPES, "training": _SHAPES, "update": _SHAPES, "cold": (_COLD,)},
    "cuda": {
        "step": (_STEP,),
        "inference": (*_SHAPES, _LONG),
        "training": (*_SHAPES, _LONG),
        "update": (*_SHAPES, _LONG),
    },
    "long": {"memory": tuple((steps, 32, 16, 256, 2) for steps in (250, 500, 1000, 2000, 4000, 8000, 16000))},
}
USUAL = {
    "cpu": ("step", "inference", "training", "cold"),
    "cuda": ("step", "inference", "training"),
    "long": ("memory",),
}
_SEGMENTS = {"whole": "", "sqrt": "sqrt"}  # this package's memory=
_PEERS = {
    "PyTorch": ("torch", ("step", "inference", "training", "update")),
    "ONNX Runtime": ("onnxruntime", ("step", "inference")),
    "OpenVINO": ("openvino", ("step", "inference")),
    "JAX": ("jax", ("step", "inference", "training")),
}
_QUANTIZED_PEERS = {  # those that round weights so: dynamic quantization, or bfloat16 asked for
    "int8": {"ONNX Runtime": "onnxruntime", "PyTorch": "torch"},
    "bfloat16": {"OpenVINO": "openvino"},
}
FLUSH = "flush"  # PyTorch: numbers below 1e-38 count as zero
QUANTIZED_KINDS = ("step", "inference")


def simulated() -> bool:
    """Whether this process runs under the simulator of `tests/hostgpu`, where device times mean nothing."""
    return os.environ.get("HOSTGPU") == "1"


def device_of(suite: str) -> str:
    """The device of a suite.

    Raises:
        DeviceError: the suite is "cuda" and there is neither a GPU nor the simulator.
    """
    return resolve("cuda" if suite == "cuda" else "cpu").device


def cases(suite: str, kinds: Iterable[str] = (), shapes: Iterable[str] = ()) -> tuple[Case, ...]:
    """The cases of a suite, those of some kinds only, or any shapes `"T,B,I,H,L"` in its place.

    Without `kinds`: all but "update", and with `shapes` all but "cold" too.

    Raises:
        ConfigError: no such suite or kind, or a shape that is not five whole numbers.
    """
    if suite not in SHAPES:
        raise ConfigError(f"suite is {suite!r}, expected one of {', '.join(SHAPES)}")
    chosen, sizes = tuple(kinds), [parse_shape(shape) for shape in shapes]
    for kind in chosen:
        if kind not in SHAPES[suite]:
            raise ConfigError(f"kind is {kind!r}, expected one of {', '.join(SHAPES[suite])}")
    result = []
    for kind in chosen or USUAL[suite]:
        if sizes and kind == "cold" and not chosen:
            continue
        result += [
            Case(*shape, kind) for shape in sizes or SHAPES[suite][kind] if kind != "step" or shape[0] == 1
        ]  # a step is one
    return tuple(result)


def contenders(
    suite: str, peers_python: str | None = None, names: Iterable[str] = (), quantize: str = ""
) -> list[Contender]:
    """This package's engines for the suite's device, fastest first, then the peers (on CUDA PyTorch, also with TF32).

    In the suite "long" these are the fastest engine, which keeps all steps or cuts the sequence into segments, and
    PyTorch as it comes and with denormals flushed.

    Args:
        suite: "cpu", "cuda" or "long".
        peers_python: an interpreter that has the peers; None takes the environment variable GPULSTM_PEERS_PYTHON, else
            this one.  Whether it really has them is found out when they start.
        names: only these.
        quantize: on the cpu, "int8" or "bfloat16": those that round their weights to it, and this package without.

    Raises:
        ConfigError: there is no contender of that name, or nobody rounds so.
    """
    call = Call(StackSpec("lstm", 1, 1), device_of(suite), 1, 1)
    engines = [engine.name for engine in ENGINES if engine.supports(call) is None]
    available = [Contender(f"gpulstm {engine}", "gpulstm", sys.executable, engine) for engine in engines]
    python = peers_python or os.environ.get("GPULSTM_PEERS_PYTHON") or sys.executable
    if quantize:
        if suite != "cpu" or quantize not in _QUANTIZED_PEERS:
            raise ConfigError(f"quantize is {quantize!r} with suite {suite!r}, expected int8 or bfloat16 with cpu")
        own = available[0]
        more: Any = {"quantize": quantize, "kinds": QUANTIZED_KINDS}
        available = [replace(own, name=f"{own.name} {quantize}", **more), replace(own, kinds=QUANTIZED_KINDS)]
        peers = _QUANTIZED_PEERS[quantize].items()
        available += [Contender(f"{name} {quantize}", library, python, **more) for name, library in peers]
    elif suite == "long":
        own = replace(available[0], kinds=("memory",))
        available = [replace(own, name=f"{own.name}, {name}", setting=set_) for name, set_ in _SEGMENTS.items()]
        torch = Contender("PyTorch", "torch", python, kinds=("memory",))
        available += [torch, replace(torch, name="PyTorch, denormals flushed", setting=FLUSH)]
    elif suite == "cpu":
        available += [Contender(name, library, python, kinds=kinds) for name, (library, kinds) in _PEERS.items()]
    else:
        available += [Contender("PyTorch", "torch", python), Contender("PyTorch TF32", "torch", python, tf32=True)]
    chosen = list(names)
    unknown = [name for name in chosen if name not in [one.name for one in available]]
    if unknown:
        raise ConfigError(f"contender is {unknown[0]!r}, expected one of {', '.join(one.name for one in available)}")
    return [one for one in available if not chosen or one.name in chosen]
