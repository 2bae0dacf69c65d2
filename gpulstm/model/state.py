"""The state of a stack, `(h, c)` for the LSTM and `h` for GRU and RNN: checked, split by layers, joined, changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpulstm.arrays.backend import Array, Backend
from gpulstm.engines.spec import StackSpec, State
from gpulstm.errors import ShapeError

StackState = Any  # (h, c) for the LSTM, h for GRU and RNN, each (L*D, B, H), h (L*D, B, P) with projection; None: zeros
STACKED = 8  # arrays that CuPy stacks without a table of pointers, which a CUDA graph cannot hold


def parts(state: StackState) -> list[Array]:
    """The arrays of a state: h, and for the LSTM c; none for None."""
    return [] if state is None else list(state) if isinstance(state, tuple) else [state]


def of_parts(h: Array, c: Array | None) -> StackState:
    """The state of these arrays: a pair with c, h alone without."""
    return h if c is None else (h, c)


def map_state(change: Callable[[Array], Array], state: StackState) -> StackState:
    """The state of changed arrays; None for None."""
    return None if state is None else of_parts(*_pair([change(part) for part in parts(state)]))


def check(name: str, state: StackState, spec: StackSpec, backend: Backend, batch: int) -> tuple[Any, Array | None]:
    """h `(L*D, B, P)` and, for the LSTM, c `(L*D, B, H)` of a user's state, on the device; both None for zeros.

    Raises:
        ShapeError, DTypeError, DeviceError: one sentence that calls the state `name`.
    """
    if state is None:
        return None, None
    pair = isinstance(state, (tuple, list))
    if spec.has_memory and not (pair and len(state) == 2):
        raise ShapeError(f"{name} is a {type(state).__name__}, expected the pair (h, c)")
    if not spec.has_memory and pair:
        raise ShapeError(f"{name} is a {type(state).__name__}, expected h alone: the {spec.cell.upper()} has no c")
    values = list(state) if pair else [state]
    units = (spec.state_size, spec.hidden_size)
    return _pair(
        [
            _checked(
                f"{letter} of {name}", value, (spec.num_layers * spec.directions, batch, size), spec.dtype, backend
            )
            for letter, value, size in zip("hc", values, units, strict=False)
        ]
    )


def split(h: Array | None, c: Array | None, spec: StackSpec, backend: Backend, batch: int) -> list[State]:
    """The state of each layer and direction; zeros for None."""
    count = spec.num_layers * spec.directions
    if h is None:
        h = backend.xp.zeros((count, batch, spec.state_size), spec.dtype)
        c = backend.xp.zeros((count, batch, spec.hidden_size), spec.dtype) if spec.has_memory else None
    return [State(h[index], None if c is None else c[index]) for index in range(count)]


def join(states: Sequence[State], backend: Backend) -> tuple[Array, Array | None]:
    """h and c of all layers and directions as one array each; copies."""
    h = _stack([state.h for state in states], backend.xp)
    return h, None if states[0].c is None else _stack([state.c for state in states], backend.xp)


def _stack(arrays: list[Any], xp: Any) -> Array:
    if len(arrays) <= STACKED:
        return xp.stack(arrays)
    out = xp.empty((len(arrays), *arrays[0].shape), arrays[0].dtype)
    for index, array in enumerate(arrays):
        out[index] = array
    return out


def _checked(name: str, value: Any, shape: tuple[int, ...], dtype: str, backend: Backend) -> Array:
    value = backend.asarray(value, dtype, name=name)
    if value.shape != shape:
        raise ShapeError(f"{name} has shape {tuple(value.shape)}, expected {shape} (layers * directions, B, units)")
    return value


def _pair(arrays: list[Array]) -> tuple[Array, Array | None]:
    return arrays[0], arrays[1] if len(arrays) > 1 else None
