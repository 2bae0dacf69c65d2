"""Windows that come part by part: each once an epoch, in an order by the seed, a few parts in memory at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from runs import make, windows

from gpulstm.arrays.backend import NUMPY
from gpulstm.arrays.devices import to_host
from gpulstm.data.streamed import StreamedWindows, StreamOrder, merged
from gpulstm.data.windows import WindowSet
from gpulstm.errors import DataError

SIZES = (40, 20, 30, 25, 50)


def part(number: int) -> WindowSet:
    return windows(SIZES[number], missing=number == 2)


def streamed(loads: list[int] | None = None, **options: Any) -> StreamedWindows:
    def load(number: int) -> WindowSet:
        if loads is not None:
            loads.append(number)
        return part(number)

    return StreamedWindows(load, [len(part(number)) for number in range(len(SIZES))], part(0), **options)


def test_an_epoch_has_every_window_once() -> None:
    counts = np.array([5, 0, 7, 1, 9, 4])
    for size in (1, 4, 100):
        order = StreamOrder(counts, 2, size, seed=3, epoch=1)
        drawn: dict[tuple[int, ...], list[int]] = {}
        for batch in order:
            for draw in batch:
                drawn.setdefault(draw.parts, []).extend(draw.windows.tolist())
        assert {part for group in drawn for part in group} == {0, 2, 3, 4, 5}
        for group, rows in drawn.items():
            assert sorted(rows) == list(range(sum(counts[list(group)])))
        assert sum(batch.size for batch in order) == counts.sum() and len(order) == -(-int(counts.sum()) // size)


def test_the_order_depends_on_seed_and_epoch() -> None:
    def rows(seed: int, epoch: int) -> list[Any]:
        return [
            (draw.parts, draw.windows.tolist())
            for batch in StreamOrder(np.full(6, 8), 2, 5, seed, epoch)
            for draw in batch
        ]

    assert rows(1, 2) == rows(1, 2)
    assert rows(1, 2) != rows(1, 3) and rows(1, 2) != rows(2, 2)


def test_rows_of_a_batch_are_cut_across_parts() -> None:
    batch = StreamOrder(np.array([3, 3, 3]), 1, 9, seed=0, epoch=0)[0]
    cut = batch[2:7]
    assert cut.size == 5 and [draw.windows.size for draw in cut] == [1, 3, 1]
    assert batch[:0].size == 0


def test_batches_are_those_of_the_parts() -> None:
    """With gaps in one part, and none in the others."""
    data = streamed(buffer=2)
    for batch in data.batches(16, 3, 0):
        rows = data.gather(batch, NUMPY)
        expected = [part(draw.parts[0]).gather(draw.windows, NUMPY) for draw in batch]
        np.testing.assert_array_equal(rows.x, np.concatenate([one.x for one in expected], axis=1))
        np.testing.assert_array_equal(rows.target, np.concatenate([one.target for one in expected]))
        assert (rows.weight is None) == all(one.weight is None for one in expected)
        if rows.weight is not None:
            assert rows.weight.shape == rows.target.shape


def test_each_part_is_read_once_an_epoch() -> None:
    loads: list[int] = []
    data = streamed(loads)
    for batch in data.batches(7, 0, 0):
        data.gather(batch, NUMPY)
        assert sum(len(group) for group in data._groups) <= 4
    assert sorted(loads) == list(range(len(SIZES)))


def test_merged_windows_are_those_of_each_set() -> None:
    whole = merged([part(0), part(2)])
    batch, first, second = whole.gather(np.arange(len(whole)), NUMPY), part(0), part(2)
    rows = [one.gather(np.arange(len(one)), NUMPY) for one in (first, second)]
    np.testing.assert_array_equal(batch.x, np.concatenate([one.x for one in rows], axis=1))
    np.testing.assert_array_equal(batch.target, np.concatenate([one.target for one in rows]))


def test_a_trainer_learns_from_them_with_the_same_bits() -> None:
    runs = []
    for buffer in (2, 2, 4):
        trainer = make(epochs=2)
        trainer.fit(streamed(buffer=buffer), windows())
        runs.append(to_host(trainer.weights.flat))
    assert trainer.steps_per_epoch == -(-sum(len(part(number)) for number in range(len(SIZES))) // 8)
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])  # the buffer is part of the order


def test_a_part_that_changed_is_refused() -> None:
    data = StreamedWindows(part, [len(part(0)) + 1], part(0))
    with pytest.raises(DataError, match=r"part 0 has 33 windows, but had 34 when it was first read"):
        data.gather(data.batches(4, 0, 0)[0], NUMPY)
