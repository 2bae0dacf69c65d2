"""Calls of layers and streams replayed as CUDA graphs: `python tests/engines/cuda/programs/cuda_calls.py [KIND...]`.

The same calls are made many times, the weights changed in between, on two streams in turn and on every device.  Results
must be those of the reference engine on the CPU, keep their values while later calls are made, and have the same bits
whether a call was launched piece by piece, recorded or replayed.  Ends with status 1 otherwise.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "helpers"))

import numpy as np
from tolerance import GRADIENT

import gpulstm
from gpulstm.arrays.backend import Backend
from gpulstm.arrays.cupy_backend import device_count
from gpulstm.arrays.devices import resolve, to_host
from gpulstm.engines.cuda import graph, planner
from gpulstm.model.plan import forget_plans

STEPS, BATCH, INPUTS, HIDDEN, LAYERS = 7, 5, 3, 11, 2
FORMS = {"first": "float64", "fused": "float64", "persistent": "float32"}
ROUNDS = 5  # the first piece by piece, the second recorded, the others replayed
KINDS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "lstm": (gpulstm.LSTM, {}),
    "lstm with dropout": (gpulstm.LSTM, {"dropout": 0.3, "recurrent_dropout": 0.2, "zoneout": (0.1, 0.2)}),
    "gru both ways": (gpulstm.GRU, {"bidirectional": True}),
    "rnn": (gpulstm.RNN, {"nonlinearity": "relu"}),
}


class Streams:
    """Two streams of a device; each block of work goes to the other one, behind the last."""

    def __init__(self, backend: Backend) -> None:
        self.backend, self.number = backend, 0
        with backend.activate():
            backend.synchronize()
            self.pair = [backend.xp.cuda.Stream(non_blocking=True) for _ in range(2)]

    def __call__(self, work: Callable[[], Any]) -> Any:
        """What `work` gives, enqueued."""
        mine, other = self.pair[self.number % 2], self.pair[1 - self.number % 2]
        self.number += 1
        with self.backend.activate():
            mine.wait_event(other.record())
            with mine:
                return work()

    def wait(self) -> None:
        """Until all is done."""
        for stream in self.pair:
            stream.synchronize()


def plain(stream: Callable[[Callable[[], Any]], Any], layer: Any, make: Callable[[str, tuple[int, ...]], Any]) -> Any:
    """Results of outputs, training passes with two tapes alive, and a stream of steps, as lists of arrays."""
    pair = layer.spec.has_memory
    ways = layer.spec.directions
    states = (LAYERS * ways, BATCH, HIDDEN)
    lengths = np.array([7, 1, 0, 4, 7])
    xs = [make(f"x{number}", (STEPS, BATCH, INPUTS)) for number in range(2)]
    dy, dlast = make("dy", (STEPS, BATCH, ways * HIDDEN)), make("dlast", (BATCH, ways * HIDDEN))
    state, dstate = ([make(f"{name}{part}", states) for part in "hc"] for name in ("", "d"))
    state, dstate = (tuple(each) if pair else each[0] for each in (state, dstate))

    def flat(*values: Any) -> list[Any]:
        return [part for value in values for part in (value if isinstance(value, tuple) else (value,))]

    results: list[Any] = []
    sums = layer.params.like()
    layer.backend.synchronize()  # what was made on the default stream is there for the two others

    def once() -> None:
        layer.calls = 3  # the same masks every time
        first = stream(lambda: layer.forward(xs[0]))
        second = stream(lambda: layer.forward(xs[1], state, lengths, outputs="last"))
        third = stream(lambda: layer.forward(xs[0]))  # a third tape while two are alive
        results.append(flat(*first[:2], *second[:2], *third[:2]))
        results.append(flat(*stream(lambda: layer(xs[0])), *stream(lambda: layer(xs[1], state, lengths))))
        stream(lambda: sums.flat.fill(0.25))
        passes = [stream(lambda: layer.backward(third[2], dy)), stream(lambda: layer.backward(first[2], dy, dstate))]
        passes.append(stream(lambda: layer.backward(second[2], dlast, None, sums)))
        results.append(
            [part for dx, dstart, grads in passes for part in flat(dx, dstart, stream(lambda g=grads: g.flat * 1))]
        )
        passes = [stream(lambda: layer.backward(first[2], dy, dstate))]  # a tape is good for more than one
        results.append([part for dx, dstart, grads in passes for part in flat(dx, dstart, grads.flat)])

    for number in range(ROUNDS):
        once()
        if number == ROUNDS - 2:
            stream(lambda: layer.params.flat.__imul__(0.5))
    if ways == 1:
        step, out = stream(lambda: layer.stream(BATCH)), make("out", (BATCH, HIDDEN))
        layer.backend.synchronize()
        for _ in range(2):
            results.append([stream(lambda t=t: step(xs[0][t])) for t in range(STEPS)])
            results.append(flat(stream(lambda: step.state)))
            stream(lambda: setattr(step, "state", state))
            results.append(flat(stream(lambda: step(xs[1][0], out) * 1), stream(lambda: step.state)))
            stream(lambda: layer.params.flat.__imul__(1.5))
            stream(step.reset)
    return results


def compare(kind: str, form: str, device: str) -> Iterator[str]:
    """What is wrong with a kind of layer in a form, on a device."""
    rng = np.random.default_rng(5)
    arrays: dict[str, np.ndarray] = {}
    cell, options = KINDS[kind]
    dtype = FORMS[form]
    common = {"num_layers": LAYERS, "dtype": dtype, "seed": 8, **options}

    def host(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name not in arrays:
            arrays[name] = rng.normal(size=shape).astype(dtype)
        return arrays[name].copy()

    reference = cell(INPUTS, HIDDEN, device="cpu", engine="reference", **common)
    expected = plain(lambda work: work(), reference, host)
    os.environ[planner.FORM] = form
    forget_plans()
    layer = cell(INPUTS, HIDDEN, device=device, **common)
    with layer.backend.activate():
        streams = Streams(layer.backend)
        results = plain(streams, layer, lambda name, shape: layer.backend.from_host(host(name, shape)))
        streams.wait()
    values = [[to_host(part) for part in group] for group in results]
    for number, (group, want) in enumerate(zip(values, expected, strict=True)):
        for index, (one, other) in enumerate(zip(group, want, strict=True)):
            error = float(np.abs(one - other).max()) if one.size else 0.0
            if not error <= GRADIENT[dtype] * max(1.0, float(np.abs(other).max())):
                yield f"result {number}.{index} is {error:.1e} from the reference"
    for number in range(4, 4 * (ROUNDS - 1)):  # the rounds before the weights change
        for one, other in zip(values[number], values[number % 4], strict=True):
            if one.tobytes() != other.tobytes():
                yield f"result {number} has other bits than the first of its kind"
    if not layer._replays.bytes_held:
        yield "nothing was recorded"


def unordered(device: str) -> Iterator[str]:
    """A backward pass on a stream that nobody waits for, while its tape's buffers are asked for on another one."""
    os.environ[planner.FORM] = "fused"
    forget_plans()
    layer = gpulstm.LSTM(INPUTS, HIDDEN, device=device, dtype="float64", seed=8)
    rng = np.random.default_rng(6)
    put = layer.backend.from_host
    xs = [put(rng.normal(size=(STEPS, BATCH, INPUTS))) for _ in range(2)]
    dy = put(rng.normal(size=(STEPS, BATCH, HIDDEN)))
    with layer.backend.activate():
        expected = [to_host(layer.backward(layer.forward(xs[0])[2], dy)[0]) for _ in range(4)]
        one, other = (layer.backend.xp.cuda.Stream(non_blocking=True) for _ in range(2))
        with one:
            tape = layer.forward(xs[0])[2]
        other.wait_event(one.record())
        with other:
            dx, _, _ = layer.backward(tape, dy)
        del tape
        with one:
            kept = [layer.forward(xs[1]) for _ in range(3)]
        one.synchronize()
        other.synchronize()
        if to_host(dx).tobytes() != expected[3].tobytes() or not all(tape for _, _, tape in kept):
            yield "a tape was written while it was read"


def main(kinds: list[str]) -> int:
    """Compare the named kinds of layers, or all of them; the number of comparisons that fail."""
    os.environ[planner.GRAPH] = "1"  # whatever the planner finds
    if os.environ.get("GPULSTM_TEST_BRANCHES") == "launched":
        # the simulator replays a graph in the order of its capture: only what is launched shows a missing wait
        graph.recording = lambda: True
    failed = 0
    for device in range(device_count()):
        for form in FORMS:
            for kind in kinds or KINDS:
                wrong = list(compare(kind, form, f"cuda:{device}"))
                failed += bool(wrong)
                print(f"{'BAD' if wrong else 'ok '} {kind}, {form} on cuda:{device} {'; '.join(wrong[:3])}", flush=True)
        wrong = list(unordered(f"cuda:{device}"))
        failed += bool(wrong)
        print(
            f"{'BAD' if wrong else 'ok '} streams that nobody orders, on cuda:{device} {'; '.join(wrong)}", flush=True
        )
    assert resolve("cuda").xp.cuda.Device().id == 0
    return failed


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
