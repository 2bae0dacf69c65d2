"""Learned vectors of categories: row `code` of a table (Bengio et al. 2003, JMLR 3, section 2; for the categories of
tables Guo & Berkhahn 2016, arXiv:1604.06737)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpulstm import validate
from gpulstm.arrays import dtypes
from gpulstm.arrays.backend import Array, Backend
from gpulstm.arrays.devices import resolve
from gpulstm.arrays.gemm import Products, matmul
from gpulstm.arrays.params import ParamDict
from gpulstm.errors import DTypeError, ShapeError
from gpulstm.model.initializers import embedding_values

_BLOCK = 1 << 22  # elements of a one-hot matrix that are held at once


@dataclass(frozen=True)
class Category:
    """A column of a network's input that holds the codes of a category.

    Args:
        column: its position in x.
        count: V, how many values the category has.
        size: E, numbers that stand for each of them.
        future: its position among the covariates that are known for the horizon, or None.
    """

    column: int
    count: int
    size: int
    future: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("column", 0), ("count", 1), ("size", 1)):
            validate.count(name, getattr(self, name), at_least=least)
        if self.future is not None:
            validate.count("future", self.future, at_least=0)


class Embedding:
    """y = W[code]: a vector of learned numbers for each value of a category.

    A code below 0, or of V and more, stands for no known value: its vector is zero, and nothing is learned from it.

    Args:
        count: V, how many values there are.
        size: E, numbers for each of them.
        dtype: "float32", "float64", or, on CUDA, "float16" or "bfloat16".
        device: "auto", "cpu", "cuda" or "cuda:N".
        seed: of the initial values, normal with deviation 1 / sqrt(E).
        params: a view with `W (V, E)` into a larger buffer; None allocates it.
        initial: draw initial values; False leaves `params` as they are.

    Attributes:
        params: the `ParamDict` with `W (V, E)`; `params.host()` gives its arrays, `params.load(...)` takes them back.

    Raises:
        ConfigError: a count below 1, or a seed below 0.
        DTypeError: a dtype that the device has not.
    """

    def __init__(
        self,
        count: int,
        size: int,
        *,
        dtype: Any = "float32",
        device: str | Backend = "auto",
        seed: int = 0,
        params: ParamDict | None = None,
        initial: bool = True,
    ) -> None:
        self.count, self.size = validate.count("count", count), validate.count("size", size)
        seed = validate.seed(seed)
        if params is None:
            backend, name = resolve(device), dtypes.dtype_of(dtype).name
            dtypes.check(name, backend.device, backend.capability)
            params = ParamDict.allocate(backend, self.shapes(count, size), name)
        self.params = params
        if initial:
            params.load(embedding_values(count, size, seed))

    def __repr__(self) -> str:
        return f"Embedding({self.count}, {self.size})"

    @staticmethod
    def shapes(count: int, size: int) -> dict[str, tuple[int, ...]]:
        """Parameter shapes by name."""
        return {"W": (count, size)}

    def forward(self, codes: Any) -> Array:
        """Codes of any shape `(...)` -> y `(..., E)`.

        Raises:
            DTypeError: the codes are no whole numbers.
        """
        backend = self.params.backend
        with backend.activate():
            return self.look_up(self._codes(codes))

    __call__ = forward

    def backward(self, codes: Any, dy: Any, grads: ParamDict | None = None) -> ParamDict:
        """The gradient of W from the codes `(...)` and dy `(..., E)`.

        Args:
            grads: added to; new zeros if None.

        Returns:
            `grads`, named as `params`.

        Raises:
            ShapeError: dy has another shape.
        """
        backend, grads = self.params.backend, self.params.like() if grads is None else grads
        with backend.activate():
            codes = self._codes(codes)
            dy = backend.asarray(dy, self.params["W"].dtype, name="dy")
            if dy.shape != (*codes.shape, self.size):
                raise ShapeError(f"dy has shape {dy.shape}, expected {(*codes.shape, self.size)}, the shape of y")
            self.add_gradient(codes, dy, grads)
        return grads

    def look_up(self, codes: Array) -> Array:
        """`forward` on the device, for whole numbers of the device."""
        xp, table = self.params.backend.xp, self.params["W"]
        known = (codes >= 0) & (codes < self.count)
        return xp.take(table, xp.where(known, codes, 0), axis=0) * known[..., None].astype(table.dtype)

    def add_gradient(self, codes: Array, dy: Array, grads: ParamDict, products: Products = "cublas") -> None:
        """`backward` on the device; in the same order of sums at each call, so the same bits."""
        backend = self.params.backend
        codes, dy = codes.reshape(-1), dy.reshape(-1, self.size)
        if not backend.is_cuda:
            known = (codes >= 0) & (codes < self.count)
            np.add.at(grads["W"], codes[known], dy[known])
            return
        values = backend.xp.arange(self.count)
        rows = max(1, _BLOCK // self.count)
        for start in range(0, len(codes), rows):
            part = slice(start, start + rows)
            flags = (codes[part, None] == values[None, :]).astype(dy.dtype)
            grads["W"] += matmul(backend, flags, backend.xp.ascontiguousarray(dy[part]), products, transa=True)

    def _codes(self, codes: Any) -> Array:
        codes = self.params.backend.asarray(codes, name="codes")
        if codes.dtype.kind not in "iu":
            raise DTypeError(f"codes have dtype {codes.dtype}, expected whole numbers")
        return codes.astype("int64")


class Categories:
    """The columns of codes of a network's input, and what takes their place: all of them at the end of x.

    Args:
        columns: where the codes are.
        params: with `{i}.W` for each of them.
        seed, initial: as of `Embedding`.
    """

    def __init__(self, columns: Sequence[Category], params: ParamDict, seed: int, initial: bool) -> None:
        self.columns = columns
        self.tables = [
            Embedding(one.count, one.size, seed=seed + number, params=params.sub(f"{number}."), initial=initial)
            for number, one in enumerate(columns)
        ]

    @staticmethod
    def shapes(columns: Sequence[Category]) -> dict[str, tuple[int, ...]]:
        """Parameter shapes by name."""
        return {
            f"{number}.{name}": shape
            for number, one in enumerate(columns)
            for name, shape in Embedding.shapes(one.count, one.size).items()
        }

    def replace(self, values: Array, ahead: bool, dtype: Any) -> tuple[Array, list[Array]]:
        """Values `(..., I)` with vectors after the other columns instead of codes, and the codes, one `(...)` a table.

        Args:
            ahead: whether they are covariates of the horizon, and not x.
        """
        xp = self.tables[0].params.backend.xp
        places = [one.future if ahead else one.column for one in self.columns]
        others = [column for column in range(values.shape[-1]) if column not in places]
        codes = [values[..., column].astype("int64") for column in places if column is not None]
        tables = [table for table, column in zip(self.tables, places, strict=True) if column is not None]
        vectors = [table.look_up(own).astype(dtype) for table, own in zip(tables, codes, strict=True)]
        rest = [values[..., column : column + 1].astype(dtype) for column in others]
        return xp.concatenate([*rest, *vectors], axis=-1), codes

    def add_gradients(
        self, codes: Sequence[Array], dvalues: Array, ahead: bool, grads: ParamDict, products: Products
    ) -> None:
        """Add what the gradient of `replace`'s values says about the tables."""
        tables = [
            (number, table)
            for number, (one, table) in enumerate(zip(self.columns, self.tables, strict=True))
            if not ahead or one.future is not None
        ]
        stop = dvalues.shape[-1]
        for (number, table), codes_of in zip(reversed(tables), reversed(codes), strict=True):
            part, stop = dvalues[..., stop - table.size : stop], stop - table.size
            table.add_gradient(codes_of, part, grads.sub(f"{number}."), products)
