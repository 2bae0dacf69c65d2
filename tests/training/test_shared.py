"""What ranks compare before a run and tell one another between its steps; threads stand for the processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import make, windows
from thread_ranks import ThreadRanks, run_ranks

from gpulstm.arrays import checkpoint
from gpulstm.errors import ConfigError
from gpulstm.training.callbacks import Callback, CheckpointEvery, Run
from gpulstm.training.shared import gathered, hash_of, own_rows
from gpulstm.training.trainer import Trainer


def test_rank_0_alone_runs_callbacks_and_the_others_follow(tmp_path: Path) -> None:
    heard: list[int] = []

    class Listener(Callback):
        def __init__(self, rank: int) -> None:
            self.rank = rank

        def on_epoch(self, run: Run, row: Any) -> None:
            heard.append(self.rank)
            if run.epoch == 2:
                run.stop("by rank 0")

    def work(ranks: ThreadRanks) -> Trainer:
        path = tmp_path / f"{ranks.rank}.safetensors"
        trainer = make(parallel=ranks, callbacks=[Listener(ranks.rank), CheckpointEvery(path, steps=2, epochs=1)])
        trainer.fit(windows())
        return trainer

    trainers = run_ranks(2, work)
    assert heard == [0, 0]
    assert [trainer.history.stopped for trainer in trainers] == ["by rank 0"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["0.safetensors"]
    assert checkpoint.load(tmp_path / "0.safetensors")[1]["counters"]["epoch"] == 2


def test_a_stop_on_one_rank_stops_all_after_the_same_step() -> None:
    def work(ranks: ThreadRanks) -> Trainer:
        trainer = make(parallel=ranks, callbacks=[])
        if ranks.rank == 1:
            trainer._steps.take = _then(trainer._steps.take, lambda: trainer.stop("interrupted"))  # type: ignore[method-assign]
        trainer.fit(windows())
        return trainer

    trainers = run_ranks(2, work)
    assert [trainer.history.stopped for trainer in trainers] == ["interrupted"] * 2
    assert [trainer.step for trainer in trainers] == [1, 1]


def _then(function: Callable[..., Any], after: Callable[[], None]) -> Callable[..., Any]:
    def both(*args: Any) -> None:
        function(*args)
        after()

    return both


@pytest.mark.parametrize(
    ("options", "data", "names"),
    [
        ({"clip_norm": 0.25}, windows, "option clip_norm"),
        ({"epochs": 3}, windows, "option epochs"),
        ({}, lambda: windows(missing=True), "hash of the training data"),
        ({"dtype": "float32"}, windows, "option dtype"),
    ],
)
def test_ranks_that_differ_are_refused(options: dict[str, Any], data: Callable[[], Any], names: str) -> None:
    def work(ranks: ThreadRanks) -> Any:
        odd = ranks.rank == 2
        trainer = make(**{"epochs": 2, **(options if odd else {})}, parallel=ranks)
        return trainer.fit(data() if odd else windows(), windows())

    errors = run_ranks(3, work)
    assert {type(error) for error in errors} == {ConfigError}
    assert {str(error) for error in errors} == {str(errors[0])}
    assert str(errors[0]).startswith(f"rank 2 has another {names} than rank 0: ")


def test_a_hash_tells_values_dtypes_and_shapes_apart() -> None:
    values = np.arange(6.0)
    others = [values.copy(), values + 1, values.astype("float32"), values.reshape(2, 3)]
    assert [hash_of(one) == hash_of(values) for one in others] == [True, False, False, False]
    assert hash_of(windows()) == hash_of(windows()) != hash_of(windows(missing=True))


def test_the_state_of_all_rows_is_cut_into_that_of_each_rank_and_back() -> None:
    whole = np.arange(2 * 5 * 3.0).reshape(2, 5, 3), np.ones((2, 5, 4))  # h and c of five rows

    def work(ranks: ThreadRanks) -> Any:
        own = own_rows(ranks, whole, 5)
        return own, gathered(ranks, own)

    results = run_ranks(2, work)
    assert [own[0].shape[1] for own, _ in results] == [3, 2]
    for _, joined in results:
        for part, expected in zip(joined, whole, strict=True):
            np.testing.assert_array_equal(part, expected)
