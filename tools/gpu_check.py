"""Everything that only a GPU can tell, in one report that ends in a verdict: `make gpu-check`.

Runs the tests marked `cuda` file by file, checks every form of the CUDA engine against the plainest one, times each way
to compute a layer next to PyTorch's cuDNN (TF32 off and on, float16, bfloat16) and next to what it takes at least by
count, and times calls, streams and training passes.  Each item runs in a process of its own and is kept when it is
done: `--seconds` bounds one run of this program, which ends with status 75 where items are left; the same command goes
on with them.  Under the simulator it runs too, which checks this program and says nothing of speed; the report says so.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.devices import resolve
from gpulstm.arrays.gemm import TYPES
from gpulstm.engines.cuda import engine, planner, trial, verdicts
from gpulstm.engines.cuda.verdicts import FormFailed, Way
from gpulstm.engines.spec import Call, Plan, StackSpec
from gpulstm.losses import MSE
from gpulstm.model.layers import LSTM
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.model.plan import forget_plans
from gpulstm.training.gradients import GradientPass
from gpulstm.training.mixed_precision import LossScale, masters
from gpulstm.validate import parse_shape

ROOT = Path(__file__).resolve().parents[1]
COUNTS = ROOT / "docs" / "benchmarks" / "instruction-counts.json"
SCHEDULERS = 4  # of a multiprocessor: each issues an instruction of a warp a cycle
LEFT = 75  # status: items are left
SECONDS = 480.0
Shape = tuple[int, int, int, int, int]  # T, B, I, H, L
SHAPES: tuple[Shape, ...] = (
    (200, 1, 8, 64, 2),
    (50, 32, 8, 64, 2),
    (50, 256, 32, 128, 2),
    (100, 64, 64, 256, 2),
    (100, 64, 512, 1024, 1),
    (1024, 16, 768, 768, 1),  # published for cuDNN on an A100: 2.01 ms forward, 5.19 ms with the gradient
)
QUICK: tuple[Shape, ...] = ((3, 2, 2, 8, 2),)
TF32 = "float32 (TF32)"
DTYPES = (*TYPES, TF32, *({"bfloat16"} - set(TYPES)))  # bfloat16 for PyTorch at least
WAYS = (
    *(Way(form, graph) for form in planner.FORMS for graph in (False, True)),
    Way("fused", graph=True, wavefront=True),
)
PASSES = {"forward": False, "forward and backward": True}


@dataclasses.dataclass(frozen=True)
class Item:
    """A piece of work that is done in one go.

    Attributes:
        section: of the report.
        name: within the section.
    """

    section: str
    name: str

    @property
    def key(self) -> str:
        """What its result is kept by."""
        return f"{self.section}: {self.name}"


HEADS = {  # of the sections' tables
    "Tests marked cuda": "| file | result | s |",
    "Forms against the plainest": "| cell | dtype | form | verdict |",
    "Layers alone, ms": f"| T,B,I,H,L | dtype | pass | {' | '.join(map(str, WAYS))} | least by count | PyTorch cuDNN "
    "| best / cuDNN |",
    "Calls as they are planned, ms": "| T,B,I,H,L | dtype | outputs | training pass | step of a stream | plan |",
}
TESTS, FORMS, LAYERS, CALLS = HEADS


def items(shapes: tuple[Shape, ...], quick: bool) -> list[Item]:
    """All items in order."""
    files = sorted((ROOT / "tests").glob("**/test_*.py"))
    words = ("mark.cuda", "device: str", "backend: Backend")  # of a file that has tests for a device
    marked = [str(f.relative_to(ROOT)) for f in files if any(word in f.read_text(encoding="utf-8") for word in words)]
    chosen = ["tests/arrays/test_compilation.py"] if quick else marked
    queue = [Item(TESTS, name) for name in chosen]
    dtypes = ("float32", "float16") if quick else DTYPES
    cells = ("lstm",) if quick else ("lstm", "gru", "rnn")
    queue += [Item(FORMS, f"{cell} {dtype}") for cell, dtype in itertools.product(cells, dtypes) if served(dtype)]
    named = [",".join(map(str, shape)) for shape in shapes]
    queue += [Item(LAYERS, f"{shape} {dtype}") for shape, dtype in itertools.product(named, dtypes)]
    queue += [Item(CALLS, f"{shape} {dtype}") for shape, dtype in itertools.product(named, dtypes) if served(dtype)]
    return queue


def served(dtype: str) -> bool:
    """Whether this package computes in a dtype."""
    return dtype.split()[0] in TYPES


def milliseconds(backend: CupyBackend, call: Callable[[], Any], repeats: int) -> float:
    """The median of single calls between two device events, after three to warm up."""
    cuda = backend.xp.cuda
    for _ in range(3):
        call()
    times = []
    for _ in range(repeats):
        start, stop = cuda.Event(), cuda.Event()
        start.record()
        call()
        stop.record()
        stop.synchronize()
        times.append(cuda.get_elapsed_time(start, stop))
    return statistics.median(times)


def tests(name: str) -> dict[str, Any]:
    """One file of tests."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "-q", name, *([] if "compilation" in name else ["-m", "cuda"])]
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = run.stdout.strip().splitlines()
    failed = [line for line in said if line.startswith(("FAILED", "ERROR"))]
    result = said[-1].strip("= ") if said else "nothing was said"
    good = run.returncode in (0, 5)  # 5: no test of the file is marked
    rows = [f"| {name} | {result} | {time.perf_counter() - started:.0f} |"]
    rows += [f"| | {line[:160]} | |" for line in failed]
    return {"rows": rows, "wrong": [] if good else [f"{name}: {result}"]}


def plan_of(spec: StackSpec, shape: Shape, training: bool, way: Way) -> Plan | None:
    """The plan of a call in a way; None where there is no such."""
    call = Call(spec, "cuda:0", shape[0], shape[1], training)
    forms = planner.forms_of(call)
    if way.form not in forms.names or (way.wavefront and planner.no_wavefront(call)):
        return None
    return planner.planned(Plan(call, engine), way, forms)


def forms(name: str) -> dict[str, Any]:
    """Every form of a cell and dtype: right or wrong."""
    cell, dtype = name.split(" ", 1)
    rows, wrong = [], []
    shape = (5, 20, 40, 200, 1)
    for form in planner.FORMS[1:]:
        plan = plan_of(StackSpec(cast(Any, cell), 40, 200, dtype=dtype.split()[0]), shape, True, Way(form, graph=False))
        reason = "there is none" if plan is None else trial.check(plan)
        rows.append(f"| {cell} | {dtype} | {form} | {'right' if reason is None else reason} |")
        if plan is not None and reason is not None:
            wrong.append(f"{form} {cell} {dtype}: {reason}")
    return {"rows": rows, "wrong": wrong}


def layers(name: str) -> dict[str, Any]:
    """Each way of a shape and dtype, and cuDNN."""
    text, dtype = name.split(" ", 1)
    shape = parse_shape(text)
    rows, best, wrong = [], {}, []
    trial.STEPS = (1, 1 << 20)
    for words, training in PASSES.items():
        times: dict[str, float] = {}
        for way in WAYS:
            spec = StackSpec("lstm", *shape[2:], dtype=dtype.split()[0]) if served(dtype) else None
            plan = None if spec is None else plan_of(spec, shape, training, way)
            if plan is None:
                continue
            try:
                times[str(way)] = 1e3 * trial.seconds(way, plan)
            except MemoryError:
                continue
            except FormFailed as error:
                wrong.append(f"{way} {name}: {error}")
        other = torch_milliseconds(shape, dtype, training)
        fastest = min(times, key=lambda way: times[way]) if times else None
        ratio = f"{times[fastest] / other:.2f}" if fastest and other else "-"
        cells = [f"{times[str(way)]:.3f}" if str(way) in times else "-" for way in WAYS]
        least = least_milliseconds(shape, dtype, training)
        cells += ["-" if least is None else f"{least:.3f}", f"{other or '-'}", ratio]
        rows.append(f"| {text} | {dtype} | {words} | {' | '.join(cells)} |")
        if fastest:
            best[f"{name}, {words}"] = [fastest, times[fastest], other]
    return {"rows": rows, "wrong": wrong, "best": best}


def least_milliseconds(shape: Shape, dtype: str, training: bool) -> float | None:
    """What the recurrence takes at least, by the counts of docs/instruction-counts.md, which are those of an H100.

    That is the time to issue the instructions of the form that has fewest, at the clock of this card; products over all
    steps and everything that a step waits for come on top.  None where nothing was counted.
    """
    steps, batch, _, hidden, count = shape
    numbers = json.loads(COUNTS.read_text(encoding="utf-8"))["now"]
    passes = ("forward", "backward") if training else ("forward",)
    forms = (
        [numbers.get(f"{form} {dtype} {batch} {hidden} {name}") for name in passes] for form in ("persistent", "fused")
    )
    issued = [sum(one) for one in forms if None not in one]
    clock = 1e3 * cast(CupyBackend, resolve("cuda")).xp.cuda.Device().attributes["ClockRate"]  # it is in kHz
    return 1e3 * count * steps * min(issued) / SCHEDULERS / clock if issued else None


def torch_milliseconds(shape: Shape, dtype: str, training: bool) -> float | None:
    """PyTorch's LSTM by cuDNN; None where PyTorch or its CUDA is not there."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    steps, batch, inputs, hidden, count = shape
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = dtype == TF32
    kind = getattr(torch, dtype.split()[0])
    layer = torch.nn.LSTM(inputs, hidden, count).cuda().to(kind)
    x = torch.ones((steps, batch, inputs), dtype=kind, device="cuda", requires_grad=training)
    weights = [x, *layer.parameters()]

    def once() -> None:
        if training:
            y = layer(x)[0]
            torch.autograd.grad(y, weights, y.detach())
        else:
            with torch.inference_mode():
                layer(x)
        torch.cuda.synchronize()

    for _ in range(3):
        once()
    times = []
    for _ in range(10):
        started = time.perf_counter()
        once()
        times.append(1e3 * (time.perf_counter() - started))
    return round(min(times), 3)


def calls(name: str) -> dict[str, Any]:
    """Calls of a layer, a training pass and a step of a stream, as they are planned."""
    text, dtype = name.split(" ", 1)
    shape, kind = parse_shape(text), dtype.split()[0]
    steps, batch, inputs, hidden, count = shape
    backend = cast(CupyBackend, resolve("cuda"))
    repeats = 3 if steps < 5 else 30
    layer = LSTM(inputs, hidden, count, dtype=kind, device=backend.device)
    x = backend.from_host(np.ones((steps, batch, inputs)), kind)
    step = layer.stream(batch)
    functions = [lambda: layer(x), training(backend, shape, kind), lambda: step(x[0])]
    times = [f"{milliseconds(backend, function, repeats):.3f}" for function in functions]
    plan = layer.explain(steps, batch, training=True).path
    return {"rows": [f"| {text} | {dtype} | {' | '.join(times)} | {plan} |"], "wrong": []}


def training(backend: CupyBackend, shape: Shape, dtype: str) -> Callable[[], Any]:
    """A training pass: forward, loss, backward and norm; in half precision with a scaled loss."""
    steps, batch, inputs, hidden, count = shape
    spec = StackSpec("lstm", inputs, hidden, count, dtype=dtype)
    network = Network(NetworkConfig(spec), device=backend.device, engine="cuda")
    sizes = (steps, batch, inputs), (batch, 1, 1)
    x, target = (backend.from_host(np.ones(size), spec.data_dtype) for size in sizes)
    half = dtype == "float16"
    grads = masters(network.params).like() if half else network.params.like()
    gradients = GradientPass(network, MSE(), grads, 1.0, scale=LossScale(backend) if half else None)
    return lambda: gradients(x, target)


RUN: Mapping[str, Callable[[str], dict[str, Any]]] = {TESTS: tests, FORMS: forms, LAYERS: layers, CALLS: calls}


def do(item: Item) -> dict[str, Any]:
    """Do an item in this process; what it took to compile is counted."""
    if item.name.endswith("(TF32)"):
        os.environ["CUPY_TF32"] = "1"
    os.environ[verdicts.VERIFY] = "0" if item.section == TESTS else "1"
    forget_plans()
    program = resolve("cuda").xp.cuda.compiler._NVRTCProgram
    original, compiled = program.compile, []

    def compile_one(self: Any, *arguments: Any) -> Any:
        started = time.perf_counter()
        try:
            return original(self, *arguments)
        finally:
            compiled.append(time.perf_counter() - started)

    program.compile = compile_one
    return {**RUN[item.section](item.name), "compiled": len(compiled), "compiling": sum(compiled)}


def in_a_process(item: Item, limit: float) -> dict[str, Any] | None:
    """Do an item in a process of its own; None where it did not end within the limit."""
    command = [sys.executable, __file__, "--item", item.section, item.name]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return None
    if run.returncode == 0:
        return dict(json.loads(run.stdout.splitlines()[-1]))
    said = (run.stderr.strip().splitlines() or ["it said nothing"])[-1]
    return {"rows": [f"| {item.name} | {said[:160]} |"], "wrong": [f"{item.key}: {said[:160]}"]}


def report(device: str, done: Mapping[str, Any], every: list[Item]) -> Iterator[str]:
    """The report: facts, a verdict, a table for each section."""
    backend = cast(CupyBackend, resolve("cuda"))
    runtime = backend.xp.cuda.runtime
    yield from (f"# GPU check: {device}", "")
    if os.environ.get("HOSTGPU") == "1":
        yield from ("**The simulator, not a GPU: these times mean nothing.**", "")
    versions = f"CuPy {backend.xp.__version__}, CUDA {runtime.runtimeGetVersion()}, driver {runtime.driverGetVersion()}"
    yield from (f"{versions}, NumPy {np.__version__}, `{planner.card_of(backend.device)}`", "", "## Verdict", "")
    wrong = [reason for result in done.values() for reason in result["wrong"]]
    yield f"- {len(done)} of {len(every)} items done; {len(wrong)} of them wrong{':' if wrong else '.'}"
    yield from (f"  - {reason}" for reason in wrong)
    best = {name: value for result in done.values() for name, value in result.get("best", {}).items()}
    won = [name for name, (_, own, other) in best.items() if other and own <= other]
    compared = [name for name, (_, _, other) in best.items() if other]
    yield f"- Next to cuDNN: as fast or faster in {len(won)} of {len(compared)} cases."
    for name, (way, own, other) in best.items():
        yield f"  - {name}: {way} {own:.3f} ms" + (f", cuDNN {other:.3f} ms" if other else "")
    compiled = sum(result.get("compiled", 0) for result in done.values())
    seconds = sum(result.get("compiling", 0.0) for result in done.values())
    yield f"- {compiled} programs were compiled in {seconds:.0f} s (without those of the tests)."
    yield ""
    for section, head in HEADS.items():
        rows = [row for item in every if item.section == section for row in done.get(item.key, {"rows": []})["rows"]]
        columns = head.count("|") - 1
        yield from (f"## {section}", "", head, "| " + "--- | " * columns, *rows, "")


def main() -> int:
    """Do what is left, write the report; 0 when all is done and right, 1 when all is done, 75 when items are left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "gpu-check.md", help="the report")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, few tests: checks this program")
    parser.add_argument("--again", action="store_true", help="forget what was done before")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of this run; an item is not begun after that")
    parser.add_argument("--shape", action="append", metavar="T,B,I,H,L", help="in place of the usual ones, repeatable")
    parser.add_argument("--item", nargs=2, metavar=("SECTION", "NAME"), help="do one item, print its result as JSON")
    arguments = parser.parse_args()
    if arguments.item:
        print(json.dumps(do(Item(*arguments.item))))
        return 0
    started, output = time.monotonic(), arguments.output
    shapes = tuple(map(parse_shape, arguments.shape or ())) or (QUICK if arguments.quick else SHAPES)
    every = items(shapes, arguments.quick)
    device = cast(CupyBackend, resolve("cuda")).device_name
    kept = output.with_suffix(".json")
    output.parent.mkdir(parents=True, exist_ok=True)
    state = json.loads(kept.read_text()) if kept.exists() and not arguments.again else {}
    done = state["done"] if state.get("device") == device else {}
    for number, item in enumerate(every):
        left = arguments.seconds - (time.monotonic() - started)
        if item.key in done or left <= 0:
            continue
        print(f"{number + 1} of {len(every)}: {item.key}", flush=True)
        result = in_a_process(item, max(left, 60.0))
        if result is None and left > 0.9 * arguments.seconds:  # it had a run of its own
            said = f"did not end within {arguments.seconds:.0f} s"
            result = {"rows": [f"| {item.name} | {said} |"], "wrong": [f"{item.key}: {said}"]}
        if result is not None:
            done[item.key] = result
            kept.write_text(json.dumps({"device": device, "done": done}, indent=1))
        output.write_text("\n".join(report(device, done, every)) + "\n", encoding="utf-8")
    output.write_text("\n".join(report(device, done, every)) + "\n", encoding="utf-8")
    left_over = [item for item in every if item.key not in done]
    print(f"report: {output}" + (f"; {len(left_over)} items are left: run this again" if left_over else ""))
    if left_over:
        return LEFT
    return 1 if any(result["wrong"] for result in done.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
