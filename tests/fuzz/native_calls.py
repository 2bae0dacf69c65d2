"""Calls of the native module whose arguments bytes choose: mostly right ones, some of another kind, size or layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpulstm.arrays import native

NUMBERS: list[Any] = [0, -1, 1, 2, 7, 1025, 2**16, 2**31 - 1, 2**31, 2**40, 2**63 - 1, -(2**63), 2**64, 1.5, None, "x"]
REFUSED = (TypeError, ValueError, MemoryError)  # what a call may end with: the arguments are refused
RARE = 24  # one argument in so many is another one


class Arguments:
    """Arguments of one call, chosen by bytes; those of one name have one value.

    Args:
        data: a byte is a choice; where none is left the first is taken.
    """

    def __init__(self, data: bytes) -> None:
        self._data = iter(data)
        self.dtype = np.dtype(("float32", "float64")[self.choose(2)])
        self.ending = "float" if self.dtype == np.float32 else "double"

    def choose(self, count: int) -> int:
        """A number below `count`."""
        return next(self._data, 0) % count

    def odd(self) -> bool:
        """Whether the next argument is another one than fits."""
        return self.choose(RARE) == RARE - 1

    def number(self, value: Any) -> Any:
        """A number that fits, or not."""
        return NUMBERS[self.choose(len(NUMBERS))] if self.odd() else value

    def few(self, count: int) -> int:
        """How many of something, or one more."""
        return count + self.odd()

    def array(self, *shape: int, dtype: Any = None, may_miss: bool = False) -> Any:
        """An array that fits, or not; None for one that may be missing."""
        if may_miss and self.choose(3) == 2:
            return None
        array = np.full(shape, 0.25).astype(dtype or self.dtype)
        return self._other(array) if self.odd() else array

    def lengths(self, steps: int, rows: int) -> Any:
        """Lengths of rows, or numbers that are none."""
        array = self.array(rows, dtype=np.int64, may_miss=True)
        if isinstance(array, np.ndarray) and array.dtype == np.int64 and array.flags.writeable:
            array[...] = [steps, 1, 0, -1, steps + 1, 2**62, -(2**63)][self.choose(7)]
        return array

    def _other(self, array: np.ndarray) -> Any:
        kind = self.choose(12)
        if kind == 0:
            return array.astype(("float16", "float32", "float64", "int64", "bool", "complex64", "O")[self.choose(7)])
        if kind == 1:
            grown = [extent + (axis == 0) for axis, extent in enumerate(array.shape)]
            return np.zeros(grown, array.dtype)
        if kind == 2:
            return array[:0]
        if kind == 3:
            return array.T
        if kind == 4:
            return np.repeat(array, 2, -1)[..., ::2]
        if kind == 5:
            return array[::-1]
        if kind == 6:
            return np.broadcast_to(array.dtype.type(1), array.shape)
        if kind == 7:
            array.flags.writeable = False
            return array
        if kind == 8:
            return array[None]
        if kind == 9:
            held = np.zeros(array.nbytes + 1, np.uint8)
            return held[1:].view(array.dtype).reshape(array.shape)  # its elements lie at odd addresses
        if kind == 10:
            array[...] = (np.nan if array.dtype.kind == "f" else 0) if self.choose(2) else 1
            return array
        return (None, 3, "x", [], array.tolist())[self.choose(5)]


def call(data: bytes) -> str:
    """Make one call; an exception that is none of `REFUSED` is a fault, and so is what ends the process.

    Returns:
        the name of the exception that refused it, empty where there was none.
    """
    module, draw = native.load(), Arguments(data)
    assert module is not None
    makers = [_layer, _gradient, _stack, _stream, _options, _step, _loss, _sizes, _keep]
    caches = module.caches()[:3]
    try:
        for _ in makers[draw.choose(len(makers))](module, draw):
            pass
    except REFUSED as error:
        return type(error).__name__
    finally:
        module.give_caches(*caches)
    return ""


def _extents(draw: Arguments) -> tuple[int, int, int, int, int, int]:
    cell = draw.choose(4)
    steps, rows, inputs, hidden = (1 + draw.choose(5) for _ in range(4))
    return cell, steps, rows, inputs, hidden, (4, 3, 1, 1)[cell] * hidden


def _layer(module: Any, draw: Arguments) -> Iterator[None]:
    cell, steps, rows, inputs, hidden, row = _extents(draw)
    width, padded = module.saved_sizes(cell, hidden, draw.ending == "double")
    keeps, memory = draw.choose(2), draw.array(rows, hidden) if not cell else None
    getattr(module, f"forward_{draw.ending}")(
        *(draw.number(cell), bool(draw.choose(2)), draw.array(steps, rows, inputs)),
        *(draw.array(inputs, row), draw.array(hidden, row), draw.array(row, may_miss=True)),
        *(draw.array(hidden, may_miss=True), draw.array(rows, hidden), memory),
        *(draw.array(rows, hidden, may_miss=True), draw.lengths(steps, rows), draw.array(steps, rows, hidden)),
        *(draw.array(rows, hidden), memory),
        *((draw.array(steps, rows, width), draw.array(steps, rows, padded)) if keeps else (None, None)),
        *(draw.number(2), draw.number(draw.choose(3)), draw.number(draw.choose(3))),
    )
    yield


def _gradient(module: Any, draw: Arguments) -> Iterator[None]:
    cell, steps, rows, inputs, hidden, row = _extents(draw)
    width, padded = module.saved_sizes(cell, hidden, draw.ending == "double")
    memory = draw.array(rows, hidden) if not cell else None
    getattr(module, f"backward_{draw.ending}")(
        *(draw.number(cell), bool(draw.choose(2)), draw.array(steps, rows, inputs), draw.array(inputs, row)),
        *(draw.array(hidden, row), draw.array(rows, hidden), memory, draw.array(rows, hidden, may_miss=True)),
        *(draw.lengths(steps, rows), draw.array(steps, rows, hidden)),
        *(draw.array(steps, rows, width, may_miss=cell > 1), draw.array(steps, rows, padded, may_miss=cell > 0)),
        *(draw.array(steps, rows, hidden), draw.array(rows, hidden), memory, draw.array(steps, rows, inputs)),
        *(draw.array(rows, hidden), memory, draw.array(inputs, row), draw.array(hidden, row)),
        *(draw.array(row, may_miss=True), draw.array(hidden, may_miss=True), draw.number(2)),
        draw.number(draw.choose(3)),
    )
    yield


def _weights(draw: Arguments, inputs: int, hidden: int, row: int) -> list[list[Any]]:
    layers = draw.choose(4)
    first = [draw.array(hidden if layer else inputs, row) for layer in range(layers)]
    return [
        first,
        [draw.array(hidden, row) for _ in range(layers)],
        [draw.array(row) for _ in range(layers * draw.choose(2))],
        [draw.array(hidden) for _ in range(layers * draw.choose(2))],
    ]


def _stack(module: Any, draw: Arguments) -> Iterator[None]:
    cell, steps, rows, inputs, hidden, row = _extents(draw)
    weights = _weights(draw, inputs, hidden, row)
    kind = module.StackFloat if draw.ending == "float" else module.StackDouble
    sizes = draw.number(inputs), draw.number(hidden)
    stack = kind(draw.number(cell), *sizes, *weights, draw.number(draw.choose(3)))
    yield
    states = [draw.array(len(weights[0]), rows, hidden) for _ in range(4)]
    stack.forward(
        *(draw.array(steps, rows, inputs), states[0] if draw.choose(2) else None, states[1] if not cell else None),
        *(draw.lengths(steps, rows), draw.array(steps, rows, hidden), states[2], states[3] if not cell else None),
        draw.number(2),
    )


def _stream(module: Any, draw: Arguments) -> Iterator[None]:
    cell, _, rows, inputs, hidden, row = _extents(draw)
    weights = _weights(draw, inputs, hidden, row)
    make = module.StreamFloat if draw.ending == "float" else module.StreamDouble
    sizes = draw.number(rows), draw.number(inputs), draw.number(hidden)
    stream = make(draw.number(cell), *sizes, *weights, draw.number(2), draw.number(draw.choose(3)))
    for name in ("write", "read"):
        states = [draw.array(len(weights[0]), rows, hidden), draw.array(len(weights[0]), rows, hidden)]
        getattr(stream, name)(states[0], None if cell else states[1])
        stream.step(draw.array(rows, inputs), draw.array(rows, hidden))
        yield


def _options(module: Any, draw: Arguments) -> Iterator[None]:
    cell, steps, rows, inputs, hidden, _ = _extents(draw)
    cell, kind = min(cell, 2), module.VariantFloat if draw.ending == "float" else module.VariantDouble
    coupled, normed, has_projection, reset_before, has_peepholes = (draw.choose(4) == 3 for _ in range(5))
    of_memory = [None if cell and not draw.odd() else draw.array(hidden) for _ in range(4)]
    row = ((3 if coupled else 4), 3, 1)[cell] * hidden
    outputs = 1 + draw.choose(5) if has_projection else hidden
    peepholes = (2 if coupled else 3) * hidden
    activations = [(draw.number(draw.choose(10)), draw.number(0.5), draw.number(0.5)) for _ in range(draw.few(3))]
    options = kind(
        *(draw.number(cell), draw.number(hidden), draw.number(outputs), coupled, reset_before, activations),
        *(draw.number(0.0), draw.number(1e-5), draw.array(peepholes) if has_peepholes else None),
        draw.array(hidden, outputs) if has_projection else None,
        *((draw.array(row), draw.array(row), *of_memory[:2]) if normed else (None,) * 4),
    )
    options.saved_row()
    options.room(draw.number(steps), draw.number(rows), draw.number(inputs), draw.number(2))
    masks = [draw.array(steps, rows, size, dtype=bool, may_miss=True) for size in (outputs, hidden)]
    options.zoneout(draw.number(0.1), draw.number(0.1), *masks, draw.number(steps), draw.number(rows))
    yield
    memory = draw.array(rows, hidden) if not cell else None
    saved = draw.array(steps, rows, options.saved_row())
    shared = (
        bool(draw.choose(2)),
        draw.array(steps, rows, inputs),
        draw.array(inputs, row),
        draw.array(outputs, row),
    )
    options.forward(
        *(*shared, draw.array(row, may_miss=True), draw.array(hidden, may_miss=True), draw.array(rows, outputs)),
        *(memory, draw.array(rows, outputs, may_miss=True), draw.lengths(steps, rows)),
        *(draw.array(steps, rows, outputs), draw.array(rows, outputs), memory, saved, draw.number(2)),
    )
    yield
    options.backward(
        *(*shared, draw.array(rows, outputs), memory, draw.array(rows, outputs, may_miss=True)),
        *(draw.lengths(steps, rows), draw.array(steps, rows, outputs), saved, draw.array(steps, rows, outputs)),
        *(draw.array(rows, outputs), memory, draw.array(steps, rows, inputs), draw.array(rows, outputs), memory),
        *(draw.array(inputs, row), draw.array(outputs, row), draw.array(row, may_miss=True)),
        *(draw.array(hidden, may_miss=True), draw.array(peepholes, may_miss=True)),
        draw.array(hidden, outputs) if has_projection else None,
        *((draw.array(row), draw.array(row), *of_memory[2:]) if normed else (None,) * 4),
        draw.number(2),
    )
    yield
    options.zoneout(0.1, 0.1, None, None, 1, rows)
    make = module.variant_stream_float if draw.ending == "float" else module.variant_stream_double
    layers = [options] * draw.few(1)
    stream = make(
        *(layers, draw.number(rows), draw.number(inputs), [draw.array(inputs, row)], [draw.array(outputs, row)]),
        *([draw.array(row)] if draw.choose(2) else [], [draw.array(hidden)] if draw.choose(2) else []),
        draw.number(2),
    )
    stream.write(draw.array(1, rows, outputs), draw.array(1, rows, hidden) if not cell else None)
    stream.step(draw.array(rows, inputs), draw.array(rows, outputs))


def _step(module: Any, draw: Arguments) -> Iterator[None]:
    names = ("sgd", "adam", "rmsprop", "adagrad", "adadelta", "nadam", "x")
    size = draw.choose(40)
    moments = [draw.array(size, may_miss=True) for _ in range(draw.few(draw.choose(5)))]
    numbers = [draw.number(0.5) for _ in range(draw.few(draw.choose(10)))]
    getattr(module, f"step_{draw.ending}")(
        *(names[draw.choose(len(names))], draw.array(size), draw.array(size), moments, draw.number(1.0), numbers),
        draw.number(2),
    )
    getattr(module, f"squares_{draw.ending}")(draw.array(size), draw.number(2))
    yield


def _loss(module: Any, draw: Arguments) -> Iterator[None]:
    name = ("mse", "mae", "huber", "gaussian", "pinball", "softmax", "x")[draw.choose(7)]
    count, outputs = draw.choose(5), {"gaussian": 2, "pinball": 3, "softmax": 4}.get(name, 1)
    options = [draw.number(0.5) for _ in range({"huber": 1, "gaussian": 1, "pinball": 6}.get(name, 0))]
    getattr(module, f"loss_{draw.ending}")(
        *(name, draw.array(count * outputs), draw.array(count), draw.array(count, may_miss=True)),
        *(draw.array(count * outputs), options),
    )
    yield


def _sizes(module: Any, draw: Arguments) -> Iterator[None]:
    is_double = bool(draw.choose(2))
    kind = draw.choose(4)
    if kind == 0:
        width, padded = module.saved_sizes(draw.number(0), draw.number(5), is_double)
        assert width >= padded >= 1
    elif kind == 1:
        sizes = [draw.number(5) for _ in range(4)]
        assert module.working_room(draw.number(0), *sizes, is_double, draw.number(2)) < 2**63
    elif kind == 2:
        make = module.empty_double if is_double else module.empty_float
        shape = [draw.number(3) for _ in range(draw.choose(5))]
        array = make(shape)
        assert array.size < 2**20
        array[...] = 0
    else:
        module.give_caches(draw.number(2**15), draw.number(2**19), draw.number(2**25))
        yield from _layer(module, draw)


def _keep(module: Any, draw: Arguments) -> Iterator[None]:
    kept = draw.array(1 + draw.choose(4), 3, dtype=bool)
    module.keep(kept, *(draw.number(1) for _ in range(6)), draw.number(2), draw.number(0))
    yield
