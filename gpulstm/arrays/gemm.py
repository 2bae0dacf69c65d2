"""Matrix products on a CUDA device: cuBLAS, or this project's own kernel where cuBLAS is refused.

CuPy does not allow a cuBLAS call while a CUDA graph is recorded.  So what may be recorded takes every product by
`kernels/cuda/gemm.cu` (`products="own"`), and has the same bits when it is launched piece by piece.
"""

from __future__ import annotations

import math
from typing import Any, Literal, cast

from gpulstm.arrays.backend import Array, Backend
from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.dtypes import is_half

Products = Literal["cublas", "own"]
TYPES = {  # storage, and what is computed in
    "float16": ("__half", "float"),
    "bfloat16": ("__nv_bfloat16", "float"),
    "float32": ("float", "float"),
    "float64": ("double", "double"),
}
STEP = 64  # a multiple of every tile's depth
LEAST_DEPTH = 256  # of a part: below, storing and adding parts costs more than blocks that have nothing to do
FEW_ROWS_DEPTH = 96  # up to which plain tiles of few rows execute less than those of tensor cores
SIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}  # bytes of a number
Tile = tuple[int, ...]
TENSOR_TILES: tuple[Tile, ...] = (
    (16, 64, 64, 1, 4),
    (32, 64, 64, 2, 2),
    (64, 128, 32, 2, 4),
)  # kernels/cuda/tensor.cuh
TILES: tuple[Tile, ...] = ((4, 32, 64, 4, 1, 16), (8, 64, 32, 4, 1, 4), (32, 64, 16, 4, 1, 1), (64, 128, 16, 8, 2, 1))

MOST_DOWN = 65535  # blocks of a grid in its second dimension


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
    """Whether products of a dtype go to tensor cores: 16 bits where there are some, float32 if CuPy is told so too.

    CUPY_TF32=1 asks CuPy's own products for TF32, which rounds the factors to 10 bits; it means the same here.
    """
    return tensor_refusal(dtype, backend.capability) is None and (is_half(dtype) or backend.uses_tf32)


def tensor_refusal(dtype: str, capability: int) -> str | None:
    """Why a card has no tensor cores for a dtype, or None where it has; `capability` is ten times the number."""
    least = {"float16": 75, "bfloat16": 80, "float32": 80}.get(dtype)
    if least is None:
        return f"tensor cores have no {dtype} here"
    if capability < least:
        return f"tensor cores take {dtype} from compute capability {least / 10} on, the card has {capability / 10}"
    return None


def efficiency(shape: Tile) -> float:
    """The expected share of a multiprocessor's peak: a larger tile does more sums with what it loads.

    Plain tiles are to one another as the instructions that they execute for a sum, by count.
    """
    if is_tensor(shape):
        return 0.15 if shape[0] < 32 else 0.2 if shape[0] < 64 else 0.3
    return {4: 0.25, 8: 0.37, 32: 0.45}.get(shape[0], 0.52)


def is_deep(dtype: str, depth: int, columns: int) -> bool:
    """Whether tensor cores execute less than plain tiles even where most of the rows that they multiply are not there.

    By count they do in 16 bits, past a depth of FEW_ROWS_DEPTH, where rows lie whole in pieces of 16 bytes.
    """
    return is_half(dtype) and depth > FEW_ROWS_DEPTH and depth % 8 == 0 and columns % 8 == 0


def choose_tile(rows: int, columns: int, processors: int, tensor: bool = False, *, deep: bool = False) -> Tile:
    """The tile that is expected to finish first: as many waves of blocks as it needs, each as long as it is large.

    Of tiles that are equal the larger one is taken; a tile that needs more blocks down than a grid has is not, unless
    the largest does too (the rows are taken in several grids then).  Where fewer rows than a tensor core multiplies
    leave its lanes idle and all blocks of the smallest plain tile run at once, these execute less and are taken, unless
    the product is `deep` (`is_deep`).
    """
    few = not deep and rows < TENSOR_TILES[0][0] and math.prod(blocks(TILES[0], rows, columns)) <= processors
    tiles = TENSOR_TILES if tensor and not few else TILES

    def time(shape: Tile) -> float:
        across, down = blocks(shape, rows, columns)
        return -(-across * down // processors) * shape[0] * shape[1] / efficiency(shape)

    fitting = [shape for shape in tiles if blocks(shape, rows, columns)[1] <= MOST_DOWN] or [tiles[-1]]
    return min(reversed(fitting), key=time)


def gemm(
    backend: Backend,
    a: Array,
    b: Array,
    out: Array,
    *,
    products: Products,
    transa: bool = False,
    transb: bool = False,
    accumulate: bool = False,
) -> None:
    """out = op(a) op(b), or out += op(a) op(b), on C-contiguous matrices of one dtype."""
    if products == "cublas":
        cast(CupyBackend, backend).gemm(a, b, out, transa=transa, transb=transb, accumulate=accumulate)
    elif out.size:
        _own(cast(CupyBackend, backend), (a, b, out, 0), (transa, transb), accumulate)


def sliced_gemm(backend: CupyBackend, a: Array, b: Array, out: Array, rows: int) -> None:
    """out = a b^T by our own kernel, where `out` is a slice of a product of `rows` rows.

    The full product's tile is used, so the bits match.
    """
    if out.size:
        _own(backend, (a, b, out, 0), (False, True), False, rows)


def _own(
    backend: CupyBackend, arrays: tuple[Any, ...], turned: tuple[bool, bool], accumulate: bool, full: int | None = None
) -> None:
    """Launch our kernel on (a, b, out, bias or 0); `full`: the rows whose product's tile is used, None for out's."""
    a, b, out, bias = arrays
    rows, columns = out.shape
    inner = a.shape[0] if turned[0] else a.shape[1]
    dtype = out.dtype.name
    shape = choose_tile(full or rows, columns, backend.processors, wants_tensor(backend, dtype))
    parts, depth = split(shape, rows, columns, inner, backend.processors) if turned[0] and not bias else (1, inner)
    if parts > 1:
        _split(backend, (a, b, out), turned, accumulate, (shape, parts, depth))
        return
    kernel = gemm_kernel(backend, dtype, shape, *turned)
    most = MOST_DOWN * shape[0]  # rows of a grid
    for start in range(0, rows, most):
        part = out[start : start + most]
        left = a[:, start:] if turned[0] else a[start:]  # where it begins; the pitch is that of the whole
        numbers = (len(part), columns, inner, a.shape[1], b.shape[1], columns, int(accumulate))
        kernel(blocks(shape, len(part), columns), (threads(shape),), (left, b, part, bias, *numbers))


def split(shape: Tile, rows: int, columns: int, inner: int, processors: int) -> tuple[int, int]:
    """(parts, depth of each) of a product, so that its blocks are about as many as the multiprocessors.

    A part is at least LEAST_DEPTH deep.  The same sizes give the same parts, and so the same bits.
    """
    across, down = blocks(shape, rows, columns)
    parts = max(1, min(processors // max(1, across * down), inner // LEAST_DEPTH))
    depth = -(-inner // parts)
    depth = max(STEP, -(-depth // STEP) * STEP)
    return -(-inner // depth), depth


def _split(
    backend: CupyBackend,
    arrays: tuple[Any, ...],
    turned: tuple[bool, bool],
    accumulate: bool,
    how: tuple[Tile, int, int],
) -> None:
    """Launch our kernel on parts of the depth, then add the parts; `how`: the tile and what `split` gives."""
    (a, b, out), (shape, parts, depth) = arrays, how
    (rows, columns), dtype = out.shape, out.dtype.name
    inner = a.shape[0] if turned[0] else a.shape[1]
    partial = backend.empty((parts, rows, columns), "float64" if dtype == "float64" else "float32")
    kernel = gemm_kernel(backend, dtype, shape, *turned, name="gpulstm_gemm_part")
    sizes = (rows, columns, inner, a.shape[1], b.shape[1], depth)
    kernel((*blocks(shape, rows, columns), parts), (threads(shape),), (a, b, partial, *sizes))
    kernel = gemm_kernel(backend, dtype, shape, *turned, name="gpulstm_gemm_sum")
    kernel((-(-out.size // 256),), (256,), (partial, out, out.size, parts, int(accumulate)))


def gemm_kernel(
    backend: CupyBackend, dtype: str, shape: Tile, transa: bool, transb: bool, *, name: str = "gpulstm_gemm"
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
    return backend.kernel("cuda/gemm.cu", defines, name)


def matmul(
    backend: Backend, a: Array, b: Array, products: Products, *, transa: bool = False, transb: bool = False
) -> Array:
    """op(a) op(b) as a new matrix; on the CPU NumPy's product."""
    if not backend.is_cuda or products == "cublas":
        return (a.T if transa else a) @ (b.T if transb else b)
    xp = backend.xp
    rows, columns = a.shape[1 if transa else 0], b.shape[0 if transb else 1]
    out = xp.empty((rows, columns), a.dtype)
    a, b = xp.ascontiguousarray(a), xp.ascontiguousarray(b)
    gemm(backend, a, b, out, products=products, transa=transa, transb=transb)
    return out


def affine(
    backend: Backend, x: Array, w: Array, b: Array | None, out: Array, products: Products, full: int | None = None
) -> None:
    """out = x w + b over all time steps, x `(T, B, I)`; in float32 and float64 the product adds to b in place.

    Args:
        backend: the device.
        x, w, b, out: b is None for none.
        products: who computes it.
        full: with "own", rows of the full product that `out` is a slice of; its tile is used, so the bits match.
    """
    if not out.size:
        return
    rows, columns = out.shape[0] * out.shape[1], out.shape[2]
    flat_x, flat_out = x.reshape(rows, -1), out.reshape(rows, columns)
    if products == "own":
        _own(cast(CupyBackend, backend), (flat_x, w, flat_out, 0 if b is None else b), (False, False), False, full)
    elif b is None:
        gemm(backend, flat_x, w, flat_out, products=products)
    elif is_half(out.dtype):
        gemm(backend, flat_x, w, flat_out, products=products)
        flat_out += b
    else:
        flat_out[...] = b
        gemm(backend, flat_x, w, flat_out, products=products, accumulate=True)
