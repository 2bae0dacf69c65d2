"""A stack that keeps its state on the device, one time step a call: weights packed once, one graph launch a step.

A step is, for each layer, the input product and the fused step kernel (`kernels/cuda/fused.cu`), then one copy that
makes the new h the old one.  Recorded as a graph or launched one by one, the bits are the same.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from gpulstm.arrays.backend import Array
from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.gemm import affine, blocks, threads
from gpulstm.arrays.params import ParamDict
from gpulstm.arrays.variables import switch
from gpulstm.engines.cuda import fused, passes, planner
from gpulstm.engines.cuda.graph import Order, Recording, RecordingFailed, capturing
from gpulstm.engines.cuda.tape import COMPUTE
from gpulstm.engines.spec import Plan, Task


class PackedStream:
    """The engine's part of `Stream`; made by `stream`, arguments as there.

    Args:
        no_graph: why a step is not replayed as a graph; None where it is.
    """

    def __init__(self, plan: Plan, params: ParamDict, no_graph: str | None) -> None:
        self.backend = backend = cast(CupyBackend, params.backend)
        spec, batch, shape = plan.call.spec, plan.call.batch, plan.tiles[0]
        xp, units = backend.xp, spec.hidden_size
        self.spec, self._params, self.no_graph = spec, params, no_graph
        self._recording: Recording | None = None
        self._order = Order(backend)
        with backend.activate():
            self._weights = params.over(xp.empty_like(params.flat))
            self._hs = xp.zeros((spec.num_layers, 2, batch, units), spec.dtype)
            self._cs = xp.zeros((spec.num_layers, batch, units), COMPUTE[spec.dtype]) if spec.has_memory else None
            self._gates = xp.empty((1, batch, spec.gates * units), spec.dtype)
            self._layers = [self._layer(layer) for layer in range(spec.num_layers)]
            task = self._layers[0][0]
            self._kernel = fused.compiled(backend, task, spec.dtype, shape, "gpulstm_forward")
            self._grid, self._block = blocks(shape, batch, passes.columns(task)), (threads(shape),)
        self.reset()

    def _layer(self, layer: int) -> tuple[Task, Array, Any]:
        """The task of a layer, its packed weights, and the argument of its step kernel."""
        spec, suffix = self.spec, self.spec.suffixes[layer]
        names = ("W_x", "W_h", "b", "b_hn")
        params = {name: self._weights[name + suffix] for name in names if name + suffix in self._weights}
        task = Task(spec, layer, False, params)
        packed, pitch = passes.packed_forward(self.backend, task, spec.dtype)
        values = {
            **dict.fromkeys(("lengths", "keep_h", "keep_c", "mask", "vs", "y", "s")),
            "rows": self._hs.shape[2],
            "units": spec.hidden_size,
            "reverse": 0,
            "slots": 0,
            "relu": int(spec.nonlinearity == "relu"),
            "hold_h": spec.zoneout[0],
            "hold_c": spec.zoneout[1],
            "packed": packed,
            "pitch": pitch,
            "gates": self._gates,
            "hs": self._hs[layer],
            "cs": None if self._cs is None else self._cs[layer],
            "b_hn": params.get("b_hn"),
        }
        return task, packed, passes.struct(passes.FORWARD, values)

    def reset(self) -> None:
        """The weights as they are now, and the state of zeros."""
        with self.backend.activate(), self._order.turn():
            self._weights.flat[...] = self._params.flat
            for task, packed, _ in self._layers:
                passes.pack_forward(self.backend, task, self.spec.dtype, packed)
            self._hs[...] = 0
            if self._cs is not None:
                self._cs[...] = 0

    def __call__(self, x: Array, out: Array | None) -> Array:
        """One step: x `(B, I)` -> y `(B, H)`, an array of its own or `out`."""

        def take(y: Array) -> Array:
            if out is None:
                return y.copy()
            out[...] = y
            return out

        with self.backend.activate():
            if self.no_graph is None and not capturing(self.backend):
                try:
                    if self._recording is None:
                        self._record(x)
                    return self._recording({"x": x}, take)  # type: ignore[misc]
                except (MemoryError, RecordingFailed) as error:
                    self._recording = None
                    self.no_graph = f"CUDA could not record or launch it: {str(error) or 'no memory'}"
            with self._order.turn():
                return take(self._step(self.backend.xp.ascontiguousarray(x)))

    def __str__(self) -> str:
        graph = "as one graph" if self.no_graph is None else f"launched one by one ({self.no_graph})"
        return f"packed weights; a step is {2 * self.spec.num_layers + 1} pieces of work, {graph}"

    @property
    def state(self) -> Any:
        """(h, c) for the LSTM, h for GRU and RNN, each `(L, B, H)`; copies."""
        with self.backend.activate(), self._order.turn():
            h = self._hs[:, 0].copy()
            return h if self._cs is None else (h, self._cs.astype(self.spec.dtype))

    @state.setter
    def state(self, state: Any) -> None:
        h, c = state if self._cs is not None else (state, None)
        with self.backend.activate(), self._order.turn():
            self._hs[:, 0] = h
            if self._cs is not None:
                self._cs[...] = c

    def _step(self, x: Array) -> Array:
        """The work of a step; the state moves on."""
        part = x[None]
        for layer, (task, _, arguments) in enumerate(self._layers):
            affine(self.backend, part, task.params["W_x"], task.params.get("b"), self._gates, "own")
            self._kernel(self._grid, self._block, (arguments, np.int64(0)))
            part = self._hs[layer, 1][None]
        self._hs[:, 0] = self._hs[:, 1]
        return part[0]

    def _record(self, x: Array) -> None:
        """Record a step; what it does to the state on the way is taken back."""
        state = self.state
        try:
            self._recording = Recording(self.backend, self._step, {"x": x}, self._order)
        finally:
            self.state = state


def stream(plan: Plan, params: ParamDict) -> PackedStream | None:
    """A stack of one direction, its weights as they are now, from the state of zeros.

    None where a product by cuBLAS is taken to be worth its launch, for large layers and batches, and where the fused
    kernel has been found wrong on this card.
    """
    asked = switch(planner.GRAPH)
    if (asked is None and not planner.graph_guess(plan)) or planner.wrong(plan.call, "fused"):
        return None
    return PackedStream(plan, params, f"{planner.GRAPH} is 0" if asked is False else None)
