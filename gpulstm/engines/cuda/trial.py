"""Forms of the CUDA engine put to the test on the card: checked against the plainest one, and timed.

A check takes few steps and rows, but the kernels themselves and, up to a bound, the layer's own width: forward and, in
training, backward, both directions, rows of several lengths.  A timing takes the sizes of the call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np

from gpulstm.arrays.backend import Array
from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.devices import resolve
from gpulstm.arrays.gemm import is_tensor
from gpulstm.engines.cuda.graph import Recording, RecordingFailed
from gpulstm.engines.cuda.passes import ceil_divide
from gpulstm.engines.cuda.verdicts import PLAINEST, FormFailed, Trial, Way
from gpulstm.engines.spec import Plan, StackSpec, State, Task
from gpulstm.errors import EngineError

CHECKED = {"T": 4, "B": 5, "I": 64, "H": 512}  # sizes of a check, at most
TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "TF32": 3e-2, "float16": 3e-2, "bfloat16": 2e-1}
STEPS = (32, 256)  # of a timing, least and most: what a step takes counts, and it must not depend on T
NUMBERS = 1 << 26  # of gates in a timing, at most
LAUNCHES = 3
PATIENCE = 0.1  # seconds after which a way is not launched again


def clock(way: Way, work: Callable[[], Any], wait: Callable[[], None]) -> float:
    """Seconds that `work` takes for a way, host and device together; `wait` returns when the device is done."""
    times: list[float] = []
    while len(times) < LAUNCHES and sum(times) < PATIENCE:
        start = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - start)
    return min(times)


def trial_of(planned: Mapping[Way, Plan]) -> Trial:
    """How the ways of a call are tried, given the plan of each."""

    def plan_of(form: str) -> Plan:
        return next(plan for way, plan in planned.items() if way.form == form)

    return Trial(lambda form: check(plan_of(form)), lambda way: seconds(way, planned[way]))


def check(plan: Plan) -> str | None:
    """Why the form of a plan is wrong, in a few words, or None."""
    backend = cast(CupyBackend, resolve(plan.call.device))
    small = _small(plan)
    numbers = np.random.default_rng(0)
    values = _Values(small, lambda shape: numbers.normal(size=shape) / np.sqrt(shape[0] if len(shape) > 1 else 4))
    plainest = replace(small, form=PLAINEST, layout=None, no_graph="it is a check", products="cublas", wavefront=0)
    expected = [(name, array.copy()) for name, array in values.results(plainest)]
    try:
        results = values.results(replace(small, no_graph="it is a check", products="cublas", wavefront=0))
        backend.synchronize()
    except (EngineError, RecordingFailed) as error:
        return _failure(error)
    except backend.errors as error:
        return _failure(error)
    dtype = plan.call.spec.dtype
    allowed = TOLERANCE["TF32" if is_tensor(plan.tiles[0]) and dtype == "float32" else dtype]
    for (name, one), (_, other) in zip(results, expected, strict=True):
        left, right = (backend.to_host(array).astype("f8") for array in (one, other))
        error_of = np.abs(left - right).max(initial=0.0) / max(1.0, np.abs(right).max(initial=0.0))
        if not error_of <= allowed:
            return f"{name} is {error_of:.1e} off, allowed are {allowed:.0e}"
    return None


def seconds(way: Way, plan: Plan) -> float:
    """What a pass through all layers takes.

    Raises:
        FormFailed: it cannot be launched.
        MemoryError: there is none for it.
    """
    backend, call = cast(CupyBackend, resolve(plan.call.device)), plan.call
    spec = call.spec
    steps = max(STEPS[0], min(STEPS[1], call.steps))
    steps = max(1, min(steps, NUMBERS // max(1, call.batch * spec.gates * spec.hidden_size)))
    plan = replace(plan, call=replace(call, steps=steps, lengths=False), wavefront=min(plan.wavefront, steps))
    pool = backend.xp.get_default_memory_pool()
    with backend.activate():
        values = _Values(plan, np.zeros)
        try:
            if way.graph:
                recording = Recording(backend, lambda x: [a for _, a in values.results(plan, x)], {"x": values.x})
                work: Callable[[], Any] = lambda: recording({"x": values.x})  # noqa: E731
            else:
                work = lambda: values.results(plan)  # noqa: E731
            work()  # every kernel is compiled, memory is there
            backend.synchronize()
            return clock(way, work, backend.synchronize)
        except RecordingFailed as error:
            raise MemoryError(str(error)) from error
        except EngineError as error:
            raise FormFailed(_failure(error)) from error
        except backend.errors as error:
            raise FormFailed(_failure(error)) from error
        finally:
            values = recording = work = None  # type: ignore[assignment]
            pool.free_all_blocks()


def _failure(error: Exception) -> str:
    return f"it fails: {(str(error).strip() or type(error).__name__).splitlines()[0]}"


def _small(plan: Plan) -> Plan:
    """The plan for few steps and rows of one layer, with the kernels of the whole."""
    call = plan.call
    spec = replace(
        call.spec,
        input_size=min(call.spec.input_size, CHECKED["I"]),
        hidden_size=min(call.spec.hidden_size, CHECKED["H"]),
        num_layers=1,
        bidirectional=True,
    )
    layout = plan.layout
    if layout is not None:
        layout = replace(layout, panels=ceil_divide(spec.hidden_size, layout.units), groups=1)
    call = replace(call, spec=spec, steps=min(call.steps, CHECKED["T"]) or 1, batch=min(call.batch, CHECKED["B"]))
    return replace(plan, call=replace(call, lengths=True), layout=layout)


class _Values:
    """Parameters, inputs and gradients for every layer and direction of a plan's call.

    Args:
        plan: of the call.
        make: an array of a shape on the host.
    """

    def __init__(self, plan: Plan, make: Callable[[tuple[int, ...]], np.ndarray]) -> None:
        call, spec = plan.call, plan.call.spec
        self.backend = backend = cast(CupyBackend, resolve(call.device))

        def place(*shape: int) -> Array:
            return backend.from_host(make(shape), spec.dtype)

        size = (call.steps, call.batch)
        self.call = call
        self.x = place(*size, spec.input_size)
        self.inner = place(*size, spec.directions * spec.hidden_size) if spec.num_layers > 1 else None
        self.dy = place(*size, spec.hidden_size)
        self.h = place(call.batch, spec.hidden_size)
        self.c = place(call.batch, spec.hidden_size) if spec.has_memory else None
        self.params = [
            {name: place(*shape) for name, shape in spec.layer_shapes(layer).items()}
            for layer in range(spec.num_layers)
        ]
        self.lengths = self.valid = None
        if call.lengths:
            lengths = np.arange(call.batch) % (call.steps + 1)
            lengths[-1] = call.steps
            self.lengths = backend.from_host(lengths, "int64")
            self.valid = backend.from_host((np.arange(call.steps)[:, None] < lengths)[..., None])
        self.grads = [{name: backend.xp.empty_like(array) for name, array in one.items()} for one in self.params]

    def _task(self, plan: Plan, layer: int, reverse: bool) -> Task:
        """A layer and direction without any mask."""
        spec: StackSpec = replace(self.call.spec, dropout=0.0, recurrent_dropout=0.0, zoneout=(0.0, 0.0))
        kept, rows = self.call.training, (self.lengths, self.valid)
        return Task(spec, layer, reverse, self.params[layer], *rows, training=kept, save=kept, plan=plan)

    def results(self, plan: Plan, x: Array | None = None) -> list[tuple[str, Array]]:
        """Every layer's outputs and state and, in training, gradients, by name; layer after layer, or side by side."""
        x = self.x if x is None else x
        spec, engine, arrays = self.call.spec, plan.engine, []
        state, dstate = State(self.h, self.c), State(self.h, self.c)
        for grads in self.grads:
            for array in grads.values():
                array[...] = 0
        together = engine.side_by_side(plan)
        if together is not None:  # while it is recorded
            tasks = [self._task(plan, layer, False) for layer in range(spec.num_layers)]
            masks: list[Array | None] = [None] * spec.num_layers
            y, states, tapes = together.forward(tasks, masks, x, [state] * spec.num_layers)
            arrays += [("y", y), ("h", states[-1].h)]
            if self.call.training:
                dstates = [dstate] * spec.num_layers
                arrays.append(("dx", together.backward(tasks, masks, tapes, self.dy, dstates, self.grads)[0]))
            return arrays
        for layer in range(spec.num_layers):
            for reverse in (False, True)[: spec.directions]:
                task = self._task(plan, layer, reverse)
                y, last, tape = engine.forward(task, x if not layer else cast(Array, self.inner), state)
                arrays += [("y", y), ("h", last.h), *([] if last.c is None else [("c", last.c)])]
                if tape is not None:
                    dx, dfirst = engine.backward(task, tape, self.dy, dstate, self.grads[layer])
                    arrays += [("dx", dx), ("dh", dfirst.h), *([] if dfirst.c is None else [("dc", dfirst.c)])]
        if self.call.training:
            arrays += [(f"the gradient of {name}", array) for one in self.grads for name, array in one.items()]
        return arrays
