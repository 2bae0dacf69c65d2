"""One contender and one length of the suite "long" in a process of its own: seconds and peak memory of training steps.

Before the measurement each contender takes a step of a model of one unit, so that its library has what it makes once,
and makes its model, its input and Adam's moments.  All that the step itself needs is counted: the gradients, the packed
weights, the tape.

Started with one argument, a JSON object (see `main`); answers one JSON object on stdout.  It imports nothing but the
standard library until it knows its contender, so that it can be run by its path in an environment that holds PyTorch
and not this package.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

Call = Callable[[], object]
FLUSH = "flush"  # numbers below 1e-38 count as zero


def own(task: dict[str, Any]) -> tuple[Call, str]:
    """This package: a training step whose loss looks at the last outputs alone, and its plan."""
    import numpy as np

    from gpulstm.model.layers import LSTM
    from gpulstm.optimizers import Adam

    case, memory = task["case"], task["setting"]
    steps, batch = case["steps"], case["batch"]
    small = LSTM(1, 1, device="cpu", engine=task["engine"])
    y, _, tape = small.forward(np.zeros((2, 1, 1), "float32"))
    assert tape is not None
    small.backward(tape, y)
    layer = LSTM(case["inputs"], case["hidden"], case["layers"], device="cpu", engine=task["engine"])
    x = np.random.default_rng(0).standard_normal((steps, batch, case["inputs"]), dtype=np.float32)
    dy = np.full((batch, layer.spec.output_size), 1e-3, "float32")
    optimizer, grads = Adam(), layer.params.like()
    optimizer.init(layer.params)
    optimizer.step(layer.params, grads, rate=1e-6)

    def train() -> None:
        _, _, tape = layer.forward(x, memory=memory, outputs="last")
        assert tape is not None
        grads.flat[...] = 0
        layer.backward(tape, dy, grads=grads)
        optimizer.step(layer.params, grads, rate=1e-6)

    return train, str(layer.explain(steps, batch, training=True, memory=memory, outputs="last"))


def torch(task: dict[str, Any]) -> tuple[Call, str]:
    """PyTorch's `nn.LSTM`, the same step."""
    try:
        import torch
    except ImportError as error:
        raise RuntimeError(f"PyTorch is not installed for {sys.executable}; run: pip install torch") from error

    case = task["case"]
    if task["threads"]:
        torch.set_num_threads(task["threads"])
    torch.set_flush_denormal(task["setting"] == FLUSH)
    torch.manual_seed(0)
    small = torch.nn.LSTM(1, 1)
    small(torch.zeros(2, 1, 1))[0].sum().backward()
    layer = torch.nn.LSTM(case["inputs"], case["hidden"], case["layers"])
    x = torch.randn(case["steps"], case["batch"], case["inputs"])
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-6)
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        layer(x)[0][-1].backward(torch.full((case["batch"], case["hidden"]), 1e-3))
        optimizer.step()

    return train, f"torch.nn.LSTM {torch.__version__}, {torch.get_num_threads()} threads"


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


def main() -> int:
    """Measure and answer.

    The argument: `contender` ("gpulstm" or "torch"), `engine` of this package, `setting` (its `memory`; or, of PyTorch,
    `FLUSH`), `threads` (0: the library chooses), `rounds`, and `case` (steps, batch, inputs, hidden, layers).
    """
    task = json.loads(sys.argv[1])
    answers, sys.stdout = sys.stdout, sys.stderr  # nothing that a library prints gets before the answer
    try:
        call, plan = (torch if task["contender"] == "torch" else own)(task)
        answer = {"plan": plan, **peak_of(call, task["rounds"])}
    except (RuntimeError, ValueError, MemoryError) as error:  # what a contender says when it cannot serve
        answer = {"reason": str(error).splitlines()[0] if str(error) else type(error).__name__}
    print(json.dumps(answer), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
