"""One contender and one case in a process of its own; the parent asks for a round of timings at a time.

Started with one argument, a JSON object (see `main`).  Answers one JSON object a line on stdout: first what will run
and how far its results are from what was expected, then one for each line of stdin: `round` gives the seconds of each
call, `count` what one call asks of the simulated CUDA device.  It can be run by its path in an environment that holds a
peer and not this package: until it knows its contender it imports `peers.py`, the standard library and NumPy alone.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpulstm.bench.peers import Arrays, Made

WARM_UP = 0.2  # seconds, and at least FEWEST calls
FEWEST = 3  # calls in a round
EXPECTED = "expected."  # as in problem.py


def own(task: dict[str, Any], arrays: Arrays) -> Made:
    """This package's engine of the task."""
    import numpy as np

    from gpulstm.arrays.devices import resolve
    from gpulstm.bench.peers import Made
    from gpulstm.model.layers import LSTM
    from gpulstm.optimizers import Adam

    backend, case = resolve(task["device"]), task["case"]
    layer = LSTM(case["inputs"], case["hidden"], case["layers"], device=backend, engine=task["engine"])
    layer.params.load({name: arrays[name] for name in layer.params})
    layer.quantize(task["quantize"] or None)
    x = backend.from_host(arrays["x"])
    training = case["kind"] in ("training", "update")
    plan = str(layer.explain(case["steps"], case["batch"], training=training))
    if case["kind"] == "step":
        step, row = layer.stream(batch_size=case["batch"]), x[0]

        def stream() -> Arrays:
            fresh = layer.stream(batch_size=case["batch"])
            return {"y": np.stack([np.array(backend.to_host(fresh(one))) for one in x])}  # it may give its own buffer

        return Made(lambda: step(row), backend.synchronize, stream, plan)
    if not training:
        return Made(lambda: layer(x), backend.synchronize, lambda: {"y": backend.to_host(layer(x)[0])}, plan)
    dy, grads = backend.from_host(arrays["dy"]), layer.params.like()
    optimizer = Adam()
    optimizer.init(layer.params)

    def train() -> Any:
        y, _, tape = layer.forward(x)
        assert tape is not None
        grads.flat[...] = 0
        return y, layer.backward(tape, dy, grads=grads)[0]

    def update() -> None:
        train()
        optimizer.step(layer.params, grads, rate=1e-6)

    def gradients() -> Arrays:
        y, dx = map(backend.to_host, train())
        return {"y": y, "dx": dx, **{f"d{name}": value for name, value in grads.host().items()}}

    return Made(update if case["kind"] == "update" else train, backend.synchronize, gradients, plan)


def make(task: dict[str, Any], arrays: Arrays) -> Made:
    """The contender of a task, built."""
    if task["contender"] == "gpulstm":
        return own(task, arrays)
    # run by its path, this file has its folder on the path of imports, and no package
    return importlib.import_module(f"{__package__}.peers" if __package__ else "peers").PEERS[task["contender"]](
        task, arrays
    )


def difference(results: Arrays, arrays: Arrays) -> tuple[float, str]:
    """How far results are from what is expected: the largest norm of a difference over the norm, and of which array."""
    import numpy as np

    expected = {name[len(EXPECTED) :]: value for name, value in arrays.items() if name.startswith(EXPECTED)}
    worst = 0.0, ""
    for name, reference in expected.items():
        value = results.get(name)
        if value is None or value.shape != reference.shape:
            return math.inf, name
        size = np.linalg.norm(reference.ravel()) or 1.0  # from a state of zeros one step has no gradient of W_h
        error = float(np.linalg.norm((value - reference).ravel()) / size)
        worst = max(worst, (math.inf if math.isnan(error) else error, name), key=lambda one: one[0])
    return worst


def measure(made: Made, seconds: float) -> list[float]:
    """Seconds of each call, for as long as `seconds` and at least `FEWEST` calls; each is waited for."""
    call, wait, clock = made.call, made.wait, time.perf_counter
    taken: list[float] = []
    stop = clock() + seconds
    while len(taken) < FEWEST or clock() < stop:
        start = clock()
        call()
        wait()
        taken.append(clock() - start)
    return taken


def count(made: Made) -> dict[str, Any]:
    """What one call asks of the simulated device."""
    import hostgpu

    with hostgpu.counting() as counted:
        made.call()
        made.wait()
    return dict(counted)


def main() -> int:
    """Serve rounds until stdin ends.

    The argument: `contender` ("gpulstm" or a name of `peers.PEERS`), `engine`, `device`, `tf32`, `quantize`, `threads`
    (0: the library chooses), `seconds` a round, `problem` (the file of `problem.py`), `tolerance` (how far results may
    be from what is expected) and `case` (steps, batch, inputs, hidden, layers, kind).
    """
    task = json.loads(sys.argv[1])
    answers, sys.stdout = sys.stdout, sys.stderr  # nothing that a library prints gets between the answers

    def answer(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=answers, flush=True)

    try:
        import numpy as np
    except ImportError:
        answer({"reason": f"NumPy is not installed for {sys.executable}; run: pip install numpy"})
        return 0
    with np.load(task["problem"], allow_pickle=False) as file:
        arrays = dict(file)
    try:
        made = make(task, arrays)
        error, name = difference(made.outputs(), arrays)
        if not error <= task["tolerance"]:
            answer({"wrong": f"it computes something else: {name} is {error:.1e} from the reference (relative norm)"})
            return 0
        measure(made, WARM_UP)
    except (RuntimeError, ValueError, MemoryError) as failure:  # what a contender says when it cannot serve
        answer({"reason": str(failure).splitlines()[0] if str(failure) else type(failure).__name__})
        return 0
    answer({"plan": made.plan, "error": error, "pid": os.getpid()})
    for line in sys.stdin:
        if line.strip() == "count":
            answer(count(made))
        else:
            made.call()  # back into the caches, threads awake
            made.wait()
            answer({"seconds": measure(made, task["seconds"])})
    return 0


if __name__ == "__main__":
    sys.exit(main())
