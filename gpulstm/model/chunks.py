"""Sequences longer than memory: cut into chunks from an array, a memory-mapped file or an iterator of parts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from gpulstm.arrays.backend import Array, Backend, foreign_device
from gpulstm.arrays.devices import resolve
from gpulstm.errors import ConfigError, DeviceError, ShapeError

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
            any lengths.  Host arrays are uploaded chunk by chunk, the next while one is in use.
        backend, dtype: where the chunks go, and as what.
        inputs: I.
        steps: of a chunk; None for the multiple of the engine's block next to `USUAL`.
        block: steps of the engine's block for a batch.

    Raises:
        ConfigError: `x` is neither.
        ShapeError, DTypeError, DeviceError: a part that does not fit, by its number.
    """
    host = backend.is_cuda and foreign_device(x) is None
    if hasattr(x, "shape") and hasattr(x, "__getitem__"):
        shape = tuple(x.shape)
        if len(shape) != 3 or shape[2] != inputs or shape[1] < 1:
            raise ShapeError(f"x has shape {shape}, expected (T, B, {inputs}) with B of at least 1")
        length = steps or _usual(block(shape[1]))
        parts = (x[at : at + length] for at in range(0, shape[0], length))
        if host:
            return backend.uploads((_on_host(part, "x") for part in parts), dtype)
        return (backend.asarray(part, dtype, name="x") for part in parts)
    if not isinstance(x, Iterable):
        raise ConfigError(f"x is a {type(x).__name__}, expected an array (T, B, {inputs}) or an iterable of such parts")
    return _of_parts(iter(x), backend, dtype, inputs, steps, block)


def _of_parts(
    x: Iterator[Any], backend: Backend, dtype: str, inputs: int, steps: int | None, block: Callable[[int], int]
) -> Iterator[Array]:
    """Chunks from an iterator, whose first part tells whether all lie on the host."""
    first = next(x, None)
    if first is None:
        return
    x = itertools.chain([first], x)
    if backend.is_cuda and foreign_device(first) is None:
        parts = _checked(x, lambda part, name: _on_host(part, name), inputs)
        yield from backend.uploads(_joined(parts, resolve("cpu"), steps, block), dtype)
    else:
        parts = _checked(x, lambda part, name: backend.asarray(part, dtype, name=name), inputs)
        yield from _joined(parts, backend, steps, block)


def _checked(x: Iterator[Any], read: Callable[[Any, str], Array], inputs: int) -> Iterator[Array]:
    batch = None
    for number, item in enumerate(x):
        part = read(item, f"part {number} of x")
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


def _on_host(value: Any, name: str) -> np.ndarray:
    """A part among others that lie on the host."""
    where = foreign_device(value)
    if where is not None:
        raise DeviceError(f"{name} lives on {where}, expected an array on the host as those before it")
    return resolve("cpu").asarray(np.asarray(value), name=name)


def _usual(block: int) -> int:
    return block * max(1, USUAL // block)
