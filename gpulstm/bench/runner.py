"""The run of a suite: each contender alone in its own process, in turn.

A contender is started once a case, in a process that only it lives in, and then waits; rounds of timings go from
contender to contender, a different one first each time, so that a slow spell of the machine falls on all of them.
Between two turns there is a pause, for thread pools spin for a while after their last call.  Before it is timed, what a
contender computes is compared with the reference.  Times are of a whole call, waited for, in seconds; what is compared
are medians over all calls of all rounds.

Memory is measured alone on the machine, one process after another: the largest resident set during training steps
(`VmHWM` of Linux) over that just before them.  With the loss on the last step gradients shrink below 1e-38 on their way
back, and processors are slow with such numbers: PyTorch is measured as it comes and with
`torch.set_flush_denormal(True)`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpulstm.bench import cold_start, limits, problem, worker
from gpulstm.bench.cases import Case, Contender, Result, device_of, simulated
from gpulstm.errors import ConfigError, DeviceError, GpulstmError

THREAD_VARIABLES = (
    "GPULSTM_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NPROC",  # XLA's own, where JAX takes the size of its pool from
)
LEFT_OUT = (
    *("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"),  # OpenBLAS finds out which processor it runs on
    "PYTHONDONTWRITEBYTECODE",  # an installer compiles packages, a checkout is compiled at the first import
)
SETTLE = 0.1  # seconds between turns
TOLERANCE = {False: 1e-4, True: 1e-2}  # relative norm of what a float32 contender may differ by; with TF32
QUANTIZED_TOLERANCE = 0.1  # and with rounded weights


class BenchError(GpulstmError, RuntimeError):
    """A process that the benchmark needs ended in the middle of its work."""


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
    """Measure every contender on every case that it serves.

    Args:
        suite: "cpu", "cuda" or "long".
        chosen: the cases.
        who: the contenders.
        rounds: how often each contender gets its turn on a case.
        seconds: of each turn (three calls at least).
        threads: for each contender; 0 leaves it to the libraries.
        report: called after each case with its results.

    Raises:
        DeviceError: the suite is "cuda" and there is neither a GPU nor the simulator; or "long", without a /proc.
        ConfigError: rounds, seconds or threads is out of range.
        BenchError: a process ended in the middle of its work.
    """
    if rounds < 1 or seconds <= 0 or threads < 0:
        raise ConfigError(
            f"rounds is {rounds}, seconds {seconds}, threads {threads}; expected at least 1, more than 0, at least 0"
        )
    device, results = device_of(suite), list[Result]()
    for case in chosen:
        if case.kind == "cold":
            measured = _cold(case, who, rounds, threads)
        elif case.kind == "memory":
            measured = _one_by_one(case, who, rounds, threads)
        else:
            measured = _alternate(case, who, device, rounds, seconds, threads)
        results += measured
        report(case, measured)
    return results


def measured_limits(threads: int, seconds: float) -> dict[str, float]:
    """What the machine can do, `seconds` for each figure, in a process of its own: see `limits`.

    Raises:
        BenchError: the process ended without an answer.
    """
    return json.loads(_python(["-m", limits.__name__, str(threads), str(seconds)], environment(threads)))


def environment(threads: int) -> dict[str, str]:
    """Variables for a process of the benchmark; with 0 threads the libraries decide."""
    values = {name: value for name, value in os.environ.items() if name not in LEFT_OUT}
    return values | (dict.fromkeys(THREAD_VARIABLES, str(threads)) if threads else {})


def _alternate(
    case: Case, who: Sequence[Contender], device: str, rounds: int, seconds: float, threads: int
) -> list[Result]:
    counted = simulated() and device.startswith("cuda")
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gpulstm-bench-"))
        path = Path(folder, "problem.npz")
        task = {"case": asdict(case), "expected": not counted}  # the simulator counts launches and runs no kernel
        _python(["-m", problem.__name__, json.dumps(task), str(path)], environment(threads))
        common = {"device": device, "seconds": seconds, "threads": threads, "problem": str(path), "case": asdict(case)}
        serving = [one for one in who if case.kind in one.kinds]
        started = [stack.enter_context(_Process(one, case, common)) for one in serving]
        for process in started:  # one after another: while one warms up, the others wait
            process.start()
        able = [process for process in started if process.able]
        for number in range(rounds):
            for index in range(len(able)):
                time.sleep(SETTLE)
                able[(index + number) % len(able)].measure()
        if counted:
            for process in able:
                process.count()
        return [process.result for process in started]


def _one_by_one(case: Case, who: Sequence[Contender], rounds: int, threads: int) -> list[Result]:
    """Peak memory and times of training steps, `rounds` of each contender, which is alone on the machine."""
    if not Path("/proc/self/clear_refs").exists():
        raise DeviceError("the suite 'long' reads peak memory from /proc/self, which this system does not have")
    common = {"device": "cpu", "rounds": rounds, "threads": threads, "case": asdict(case)}
    results = []
    for contender in who:
        with _Process(contender, case, common) as process:
            process.start()
            process.measure("peak")
        if process.result.wrong:
            killed = ", killed for memory perhaps" if process.result.wrong.endswith(" -9") else ""
            process.result.reason, process.result.wrong = process.result.wrong + killed, ""
        results.append(process.result)
    return results


def _cold(case: Case, who: Sequence[Contender], rounds: int, threads: int) -> list[Result]:
    """Cold starts in turn, after one of each that fills the caches of the file system."""
    torch = next((one.python for one in who if one.package == "torch"), None)
    with tempfile.TemporaryDirectory(prefix="gpulstm-bench-") as folder:
        _python(["-m", cold_start.__name__, json.dumps(asdict(case)), folder], environment(threads))
        starts = cold_start.starts(case, folder, torch)
        results = [Result(case, start.name, start.side, plan=start.plan) for start in starts]
        for number in range(rounds + 1):
            for start, result in zip(starts, results, strict=True):
                if result.reason or result.wrong:
                    continue
                time.sleep(SETTLE)
                try:
                    taken = start.once(environment(threads))
                except cold_start.StartError as error:
                    result.reason, result.wrong = ("", str(error)) if error.wrong else (str(error), "")
                    continue
                if number:
                    result.seconds.append(taken)
        return results


def _python(arguments: Sequence[str], variables: dict[str, str]) -> str:
    """What this interpreter prints, run to its end; its messages go to this process's own."""
    run = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, env=variables, check=False)
    if run.returncode:
        raise BenchError(f"{arguments[1]} ended with status {run.returncode}; see its message above")
    return run.stdout


class _Process:
    """A contender's process on one case, started on `start` and ended with the context."""

    def __init__(self, contender: Contender, case: Case, common: dict[str, Any]) -> None:
        self.contender, self.case = contender, case
        self.result = Result(case, contender.name, contender.side)
        self._process: subprocess.Popen[str] | None = None
        self._task = {
            **common,
            "contender": contender.package,
            "engine": contender.engine,
            "tf32": contender.tf32,
            "quantize": contender.quantize,
            "setting": contender.setting,
            "tolerance": QUANTIZED_TOLERANCE if contender.quantize else TOLERANCE[contender.tf32],
        }

    @property
    def able(self) -> bool:
        """Whether it can serve the case."""
        return not self.result.reason and not self.result.wrong

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def start(self) -> None:
        """Start it, and wait until it has built its model, compared its results and warmed up."""
        where = ["-m", worker.__name__] if self.contender.engine else [str(Path(worker.__file__))]
        variables = environment(self._task["threads"])
        if simulated():
            variables["HOSTGPU_NULL"] = "1"  # launches are counted and timed on the host, kernels do not run
        command = [self.contender.python, *where, json.dumps(self._task)]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables
            )
        except OSError as error:
            self.result.reason = f"{self.contender.python} cannot be started: {error.strerror}"
            return
        for name, value in self._answer().items():
            if name != "pid":
                setattr(self.result, name, value)

    def measure(self, question: str = "round") -> None:
        """One round of timings; with "peak" all of them, and the memory that they take."""
        answer = self._ask(question)
        self.result.seconds += answer.get("seconds", [])
        self.result.start, self.result.peak = answer.get("start", 0), answer.get("peak", 0)

    def count(self) -> None:
        """What one call asks of the simulated device."""
        self.result.counts = self._ask("count")

    def _ask(self, question: str) -> dict[str, Any]:
        if not self.able:
            return {}
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has died: its answer says so
            self._process.stdin.write(question + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        """The next answer; a process that has ended instead gives none, and its timings no longer count."""
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        self.result.wrong = f"its process ended with status {self._process.wait()}"
        self.result.seconds.clear()
        return {}
