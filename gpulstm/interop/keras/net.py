"""A chain of Keras layers run on this library's engines, with Keras's own rules for masks, directions and merging.

Inference only.  Where every layer has an equal among this library's own, `KerasNet.trainable` gives those instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gpulstm.arrays.backend import Array, Backend
from gpulstm.engines.spec import State
from gpulstm.errors import InteropError, ShapeError
from gpulstm.interop.direction import Direction

States = list[tuple[Array, ...]]


@dataclass
class Signal:
    """What goes from layer to layer: values `(T, B, I)` or `(B, I)`, and Keras's mask `(T, B)` where there is one."""

    x: Array
    mask: Array | None


class Step:
    """A layer without state: a function of the values, which hands the mask on or drops it."""

    def __init__(self, name: str, function: Callable[[Any, Array], Array], *, keeps_mask: bool = True) -> None:
        self.name, self.function, self.keeps_mask = name, function, keeps_mask

    def __call__(self, backend: Backend, signal: Signal) -> Signal:
        """The layer's result."""
        return Signal(self.function(backend.xp, signal.x), signal.mask if self.keeps_mask else None)


class Masking(Step):
    """Keras's Masking: a step whose features all have one value is masked, and zero."""

    def __init__(self, name: str, value: float) -> None:
        self.name, self.value = name, value

    def __call__(self, backend: Backend, signal: Signal) -> Signal:
        """The values, zero where masked, with a mask."""
        mask = (signal.x != self.value).any(axis=-1)
        return Signal(signal.x * mask[..., None], mask)


class Layer:
    """A recurrent layer of Keras: one direction, or two with a way to merge them.

    Args:
        name: for messages.
        directions: one, or the forward and the backward one of a Bidirectional.
        merge: "concat", "sum", "mul" or "ave"; None for a layer of one direction.
        sequences: give every step, not the last alone.
        zero: masked steps give zeros; otherwise what the step before (in the order of reading) gave.
    """

    def __init__(
        self, name: str, directions: Sequence[Direction], merge: str | None, sequences: bool, zero: Sequence[bool]
    ) -> None:
        self.name, self.directions, self.merge, self.sequences = name, list(directions), merge, sequences
        self.zero = list(zero)

    @property
    def state_count(self) -> int:
        """Arrays in the state: h, or h and c, for each direction."""
        return sum(2 if direction.spec.has_memory else 1 for direction in self.directions)

    def __call__(
        self, backend: Backend, signal: Signal, state: tuple[Array, ...] | None
    ) -> tuple[Signal, tuple[Array, ...]]:
        """The layer's result and the state after the last step."""
        xp, x = backend.xp, signal.x
        if x.ndim != 3 or x.shape[2] != self.directions[0].spec.input_size:
            size = self.directions[0].spec.input_size
            raise ShapeError(f"the {self.name} is given shape {tuple(x.shape)}, expected (T, B, {size})")
        parts, ends = [], []
        left = None if state is None else list(state)
        for direction, zero in zip(self.directions, self.zero, strict=True):
            start = None
            if left is not None:
                start = State(left.pop(0), left.pop(0) if direction.spec.has_memory else None)
            y, end = self._run(xp, direction, x, start, signal.mask, zero)
            parts.append(y)
            ends += [end.h] if end.c is None else [end.h, end.c]
        if self.merge is None:
            y = parts[0]
            if self.sequences and self.directions[0].reverse:
                y = xp.flip(y, axis=0)  # go_backwards gives its results in the order of reading
        else:
            y = self._merged(xp, *parts)
        return Signal(y, signal.mask if self.sequences else None), tuple(ends)

    def _merged(self, xp: Any, forward: Array, backward: Array) -> Array:
        if self.merge == "concat":
            return xp.concatenate([forward, backward], axis=-1)
        if self.merge == "mul":
            return forward * backward
        return forward + backward if self.merge == "sum" else (forward + backward) / 2

    def _run(
        self, xp: Any, direction: Direction, x: Array, start: State | None, mask: Array | None, zero: bool
    ) -> tuple[Array, State]:
        """One direction: every step in the order of time, or the last step that is read."""
        if mask is None:
            y, end = direction.run(xp.ascontiguousarray(x), start)
            if self.sequences:
                return y, end
            return (y[0 if direction.reverse else -1] if x.shape[0] else end.h), end
        # The steps that count, moved to the front of each row, are a batch with lengths.
        steps, count = mask.shape[0], mask.astype("int64")
        numbers = xp.arange(steps)[:, None]
        order = xp.argsort(xp.where(mask, numbers, numbers + steps), axis=0)
        lengths = count.sum(axis=0)
        packed, end = direction.run(xp.take_along_axis(x, order[:, :, None], axis=0), start, lengths)
        seen = xp.cumsum(count, axis=0)
        if zero:
            source, valid = seen - 1, mask
        elif direction.reverse:  # the step read before is the next one in time
            source = seen - count
            valid = source < lengths[None, :]
        else:
            source, valid = seen - 1, seen > 0
        source = xp.clip(source, 0, steps - 1)
        y = xp.where(valid[:, :, None], xp.take_along_axis(packed, source[:, :, None], axis=0), xp.zeros((), x.dtype))
        return (y if self.sequences else y[0 if direction.reverse else -1]), end


class KerasNet:
    """A chain of Keras layers; made by `from_keras`.

    Attributes:
        layers: what is run, in order.
        backend: array library and device.
        dtype: of weights and values.
    """

    def __init__(
        self, layers: Sequence[Step | Layer], backend: Backend, dtype: str, trainable: Callable[..., Any]
    ) -> None:
        self.layers, self.backend, self.dtype = list(layers), backend, dtype
        self._trainable = trainable

    def __repr__(self) -> str:
        return f"KerasNet({' -> '.join(layer.name for layer in self.layers)}, device={self.backend.device!r})"

    @property
    def recurrent(self) -> list[Layer]:
        """The recurrent layers, in order; `state` has an entry for each."""
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def __call__(self, x: Any, state: States | None = None, mask: Any = None) -> tuple[Array, States]:
        """Run the layers.

        Args:
            x: `(T, B, I)` (Keras: `(B, T, I)`), real numbers on this device.
            state: what an earlier call returned, to go on from there; zeros if None.  This is Keras's `stateful=True`.
            mask: `(T, B)`, true where a step counts, in any pattern; a Masking layer makes its own.

        Returns:
            The last layer's result, `(T, B, O)` or `(B, O)`; and the state of each recurrent layer, in Keras's order:
            h or (h, c), a Bidirectional's forward ones before the backward ones, each `(B, H)`.

        Raises:
            ShapeError, DTypeError, DeviceError: one sentence each.
        """
        backend = self.backend
        x = backend.asarray(x, self.dtype, name="x")
        if x.ndim != 3:
            raise ShapeError(f"x has shape {tuple(x.shape)}, expected (T, B, I)")
        if mask is not None:
            mask = mask if backend.owns(mask) else backend.from_host(mask)
            mask = mask.astype(bool)
            if mask.shape != x.shape[:2]:
                raise ShapeError(
                    f"mask has shape {tuple(mask.shape)}, expected {tuple(x.shape[:2])}, steps and rows of x"
                )
        starts = self._states(state, x.shape[1])
        signal = Signal(x, mask)
        ends: States = []
        with backend.activate():
            for layer in self.layers:
                if isinstance(layer, Layer):
                    signal, end = layer(backend, signal, starts[len(ends)])
                    ends.append(end)
                else:
                    signal = layer(backend, signal)
        return signal.x, ends

    def _states(self, state: States | None, batch: int) -> list[Any]:
        layers = self.recurrent
        if state is None:
            return [None] * len(layers)
        if len(state) != len(layers):
            raise ShapeError(f"state has {len(state)} entries, expected {len(layers)}, one for each recurrent layer")
        checked = []
        for layer, entry in zip(layers, state, strict=True):
            shape = (batch, layer.directions[0].spec.hidden_size)
            parts = [self.backend.asarray(part, self.dtype, name=f"state of the {layer.name}") for part in entry]
            if len(parts) != layer.state_count or any(part.shape != shape for part in parts):
                shapes = [tuple(part.shape) for part in parts]
                raise ShapeError(f"state of the {layer.name} has {shapes}, expected {layer.state_count} of {shape}")
            checked.append(tuple(parts))
        return checked

    def trainable(self, shape: tuple[int, int, int] | None = None) -> Any:
        """The same as a `Recurrent` stack, or with a dense layer at the end a `Network`, for training and export.

        Args:
            shape: (horizon, targets, P) of the network's result; None: (outputs of the dense layer, 1, 1).

        Raises:
            InteropError: the chain has no equal: layers of different cells, sizes or options, results merged other than
                by concatenation, masks, a dense layer that is not linear or reads every step.
        """
        return self._trainable(shape)


def no_equal(reason: str) -> InteropError:
    """The error for a chain that is neither a stack nor a network."""
    return InteropError(f"the Keras model has no equal that can be trained here: {reason}")
