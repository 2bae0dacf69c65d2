"""The cases of each suite, and the run of a suite: contenders in turn, medians, ratios to one of them.

A contender is started once a case, in a process that only it lives in, and then waits; rounds of timings go from
contender to contender, a different one first each time, so that a slow spell of the machine falls on all of them.
Times are of a whole call, waited for, in seconds; what is compared are medians over all calls of all rounds.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gpulstm.backend import CupyBackend, resolve
from gpulstm.bench import worker
from gpulstm.engines.choose import ENGINES
from gpulstm.engines.spec import Call, StackSpec
from gpulstm.errors import ConfigError, GpulstmError


class BenchError(GpulstmError, RuntimeError):
    """A contender's process ended in the middle of a measurement."""


THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
KINDS = ("inference", "training", "step")


@dataclass(frozen=True)
class Case:
    """An LSTM stack and what is done with it, float32.

    Attributes:
        steps, batch, inputs, hidden, layers: T, B, I, H, L.
        kind: "inference" (outputs of all steps), "training" (forward, backward, Adam step) or "step" (one step of a
            stream that keeps its state).
    """

    steps: int
    batch: int
    inputs: int
    hidden: int
    layers: int
    kind: str

    @property
    def name(self) -> str:
        """`T,B,I,H,L kind`, as in tables."""
        return f"{self.steps},{self.batch},{self.inputs},{self.hidden},{self.layers} {self.kind}"


@dataclass(frozen=True)
class Contender:
    """Who is measured: an engine of this package, or PyTorch.

    Attributes:
        name: as in tables.
        engine: of this package, None for PyTorch.
        python: the interpreter that runs it.
        tf32: PyTorch's products in TF32.
    """

    name: str
    engine: str | None
    python: str
    tf32: bool = False


@dataclass
class Result:
    """A contender on a case.

    Attributes:
        seconds: of each call; empty where it was not run, and then `reason` says why not.
        plan: what ran, in its own words.
        counts: what one call asks of the device, under the simulator.
    """

    case: Case
    contender: str
    seconds: list[float] = field(default_factory=list)
    reason: str = ""
    plan: str = ""
    counts: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Seconds, NaN where it was not run."""
        return statistics.median(self.seconds) if self.seconds else math.nan


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
_STEP = Case(1, 1, 8, 128, 2, "step")
_LONG = (1024, 16, 768, 768, 1)  # the shape of FlashRNN's published figures (Pöppel et al. 2024)

SUITES: dict[str, tuple[Case, ...]] = {
    "cpu": (_STEP, *(Case(*shape, kind) for kind in ("inference", "training") for shape in _SHAPES)),
    "cuda": (_STEP, *(Case(*shape, kind) for kind in ("inference", "training") for shape in (*_SHAPES, _LONG))),
}


def simulated() -> bool:
    """Whether this process runs under the simulator of `tests/hostgpu`, where device times mean nothing."""
    return os.environ.get("HOSTGPU") == "1"


def cases(suite: str, kinds: Iterable[str] = (), shapes: Iterable[str] = ()) -> tuple[Case, ...]:
    """The cases of a suite, those of some kinds only, or any shapes `"T,B,I,H,L"` in its place.

    Raises:
        ConfigError: no such suite or kind, or a shape that is not five whole numbers.
    """
    if suite not in SUITES:
        raise ConfigError(f"suite is {suite!r}, expected one of {', '.join((*SUITES, 'long'))}")
    kinds = tuple(kinds) or KINDS
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
    wanted = [parse_shape(shape) for shape in shapes]
    if wanted:
        return tuple(Case(*shape, kind) for kind in kinds for shape in wanted if kind != "step" or shape[0] == 1)
    return tuple(case for case in SUITES[suite] if case.kind in kinds)


def parse_shape(text: str) -> tuple[int, int, int, int, int]:
    """`"T,B,I,H,L"` as five numbers.

    Raises:
        ConfigError: they are not five whole numbers of at least 1.
    """
    parts = text.split(",")
    if len(parts) != 5 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"shape is {text!r}, expected five whole numbers T,B,I,H,L such as 50,32,8,64,2")
    steps, batch, inputs, hidden, layers = map(int, parts)
    return steps, batch, inputs, hidden, layers


def contenders(suite: str, torch_python: str | None = None) -> list[Contender]:
    """This package's engines for the suite's device, fastest first, then PyTorch (on CUDA also with TF32).

    Args:
        suite: "cpu" or "cuda".
        torch_python: an interpreter that has PyTorch; None takes the environment variable GPULSTM_TORCH_PYTHON, else
            this one.  Whether it really has PyTorch is found out when it starts.
    """
    call = Call(StackSpec("lstm", 1, 1), resolve(suite).device, 1, 1, False, False)
    names = [engine.name for engine in ENGINES if engine.supports(call) is None]
    torch = torch_python or os.environ.get("GPULSTM_TORCH_PYTHON") or sys.executable
    peers = [Contender("PyTorch", None, torch)]
    if suite == "cuda":
        peers.append(Contender("PyTorch TF32", None, torch, tf32=True))
    return [Contender(f"gpulstm {name}", name, sys.executable) for name in names] + peers


def run(
    suite: str,
    chosen: Sequence[Case],
    who: Sequence[Contender],
    *,
    rounds: int = 5,
    seconds: float = 0.3,
    threads: int = 0,
    report: Callable[[Case, list[Result]], None] = lambda case, results: None,
) -> list[Result]:
    """Measure every contender on every case.

    Args:
        suite: "cpu" or "cuda": the device.
        chosen: the cases.
        who: the contenders.
        rounds: how often each contender gets its turn on a case.
        seconds: of each turn (three calls at least).
        threads: for each contender; 0 leaves it to the libraries.
        report: called after each case with its results.

    Raises:
        DeviceError: the suite is "cuda" and there is neither a GPU nor the simulator.
        ConfigError: rounds, seconds or threads is out of range.
    """
    if rounds < 1 or seconds <= 0 or threads < 0:
        raise ConfigError(
            f"rounds is {rounds}, seconds {seconds}, threads {threads}; expected at least 1, more than 0, at least 0"
        )
    device = resolve(suite).device
    results = []
    for case in chosen:
        with ExitStack() as stack:
            started = [stack.enter_context(_Process(one, case, device, seconds, threads)) for one in who]
            for process in started:  # one after another: while one warms up, the others wait
                process.start()
            able = [process for process in started if process.able]
            for number in range(rounds):
                for place in range(len(able)):
                    able[(place + number) % len(able)].measure()
            if simulated() and suite == "cuda":
                for process in able:
                    process.count()
            measured = [process.result for process in started]
        results += measured
        report(case, measured)
    return results


def baseline(results: Sequence[Result]) -> str:
    """What all are divided by: PyTorch where it ran, else the last of this package's engines that did."""
    ran = [result.contender for result in results if result.seconds]
    return "PyTorch" if "PyTorch" in ran else ran[-1] if ran else ""


def machine(suite: str) -> dict[str, Any]:
    """What the numbers were taken on."""
    import numpy

    facts: dict[str, Any] = {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
    }
    backend = resolve(suite)
    if isinstance(backend, CupyBackend):
        facts |= {"device": backend.device_name, "cupy": backend.xp.__version__, "simulated": simulated()}
    return facts


def as_json(suite: str, results: Sequence[Result]) -> str:
    """Everything that was measured, to be kept and compared later; times in seconds."""
    divisor = baseline(results)
    base = {result.case: result.median for result in results if result.contender == divisor}
    rows = [
        {
            **{name: value for name, value in asdict(result).items() if name != "seconds"},
            "calls": len(result.seconds),
            "median": result.median if result.seconds else None,
            "fastest": min(result.seconds, default=None),
            "ratio": result.median / base[result.case] if result.seconds and base.get(result.case, 0) > 0 else None,
        }
        for result in results
    ]
    document = {"suite": suite, "machine": machine(suite), "baseline": divisor, "results": rows}
    return json.dumps(document, indent=1)


def command(contender: Contender, task: dict[str, Any]) -> list[str]:
    """What starts a contender's process."""
    where = ["-m", worker.__name__] if contender.engine else [str(Path(worker.__file__))]
    return [contender.python, *where, json.dumps(task)]


def environment(threads: int) -> dict[str, str]:
    """The environment of a contender's process; with `threads` 0 that of this one."""
    return dict(os.environ) | (dict.fromkeys(THREAD_VARIABLES, str(threads)) if threads else {})


class _Process:
    """A contender's process on one case, started on `start` and ended with the context."""

    def __init__(self, contender: Contender, case: Case, device: str, seconds: float, threads: int) -> None:
        self.contender, self.case = contender, case
        self.result = Result(case, contender.name)
        self._process: subprocess.Popen[str] | None = None
        self._task: dict[str, Any] = {
            "contender": "torch" if contender.engine is None else "gpulstm",
            "engine": contender.engine,
            "device": device,
            "tf32": contender.tf32,
            "threads": threads,
            "seconds": seconds,
            "case": asdict(case),
        }

    @property
    def able(self) -> bool:
        """Whether it can serve the case."""
        return not self.result.reason

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def start(self) -> None:
        """Start it, and wait until it has built its model and warmed up."""
        variables = environment(self._task["threads"])
        if simulated():
            variables["HOSTGPU_NULL"] = "1"  # launches are counted and timed on the host, kernels do not run
        started = command(self.contender, self._task)
        try:
            self._process = subprocess.Popen(
                started, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables
            )
        except OSError as error:
            self.result.reason = f"{self.contender.python} cannot be started: {error.strerror}"
            return
        answer = self._answer()
        self.result.reason, self.result.plan = answer.get("reason", ""), answer.get("plan", "")

    def measure(self) -> None:
        """One round of timings."""
        self.result.seconds += self._ask("round")["seconds"]

    def count(self) -> None:
        """What one call asks of the simulated device."""
        self.result.counts = self._ask("count")

    def _ask(self, question: str) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise BenchError(
                f"{self.contender.name} ended with status {code} on {self.case.name}; see its message above"
            )
        return json.loads(line)


def processor() -> str:
    """The processor's name as Linux gives it, else what Python knows."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
