"""The engine's own products on real PTX: tiles, orders of storage, sizes that fit nothing, depth shared by blocks."""

from __future__ import annotations

import numpy as np
import nvrtc
import pytest
from ptx.device import PtxBackend, installed
from ptx.machine import Settings
from tolerance import PRODUCT

from gpulstm.arrays import gemm

pytestmark = pytest.mark.ptx


def judge(
    toolkit: nvrtc.Toolkit,
    dtype: str,
    tile: gemm.Tile,
    turned: str,
    size: tuple[int, int, int],
    *,
    capability: int = 90,
) -> PtxBackend:
    """op(a) op(b), and c + op(a) op(b), against NumPy in float64."""
    (rows, columns, inner), rng = size, np.random.default_rng(2)
    transa, transb = turned[0] == "T", turned[1] == "T"
    a = rng.normal(size=(inner, rows) if transa else (rows, inner)).astype(dtype)
    b = rng.normal(size=(columns, inner) if transb else (inner, columns)).astype(dtype)
    c = rng.normal(size=(rows, columns)).astype(dtype)
    backend = PtxBackend(toolkit, capability, Settings())
    put, expected = backend.memory.array, (a.T if transa else a).astype("f8") @ (b.T if transb else b).astype("f8")
    kind = "TF32" if gemm.is_tensor(tile) and dtype == "float32" else dtype
    with installed(backend), pytest.MonkeyPatch.context() as patch:
        patch.setattr(gemm, "choose_tile", lambda *_: tile)
        for start, accumulate in ((np.full_like(c, np.nan), False), (c, True)):
            out = put(start)
            factors = put(a), put(b)
            gemm.gemm(backend, *factors, out, products="own", transa=transa, transb=transb, accumulate=accumulate)  # type: ignore[arg-type]
            error = np.abs(out.get().astype("f8") - expected - (c if accumulate else 0)).max()
            assert error <= PRODUCT[kind] * np.abs(expected).max()
    assert not backend.faults, str(backend.faults)
    return backend


@pytest.mark.parametrize(
    ("dtype", "tile", "turned"),
    [
        ("float32", gemm.TILES[0], "NN"),
        ("float32", gemm.TILES[2], "TN"),
        ("float64", gemm.TILES[1], "NT"),
        ("float16", gemm.TENSOR_TILES[0], "TN"),
        ("float32", gemm.TENSOR_TILES[1], "NT"),
    ],
)
def test_products(dtype: str, tile: gemm.Tile, turned: str, toolkit: nvrtc.Toolkit) -> None:
    judge(toolkit, dtype, tile, turned, (19, 37, 41))


@pytest.mark.parametrize("capability", [75, 90])
def test_rows_that_are_copied_in_pieces(capability: int, toolkit: nvrtc.Toolkit) -> None:
    judge(toolkit, "float16", gemm.TENSOR_TILES[0], "NN", (24, 72, 136), capability=capability)


@pytest.mark.long
@pytest.mark.parametrize("turned", ["NN", "TN", "NT"])
@pytest.mark.parametrize("tile", gemm.TILES + gemm.TENSOR_TILES, ids=str)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_tile(dtype: str, tile: gemm.Tile, turned: str, toolkit: nvrtc.Toolkit) -> None:
    if dtype == "float64" and gemm.is_tensor(tile):
        tile = gemm.TILES[0]
    judge(toolkit, dtype, tile, turned, (68, 36, 33), capability=80)


@pytest.mark.long
@pytest.mark.parametrize("turned", ["NN", "TN", "NT"])
@pytest.mark.parametrize("tile", gemm.TENSOR_TILES, ids=str)
@pytest.mark.parametrize(("dtype", "capability"), [("float16", 75), ("float16", 90), ("float32", 80)])
def test_pieces_of_every_tile(
    dtype: str, capability: int, tile: gemm.Tile, turned: str, toolkit: nvrtc.Toolkit
) -> None:
    judge(toolkit, dtype, tile, turned, (72, 40, 136), capability=capability)


@pytest.mark.parametrize(
    ("dtype", "tile"), [("float32", gemm.TILES[0]), ("float16", gemm.TENSOR_TILES[0]), ("float64", gemm.TILES[1])]
)
def test_the_depth_of_a_weight_gradient_is_shared_by_blocks(
    dtype: str, tile: gemm.Tile, toolkit: nvrtc.Toolkit
) -> None:
    backend = judge(toolkit, dtype, tile, "TN", (5, 21, 850))
    names = [one.kernel.name for one in backend.launches]
    assert names == ["gpulstm_gemm_part", "gpulstm_gemm_sum"] * 2
    assert backend.launches[0].grid[2] == 3


def test_parts_cover_the_depth_and_the_card() -> None:
    for inner in (0, 1, 255, 256, 850, 16384, 16385):
        for rows, columns in ((4, 256), (64, 256), (1000, 1000)):
            parts, depth = gemm.split(gemm.TILES[1], rows, columns, inner, 132)
            across, down = gemm.blocks(gemm.TILES[1], rows, columns)
            assert parts == 1 or (parts - 1) * depth < inner <= parts * depth
            assert parts == 1 or depth % gemm.STEP == 0
            assert parts * across * down <= max(132, across * down)
    for tile in gemm.TILES + gemm.TENSOR_TILES:
        assert gemm.STEP % tile[2] == 0
