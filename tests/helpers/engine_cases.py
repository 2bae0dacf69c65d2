"""One layer, one direction, one call as an engine is asked to compute it, of random numbers, for any array library.

Not a test: what the tests of this folder share.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from tolerance import FORWARD, GRADIENT

from gpulstm.arrays.dtypes import dtype_of
from gpulstm.engines.dispatch import choose
from gpulstm.engines.spec import Call, Engine, StackSpec, State, Task


class Shape(NamedTuple):
    """T, B, I, H."""

    steps: int
    rows: int
    inputs: int
    units: int


class Around(NamedTuple):
    """What a step does besides its cell."""

    lengths: bool = False
    recurrent_mask: bool = False
    zoneout: bool = False


NOTHING = Around()


@dataclasses.dataclass
class EngineCase:
    """Arguments for an engine's forward and backward, on the host; `results` runs them."""

    task: Task
    x: np.ndarray
    start: State
    dy: np.ndarray
    dend: State

    @classmethod
    def make(
        cls,
        cell: str,
        shape: Shape,
        *,
        dtype: str = "float64",
        around: Around = NOTHING,
        reverse: bool = False,
        training: bool = True,
        seed: int = 0,
        **options: Any,
    ) -> EngineCase:
        rng, (steps, rows, inputs, units) = np.random.default_rng(seed), shape
        zoneout = (0.3, 0.2 if cell == "lstm" else 0.0) if around.zoneout else (0.0, 0.0)
        spec = StackSpec(cell, inputs, units, dtype=dtype, zoneout=zoneout, **options)

        def normal(*extents: int, scale: float = 1.0) -> np.ndarray:
            return (rng.normal(size=extents) * scale).astype(dtype_of(dtype))

        def state() -> State:
            return State(normal(rows, spec.state_size), normal(rows, units) if spec.has_memory else None)

        scale = 1.0 / np.sqrt(units + inputs)
        params = {name: normal(*extents, scale=scale) for name, extents in spec.layer_shapes(0).items()}
        task = Task(spec, 0, reverse, params, training=training, save=training)
        x = normal(steps, rows, inputs)
        if around.lengths:
            lengths = rng.integers(0, steps + 1, rows)
            lengths[0] = steps
            lengths[-1] = 0 if rows > 1 else steps
            task.lengths = lengths
            task.valid = (np.arange(steps)[:, None] < lengths)[:, :, None]
            x = np.where(task.valid, x, np.zeros_like(x))
        if around.recurrent_mask and training:
            task.recurrent_mask = ((rng.random((rows, spec.state_size)) > 0.4) / 0.6).astype(dtype_of(dtype))
        if around.zoneout and training:
            task.keep_h = rng.random((steps, rows, spec.state_size)) > 0.3
            task.keep_c = rng.random((steps, rows, units)) > 0.2 if spec.has_memory else None
        return cls(task, x, state(), normal(steps, rows, spec.state_size), state())

    def astype(self, dtype: str) -> EngineCase:
        """The same numbers in another dtype."""

        def cast(value: Any) -> Any:
            floating = isinstance(value, np.ndarray) and value.dtype.kind in "fV"  # V: bfloat16, which NumPy has not
            return value.astype(dtype_of(dtype)) if floating else value

        task = dataclasses.replace(
            self.task,
            spec=dataclasses.replace(self.task.spec, dtype=dtype),
            params={name: cast(value) for name, value in self.task.params.items()},
            recurrent_mask=cast(self.task.recurrent_mask),
        )
        start, dend = (State(cast(state.h), cast(state.c)) for state in (self.start, self.dend))
        return EngineCase(task, cast(self.x), start, cast(self.dy), dend)

    def results(
        self,
        engine: Engine,
        give: Callable[[np.ndarray], Any] = np.asarray,
        take: Callable[[Any], np.ndarray] = np.asarray,
        *,
        backwards: int = 1,
    ) -> dict[str, np.ndarray]:
        """Everything that the engine computes, on the host; gradients have names that begin with d.

        Args:
            engine: the module.
            give, take: host array to the library to test on, and back.
            backwards: how often `backward` runs on the tape; only the last run's results count.
        """

        def move(value: Any) -> Any:
            return None if value is None else give(value)

        def moved(state: State) -> State:
            return State(move(state.h), move(state.c))

        fields = ("lengths", "valid", "recurrent_mask", "keep_h", "keep_c")
        task = dataclasses.replace(
            self.task,
            params={name: give(value) for name, value in self.task.params.items()},
            **{name: move(getattr(self.task, name)) for name in fields},
        )
        if engine.name == "cuda":
            steps, rows, _ = self.x.shape
            call = Call(task.spec, "cuda:0", steps, rows, task.training, task.lengths is not None)
            task.plan = choose(call, "cuda")
        y, end, tape = engine.forward(task, give(self.x), moved(self.start))
        results = {"y": y, "h": end.h, "c": end.c}
        assert (tape is not None) == self.task.training
        for _ in range(backwards if self.task.training else 0):
            grads = {name: give(np.zeros_like(value)) for name, value in self.task.params.items()}
            dx, dstart = engine.backward(task, tape, give(self.dy), moved(self.dend), grads)
            results |= {"dx": dx, "dh": dstart.h, "dc": dstart.c}
            results |= {f"d{name}": value for name, value in grads.items()}
        return {name: take(value) for name, value in results.items() if value is not None}


def assert_close(results: dict[str, np.ndarray], expected: dict[str, np.ndarray], bounds: str) -> None:
    """Every array within the bounds of `tolerance`, relative to its norm; where all is zero, equal."""
    assert results.keys() == expected.keys()
    for name, value in expected.items():
        assert results[name].shape == value.shape, name
        assert np.isfinite(results[name]).all(), name
        bound = (GRADIENT if name.startswith("d") else FORWARD)[bounds] * np.linalg.norm(value)
        assert np.linalg.norm(results[name].astype("float64") - value) <= bound, name


def assert_same(results: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Every array equal bit for bit."""
    assert results.keys() == expected.keys()
    for name, value in expected.items():
        assert results[name].tobytes() == value.tobytes(), name
