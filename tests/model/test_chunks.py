"""Sequences longer than memory: chunk by chunk the same as one call, from arrays, files and iterators."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stacks import CELLS

import gpulstm as gl
from gpulstm.engines import reference
from gpulstm.engines.cuda import engine as cuda
from gpulstm.errors import ConfigError, DeviceError, DTypeError, ShapeError


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of four steps at two rows."""
    for engine in (reference, cuda):
        monkeypatch.setattr(engine, "BLOCK_ROWS", 8)


def sequence(steps: int = 26) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(steps, 2, 3))


def parts(state: Any) -> list[np.ndarray]:
    return [gl.to_host(part) for part in (state if isinstance(state, tuple) else (state,))]


@pytest.mark.parametrize("cell", CELLS)
def test_chunks_of_whole_blocks_are_one_call_to_the_bit(cell: str, device: str) -> None:
    layer = CELLS[cell](3, 4, 2, device=device, zoneout=0.1)
    x = sequence()
    start = layer(gl.to_device(x[:3], device))[1]
    whole, end = layer(gl.to_device(x, device), start)
    chunks = layer.chunks(x, steps=8, state=start)
    results = [gl.to_host(y) for y in chunks]
    assert [len(y) for y in results] == [8, 8, 8, 2]
    np.testing.assert_array_equal(np.concatenate(results), gl.to_host(whole))
    for one, other in zip(parts(chunks.state), parts(end), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("steps", [1, 5, 7, 100])
def test_other_chunks_are_one_call_to_rounding(steps: int) -> None:
    layer = gl.LSTM(3, 4, 2, device="cpu", dtype="float64")
    whole = layer(sequence())[0]
    np.testing.assert_allclose(np.concatenate(list(layer.chunks(sequence(), steps))), whole, atol=1e-12)


@pytest.mark.parametrize("lengths", [[26], [1] * 26, [3, 0, 14, 9], [8, 8, 10], [25, 1]], ids=str)
def test_an_iterator_of_any_lengths(lengths: list[int], device: str) -> None:
    layer = gl.GRU(3, 4, device=device)
    x = sequence()
    taken = 0

    def source() -> Iterator[np.ndarray]:
        nonlocal taken
        for stop, length in zip(np.cumsum(lengths), lengths, strict=True):
            taken = stop
            yield x[stop - length : stop]

    results = []
    for number, y in enumerate(layer.chunks(source(), steps=8), 1):
        ahead = 8 if device == "cuda" else 0  # the next chunk is uploaded meanwhile
        assert taken <= min(26, number * 8 + ahead + max(lengths))  # no further than needed
        results.append(gl.to_host(y))
    assert [len(y) for y in results] == [8, 8, 8, 2]
    np.testing.assert_array_equal(np.concatenate(results), gl.to_host(layer(gl.to_device(x, device))[0]))


def test_a_file_is_read_a_chunk_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "BLOCK_ROWS", 1024)
    path, steps = tmp_path / "long.npy", 60_000
    file = np.lib.format.open_memmap(path, "w+", np.float32, (steps, 2, 3))
    for at in range(0, steps, 10_000):
        file[at : at + 10_000] = np.random.default_rng(at).normal(size=(10_000, 2, 3))
    file.flush()
    layer = gl.RNN(3, 2, device="cpu")
    total, count = np.zeros((2, 2)), 0
    tracemalloc.start()
    for y in layer.chunks(np.load(path, mmap_mode="r"), 512):
        total, count = total + y.sum(axis=0), count + len(y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == steps and peak < 400_000 < file.nbytes
    np.testing.assert_allclose(total, layer(np.asarray(file))[0].sum(axis=0, dtype=np.float64), rtol=1e-4)


def test_steps_by_default_are_whole_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "BLOCK_ROWS", 600)
    layer = gl.LSTM(3, 2, device="cpu", engine="reference")
    assert [len(y) for y in layer.chunks(sequence(2000))] == [900, 900, 200]
    assert [len(y) for y in layer.chunks([sequence(2000)])] == [900, 900, 200]


def test_nothing_and_mistakes() -> None:
    layer = gl.LSTM(3, 4, device="cpu")
    empty = layer.chunks([])
    assert list(empty) == [] and empty.state is None
    assert list(layer.chunks(np.zeros((0, 2, 3)))) == []
    with pytest.raises(ConfigError, match="chunks needs bidirectional=False"):
        gl.LSTM(3, 4, bidirectional=True, device="cpu").chunks(sequence())
    with pytest.raises(ConfigError, match="chunks takes no lengths"):
        layer.chunks(sequence(), lengths=[3, 4])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="steps is 0, expected a whole number of at least 1"):
        layer.chunks(sequence(), 0)
    with pytest.raises(ShapeError, match=r"x has shape \(26, 2\), expected \(T, B, 3\)"):
        layer.chunks(sequence()[..., 0])
    with pytest.raises(ConfigError, match="x is a int, expected an array"):
        layer.chunks(3)
    with pytest.raises(ShapeError, match=r"part 1 of x has shape \(4, 1, 3\), expected \(t, 2, 3\)"):
        list(layer.chunks([sequence(8), np.zeros((4, 1, 3))], 4))
    with pytest.raises(DTypeError, match="part 0 of x has dtype <U1, expected real numbers"):
        list(layer.chunks([np.array([["a"]])]))
    with pytest.raises(ShapeError, match="h of state has shape"):
        next(layer.chunks(sequence(), 8, (np.zeros((2, 2, 4)), np.zeros((2, 2, 4)))))


@pytest.mark.cuda
def test_uploads_on_a_stream_of_their_own_lose_nothing() -> None:
    """Parts of all sizes, used on another stream than they are copied on, with buffers that are used again."""
    import cupy

    backend = gl.arrays.devices.resolve("cuda")
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(size, 3)) for size in (5, 1, 40, 0, 40, 7, 100, 2)]
    with cupy.cuda.Stream(non_blocking=True) as stream:
        sums = [part * 2 for part in backend.uploads(iter(parts), "float32")]
        stream.synchronize()
    for results, part in zip(sums, parts, strict=True):
        np.testing.assert_array_equal(cupy.asnumpy(results), part.astype("float32") * 2)
    layer = gl.RNN(3, 2, device="cuda")
    mixed = [np.zeros((4, 1, 3)), cupy.zeros((4, 1, 3))]
    with pytest.raises(DeviceError, match="part 1 of x lives on cuda:0, expected an array on the host"):
        list(layer.chunks(mixed, 4))
    on_device = list(layer.chunks([cupy.ones((3, 1, 3)), cupy.ones((3, 1, 3))], 4))
    assert [len(y) for y in on_device] == [4, 2]
