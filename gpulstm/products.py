"""Matrix products on a CUDA device: cuBLAS, or this project's own kernel where cuBLAS is refused.

CuPy does not allow a cuBLAS call while a CUDA graph is recorded.  `own_kernels()` marks such a stretch of code; in it
every product goes through `kernels/cuda/gemm.cu`, elsewhere through cuBLAS.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from gpulstm.backend import Array, Backend, CupyBackend

TYPES = {"float16": ("__half", "float"), "float32": ("float", "float"), "float64": ("double", "double")}
TILES = ((4, 32, 64, 4, 1, 16), (8, 64, 32, 4, 1, 4), (32, 64, 16, 4, 1, 1), (64, 128, 16, 8, 2, 1))

_STATE = threading.local()


@contextlib.contextmanager
def own_kernels() -> Iterator[None]:
    """Within this context products of this thread use no cuBLAS."""
    before = uses_own_kernels()
    _STATE.own = True
    try:
        yield
    finally:
        _STATE.own = before


def uses_own_kernels() -> bool:
    """Whether the products of this thread go through this project's kernel."""
    return getattr(_STATE, "own", False)


def tile(shape: tuple[int, ...], dtype: str) -> str:
    """A tile's six numbers (`kernels/cuda/tile.cuh`) as a macro; in double a large tile is half as deep, to fit."""
    rows, columns, depth, *rest = shape
    if dtype == "float64" and (rows + columns) * depth > 2048:
        depth //= 2
    return ",".join(map(str, (rows, columns, depth, *rest)))


def threads(shape: tuple[int, ...]) -> int:
    """Threads of a block that computes such a tile."""
    rows, columns, _, per_row, groups, slices = shape
    return (rows // per_row) * (columns // (4 * groups)) * slices


def blocks(shape: tuple[int, ...], rows: int, columns: int) -> tuple[int, int]:
    """The grid that covers a product of `rows` x `columns`."""
    return -(-columns // shape[1]), -(-rows // shape[0])


def choose_tile(rows: int, columns: int, processors: int) -> tuple[int, ...]:
    """The largest tile that still gives every multiprocessor a block, else the smallest that is not mostly empty."""
    for shape in reversed(TILES[1:]):
        across, down = blocks(shape, rows, columns)
        if across * down >= processors:
            return shape
    return TILES[0] if rows <= TILES[0][0] else TILES[1]


def gemm(
    backend: Backend,
    a: Array,
    b: Array,
    out: Array,
    *,
    transa: bool = False,
    transb: bool = False,
    accumulate: bool = False,
) -> None:
    """out = op(a) op(b), or out += op(a) op(b), on C-contiguous matrices of one dtype."""
    cuda = cast(CupyBackend, backend)
    if not uses_own_kernels():
        cuda.gemm(a, b, out, transa=transa, transb=transb, accumulate=accumulate)
        return
    rows, columns = out.shape
    if not out.size:
        return
    inner = a.shape[0] if transa else a.shape[1]
    dtype = out.dtype.name
    shape = choose_tile(rows, columns, cuda.processors)
    kernel = gemm_kernel(cuda, dtype, shape, transa, transb)
    numbers = (rows, columns, inner, a.shape[1], b.shape[1], columns, int(accumulate))
    kernel(blocks(shape, rows, columns), (threads(shape),), (a, b, out, 0, *numbers))


def gemm_kernel(backend: CupyBackend, dtype: str, shape: tuple[int, ...], transa: bool, transb: bool) -> Any:
    """The compiled product for a dtype, a tile and two orders of storage."""
    storage, compute = TYPES[dtype]
    defines = (
        ("GL_T", storage),
        ("GL_R", compute),
        ("GL_SHAPE", tile(shape, dtype)),
        ("GL_TA", str(transa).lower()),
        ("GL_TB", str(transb).lower()),
    )
    return backend.module("cuda/gemm.cu", defines).get_function("gpulstm_gemm")


def matmul(backend: Backend, a: Array, b: Array, *, transa: bool = False, transb: bool = False) -> Array:
    """op(a) op(b) as a new matrix; on the CPU NumPy's product."""
    if not (backend.is_cuda and uses_own_kernels()):
        return (a.T if transa else a) @ (b.T if transb else b)
    xp = backend.xp
    rows, columns = a.shape[1 if transa else 0], b.shape[0 if transb else 1]
    out = xp.empty((rows, columns), a.dtype)
    gemm(backend, xp.ascontiguousarray(a), xp.ascontiguousarray(b), out, transa=transa, transb=transb)
    return out


def affine(backend: Backend, x: Array, w: Array, b: Array | None, out: Array) -> None:
    """out = x w + b over all time steps, x `(T, B, I)`; in float32 and float64 the product adds to b in place."""
    if not out.size:
        return
    rows, columns = out.shape[0] * out.shape[1], out.shape[2]
    flat_x, flat_out = x.reshape(rows, -1), out.reshape(rows, columns)
    if b is None:
        gemm(backend, flat_x, w, flat_out)
    elif uses_own_kernels():
        cuda = cast(CupyBackend, backend)
        shape = choose_tile(rows, columns, cuda.processors)
        kernel = gemm_kernel(cuda, out.dtype.name, shape, False, False)
        inner = flat_x.shape[1]
        numbers = (rows, columns, inner, inner, columns, columns, 0)
        kernel(blocks(shape, rows, columns), (threads(shape),), (flat_x, w, flat_out, b, *numbers))
    elif out.dtype == np.float16:
        gemm(backend, flat_x, w, flat_out)
        flat_out += b
    else:
        flat_out[...] = b
        gemm(backend, flat_x, w, flat_out, accumulate=True)
