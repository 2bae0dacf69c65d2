"""One contender and one case in a process of its own; the parent asks for a round of timings at a time.

Started with one argument, a JSON object (see `main`).  Answers one JSON object a line on stdout: first what will run
and how far its results are from what was expected, then one for each line of stdin: `round` gives the seconds of each
call, `count` what one call asks of the simulated CUDA device, `peak` the seconds and memory of all calls.  It can be
run by its path in an environment that holds a peer and not this package: until it knows its contender it imports
`peers.py`, the standard library and NumPy alone.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable
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
    if case["kind"] == "memory":
        return own_memory(task)
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


def own_memory(task: dict[str, Any]) -> Made:
    """This package: training steps whose loss looks at the last outputs alone.

    A step of a model of one unit comes first, so that the library has what it makes once, as in `peers.torch_memory`;
    gradients, packed weights and the tape are counted.
    """
    import numpy as np

    from gpulstm.bench.peers import Made, nothing
    from gpulstm.model.layers import LSTM
    from gpulstm.optimizers import Adam

    case, memory = task["case"], task["setting"] or None
    small = LSTM(1, 1, device="cpu", engine=task["engine"])
    y, _, tape = small.forward(np.zeros((2, 1, 1), "float32"))
    assert tape is not None
    small.backward(tape, y)
    layer = LSTM(case["inputs"], case["hidden"], case["layers"], device="cpu", engine=task["engine"])
    shape = (case["steps"], case["batch"], case["inputs"])
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    dy = np.full((case["batch"], layer.spec.output_size), 1e-3, "float32")
    optimizer, grads = Adam(), layer.params.like()
    optimizer.init(layer.params)
    optimizer.step(layer.params, grads, rate=1e-6)

    def train() -> None:
        _, _, tape = layer.forward(x, memory=memory, outputs="last")
        assert tape is not None
        grads.flat[...] = 0
        layer.backward(tape, dy, grads=grads)
        optimizer.step(layer.params, grads, rate=1e-6)

    plan = layer.explain(*shape[:2], training=True, memory=memory, outputs="last")
    return Made(train, nothing, dict, str(plan))


def make(task: dict[str, Any], arrays: Arrays) -> Made:
    """The contender of a task, built."""
    if task["contender"] == "gpulstm":
        return own(task, arrays)
    if not __package__:  # run by its path; with PYTHONSAFEPATH its folder is not on the path of imports
        sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    peers = importlib.import_module(f"{__package__}.peers" if __package__ else "peers")
    return peers.PEERS[task["contender"]](task, arrays)


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


def measure(contender: Made, seconds: float) -> list[float]:
    """Seconds of each call, for as long as `seconds` and at least `FEWEST` calls; each is waited for."""
    call, wait, clock = contender.call, contender.wait, time.perf_counter
    taken: list[float] = []
    stop = clock() + seconds
    while len(taken) < FEWEST or clock() < stop:
        start = clock()
        call()
        wait()
        taken.append(clock() - start)
    return taken


def peak_of(call: Callable[[], object], rounds: int) -> dict[str, Any]:
    """Seconds of each of `rounds` calls, resident bytes before them and the most during them (Linux)."""
    with open("/proc/self/clear_refs", "w") as clear:
        clear.write("5")  # sets the high-water mark back to what is resident now
    start, taken = _resident("VmRSS"), []
    for _ in range(rounds):
        begun = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begun)
    return {"seconds": taken, "start": start, "peak": _resident("VmHWM")}


def _resident(name: str) -> int:
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith(name))
    return int(line.split()[1]) * 1024


def count(contender: Made) -> dict[str, Any]:
    """What one call asks of the simulated device."""
    import hostgpu

    with hostgpu.counting() as counted:
        contender.call()
        contender.wait()
    return dict(counted)


def main() -> int:
    """Serve rounds until stdin ends.

    The argument: `contender` ("gpulstm" or a name of `peers.PEERS`), `engine`, `device`, `tf32`, `quantize`, `threads`
    (0: the library chooses), `seconds` a round, `problem` (the file of `problem.py`), `tolerance` (how far results may
    be from what is expected) and `case` (steps, batch, inputs, hidden, layers, kind).  Of a case of kind "memory":
    `setting` (see `Contender`) and `rounds`; it has no problem and is not warmed up.
    """
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # who asked is gone: so is this, without a word
    task = json.loads(sys.argv[1])
    answers, sys.stdout = sys.stdout, sys.stderr  # nothing that a library prints gets between the answers

    def answer(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=answers, flush=True)

    try:
        import numpy as np
    except ImportError:
        answer({"reason": f"NumPy is not installed for {sys.executable}; run: pip install numpy"})
        return 0
    arrays: Arrays = {}
    if "problem" in task:
        with np.load(task["problem"], allow_pickle=False) as file:
            arrays = dict(file)
    try:
        contender, error = make(task, arrays), 0.0
        if arrays:
            error, name = difference(contender.outputs(), arrays)
            if not error <= task["tolerance"]:
                said = f"{name} is {error:.1e} from the reference (relative norm)"
                answer({"wrong": f"it computes something else: {said}"})
                return 0
            measure(contender, WARM_UP)
    except (RuntimeError, ValueError, MemoryError) as failure:  # what a contender says when it cannot serve
        answer({"reason": str(failure).splitlines()[0] if str(failure) else type(failure).__name__})
        return 0
    answer({"plan": contender.plan, "error": error, "pid": os.getpid()})
    for line in sys.stdin:
        if line.strip() == "count":
            answer(count(contender))
        elif line.strip() == "peak":
            answer(peak_of(contender.call, task["rounds"]))
        else:
            contender.call()  # back into the caches, threads awake
            contender.wait()
            answer({"seconds": measure(contender, task["seconds"])})
    return 0


if __name__ == "__main__":
    sys.exit(main())
