"""Everything that only a GPU can tell, in one report: `make gpu-check`.

Runs the tests marked `cuda`, times each form of the CUDA engine with device events beside the cost model's prediction,
and runs the benchmark beside PyTorch and cuDNN where PyTorch is installed.  Under the simulator it runs too, which
checks this program and says nothing of speed; the report says so.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from gpulstm.backend import CupyBackend, resolve
from gpulstm.engines.cuda import planner
from gpulstm.engines.spec import StackSpec
from gpulstm.errors import GpulstmError
from gpulstm.gradients import GradientPass
from gpulstm.layers import LSTM
from gpulstm.losses import MSE
from gpulstm.model import Network, NetworkConfig

ROOT = Path(__file__).resolve().parents[2]
SHAPES = (
    (200, 1, 8, 64, 2),
    (50, 32, 8, 64, 2),
    (50, 256, 32, 128, 2),
    (100, 64, 64, 256, 2),
    (100, 64, 512, 1024, 1),
)
ALONE = ((100, 64, 512, 1024, 1), (1024, 16, 768, 768, 1))  # others have published times of the second
QUICK = ((3, 2, 2, 8, 1),)
WAYS = {
    "first": {planner.FORM: "first", planner.GRAPH: "0"},
    "fused": {planner.FORM: "fused", planner.GRAPH: "0"},
    "fused, graph": {planner.FORM: "fused", planner.GRAPH: "1"},
    "persistent": {planner.FORM: "persistent", planner.GRAPH: "0"},
    "persistent, graph": {planner.FORM: "persistent", planner.GRAPH: "1"},
    "as planned": {},
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


def timings(backend: CupyBackend, shapes: tuple[tuple[int, ...], ...], repeats: int) -> Iterator[str]:
    """A table: a training pass (forward, loss, backward, norm) of each shape, in each way."""
    yield "| T,B,I,H,L | dtype | " + " | ".join(WAYS) + " | plan |"
    yield "| --- | --- |" + " ---: |" * len(WAYS) + " --- |"
    for steps, batch, inputs, hidden, layers in shapes:
        for dtype in ("float32", "float64"):
            cells, plan = [], ""
            for settings in WAYS.values():
                for name in (planner.FORM, planner.GRAPH):
                    os.environ.pop(name, None)
                os.environ.update(settings)
                config = NetworkConfig(StackSpec("lstm", inputs, hidden, layers, dtype=dtype))
                network = Network(config, device=backend.device, engine="cuda")
                place = backend.from_host
                x, target = place(np.ones((steps, batch, inputs), dtype)), place(np.ones((batch, 1, 1), dtype))
                gradients = GradientPass(network, MSE(), network.params.like(), 1.0)
                try:
                    plan = str(network.explain(steps, batch, training=True).choice.path)
                    cells.append(f"{milliseconds(backend, lambda: gradients(x, target), repeats):.3f}")  # noqa: B023
                except GpulstmError:  # a form that declines this shape, as `explain` says
                    cells.append("-")
            yield f"| {steps},{batch},{inputs},{hidden},{layers} | {dtype} | {' | '.join(cells)} | {plan} |"


def layers(backend: CupyBackend, shapes: tuple[tuple[int, ...], ...], repeats: int) -> Iterator[str]:
    """A table: a layer alone, forward and forward with backward, of each shape, in each form and dtype."""
    yield "| T,B,I,H,L | dtype | form | forward | forward and backward |"
    yield "| --- | --- | --- | ---: | ---: |"
    os.environ.pop(planner.GRAPH, None)
    for steps, batch, inputs, hidden, count in shapes:
        for dtype, form in itertools.product(("float16", "float32"), planner.FORMS):
            os.environ[planner.FORM] = form
            layer = LSTM(inputs, hidden, count, dtype=dtype, device=backend.device)
            x = backend.from_host(np.ones((steps, batch, inputs), dtype))
            dy = backend.from_host(np.ones((steps, batch, hidden), dtype))
            try:
                one = milliseconds(backend, lambda: layer.forward(x), repeats)  # noqa: B023
                both = milliseconds(backend, lambda: layer.backward(layer.forward(x)[2], dy), repeats)  # noqa: B023
                times = f"{one:.3f} | {both:.3f}"
            except GpulstmError:  # a form that declines this shape, as `explain` says
                times = "- | -"
            yield f"| {steps},{batch},{inputs},{hidden},{count} | {dtype} | {form} | {times} |"
    del os.environ[planner.FORM]


def ran(command: list[str]) -> tuple[int, str]:
    """The status and the last lines of a command, which is shown while it runs."""
    print("==", " ".join(command), flush=True)
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout[-2000:], flush=True)
    return done.returncode, done.stdout


def main() -> int:
    """Run everything and write the report; 1 if a test failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "gpu-check.md", help="the report")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, no tests, no benchmark: checks this program")
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
    status = 0
    if not arguments.quick:
        status, said = ran([sys.executable, "-m", "pytest", "-q", "-m", "cuda"])
        lines += ["## Tests marked cuda", "", "```", "\n".join(said.splitlines()[-15:]), "```", ""]
    lines += ["## Forms: a training pass, milliseconds by device events", ""]
    repeats = 3 if arguments.quick else 30
    lines += timings(backend, QUICK if arguments.quick else SHAPES, repeats)
    lines += ["", "## Layers alone, milliseconds by device events", ""]
    lines += layers(backend, QUICK if arguments.quick else ALONE, repeats)
    if not arguments.quick:
        _, said = ran(
            [sys.executable, "bench.py", "--suite", "cuda", "--output", str(arguments.output.parent), "--force"]
        )
        lines += ["", "## Benchmark beside PyTorch and cuDNN", "", "```", *said.splitlines()[-60:], "```"]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"report: {arguments.output}")
    return status


if __name__ == "__main__":
    sys.exit(main())
