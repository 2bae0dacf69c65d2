"""Memory and time of one training step on long sequences, with the loss on the last step only.

Each contender is alone on the machine in a process of its own: it takes a step of a tiny model (so that libraries have
what they allocate once), builds its model, input and Adam's moments, and then takes whole steps.  Memory is the largest
resident set during these (`VmHWM` of Linux, reset before them) over the resident set just before; time is the median.

With the loss on the last step gradients shrink below 1e-38 on their way back, and processors are slow with such
numbers.  PyTorch is measured as it comes and with `torch.set_flush_denormal(True)`, which takes them for zero.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from gpulstm.arrays.devices import resolve
from gpulstm.bench import cases, long_sequences_worker
from gpulstm.bench.cases import Case, Contender
from gpulstm.bench.report import machine
from gpulstm.bench.runner import environment
from gpulstm.engines.dispatch import choose
from gpulstm.engines.spec import Call, StackSpec
from gpulstm.errors import ConfigError, DeviceError
from gpulstm.validate import parse_shape

KIND = "long"
CASES = tuple(Case(steps, 32, 16, 256, 2, KIND) for steps in (250, 500, 1000, 2000, 4000, 8000, 16000))
MEMORY = {"whole": None, "sqrt": "sqrt"}  # this package keeps everything, or cuts the sequence into segments


@dataclass
class Measured:
    """A contender on a length.

    Attributes:
        seconds: of each step; empty where it was not run, and then `reason` says why not.
        start: resident bytes before the first step.
        peak: the largest resident set during the steps, in bytes.
        plan: what ran, in its own words.
    """

    case: Case
    contender: str
    seconds: list[float] = field(default_factory=list)
    start: int = 0
    peak: int = 0
    reason: str = ""
    plan: str = ""

    @property
    def mebibytes(self) -> float:
        """Peak over start, NaN where it was not run."""
        return (self.peak - self.start) / 2**20 if self.seconds else float("nan")

    @property
    def median(self) -> float:
        """Seconds of a step, NaN where it was not run."""
        return statistics.median(self.seconds) if self.seconds else float("nan")


def chosen_cases(shapes: Iterable[str] = ()) -> tuple[Case, ...]:
    """The suite's cases, or those of the shapes `"T,B,I,H,L"`."""
    return tuple(Case(*parse_shape(shape), KIND) for shape in shapes) or CASES


def contenders(peers_python: str | None = None) -> list[tuple[Contender, str | None]]:
    """This package's fastest engine for the CPU, whole and in segments, and PyTorch, as it comes and with `FLUSH`.

    Each comes with its setting: `memory` of this package, None or `FLUSH` of PyTorch.
    """
    engine = choose(Call(StackSpec("lstm", 1, 1), resolve("cpu").device, 1, 1, True, False)).engine.name
    ours = [
        (Contender(f"gpulstm {engine}, {name}", "gpulstm", sys.executable, engine), memory)
        for name, memory in MEMORY.items()
    ]
    torch = [one for one in cases.contenders("cpu", peers_python) if one.library == "torch"]
    flushed = [(replace(one, name=f"{one.name}, denormals flushed"), long_sequences_worker.FLUSH) for one in torch]
    return [*ours, *((one, None) for one in torch), *flushed]


def run(
    chosen: Sequence[Case],
    who: Sequence[tuple[Contender, str | None]],
    *,
    rounds: int = 3,
    threads: int = 0,
    report: Callable[[Measured], None] = lambda measured: None,
) -> list[Measured]:
    """Measure every contender on every case, one process after another.

    Args:
        chosen, who: from `cases` and `contenders`.
        rounds: steps of each.
        threads: for each contender; 0 leaves it to the libraries.
        report: called after each measurement.

    Raises:
        ConfigError: rounds or threads is out of range.
        DeviceError: this system has no /proc to read the memory from.
    """
    if rounds < 1 or threads < 0:
        raise ConfigError(f"rounds is {rounds}, threads {threads}; expected at least 1, at least 0")
    if not Path("/proc/self/clear_refs").exists():
        raise DeviceError("the suite 'long' reads peak memory from /proc/self, which this system does not have")
    results = []
    for case in chosen:
        for contender, setting in who:
            task = {"setting": setting, "rounds": rounds, "threads": threads, "case": asdict(case)}
            results.append(_measure(contender, case, task))
            report(results[-1])
    return results


def _measure(contender: Contender, case: Case, task: dict[str, Any]) -> Measured:
    task |= {"contender": contender.library, "engine": contender.engine}
    where = ["-m", long_sequences_worker.__name__] if contender.engine else [str(Path(long_sequences_worker.__file__))]
    result = Measured(case, contender.name)
    try:
        done = subprocess.run(
            [contender.python, *where, json.dumps(task)],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env=environment(task["threads"]),
        )
    except OSError as error:
        result.reason = f"{contender.python} cannot be started: {error.strerror}"
        return result
    if done.returncode or not done.stdout.strip():
        result.reason = f"its process ended with status {done.returncode}" + (
            ", killed for memory perhaps" if done.returncode == -9 else ""
        )
        return result
    for name, value in json.loads(done.stdout.splitlines()[-1]).items():
        setattr(result, name, value)
    return result


def as_json(results: Sequence[Measured]) -> str:
    """Everything that was measured, bytes and seconds."""
    rows = [
        {**asdict(result), **({"mebibytes": result.mebibytes, "median": result.median} if result.seconds else {})}
        for result in results
    ]
    return json.dumps({"suite": KIND, "machine": machine("cpu"), "results": rows}, indent=1)
