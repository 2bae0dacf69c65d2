"""This project's own matrix product against NumPy: every tile, storage order and dtype, at sizes that fit no tile."""

from __future__ import annotations

import numpy as np
import pytest

from gpulstm.arrays import gemm
from gpulstm.arrays.devices import resolve, to_host

TOLERANCE = {"float64": 1e-13, "float32": 1e-5, "float16": 2e-3}
TF32 = 2e-3

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("tile", gemm.TILES + gemm.TENSOR_TILES, ids=str)
@pytest.mark.parametrize(("transa", "transb"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("size", [(37, 29, 70), (1, 1, 3), (68, 132, 33)], ids=str)
def test_own_product(
    dtype: str,
    tile: gemm.Tile,
    transa: bool,
    transb: bool,
    size: tuple[int, int, int],
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if gemm.is_tensor(tile) and dtype == "float64":
        tile = gemm.TILES[0]  # float64 has no tensor tile
    monkeypatch.setattr(gemm, "choose_tile", lambda *_: tile)
    backend, (rows, columns, inner) = resolve("cuda"), size
    a = rng.normal(size=(inner, rows) if transa else (rows, inner)).astype(dtype)
    b = rng.normal(size=(columns, inner) if transb else (inner, columns)).astype(dtype)
    c = rng.normal(size=(rows, columns)).astype(dtype)
    want = (a.T if transa else a).astype("f8") @ (b.T if transb else b).astype("f8")
    allowed = TF32 if gemm.is_tensor(tile) and dtype == "float32" else TOLERANCE[dtype]
    out = backend.from_host(c)
    place = backend.from_host
    with gemm.own_kernels():
        got = gemm.matmul(backend, place(a), place(b), transa=transa, transb=transb)
        gemm.gemm(backend, place(a), place(b), out, transa=transa, transb=transb, accumulate=True)
    for found, wanted in ((got, want), (out, want + c)):
        assert np.abs(to_host(found) - wanted).max() <= allowed * max(1.0, np.abs(wanted).max())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_affine(dtype: str, own: bool, bias: bool, rng: np.random.Generator) -> None:
    backend = resolve("cuda")
    x, w, b = (rng.normal(size=size).astype(dtype) for size in ((3, 5, 7), (7, 9), (9,)))
    out = backend.empty((3, 5, 9), dtype)
    place = backend.from_host
    arguments = (backend, place(x), place(w), place(b) if bias else None, out)
    if own:
        with gemm.own_kernels():
            gemm.affine(*arguments)
    else:
        gemm.affine(*arguments)
    want = x.astype("f8") @ w.astype("f8") + (b if bias else 0)
    assert np.abs(to_host(out) - want).max() <= TOLERANCE[dtype] * np.abs(want).max()


def test_own_kernels_hold_within_their_context_and_thread() -> None:
    assert not gemm.uses_own_kernels()
    with gemm.own_kernels():
        with gemm.own_kernels():
            pass
        assert gemm.uses_own_kernels()
    assert not gemm.uses_own_kernels()


@pytest.mark.parametrize(
    ("rows", "columns", "processors", "expected"),
    [
        (64, 1024, 132, gemm.TILES[1]),  # a wave of small ones is over before one of large ones
        (256, 4096, 132, gemm.TILES[3]),
        (1, 1024, 132, gemm.TILES[0]),
        (256, 1024, 132, gemm.TILES[2]),
    ],
)
def test_the_tile_that_is_done_first(rows: int, columns: int, processors: int, expected: gemm.Tile) -> None:
    assert gemm.choose_tile(rows, columns, processors) == expected
