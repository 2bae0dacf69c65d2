"""Named arrays in one flat buffer: parameters, their gradients and an optimizer's moments all have this form.

An optimizer step, a gradient norm or an all-reduce is then one call on `flat`, whatever the model looks like, while
everything else reads and writes `params["W_h_l0"]`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gpulstm.arrays.backend import Array, Backend, foreign_device
from gpulstm.arrays.devices import resolve
from gpulstm.errors import ConfigError, ShapeError

MOST = 2**56  # numbers in one buffer: their bytes can still be counted in 64 bits
ALIGNMENT = 64  # bytes: each view starts on a cache line, so vector loads of any engine are aligned

Shapes = Mapping[str, tuple[int, ...]]


class ParamDict(dict[str, Any]):
    """A dict of arrays that are views into one flat buffer.

    Assigning to a name copies the values into its view (shape, dtype and device checked), so the views never come apart
    from the buffer; names cannot be added or removed.  The gaps that alignment leaves in `flat` are zero and stay zero
    under every optimizer.

    Attributes:
        flat: `(size,)` array over which all views lie.
        backend: where it lives.
    """

    def __init__(self, backend: Backend, flat: Array, offsets: Mapping[str, int], shapes: Shapes) -> None:
        super().__init__()
        self.backend = backend
        self.flat = flat
        self.shapes = dict(shapes)
        self._offsets = dict(offsets)
        self._part_of: tuple[ParamDict, str] | None = None  # what `sub` made it from
        for name, shape in self.shapes.items():
            start = self._offsets[name]
            super().__setitem__(name, flat[start : start + math.prod(shape)].reshape(shape))

    @classmethod
    def allocate(cls, backend: Backend, shapes: Shapes, dtype: Any) -> ParamDict:
        """Zeros for all names of `shapes`, in their order, each view aligned to 64 bytes.

        Raises:
            ConfigError: no machine could address so many.
        """
        step = max(1, ALIGNMENT // backend.xp.dtype(dtype).itemsize)
        offsets, size = {}, 0
        for name, shape in shapes.items():
            offsets[name] = size
            size += -(-math.prod(shape) // step) * step
        if size >= MOST:
            raise ConfigError(f"a model of these sizes has more than {MOST} parameters, which no machine holds")
        return cls(backend, backend.zeros((size,), dtype), offsets, shapes)

    def like(self, dtype: Any = None) -> ParamDict:
        """Zeros with the same names and shapes, for gradients or moments."""
        return self.over(self.backend.zeros(self.flat.shape, self.flat.dtype if dtype is None else dtype))

    def over(self, flat: Array) -> ParamDict:
        """The same names and shapes as views into another flat buffer of this size."""
        return ParamDict(self.backend, flat, self._offsets, self.shapes)

    def sub(self, prefix: str) -> ParamDict:
        """The entries whose names begin with `prefix`, under the rest of their names, over the same memory.

        The entries must have been allocated one after another, as those of one layer are.
        """
        names = [name for name in self.shapes if name.startswith(prefix)]
        if not names:
            return ParamDict(self.backend, self.flat[:0], {}, {})
        start = self._offsets[names[0]]
        after = [offset for offset in self._offsets.values() if offset > self._offsets[names[-1]]]
        stop = min(after, default=self.flat.shape[0])
        cut = len(prefix)
        part = ParamDict(
            self.backend,
            self.flat[start:stop],
            {name[cut:]: self._offsets[name] - start for name in names},
            {name[cut:]: self.shapes[name] for name in names},
        )
        part._part_of = self, prefix
        return part

    def __reduce__(self) -> tuple[Any, ...]:
        """How `copy` and `pickle` make another one: views of the new buffer; a part stays one of the copied whole."""
        if self._part_of is not None:
            return ParamDict.sub, self._part_of
        return ParamDict, (self.backend, self.flat, self._offsets, self.shapes)

    @property
    def count(self) -> int:
        """How many numbers the named arrays hold, the gaps of alignment left out."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def load(self, values: Mapping[str, Any]) -> None:
        """Copy host or device arrays into all views; nothing is written unless names and shapes all fit.

        Raises:
            ShapeError: a name is missing or unknown, or a shape differs.
            DTypeError: a value holds no real numbers.
            DeviceError: a value lives on another CUDA device.
        """
        missing, unknown = sorted(self.keys() - values.keys()), sorted(values.keys() - self.keys())
        if missing or unknown:
            raise ShapeError(f"parameters do not fit: missing {missing or 'none'}, unknown {unknown or 'none'}")
        checked = {name: self._checked(name, value) for name, value in values.items()}
        for name, value in checked.items():
            self[name] = value

    def host(self) -> dict[str, Any]:
        """A copy of every array on the host, by name."""
        return {name: self.backend.to_host(value).copy() for name, value in self.items()}

    def _checked(self, name: str, value: Any) -> Any:
        """`value` as an array of this backend or of the host."""
        if name not in self.shapes:
            raise ShapeError(f"parameter {name!r} is unknown; there are: {', '.join(self.shapes)}")
        shape = tuple(getattr(value, "shape", ()))
        if shape != self.shapes[name]:
            raise ShapeError(f"parameter {name!r} has shape {shape}, expected {self.shapes[name]}")
        source = self.backend if foreign_device(value) else resolve("cpu")
        return source.asarray(value, name=f"parameter {name!r}")

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self.shapes and value is self[name]:  # what `params[name] += change` assigns
            return
        value, view = self._checked(name, value), self[name]
        with self.backend.activate():
            view[...] = value if self.backend.owns(value) else self.backend.from_host(value, dtype=view.dtype)

    def _fixed(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("the names of a ParamDict are fixed; assign to an existing name to change its values")

    __delitem__ = pop = popitem = clear = update = setdefault = __ior__ = _fixed
