"""Matrix products on a CUDA device: cuBLAS, or this project's own kernel where cuBLAS is refused.

CuPy does not allow a cuBLAS call while a CUDA graph is recorded.  `own_kernels()` marks such a stretch of code; in it
every product goes through `kernels/cuda/gemm.cu`, elsewhere through cuBLAS.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from gpulstm.arrays.backend import Array, Backend
from gpulstm.arrays.cupy_backend import CupyBackend

TYPES = {"float16": ("__half", "float"), "float32": ("float", "float"), "float64": ("double", "double")}
PARTIAL = {
    "float16": "float32",
    "float32": "float32",
    "float64": "float64",
}  # of a product that is split over its depth
STEP = 64  # a multiple of every tile's depth
LEAST_DEPTH = 256  # of a part: below, storing and adding parts costs more than blocks that have nothing to do
Tile = tuple[int, ...]
TENSOR_TILES: tuple[Tile, ...] = (
    (16, 64, 32, 1, 4),
    (32, 64, 32, 2, 2),
    (64, 128, 32, 2, 4),
)  # kernels/cuda/tensor.cuh
TILES: tuple[Tile, ...] = ((4, 32, 64, 4, 1, 16), (8, 64, 32, 4, 1, 4), (32, 64, 16, 4, 1, 1), (64, 128, 16, 8, 2, 1))

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


def tile(shape: Tile, dtype: str) -> tuple[tuple[str, str], ...]:
    """A tile as macros; where its numbers are large (float64, TF32) it is half as deep, to fit into shared memory."""
    rows, columns, depth, *rest = shape
    if (dtype == "float64" and (rows + columns) * depth > 2048) or (is_tensor(shape) and dtype == "float32"):
        depth //= 2
    numbers = ("GL_SHAPE", ",".join(map(str, (rows, columns, depth, *rest))))
    return (numbers, ("GL_TENSOR", "1")) if is_tensor(shape) else (numbers,)


def is_tensor(shape: Tile) -> bool:
    """Whether a tile is computed on tensor cores."""
    return len(shape) == 5


def threads(shape: Tile) -> int:
    """Threads of a block that computes such a tile."""
    if is_tensor(shape):
        return 32 * shape[3] * shape[4]
    rows, columns, _, per_row, groups, slices = shape
    return (rows // per_row) * (columns // (4 * groups)) * slices


def blocks(shape: Tile, rows: int, columns: int) -> tuple[int, int]:
    """The grid that covers a product of `rows` x `columns`."""
    return -(-columns // shape[1]), -(-rows // shape[0])


def wants_tensor(backend: CupyBackend, dtype: str) -> bool:
    """Whether products of a dtype go to tensor cores: float16 where there are some, float32 if CuPy is told so too.

    CUPY_TF32=1 asks CuPy's own products for TF32, which rounds the factors to 10 bits; it means the same here.
    """
    if dtype == "float16":
        return backend.capability >= 70
    return dtype == "float32" and os.environ.get("CUPY_TF32") == "1" and backend.capability >= 80


def efficiency(shape: Tile) -> float:
    """The share of a full multiprocessor's peak that a tile is expected to reach: what it loads feeds more sums."""
    if is_tensor(shape):
        return 0.15 if shape[0] < 32 else 0.2 if shape[0] < 64 else 0.3
    return {4: 0.25, 8: 0.3, 32: 0.45}.get(shape[0], 0.6)


def choose_tile(rows: int, columns: int, processors: int, tensor: bool = False) -> Tile:
    """The tile that is expected to finish first: as many waves of blocks as it needs, each as long as it is large.

    Of tiles that are equal the larger one is taken.
    """

    def time(shape: Tile) -> float:
        across, down = blocks(shape, rows, columns)
        return -(-across * down // processors) * shape[0] * shape[1] / efficiency(shape)

    return min(reversed(TENSOR_TILES if tensor else TILES), key=time)


def gemm(
    backend: Backend,
    a: Array,
    b: Array,
    out: Array,
    *,
    transa: bool = False,
    transb: bool = False,
    accumulate: bool = False,
    rows_of: int | None = None,
) -> None:
    """out = op(a) op(b), or out += op(a) op(b), on C-contiguous matrices of one dtype.

    `rows_of`: these are some rows of a product of so many, whose tile is taken: they get the bits of the whole product.
    """
    cuda = cast(CupyBackend, backend)
    if not uses_own_kernels():
        cuda.gemm(a, b, out, transa=transa, transb=transb, accumulate=accumulate)
        return
    rows, columns = out.shape
    if not out.size:
        return
    inner = a.shape[0] if transa else a.shape[1]
    dtype = out.dtype.name
    shape = choose_tile(rows_of or rows, columns, cuda.processors, wants_tensor(cuda, dtype))
    parts, depth = split(shape, rows, columns, inner, cuda.processors) if transa else (1, inner)
    if parts > 1:
        partial = cuda.empty((parts, rows, columns), PARTIAL[dtype])
        kernel = gemm_kernel(cuda, dtype, shape, transa, transb, "gpulstm_gemm_part")
        sizes = (rows, columns, inner, a.shape[1], b.shape[1], depth)
        kernel((*blocks(shape, rows, columns), parts), (threads(shape),), (a, b, partial, *sizes))
        kernel = gemm_kernel(cuda, dtype, shape, transa, transb, "gpulstm_gemm_sum")
        kernel((-(-out.size // 256),), (256,), (partial, out, out.size, parts, int(accumulate)))
        return
    kernel = gemm_kernel(cuda, dtype, shape, transa, transb)
    numbers = (rows, columns, inner, a.shape[1], b.shape[1], columns, int(accumulate))
    kernel(blocks(shape, rows, columns), (threads(shape),), (a, b, out, 0, *numbers))


def split(shape: Tile, rows: int, columns: int, inner: int, processors: int) -> tuple[int, int]:
    """(parts, depth of each) of a product, so that its blocks are about as many as the multiprocessors.

    A part is at least LEAST_DEPTH deep.  The same sizes give the same parts, and so the same bits.
    """
    across, down = blocks(shape, rows, columns)
    parts = max(1, min(processors // (across * down), inner // LEAST_DEPTH))
    depth = -(-inner // parts)
    depth = max(STEP, -(-depth // STEP) * STEP)
    return -(-inner // depth), depth


def gemm_kernel(
    backend: CupyBackend, dtype: str, shape: Tile, transa: bool, transb: bool, name: str = "gpulstm_gemm"
) -> Any:
    """The compiled kernel `name` of `kernels/cuda/gemm.cu` for a dtype, a tile and two orders of storage."""
    storage, compute = TYPES[dtype]
    defines = (
        ("GL_T", storage),
        ("GL_R", compute),
        *tile(shape, dtype),
        ("GL_TA", str(transa).lower()),
        ("GL_TB", str(transb).lower()),
        *((("GL_SPLIT", "1"),) if name != "gpulstm_gemm" else ()),
    )
    return backend.module("cuda/gemm.cu", defines).get_function(name)


def matmul(backend: Backend, a: Array, b: Array, *, transa: bool = False, transb: bool = False) -> Array:
    """op(a) op(b) as a new matrix; on the CPU NumPy's product."""
    if not (backend.is_cuda and uses_own_kernels()):
        return (a.T if transa else a) @ (b.T if transb else b)
    xp = backend.xp
    rows, columns = a.shape[1 if transa else 0], b.shape[0 if transb else 1]
    out = xp.empty((rows, columns), a.dtype)
    gemm(backend, xp.ascontiguousarray(a), xp.ascontiguousarray(b), out, transa=transa, transb=transb)
    return out


def affine(backend: Backend, x: Array, w: Array, b: Array | None, out: Array, rows_of: int | None = None) -> None:
    """out = x w + b over all time steps, x `(T, B, I)`; in float32 and float64 the product adds to b in place.

    `rows_of` as in `gemm`.
    """
    if not out.size:
        return
    rows, columns = out.shape[0] * out.shape[1], out.shape[2]
    flat_x, flat_out = x.reshape(rows, -1), out.reshape(rows, columns)
    if b is None:
        gemm(backend, flat_x, w, flat_out, rows_of=rows_of)
    elif uses_own_kernels():
        cuda = cast(CupyBackend, backend)
        shape = choose_tile(rows_of or rows, columns, cuda.processors, wants_tensor(cuda, out.dtype.name))
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
