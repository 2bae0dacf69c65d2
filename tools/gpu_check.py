"""Everything that only a GPU can tell, in one report: `make gpu-check`.

Runs the tests marked `cuda`, times each form of the CUDA engine with device events beside the cost model's prediction,
times calls of layers and streams with and without graphs, runs the benchmark beside PyTorch and cuDNN where PyTorch is
installed, and writes a tuning file.  Under the simulator it runs too, which checks this program and says nothing of
speed; the report says so.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.devices import resolve
from gpulstm.bench.cases import parse_shape
from gpulstm.engines.cuda import planner
from gpulstm.engines.spec import StackSpec
from gpulstm.errors import GpulstmError
from gpulstm.losses import MSE
from gpulstm.model.layers import LSTM
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.training.gradients import GradientPass
from gpulstm.training.mixed_precision import LossScale, masters

ROOT = Path(__file__).resolve().parents[1]
Shape = tuple[int, int, int, int, int]  # T, B, I, H, L
SHAPES: tuple[Shape, ...] = (
    (200, 1, 8, 64, 2),
    (50, 32, 8, 64, 2),
    (50, 256, 32, 128, 2),
    (100, 64, 64, 256, 2),
    (100, 64, 512, 1024, 1),
)
ALONE: tuple[Shape, ...] = ((100, 64, 512, 1024, 1), (1024, 16, 768, 768, 1))  # the second has published times
QUICK: tuple[Shape, ...] = ((3, 2, 2, 8, 2),)
DTYPES = ("float16", "float32", "float64")
VARIABLES = (planner.FORM, planner.GRAPH, planner.WAVEFRONT)
WAYS: dict[str, tuple[str, ...]] = {  # values of VARIABLES
    "first": ("first", "0", "0"),
    "fused": ("fused", "0", "0"),
    "fused, graph": ("fused", "1", "0"),
    "fused, graph, wavefront": ("fused", "1", "1"),
    "persistent": ("persistent", "0", "0"),
    "persistent, graph": ("persistent", "1", "0"),
    "as planned": (),
}


def milliseconds(backend: CupyBackend, call: Any, repeats: int) -> float:
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


def measured(way: tuple[str, ...], backend: CupyBackend, make: Callable[[], Callable[[], Any]], repeats: int) -> str:
    """Milliseconds of what `make` gives, in a way; "-" for a form that declines this shape, as `explain` says."""
    for name in VARIABLES:
        os.environ.pop(name, None)
    os.environ.update(zip(VARIABLES, way, strict=False))
    try:
        return f"{milliseconds(backend, make(), repeats):.3f}"
    except GpulstmError:
        return "-"


def training(backend: CupyBackend, shape: Shape, dtype: str) -> Callable[[], Any]:
    """A training pass: forward, loss, backward and norm; in float16 with a scaled loss."""
    steps, batch, inputs, hidden, layers = shape
    network = Network(
        NetworkConfig(StackSpec("lstm", inputs, hidden, layers, dtype=dtype)), device=backend.device, engine="cuda"
    )
    data = network.config.stack.data_dtype
    x, target = (backend.from_host(np.ones(size, data)) for size in ((steps, batch, inputs), (batch, 1, 1)))
    half = dtype == "float16"
    grads = masters(network.params).like() if half else network.params.like()
    gradients = GradientPass(network, MSE(), grads, 1.0, scale=LossScale(backend) if half else None)
    return lambda: gradients(x, target)


def forms(backend: CupyBackend, shapes: tuple[Shape, ...], repeats: int) -> Iterator[str]:
    """A table: a training pass of each shape and dtype, in each way."""
    yield "| T,B,I,H,L | dtype | " + " | ".join(WAYS) + " | plan |"
    yield "| --- | --- |" + " ---: |" * len(WAYS) + " --- |"
    for shape in shapes:
        for dtype in DTYPES:
            cells = [
                measured(way, backend, lambda: training(backend, shape, dtype), repeats)  # noqa: B023
                for way in WAYS.values()
            ]
            steps, batch, inputs, hidden, layers = shape
            layer = LSTM(inputs, hidden, layers, dtype=dtype, device=backend.device)
            plan = layer.explain(steps, batch, training=True).choice.path
            yield f"| {','.join(map(str, shape))} | {dtype} | {' | '.join(cells)} | {plan} |"


def calls(backend: CupyBackend, shapes: tuple[Shape, ...], repeats: int) -> Iterator[str]:
    """A table: outputs, a forward and a backward pass, and a step of a stream, launched and as a graph, float32."""
    names = ("outputs", "forward and backward", "step of a stream")
    yield "| T,B,I,H,L | " + " | ".join(f"{name}, {way}" for name in names for way in ("launched", "graph")) + " |"
    yield "| --- |" + " ---: |" * (2 * len(names))
    for shape in shapes:
        steps, batch, inputs, hidden, layers = shape

        def made(name: str, shape: Shape = shape) -> Callable[[], Any]:
            steps, batch, inputs, hidden, layers = shape
            layer = LSTM(inputs, hidden, layers, device=backend.device)
            x, dy = (backend.from_host(np.ones((steps, batch, size), "f")) for size in (inputs, hidden))
            step = layer.stream(batch)
            return {
                "outputs": lambda: layer(x),
                "forward and backward": lambda: layer.backward(layer.forward(x)[2], dy),
                "step of a stream": lambda: step(x[0]),
            }[name]

        cells = [
            measured(("", graph), backend, lambda: made(name), repeats)  # noqa: B023
            for name in names
            for graph in ("0", "1")
        ]
        yield f"| {steps},{batch},{inputs},{hidden},{layers} | {' | '.join(cells)} |"
    for name in VARIABLES:
        os.environ.pop(name, None)


def layers(backend: CupyBackend, shapes: tuple[Shape, ...], repeats: int) -> Iterator[str]:
    """A table: a layer alone, forward and forward with backward, of each shape, in each form and dtype, launched."""
    yield "| T,B,I,H,L | dtype | form | forward | forward and backward |"
    yield "| --- | --- | --- | ---: | ---: |"

    def made(shape: Shape, dtype: str, backward: bool) -> Callable[[], Any]:
        steps, batch, inputs, hidden, count = shape
        layer = LSTM(inputs, hidden, count, dtype=dtype, device=backend.device)
        x, dy = (backend.from_host(np.ones((steps, batch, size), dtype)) for size in (inputs, hidden))
        if backward:
            return lambda: layer.backward(layer.forward(x)[2], dy)
        return lambda: layer.forward(x)

    for shape in shapes:
        for dtype, form in itertools.product(("float16", "float32"), planner.FORMS):
            times = [
                measured((form, "0", "0"), backend, lambda: made(shape, dtype, backward), repeats)  # noqa: B023
                for backward in (False, True)
            ]
            yield f"| {','.join(map(str, shape))} | {dtype} | {form} | {' | '.join(times)} |"
    for name in VARIABLES:
        os.environ.pop(name, None)


def ran(command: list[str]) -> tuple[int, str]:
    """The status and the last lines of a command, which is shown while it runs."""
    print("==", " ".join(command), flush=True)
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout[-2000:], flush=True)
    return done.returncode, done.stdout


def main() -> int:
    """Run everything and write the report; not 0 if a test or the benchmark failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "gpu-check.md", help="the report")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, few tests: checks this program")
    parser.add_argument("--shape", action="append", metavar="T,B,I,H,L", help="in place of the usual ones, repeatable")
    arguments = parser.parse_args()
    backend = cast(CupyBackend, resolve("cuda"))
    card = planner.card_of(backend.device)
    simulated = os.environ.get("HOSTGPU") == "1"
    lines = [f"# GPU check: {backend.device_name}", ""]
    if simulated:
        lines += ["**The simulator, not a GPU: these times mean nothing.**", ""]
    version = backend.xp.cuda.runtime.runtimeGetVersion()
    lines += [
        f"CuPy {backend.xp.__version__}, CUDA {version}, NumPy {np.__version__}. What the model knows: `{card}`.",
        "",
    ]
    quick, folder = arguments.quick, arguments.output.parent
    folder.mkdir(parents=True, exist_ok=True)
    tests = ["tests/arrays/test_gemm.py", "-k", "own_kernels"] if quick else []
    status, said = ran([sys.executable, "-m", "pytest", "-q", "-m", "" if quick else "cuda", *tests])
    lines += ["## Tests marked cuda", "", "```", "\n".join(said.splitlines()[-15:]), "```", ""]
    named = arguments.shape or []
    shapes, repeats = (QUICK, 3) if quick else (SHAPES, 30)
    shapes = tuple(map(parse_shape, named)) or shapes
    lines += ["## Forms: a training pass, milliseconds by device events", "", *forms(backend, shapes, repeats), ""]
    lines += ["## Calls of layers, milliseconds by device events", "", *calls(backend, shapes, repeats), ""]
    alone = shapes if quick or named else ALONE
    lines += ["## Layers alone, milliseconds by device events", "", *layers(backend, alone, repeats), ""]
    bench = [sys.executable, "bench.py", "--suite", "cuda"]
    for shape in shapes if quick or named else ():
        bench += ["--shape", ",".join(map(str, shape))]
    if quick:
        bench += ["--kind", "training", "--rounds", "1", "--seconds", "0.001"]
    tuning = folder / "cuda-tuning.json"
    for title, more in (
        ("Benchmark beside PyTorch and cuDNN", ["--output", str(folder), "--force"]),
        ("Every form, for a tuning file", ["--write-tuning", str(tuning)]),
    ):
        failed, said = ran([*bench, *more])
        status = status or failed
        lines += [f"## {title}", "", "```", *said.splitlines()[-60:], "```", ""]
    lines += [f"`GPULSTM_CUDA_TUNING={tuning}` makes the planner follow what was fastest here."]
    arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"report: {arguments.output}")
    return status


if __name__ == "__main__":
    sys.exit(main())
