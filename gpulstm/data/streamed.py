"""Windows of a table that is larger than memory: its parts come through a buffer of a few, in an order by the seed.

An epoch reads every part once.  Parts are taken in groups; the windows of a group are drawn in random order, and the
next group is read meanwhile.  The order depends on the seed, the epoch and the parts, never on who reads them or when.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from gpulstm.arrays.backend import Backend
from gpulstm.arrays.random import host_generator
from gpulstm.data.tbptt import Lanes
from gpulstm.data.windows import Batch, WindowSet
from gpulstm.errors import DataError
from gpulstm.validate import count

_PARTS, _WINDOWS = 0xA7, 0xA8  # which streams of the seed the orders of parts and windows are drawn from


class StreamedWindows:
    """What `Trainer.fit` takes in the place of windows that fit in memory.

    Args:
        load: gives the windows of a part by its number, the same ones each time; called from another thread.
        counts: `(parts,)` how many windows each part has; 0 for one that is never loaded.
        like: windows of one part, for their lengths and roles.
        buffer: parts that are in memory at one time, the group that is read meanwhile among them; at least 2.
        name: what tells these windows from those of another table.
    """

    def __init__(
        self,
        load: Callable[[int], WindowSet],
        counts: Sequence[int] | np.ndarray,
        like: WindowSet,
        *,
        buffer: int = 4,
        name: str = "",
    ) -> None:
        self._load, self.counts, self.name = load, np.asarray(counts, np.int64), name
        self.each = max(1, count("buffer", buffer, at_least=2) // 2)
        self.context, self.horizon, self.inputs = like.context, like.horizon, like.inputs
        self.targets, self.future, self.skipped = like.targets, like.future, list[str]()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="gpulstm-parts")
        self._groups: dict[tuple[int, ...], Future[WindowSet]] = {}

    def __len__(self) -> int:
        return int(self.counts.sum())

    @property
    def fingerprint(self) -> str:
        """Tells these windows from others in a few words."""
        return f"{self.name} {self.counts.tolist()} {self.each}"

    def batches(self, size: int, seed: int, epoch: int) -> StreamOrder:
        """The batches of an epoch, made when they are asked for."""
        return StreamOrder(self.counts, self.each, size, seed, epoch)

    def gather(self, indices: Draws, backend: Backend) -> Batch:
        """The windows of (rows of) a batch of a `StreamOrder`.

        Raises:
            DataError: a part is another than when its windows were counted.
        """
        return joined(
            [self._windows(draw.parts, draw.following).gather(draw.windows, backend) for draw in indices], backend
        )

    def _windows(self, parts: tuple[int, ...], following: tuple[int, ...]) -> WindowSet:
        """The windows of a group; the next one is asked for."""
        for group in (parts, following):
            if group and group not in self._groups:
                self._groups[group] = self._reader.submit(self._read, group)
        for group in [group for group in self._groups if group not in (parts, following)]:
            del self._groups[group]
        return self._groups[parts].result()

    def _read(self, parts: tuple[int, ...]) -> WindowSet:
        loaded = [self._load(part) for part in parts]
        for part, windows in zip(parts, loaded, strict=True):
            if len(windows) != self.counts[part]:
                raise DataError(
                    f"part {part} has {len(windows)} windows, but had {self.counts[part]} when it was first read; "
                    "a table must not change while it is learned from"
                )
        return merged(loaded)


class Draw(NamedTuple):
    """Windows of one group of parts in a batch.

    Attributes:
        parts, following: numbers of those of this group, and of the next.
        windows: `(n,)` numbers among the windows of the group.
    """

    parts: tuple[int, ...]
    following: tuple[int, ...]
    windows: np.ndarray


class Draws:
    """The windows of a batch, from one group or more; a slice is that of the batch's rows."""

    def __init__(self, draws: Sequence[Draw]) -> None:
        self._draws = draws

    @property
    def size(self) -> int:
        """Rows of the batch."""
        return sum(draw.windows.size for draw in self._draws)

    def __iter__(self) -> Iterator[Draw]:
        return iter(self._draws)

    def __getitem__(self, rows: slice) -> Draws:
        first, stop, _ = rows.indices(self.size)
        cut, before = list[Draw](), 0
        for draw in self._draws:
            own = draw.windows[max(first - before, 0) : max(stop - before, 0)]
            before += draw.windows.size
            if own.size:
                cut.append(draw._replace(windows=own))
        return Draws(cut)


class StreamOrder(Sequence[Draws]):
    """The batches of one epoch: groups of parts in random order, and the windows of each group in random order.

    Args:
        counts: `(parts,)` windows of each part.
        each: parts of a group.
        size: of a batch.
        seed, epoch: what the order depends on.
    """

    def __init__(self, counts: np.ndarray, each: int, size: int, seed: int, epoch: int) -> None:
        self._size, self._seed, self._epoch = count("batch_size", size), seed, epoch
        parts = np.flatnonzero(counts)
        words = host_generator(seed, _PARTS, epoch).bit_generator.random_raw(len(parts))
        parts = parts[np.argsort(words, kind="stable")]
        self._groups = [tuple(map(int, parts[at : at + each])) for at in range(0, len(parts), each)]
        self._ends = np.cumsum([sum(int(counts[part]) for part in group) for group in self._groups])
        self._order = functools.lru_cache(maxsize=2)(self._drawn)

    def __len__(self) -> int:
        return -(-int(self._ends[-1]) // self._size)

    def __getitem__(self, batch: Any) -> Any:
        first = range(len(self))[batch] * self._size
        stop, draws = min(first + self._size, int(self._ends[-1])), list[Draw]()
        while first < stop:
            group = int(np.searchsorted(self._ends, first, side="right"))
            begin = int(self._ends[group - 1]) if group else 0
            end = min(stop, int(self._ends[group]))
            following = self._groups[group + 1] if group + 1 < len(self._groups) else ()
            draws.append(Draw(self._groups[group], following, self._order(group)[first - begin : end - begin]))
            first = end
        return Draws(draws)

    def _drawn(self, group: int) -> np.ndarray:
        size = int(self._ends[group]) - (int(self._ends[group - 1]) if group else 0)
        words = host_generator(self._seed, _WINDOWS, self._epoch, group).bit_generator.random_raw(size)
        return np.argsort(words, kind="stable")


def merged(sets: Sequence[WindowSet]) -> WindowSet:
    """The windows of several sets of one kind as those of one set."""
    first, starts = sets[0], np.cumsum([0, *(len(each.values) for each in sets)])
    if len(sets) == 1:
        return first
    observed = None
    if any(each.observed is not None for each in sets):
        observed = np.concatenate(
            [np.ones(each.values.shape, bool) if each.observed is None else each.observed for each in sets]
        )
    last = None
    if any(each.last is not None for each in sets):
        last = np.concatenate([_last(each) + start for each, start in zip(sets, starts, strict=False)])
    offsets = [each.offsets[1:] + start for each, start in zip(sets, starts, strict=False)]
    return replace(
        first,
        values=np.concatenate([each.values for each in sets]),
        offsets=np.concatenate([[0], *offsets]),
        observed=observed,
        last=last,
        names=[name for each in sets for name in each.names],
        origins=np.concatenate([each.origins + start for each, start in zip(sets, starts, strict=False)]),
        resident={},
    )


def _last(windows: WindowSet) -> np.ndarray:
    if windows.last is not None:
        return windows.last
    return np.repeat(np.arange(len(windows.values))[:, None], windows.targets + windows.past, axis=1)


def joined(batches: Sequence[Batch], backend: Backend) -> Batch:
    """The windows of several batches as those of one."""
    if len(batches) == 1:
        return batches[0]
    xp = backend.xp

    def whole(name: str, axis: int = 0) -> Any:
        arrays = [getattr(each, name) for each in batches]
        if all(array is None for array in arrays):
            return None
        if name == "weight":  # a part without gaps has none
            arrays = [xp.ones_like(each.target) if each.weight is None else each.weight for each in batches]
        return xp.concatenate(arrays, axis=axis)

    with backend.activate():
        return Batch(whole("x", 1), *(whole(name) for name in ("target", "future", "weight", "location", "scale")))


AnyWindows = WindowSet | Lanes | StreamedWindows  # what a training run learns from
