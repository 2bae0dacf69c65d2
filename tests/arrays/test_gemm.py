"""This project's own matrix product against NumPy: every tile, storage order and dtype, at sizes that fit no tile."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from tolerance import PRODUCT

from gpulstm.arrays import gemm
from gpulstm.arrays.devices import resolve, to_host

DTYPES = ("float64", "float32", "float16")

pytestmark = pytest.mark.cuda


# Sizes that no piece of 16 bytes divides, for all; rows that are copied in such pieces, where tensor cores do that.
PRODUCTS = [
    (dtype, tile, size)
    for dtypes, tiles, sizes in (
        (DTYPES, gemm.TILES + gemm.TENSOR_TILES, [(37, 29, 70), (1, 1, 3), (68, 132, 33)]),
        (["float32", "float16"], gemm.TENSOR_TILES, [(24, 72, 200), (80, 136, 8), (16, 64, 128)]),
    )
    for dtype, tile, size in itertools.product(dtypes, tiles, sizes)
]


@pytest.mark.parametrize(("transa", "transb"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize(("dtype", "tile", "size"), PRODUCTS, ids=str)
def test_own_product(
    dtype: str,
    tile: gemm.Tile,
    transa: bool,
    transb: bool,
    size: tuple[int, int, int],
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """op(a) op(b), and c + op(a) op(b), in a tile, or in a plain one where the device has no such tensor cores."""
    backend, (rows, columns, inner) = resolve("cuda"), size
    if gemm.is_tensor(tile) and gemm.tensor_refusal(dtype, backend.capability):  # type: ignore[attr-defined]
        tile = gemm.TILES[0]
    monkeypatch.setattr(gemm, "choose_tile", lambda *_: tile)
    a = rng.normal(size=(inner, rows) if transa else (rows, inner)).astype(dtype)
    b = rng.normal(size=(columns, inner) if transb else (inner, columns)).astype(dtype)
    c = rng.normal(size=(rows, columns)).astype(dtype)
    want = (a.T if transa else a).astype("f8") @ (b.T if transb else b).astype("f8")
    allowed = PRODUCT["TF32" if gemm.is_tensor(tile) and dtype == "float32" else dtype]
    out = backend.from_host(c)
    put = backend.from_host
    got = gemm.matmul(backend, put(a), put(b), "own", transa=transa, transb=transb)
    gemm.gemm(backend, put(a), put(b), out, products="own", transa=transa, transb=transb, accumulate=True)
    for results, expected in ((got, want), (out, want + c)):
        assert np.abs(to_host(results) - expected).max() <= allowed * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("products", ["own", "cublas"])
@pytest.mark.parametrize("bias", [False, True])
def test_affine(dtype: str, products: gemm.Products, bias: bool, rng: np.random.Generator) -> None:
    backend = resolve("cuda")
    x, w, b = (rng.normal(size=size).astype(dtype) for size in ((3, 5, 7), (7, 9), (9,)))
    out = backend.empty((3, 5, 9), dtype)
    put = backend.from_host
    gemm.affine(backend, put(x), put(w), put(b) if bias else None, out, products)
    want = x.astype("f8") @ w.astype("f8") + (b if bias else 0)
    assert np.abs(to_host(out) - want).max() <= PRODUCT[dtype] * np.abs(want).max()


@pytest.mark.parametrize(
    ("rows", "columns", "tensor", "expected"),
    [
        (64, 1024, False, gemm.TILES[1]),  # a wave of small ones is over before one of large ones
        (16, 3072, False, gemm.TILES[1]),  # of the smallest there would be three waves
        (256, 4096, False, gemm.TILES[3]),
        (1, 1024, False, gemm.TILES[0]),
        (256, 1024, False, gemm.TILES[2]),
        (1, 1024, True, gemm.TILES[0]),  # a tensor core would multiply fifteen rows that are not there
        (15, 1024, True, gemm.TILES[0]),
        (16, 1024, True, gemm.TENSOR_TILES[0]),
        (15, 1088, True, gemm.TENSOR_TILES[0]),  # 136 plain blocks are more than run at once
    ],
)
def test_the_tile_that_is_done_first(rows: int, columns: int, tensor: bool, expected: gemm.Tile) -> None:
    assert gemm.choose_tile(rows, columns, 132, tensor) == expected


@pytest.mark.parametrize(
    ("dtype", "depth", "columns", "expected"),
    [
        ("float16", 104, 416, gemm.TENSOR_TILES[0]),
        ("bfloat16", 256, 64, gemm.TENSOR_TILES[0]),
        ("float16", 96, 384, gemm.TILES[0]),
        ("float16", 404, 101, gemm.TILES[0]),  # rows that 16 bytes do not fit
        ("float16", 400, 100, gemm.TILES[0]),
        ("float32", 256, 1024, gemm.TILES[0]),
    ],
)
def test_few_rows_of_a_deep_product(dtype: str, depth: int, columns: int, expected: gemm.Tile) -> None:
    assert gemm.choose_tile(1, columns, 132, True, deep=gemm.is_deep(dtype, depth, columns)) == expected


@pytest.mark.parametrize("tensor", [False, True])
def test_no_grid_is_taller_than_a_card_allows(tensor: bool) -> None:
    for rows in (1, 262140, 262144, 1 << 20, 64 * 65535):
        for columns in (1, 8, 32, 33, 4096):
            shape = gemm.choose_tile(rows, columns, 132, tensor)
            assert gemm.blocks(shape, rows, columns)[1] <= gemm.MOST_DOWN


@pytest.mark.parametrize("bias", [False, True])
def test_many_rows_and_few_columns(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = resolve("cuda")
    for rows, most in ((262144, gemm.MOST_DOWN), (1000, 7)):  # 7: in several grids
        monkeypatch.setattr(gemm, "MOST_DOWN", most)
        a = np.arange(rows, dtype="f").reshape(rows, 1) % 1000
        out = backend.empty((1, rows, 3), "float32")
        put = backend.from_host
        w, b = (put(np.ones(shape, "f")) for shape in ((1, 3), (3,)))
        gemm.affine(backend, put(a[None]), w, b if bias else None, out, "own")
        turned = gemm.matmul(backend, put(a.T), w, "own", transa=True)
        assert np.array_equal(to_host(out)[0], np.repeat(a, 3, axis=1) + bias)
        assert np.array_equal(to_host(turned), np.repeat(a, 3, axis=1))


@pytest.mark.parametrize(
    ("dtype", "capability", "expected"),
    [
        ("float16", 61, "tensor cores take float16 from compute capability 7.5 on, the card has 6.1"),
        ("float16", 75, None),
        ("bfloat16", 80, None),
        ("float32", 75, "tensor cores take float32 from compute capability 8.0 on, the card has 7.5"),
        ("float32", 120, None),
        ("float64", 90, "tensor cores have no float64 here"),
    ],
)
def test_what_has_tensor_cores(dtype: str, capability: int, expected: str | None) -> None:
    assert gemm.tensor_refusal(dtype, capability) == expected
