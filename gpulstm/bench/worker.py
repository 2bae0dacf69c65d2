"""One contender and one case in a process of its own; the parent asks for a round of timings at a time.

Started with one argument, a JSON object (see `main`).  Answers one JSON object a line on stdout: first what will run,
then one for each line of stdin: `round` gives the seconds of each call, `count` what one call asks of the simulated
CUDA device.  This file imports nothing but the standard library until it knows its contender, so that it can be run by
its path in an environment that holds PyTorch and not this package.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

Call = Callable[[], object]
WARM_UP = 0.2  # seconds, and at least two calls
FEWEST = 3  # calls in a round


def gpulstm_call(task: dict[str, Any]) -> tuple[Call, Call, dict[str, Any]]:
    """This package: the call to time, the wait for its end, and what runs."""
    import numpy as np

    from gpulstm.backend import resolve
    from gpulstm.layers import LSTM
    from gpulstm.optimizers import Adam

    backend, case = resolve(task["device"]), task["case"]
    layer = LSTM(case["inputs"], case["hidden"], case["layers"], device=backend, engine=task["engine"])
    rng = np.random.default_rng(0)
    x = backend.from_host(rng.standard_normal((case["steps"], case["batch"], case["inputs"]), dtype=np.float32))
    training = case["kind"] == "training"
    if case["kind"] == "long":
        return _gpulstm_long(layer, x, task["memory"])
    what = {"plan": str(layer.explain(case["steps"], case["batch"], training=training))}
    if case["kind"] == "step":
        step, row = layer.stream(batch_size=case["batch"]), x[0]
        return lambda: step(row), backend.synchronize, what
    if not training:
        return lambda: layer(x), backend.synchronize, what
    dy = backend.zeros((case["steps"], case["batch"], case["hidden"]), "float32") + 1e-3
    optimizer, grads = Adam(), layer.params.like()
    optimizer.init(layer.params)

    def train() -> None:
        _, _, tape = layer.forward(x)
        assert tape is not None
        grads.flat[...] = 0
        layer.backward(tape, dy, grads=grads)
        optimizer.step(layer.params, grads, rate=1e-6)

    return train, backend.synchronize, what


def _gpulstm_long(layer: Any, x: Any, memory: str | None) -> tuple[Call, Call, dict[str, Any]]:
    """A training step whose loss looks at the last outputs alone."""
    import numpy as np

    from gpulstm.optimizers import Adam

    steps, batch, _ = x.shape
    dy = np.full((batch, layer.spec.output_size), 1e-3, "float32")
    optimizer, grads = Adam(), layer.params.like()
    optimizer.init(layer.params)

    def train(part: Any = x) -> None:
        _, _, tape = layer.forward(part, memory=memory, outputs="last")
        grads.flat[...] = 0
        layer.backward(tape, dy, grads=grads)
        optimizer.step(layer.params, grads, rate=1e-6)

    train(x[:2])
    plan = layer.explain(steps, batch, training=True, memory=memory, outputs="last")
    return train, lambda: None, {"plan": str(plan)}


def torch_call(task: dict[str, Any]) -> tuple[Call, Call, dict[str, Any]]:
    """PyTorch's `nn.LSTM`, on CUDA with or without TF32 as asked."""
    try:
        import torch
    except ImportError as error:
        raise RuntimeError(f"PyTorch is not installed for {sys.executable} (pip install 'gpulstm[peers]')") from error

    case, device = task["case"], task["device"]
    if device != "cpu" and not torch.cuda.is_available():
        raise RuntimeError("this PyTorch finds no CUDA device")
    if task["threads"]:
        torch.set_num_threads(task["threads"])
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = task["tf32"]
    torch.manual_seed(0)
    layer = torch.nn.LSTM(case["inputs"], case["hidden"], case["layers"]).to(device)
    x = torch.randn(case["steps"], case["batch"], case["inputs"], device=device)
    threads = torch.get_num_threads()
    what = {"plan": f"torch.nn.LSTM {torch.__version__}, {threads} threads{', TF32' if task['tf32'] else ''}"}
    wait: Call = torch.cuda.synchronize if device != "cpu" else lambda: None
    if case["kind"] == "long":
        optimizer = torch.optim.Adam(layer.parameters(), lr=1e-6)

        def long(part: Any = x) -> None:
            optimizer.zero_grad(set_to_none=True)
            layer(part)[0][-1].backward(torch.full((case["batch"], case["hidden"]), 1e-3))
            optimizer.step()

        long(x[:2])
        return long, wait, what
    if case["kind"] == "training":
        dy = torch.full((case["steps"], case["batch"], case["hidden"]), 1e-3, device=device)
        optimizer = torch.optim.Adam(layer.parameters(), lr=1e-6)

        def train() -> None:
            optimizer.zero_grad(set_to_none=True)
            layer(x)[0].backward(dy)
            optimizer.step()

        return train, wait, what
    state = None

    def infer() -> None:
        nonlocal state
        with torch.inference_mode():
            _, end = layer(x, state)
            if case["kind"] == "step":
                state = end

    layer.eval()
    return infer, wait, what


def measure(call: Call, wait: Call, seconds: float) -> list[float]:
    """Seconds of each call, for as long as `seconds` and at least `FEWEST` calls; each is waited for."""
    taken: list[float] = []
    stop = time.perf_counter() + seconds
    while len(taken) < FEWEST or time.perf_counter() < stop:
        start = time.perf_counter()
        call()
        wait()
        taken.append(time.perf_counter() - start)
    return taken


def peak_of(call: Call, rounds: int) -> dict[str, Any]:
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


def count(call: Call, wait: Call) -> dict[str, Any]:
    """What one call asks of the simulated device."""
    import hostgpu

    with hostgpu.counting() as counted:
        call()
        wait()
    return dict(counted)


def main() -> int:
    """Serve rounds until stdin ends; a case of the kind "long" is measured at once and answered with one line.

    The argument: `contender` ("gpulstm" or "torch"), `engine`, `device`, `tf32`, `threads` (0: the library chooses),
    `seconds` a round, and `case` (steps, batch, inputs, hidden, layers, kind); for "long" also `rounds` and, of this
    package, `memory`.
    """
    task = json.loads(sys.argv[1])
    answers, sys.stdout = sys.stdout, sys.stderr  # nothing that a library prints gets between the answers

    def answer(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=answers, flush=True)

    try:
        call, wait, what = (torch_call if task["contender"] == "torch" else gpulstm_call)(task)
        if task["case"]["kind"] == "long":
            answer({**what, **peak_of(call, task["rounds"])})
            return 0
        measure(call, wait, WARM_UP)
    except (RuntimeError, ValueError, MemoryError) as error:  # what a contender says when it cannot serve
        answer({"reason": str(error).splitlines()[0] if str(error) else type(error).__name__})
        return 0
    answer({**what, "pid": os.getpid()})
    for line in sys.stdin:
        if line.strip() == "count":
            answer(count(call, wait))
        else:
            answer({"seconds": measure(call, wait, task["seconds"])})
    return 0


if __name__ == "__main__":
    sys.exit(main())
