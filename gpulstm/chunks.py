"""Sequences longer than memory: cut into chunks from an array, a memory-mapped file or an iterator of parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from gpulstm.backend import Array, Backend, foreign_device, resolve
from gpulstm.errors import ConfigError, ShapeError

USUAL = 1024  # steps of a chunk where the caller does not say


class Chunks:
    """An iterator over the outputs of a sequence, chunk by chunk; made by `Recurrent.chunks`.

    Attributes:
        state: after the chunk that was given last; the initial one (maybe None, for zeros) before the first.
    """

    def __init__(self, parts: Iterator[Array], run: Callable[[Array, Any], tuple[Array, Any]], state: Any) -> None:
        self._parts, self._run, self.state = parts, run, state

    def __iter__(self) -> Chunks:
        return self

    def __next__(self) -> Array:
        y, self.state = self._run(next(self._parts), self.state)
        return y


def cut_up(
    x: Any, backend: Backend, dtype: str, inputs: int, steps: int | None, block: Callable[[int], int]
) -> Iterator[Array]:
    """The chunks `(steps, B, I)` of a sequence on a device, the last maybe shorter; one at a time is held.

    Args:
        x: `(T, B, I)`, whatever gives its shape and slices of its first axis, or an iterable of arrays `(t, B, I)` of
            any lengths.  Host arrays are uploaded chunk by chunk.
        backend, dtype: where the chunks go, and as what.
        inputs: I.
        steps: of a chunk; None for the multiple of the engine's block next to `USUAL`.
        block: steps of the engine's block for a batch.

    Raises:
        ConfigError: `x` is neither.
        ShapeError, DTypeError, DeviceError: a part that does not fit, by its number.
    """
    if hasattr(x, "shape") and hasattr(x, "__getitem__"):
        shape = tuple(x.shape)
        if len(shape) != 3 or shape[2] != inputs or shape[1] < 1:
            raise ShapeError(f"x has shape {shape}, expected (T, B, {inputs}) with B of at least 1")
        length = steps or _usual(block(shape[1]))
        return (_there(x[at : at + length], backend, dtype, "x") for at in range(0, shape[0], length))
    if not isinstance(x, Iterable):
        raise ConfigError(f"x is a {type(x).__name__}, expected an array (T, B, {inputs}) or an iterable of such parts")
    return _joined(_checked(x, backend, dtype, inputs), backend, steps, block)


def _checked(x: Iterable[Any], backend: Backend, dtype: str, inputs: int) -> Iterator[Array]:
    batch = None
    for number, item in enumerate(x):
        part = _there(item, backend, dtype, f"part {number} of x")
        if part.ndim != 3 or part.shape[2] != inputs or part.shape[1] < 1 or batch not in (None, part.shape[1]):
            expected = f"(t, {batch or 'B'}, {inputs})"
            raise ShapeError(f"part {number} of x has shape {tuple(part.shape)}, expected {expected}")
        batch = part.shape[1]
        yield part


def _joined(
    parts: Iterator[Array], backend: Backend, steps: int | None, block: Callable[[int], int]
) -> Iterator[Array]:
    """The same steps in chunks of one length."""
    held: list[Array] = []
    count, length = 0, steps or 0
    for part in parts:
        length = length or _usual(block(part.shape[1]))
        while count + part.shape[0] >= length:
            yield _one([*held, part[: length - count]], backend)
            part, held, count = part[length - count :], [], 0
        if part.shape[0]:
            held.append(part)
            count += part.shape[0]
    if held:
        yield _one(held, backend)


def _one(parts: list[Array], backend: Backend) -> Array:
    if len(parts) == 1:
        return parts[0]
    with backend.activate():
        return backend.xp.concatenate(parts)


def _there(value: Any, backend: Backend, dtype: str, name: str) -> Array:
    """`value` on the device; what is on the host is uploaded, which a whole call would refuse to do by itself."""
    if backend.is_cuda and foreign_device(value) is None:
        return backend.from_host(resolve("cpu").asarray(np.asarray(value), name=name), dtype)
    return backend.asarray(value, dtype, name=name)


def _usual(block: int) -> int:
    return block * max(1, USUAL // block)
