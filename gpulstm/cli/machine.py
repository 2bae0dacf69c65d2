"""The commands about the machine: `info` says what can run here and why not more, `bench` measures it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gpulstm import plots
from gpulstm.backend import CupyBackend, cuda_missing, device_count, resolve
from gpulstm.bench import suites
from gpulstm.bench.long import KIND
from gpulstm.bench.suites import Case, Result
from gpulstm.cli.long import bench_long
from gpulstm.cli.show import aside, console, new_files, number, polite, say, table
from gpulstm.engines.choose import ENGINES, VARIABLE
from gpulstm.engines.spec import Call, StackSpec
from gpulstm.errors import ConfigError, EngineError
from gpulstm.layers import GRU, LSTM, RNN
from gpulstm.stack import Recurrent

CELLS: dict[str, Callable[..., Recurrent]] = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
EXTRAS = {
    "cuda12 or cuda13": "cupy",
    "plots": "matplotlib",
    "tables": "pyarrow",
    "keras": "h5py",
    "onnx": "onnx",
    "mpi": "mpi4py",
    "tensorboard": "tensorboardX",
    "peers": "torch",
}


@polite
def info(
    cell: Annotated[str, typer.Option(help="Cell of the plan: lstm, gru or rnn.")] = "lstm",
    shape: Annotated[
        str | None,
        typer.Option(metavar="T,B,I,H,L", help="Show who computes this shape, and why no faster engine does."),
    ] = None,
    device: Annotated[str, typer.Option(help="Device of the plan: auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[str, typer.Option(help="Of the plan: float32, float64 or, on CUDA, float16.")] = "float32",
    bidirectional: Annotated[bool, typer.Option("--bidirectional", help="Plan for both directions.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Version, devices, engines and optional libraries, and the plan for a shape.

    Example: gpulstm info --cell lstm --shape 100,32,8,64,2
    """
    facts = machine_facts()
    plans = plans_for(cell, shape, device, dtype, bidirectional) if shape else []
    if as_json:
        print(json.dumps({**facts, "plans": plans}, indent=1))
        return
    out = console()
    out.print(f"gpulstm {facts['version']}   Python {facts['python']}   NumPy {facts['numpy']}")
    out.print(table(["device", "what it is"], facts["devices"].items(), text=2, wrap=1))
    out.print(table(["engine", "state"], facts["engines"], text=2, wrap=1))
    out.print(table(["extra", "library", "state"], facts["extras"], text=3))
    if os.environ.get(VARIABLE):
        out.print(f"{VARIABLE}={os.environ[VARIABLE]} forces that engine")
    for plan in plans:
        out.print(plan)


def machine_facts() -> dict[str, Any]:
    """What `info` shows besides the plan."""
    import numpy

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    devices = {"cpu": f"{suites.processor()}, {cores} core{'' if cores == 1 else 's'}"}
    missing = cuda_missing()
    for index in range(device_count()):
        backend = resolve(f"cuda:{index}")
        assert isinstance(backend, CupyBackend)
        memory = backend.xp.cuda.Device(index).mem_info[1] / 2**30
        devices[backend.device] = f"{backend.device_name}, {memory:.1f} GiB, CuPy {backend.xp.__version__}"
    if missing:
        devices["cuda"] = f"not usable: {missing}"
    calls = [Call(StackSpec("lstm", 1, 1), name, 1, 1, False, False) for name in devices if name != "cuda"]
    engines = []
    for engine in ENGINES:
        refused = [engine.supports(call) for call in calls]
        usable = [call.device for call, reason in zip(calls, refused, strict=True) if reason is None]
        state = f"available on {', '.join(usable)}" if usable else f"not available: {missing or refused[0]}"
        engines.append((engine.name, state))
    return {
        "version": importlib.metadata.version("gpulstm"),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "devices": devices,
        "engines": engines,
        "extras": [(extra, module, _installed(module)) for extra, module in EXTRAS.items()],
    }


def plans_for(cell: str, shape: str, device: str, dtype: str, bidirectional: bool) -> list[str]:
    """The plan of inference and of training, as text.

    Raises:
        ConfigError: no such cell, shape, device or dtype.
    """
    if cell not in CELLS:
        raise ConfigError(f"--cell is {cell!r}, expected one of {', '.join(CELLS)}")
    steps, batch, inputs, hidden, layers = suites.parse_shape(shape)
    layer = CELLS[cell](inputs, hidden, layers, bidirectional=bidirectional, dtype=dtype, device=device)
    return [_plan(layer, steps, batch, training) for training in (False, True)]


def _plan(layer: Recurrent, steps: int, batch: int, training: bool) -> str:
    try:
        return str(layer.explain(steps, batch, training=training))
    except EngineError as error:  # a forced engine may serve the one and not the other
        return f"{'training' if training else 'inference'}: {error}"


def _installed(module: str) -> str:
    if importlib.util.find_spec(module) is None:
        return "not installed"
    names = importlib.metadata.packages_distributions().get(module, [module])
    return f"{names[0]} {importlib.metadata.version(names[0])}"


@polite
def bench(
    suite: Annotated[
        str, typer.Option(help="cpu; cuda (on a GPU, or counted under the simulator); long (memory).")
    ] = "cpu",
    kind: Annotated[
        list[str] | None, typer.Option(help="Only inference, training or step (may be repeated).", show_default="all")
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="T,B,I,H,L", help="This shape in place of the suite's (may be repeated)."),
    ] = None,
    rounds: Annotated[int, typer.Option(help="How often each contender gets its turn on a case.")] = 5,
    seconds: Annotated[float, typer.Option(help="Length of a turn.")] = 0.3,
    threads: Annotated[int, typer.Option(help="Threads of each contender; 0 leaves it to the libraries.")] = 0,
    torch_python: Annotated[
        str | None,
        typer.Option(help="Interpreter that has PyTorch, where this one has not.", envvar="GPULSTM_TORCH_PYTHON"),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for bench.json and a picture of each kind.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files of an earlier run there.")] = False,
) -> None:
    """Time this package's engines beside PyTorch: each alone in its process, in turn; medians and ratios.

    The suite "long" takes training steps on sequences of 250 to 16000 steps and measures their peak memory too.

    Example: gpulstm bench --kind inference --shape 50,32,8,64,2 --torch-python ~/torch/bin/python
    """
    if suite == KIND:
        bench_long(shape or (), rounds, threads, torch_python, output, force)
        return
    chosen = suites.cases(suite, kind or (), shape or ())
    who = suites.contenders(suite, torch_python)
    kinds = [name for name in suites.KINDS if any(case.kind == name for case in chosen)]
    files = ["bench.json", *(f"{name}.png" for name in kinds)]
    paths = [] if output is None else new_files(output, files, force)
    facts = suites.machine(suite)
    if facts["load"] > 0.3:
        say(f"this machine is busy (load {facts['load']:.1f}): threads that wait for one another will look slow")
    out = console()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    stderr = aside()
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        waiting = progress.add_task(f"0 of {len(chosen)} cases")
        done = 0

        def report(case: Case, measured: list[Result]) -> None:
            nonlocal done
            done += 1
            progress.update(waiting, description=f"{done} of {len(chosen)} cases, last {case.name}")

        results = suites.run(suite, chosen, who, rounds=rounds, seconds=seconds, threads=threads, report=report)
    out.print(f"{facts['processor']}, {facts['cores']} cores, NumPy {facts['numpy']}")
    if "device" in facts:
        out.print(f"{facts['device']}, CuPy {facts['cupy']}")
    for name in kinds:
        out.print(results_table(name, results))
    for contender, reason in {result.contender: result.reason for result in results if result.reason}.items():
        say(f"not measured: {contender}: {reason}")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        paths[0].write_text(suites.as_json(suite, results), encoding="utf-8")
        for name, path in zip(kinds, paths[1:], strict=True):
            draw(path, name, results, str(facts.get("device", facts["processor"])))
        say(f"written: {', '.join(str(path) for path in paths)}")


def results_table(kind: str, results: Sequence[Result]) -> Any:
    """Medians of one kind with the ratio to the baseline; under the simulator host time and what a call asks for."""
    chosen = [result for result in results if result.case.kind == kind]
    names = list(dict.fromkeys(result.contender for result in chosen if result.seconds))
    divisor = suites.baseline(chosen)
    if any(result.counts for result in chosen):
        rows = [
            [
                result.case.name.rpartition(" ")[0],
                result.contender.removeprefix("gpulstm "),
                number(result.median * 1e6),
                *(str(_counted(result, keys)) for keys in _COUNTS.values()),
            ]
            for result in chosen
            if result.seconds
        ]
        return table(
            ["T,B,I,H,L", "engine", "host us", *_COUNTS], rows, title=f"{kind}, one call (simulated device)", text=2
        )
    rows = []
    for case in dict.fromkeys(result.case for result in chosen):
        by_name = {result.contender: result.median for result in chosen if result.case == case}
        cells = []
        for name in names:
            ratio = by_name[name] / by_name[divisor]
            cells.append(
                f"{number(by_name[name] * 1e3)}  ({number(ratio, 2)}x)"
                if name != divisor
                else number(by_name[name] * 1e3)
            )
        rows.append([case.name.rpartition(" ")[0], *cells])
    return table(["T,B,I,H,L", *names], rows, title=f"{kind}: median ms (ratio to {divisor}, below 1 is faster)")


def draw(path: Path, kind: str, results: Sequence[Result], machine: str) -> None:
    """The picture of one kind: ratios to the baseline."""
    chosen = [result for result in results if result.case.kind == kind]
    divisor = suites.baseline(chosen)
    cases = list(dict.fromkeys(result.case for result in chosen))
    median = {(result.contender, result.case): result.median for result in chosen if result.seconds}
    nan = float("nan")
    ratios = {
        name: [median.get((name, case), nan) / median.get((divisor, case), nan) for case in cases]
        for name in dict.fromkeys(result.contender for result in chosen if result.seconds)
    }
    names = [f"T,B,I,H,L = {case.name.rpartition(' ')[0]}" for case in cases]
    plots.timings(path, names, ratios, baseline=divisor, title=f"{kind.capitalize()}, float32, {machine}")


_COUNTS = {
    "launches": ("launches",),
    "library calls": ("blas", "lib"),
    "graph launches": ("graph_launches",),
    "copies": ("copies_h2d", "copies_d2h", "copies_d2d"),
    "memsets": ("memsets",),
    "waits": ("sync_stream", "sync_device", "sync_event", "sync_implicit"),
}


def _counted(result: Result, keys: Sequence[str]) -> int:
    return sum(int(result.counts.get(key, 0)) for key in keys)
