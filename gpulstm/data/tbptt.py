"""Truncated backpropagation through time: long series read once, in parallel lanes, with the state carried on.

A window of `context` rows knows nothing of what lies before it, and neighboring windows compute the same rows again.
Here the series are cut into as many lanes as a batch has rows, and a training step moves every lane on by `chunk` rows:
the network goes on from the state that the step before left, and gradients flow back through the last `reach` rows
(Williams & Peng 1990, "An efficient gradient-based algorithm for on-line training of recurrent network trajectories",
Neural Computation 2(4): BPTT(h; h') with h = reach and h' = chunk).  Gradients reach back `reach` rows, while what is
remembered may be older.

Every one of the `chunk` newest rows has a forecast and a loss, not only the last: each row is then a target once an
epoch, as with windows one row apart, at the cost of reading it once.
"""

from __future__ import annotations

import numpy as np

from gpulstm import validate
from gpulstm.arrays.backend import Backend
from gpulstm.data.series import spans
from gpulstm.data.windows import Batch, WindowSet
from gpulstm.errors import ConfigError, DataError

BORDERS = ("reset", "carry")


class Lanes:
    """One or many series in parallel lanes: what `Trainer.fit` takes in the place of windows.

    The rows of each series are cut into chunks from its end.  The `reach - chunk` rows before its first chunk are read
    without being targets, and what is left at its beginning, less than a chunk, is left out.  Chunks of all series
    follow one another, and every lane takes an equally long run of them, to within one chunk.

    Args:
        windows: the series with their roles, horizon and scaling; their own context and origins do not matter here.
        stops: `(series,)` first absolute row after the training part of each series.
        lanes: B.
        chunk: rows that each step moves on (k1, or h').
        reach: rows that gradients flow back through (k2, or h): a multiple of `chunk`.
        borders: "reset" starts each series from the state of zeros; "carry" goes on with the state of the one before,
            for series that are pieces of one.  A lane always begins an epoch from zeros.

    Attributes:
        starts: `(chunks,)` int64 absolute row at which each step's window of `reach` rows begins.
        first: `(chunks,)` bool, which of them are the first of their series.

    Raises:
        ConfigError: an option out of range, or windows with a scaling of their own, which has no meaning here.
        DataError: fewer than two chunks for a lane.
    """

    def __init__(
        self, windows: WindowSet, stops: np.ndarray, *, lanes: int, chunk: int, reach: int, borders: str = "reset"
    ) -> None:
        self.windows, self.lanes = windows, validate.count("lanes", lanes)
        self.chunk, self.reach = check_reach(chunk, reach)
        if borders not in BORDERS:
            raise ConfigError(f"borders is {borders!r}, expected 'reset' or 'carry'")
        if windows.window_scaling != "none":
            raise ConfigError(
                f"window_scaling is {windows.window_scaling!r}, expected 'none': lanes have no windows of their own"
            )
        self.borders = borders
        begin, last = windows.offsets[:-1], np.asarray(stops) - windows.horizon  # after the last row with a horizon
        counts = np.maximum(last - begin - (self.reach - self.chunk), 0) // self.chunk
        self.skipped: list[str] = [windows.names[int(series)] for series in np.flatnonzero(counts == 0)]
        place, _ = spans(np.zeros_like(counts), counts)
        self.first = place == 0
        self.starts = np.repeat(last - self.reach - self.chunk * (counts - 1), counts) + self.chunk * place
        if len(self) < 2 * self.lanes:
            raise DataError(
                f"the training rows make {len(self)} chunks of {self.chunk} rows, fewer than two for each of "
                f"{self.lanes} lanes; choose fewer lanes (batch_size) or a shorter chunk"
            )
        size, more = divmod(len(self), self.lanes)
        self._bounds = np.concatenate([[0], np.cumsum(size + (np.arange(self.lanes) < more))])

    def __len__(self) -> int:
        """Chunks of all lanes."""
        return len(self.starts)

    @property
    def context(self) -> int:
        """T: rows of a step."""
        return self.reach

    @property
    def inputs(self) -> int:
        """I: features of x."""
        return self.windows.inputs

    @property
    def horizon(self) -> int:
        """Steps ahead of each row."""
        return self.windows.horizon

    @property
    def targets(self) -> int:
        """Series that are forecast together."""
        return self.windows.targets

    @property
    def future(self) -> int:
        """K: covariates known ahead."""
        return self.windows.future

    def batches(self, size: int) -> list[np.ndarray]:
        """The chunks of every step in the order of time; the first lanes may have one more than the others.

        Raises:
            ConfigError: `size` is not the number of lanes.
        """
        if size != self.lanes:
            raise ConfigError(f"batch_size is {size}, expected {self.lanes}, the number of lanes")
        begin, end = self._bounds[:-1], self._bounds[1:]
        return [begin[begin + step < end] + step for step in range(int((end - begin).max()))]

    def gather(self, indices: np.ndarray, backend: Backend) -> Batch:
        """The chunks of one step as a batch whose targets are those of its newest `chunk` rows."""
        windows, xp = self.windows, backend.xp
        begins = np.isin(indices, self._bounds[:-1])
        if self.borders == "reset":
            begins |= self.first[indices]
        with backend.activate():
            starts = backend.from_host(self.starts[indices])
            back = starts[None, :] + xp.arange(self.reach)[:, None]
            newest = back[self.reach - self.chunk :].reshape(-1)
            ahead = newest[:, None] + xp.arange(1, windows.horizon + 1)[None, :]
            batch, seen = windows.take(back, ahead, backend)
            batch.read, batch.state_at, batch.fresh = self.chunk, self.chunk, begins
            return windows.masked(batch, seen, backend)


def check_reach(chunk: int, reach: int) -> tuple[int, int]:
    """Both if gradients can flow through `reach` rows in steps of `chunk`.

    Raises:
        ConfigError: they cannot.
    """
    chunk, reach = validate.count("chunk", chunk), validate.count("reach", reach)
    if reach % chunk:
        raise ConfigError(f"reach is {reach}, expected a multiple of the chunk of {chunk} rows")
    return chunk, reach
