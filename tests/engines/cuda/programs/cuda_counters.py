"""What a warm training step asks of the simulated device, form by form.

    tests/hostgpu/hostgpu python tests/engines/cuda/programs/cuda_counters.py

Prints the table of docs/cuda-engine.md.  With HOSTGPU_NULL=1 nothing is executed and the time is the host's alone.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import hostgpu
from gpulstm.arrays.devices import resolve
from gpulstm.engines.cuda import planner
from gpulstm.engines.spec import StackSpec
from gpulstm.losses import MSE
from gpulstm.model.layers import LSTM
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.model.plan import forget_plans
from gpulstm.optimizers import Adam
from gpulstm.training.gradients import GradientPass

SHAPE = (100, 64, 64, 256, 2)  # T, B, I, H, L
FORMS = {
    "first form": {planner.FORM: "first", planner.GRAPH: "0"},
    "fused step": {planner.FORM: "fused", planner.GRAPH: "0"},
    "persistent": {planner.FORM: "persistent", planner.GRAPH: "0"},
    "persistent, graph": {planner.FORM: "persistent", planner.GRAPH: "1"},
    "fused step, graph": {planner.FORM: "fused", planner.GRAPH: "1"},
}
COLUMNS = ("launches", "blas", "graph_launches", "graph_nodes", "copies", "syncs", "mallocs")


def measure(settings: dict[str, str], shape: tuple[int, int, int, int, int], repeats: int) -> dict[str, Any]:
    """Counters of one warm step (forward, loss, backward, clipping, Adam) and the host's milliseconds for it."""
    os.environ.update(settings)
    forget_plans()
    steps, batch, inputs, hidden, layers = shape
    network = Network(NetworkConfig(StackSpec("lstm", inputs, hidden, layers)), device="cuda", seed=0)
    grads = network.params.like()
    gradients, optimizer = GradientPass(network, MSE(), grads, 1.0), Adam()
    optimizer.init(network.params)
    data = [
        network.backend.from_host(np.zeros(size, "f")) for size in ((steps, batch, inputs), (batch, 1, 1))
    ]  # on the device, as the batches of a training loop are

    def step() -> None:
        result = gradients(*data)
        optimizer.step(network.params, grads, rate=1e-3, scale=result.scale)

    for _ in range(3):
        step()
    return counted(step, repeats)


def counted(step: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Counters of one call of `step`, and the host's milliseconds for it."""
    resolve("cuda").synchronize()
    with hostgpu.counting() as count:
        step()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - start))
    kinds = ("h2d", "d2h", "d2d", "p2p", "h2h")
    count["copies"] = sum(count[f"copies_{kind}"] for kind in kinds)
    count["syncs"] = sum(count[f"sync_{kind}"] for kind in ("stream", "device", "event", "implicit"))
    count["launches"] += count["lib"]  # CUB's reductions, which are kernels on a GPU
    count["mallocs"] += count["mallocs_async"]
    return {**{column: count[column] for column in COLUMNS}, "host ms": statistics.median(times)}


def calls() -> dict[str, Callable[[], Any]]:
    """Calls of a layer and other training steps, by name; each is made again and again, and counted once it is warm."""
    steps, batch, inputs, hidden, layers = SHAPE
    put = resolve("cuda").from_host
    layer = LSTM(inputs, hidden, layers, device="cuda")
    x, dy = put(np.zeros((steps, batch, inputs), "f")), put(np.zeros((steps, batch, hidden), "f"))
    row = put(np.zeros((1, inputs), "f"))
    step, kept = layer.stream(1), []

    def passes() -> None:
        y, state, tape = layer.forward(x)
        kept[:] = [y, state, tape, *layer.backward(tape, dy)]

    def carried() -> Callable[[], Any]:
        network = Network(NetworkConfig(layer.spec), device="cuda", seed=0)
        grads, optimizer = network.params.like(), Adam()
        optimizer.init(network.params)
        gradients, states = GradientPass(network, MSE(), grads, 1.0, "sqrt"), [network.rnn.zero_state(batch)]
        target = put(np.zeros((steps // 2 * batch, 1, 1), "f"))

        def train() -> None:
            result = gradients(x, target, state=states[0], read=steps // 2, state_at=steps // 2)
            states[0] = result.state
            optimizer.step(network.params, grads, rate=1e-3, scale=result.scale)

        return train

    return {
        "outputs `lstm(x)`": lambda: layer(x),
        "`forward` and `backward`": passes,
        "a step of `stream(1)`": lambda: step(row),
        "truncated training step": carried(),
    }


def main() -> None:
    """Print the tables."""
    print("| form | " + " | ".join(column.replace("_", " ") for column in (*COLUMNS, "host ms")) + " |")
    print("| --- |" + " ---: |" * (len(COLUMNS) + 1))
    for form, settings in FORMS.items():
        row = measure(settings, SHAPE, 15)
        numbers = " | ".join(str(row[column]) for column in COLUMNS)
        print(f"| {form} | {numbers} | {row['host ms']:.2f} |")
    os.environ.update(FORMS["persistent, graph"])
    forget_plans()
    for name, call in calls().items():
        for _ in range(4):
            call()
        row = counted(call, 15)
        numbers = " | ".join(str(row[column]) for column in COLUMNS)
        print(f"| {name} | {numbers} | {row['host ms']:.2f} |")


if __name__ == "__main__":
    sys.exit(main())
