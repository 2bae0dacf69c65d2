"""Several ranks train as one: the same weights, decisions, checkpoints and errors; threads stand for the processes."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from paths import TESTS
from runs import Call, make, numbers, windows
from thread_ranks import Ended, ThreadRanks, run_ranks

from gpulstm.arrays import threads
from gpulstm.arrays.backend import NUMPY
from gpulstm.arrays.devices import to_host
from gpulstm.data.tbptt import Lanes
from gpulstm.errors import ConfigError, DeviceError, GpulstmError, TrainingError
from gpulstm.training.callbacks import Callback, EarlyStopping, Run
from gpulstm.training.launcher import launcher
from gpulstm.training.parallel import SINGLE, MpiRanks, ranks_of, rows_of, settle
from gpulstm.training.trainer import Trainer

OPTIONS: dict[str, Any] = {"epochs": 2}


def lanes() -> Lanes:
    """Three lanes of one wave, a step 4 rows on; the last step has fewer of them."""
    return Lanes(windows(61), np.array([61]), lanes=3, chunk=4, reach=8)


def trained(size: int, data: Callable[[], Any] = windows, **options: Any) -> list[Trainer]:
    """A trainer of each rank after its run."""

    def work(ranks: ThreadRanks) -> Trainer:
        trainer = make(**{**OPTIONS, **options}, parallel=ranks if size > 1 else SINGLE)
        trainer.fit(data(), windows(missing=True))
        return trainer

    results = run_ranks(size, work)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


def weights(trainer: Trainer) -> np.ndarray:
    return to_host(trainer.weights.flat)


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("data", [windows, lambda: windows(missing=True), lanes], ids=["whole", "gaps", "lanes"])
def test_ranks_train_as_one_process_with_the_same_batches(size: int, data: Callable[[], Any]) -> None:
    """With dropout between the layers; 33 windows in batches of 8 leave a last batch of one row."""
    options = {"batch_size": 3 if data is lanes else 8, "callbacks": []}
    (alone,) = trained(1, data, **options)
    together = trained(size, data, **options)
    for trainer in together:
        np.testing.assert_allclose(weights(trainer), weights(alone), rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(weights(trainer), weights(together[0]))
        for own, expected in zip(trainer.history.rows, alone.history.rows, strict=True):
            assert own["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-12)
            assert own["validation_loss"] == pytest.approx(expected["validation_loss"], rel=1e-12)
            assert own["rate"] == expected["rate"]
        assert trainer.network.calls == alone.network.calls


def test_the_same_number_of_ranks_gives_the_same_bits() -> None:
    first, second = trained(3), trained(3)
    assert numbers(first[0]) == numbers(second[0])


def test_fewer_windows_than_ranks() -> None:
    few = windows(10)  # three windows
    (alone,), together = trained(1, lambda: few), trained(4, lambda: few)
    for trainer in together:
        np.testing.assert_allclose(weights(trainer), weights(alone), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("data", [windows, lanes], ids=["windows", "lanes"])
@pytest.mark.parametrize(("before", "after"), [(3, 1), (1, 2), (2, 3)])
def test_a_checkpoint_goes_on_with_another_number_of_ranks(
    data: Callable[[], Any], before: int, after: int, tmp_path: Path
) -> None:
    options = {"batch_size": 3 if data is lanes else 8, "epochs": 2}
    (whole,) = trained(1, data, **options)
    path = tmp_path / "run.safetensors"

    def stop(run: Run) -> None:
        run.save(path)
        run.stop("enough")

    first = trained(before, data, **options, callbacks=[EarlyStopping(50), Call(3, stop)])
    assert [trainer.history.stopped for trainer in first] == ["enough"] * before
    assert [trainer.step for trainer in first] == [3] * before

    def work(ranks: ThreadRanks) -> Trainer:
        trainer = make(**options, parallel=ranks if after > 1 else SINGLE)
        trainer.restore(path)
        trainer.fit(data(), windows(missing=True))
        return trainer

    for trainer in run_ranks(after, work):
        np.testing.assert_allclose(weights(trainer), weights(whole), rtol=1e-12, atol=1e-12)
        assert trainer.history.best_epoch == whole.history.best_epoch


def test_a_value_that_is_not_finite_is_named_with_its_rank_by_all() -> None:
    data = windows()
    data.values[20] = np.inf

    def work(ranks: ThreadRanks) -> Any:
        return make(parallel=ranks, batch_size=33, callbacks=[]).fit(data)

    errors = run_ranks(3, work)
    assert {str(error) for error in errors} == {str(errors[0])}
    assert re.search(r"step 1 .*the loss is (nan|inf); those of rank \d hold a value in x that is not", str(errors[0]))
    assert all(isinstance(error, TrainingError) and error.everywhere for error in errors)


def test_what_fails_on_one_rank_ends_all() -> None:
    class Full(Callback):
        def on_step(self, run: Run) -> None:
            raise OSError(28, "No space left on device")

    def work(ranks: ThreadRanks) -> Any:
        return make(parallel=ranks, callbacks=[Full()]).fit(windows())

    errors = run_ranks(2, work)
    assert all(isinstance(error, Ended) for error in errors)
    assert {str(error) for error in errors} == {"rank 0: OSError: [Errno 28] No space left on device"}


def test_a_check_that_fails_on_one_rank_is_told_by_all() -> None:
    def work(ranks: ThreadRanks) -> None:
        def check() -> None:
            if ranks.rank == 1:
                raise ConfigError("memory is too small")

        settle(ranks, check, dict)

    errors = run_ranks(2, work)
    assert [str(error) for error in errors] == ["rank 1 of 2: memory is too small"] * 2
    assert all(isinstance(error, GpulstmError) and error.everywhere for error in errors)


def test_every_row_has_one_rank() -> None:
    for size in (1, 2, 3, 7):
        for batch in (1, 5, 8):
            ranks = [ThreadRanks(rank, size, {}) for rank in range(size)]
            rows = np.concatenate([np.arange(batch)[rows_of(one, batch)] for one in ranks])
            assert rows.tolist() == list(range(batch))


def test_who_trains_is_named_by_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ranks_of("none", NUMPY) is ranks_of("auto", NUMPY) is SINGLE
    for wrong in ("all", 3, None):
        with pytest.raises(ConfigError, match=r"parallel is .*, expected 'auto', 'none' or 'mpi'"):
            ranks_of(wrong, NUMPY)  # type: ignore[arg-type]


class Communicator:
    """What rank 1 of two hears from mpi4py: its own values, and from rank 0 those of the test."""

    def __init__(self, *others: Any) -> None:
        self._others = iter(others)

    def Get_rank(self) -> int:
        return 1

    def Get_size(self) -> int:
        return 2

    def allgather(self, value: Any) -> list[Any]:
        return [next(self._others), value]


def test_two_ranks_on_one_card_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = socket.gethostname()
    card = SimpleNamespace(device="cuda:0", is_cuda=True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(DeviceError, match="ranks 0 and 1 would share cuda:0 of one machine; start no more ranks there"):
        MpiRanks(Communicator(machine, "cuda:0", "0"), card)  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match="rank 1 computes on cuda:0, but rank 0 on cpu"):
        MpiRanks(Communicator(machine, "cpu", "0"), card)  # type: ignore[arg-type]


def test_ranks_of_one_machine_share_its_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    shared: list[int] = []
    monkeypatch.setattr(threads, "share", shared.append)
    machine, own = socket.gethostname(), threads.processors()
    for other, processors, expected in ((machine, own, 2), ("another", own, 1), (machine, (-1,), 1)):
        ranks = MpiRanks(Communicator(other, "cpu", None, processors), NUMPY)
        assert (shared.pop(), ranks.local_rank) == (expected, int(other == machine))


def mpiexec(size: int, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Start `programs/ranks.py` under the mpiexec that pip brought."""
    program = TESTS / "training" / "programs" / "ranks.py"
    command = [*launcher(), "-n", str(size), sys.executable, str(program), str(folder), *(arguments or ("cpu",))]
    variables = {**os.environ, "GPULSTM_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=600, check=False)


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """With MPI itself: rank 0 alone prints and saves, and a single process goes on from its checkpoint."""
    done = mpiexec(2, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2 ranks, 10 steps, epochs\n", "")
    (alone,) = trained(1)
    for rank in (0, 1):
        np.testing.assert_allclose(np.load(tmp_path / f"weights-2-{rank}.npy"), weights(alone), rtol=1e-12, atol=1e-12)
    again = make(**OPTIONS)
    again.restore(tmp_path / "run.safetensors")
    assert again.step == 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("memory", "gpulstm: rank 1 of 2: MemoryError; all ranks end"),
        ("bug", "gpulstm: rank 1 of 2: RuntimeError: a bug; all ranks end"),
        ("options", "ConfigError: rank 1 has another option epochs than rank 0: 3, not 2; start all ranks with"),
        ("data", "ConfigError: rank 1 has another hash of the training data than rank 0: "),
        ("kill", "Killed (signal 9)"),  # the launcher's own words
    ],
)
def test_a_fault_of_one_process_ends_all(fault: str, sentence: str, tmp_path: Path) -> None:
    done = mpiexec(2, tmp_path, "cpu", fault)
    assert done.returncode != 0
    assert (done.stdout + done.stderr).count(sentence) == 1
    assert not list(tmp_path.glob("weights-*"))
    if fault in ("options", "data"):
        return
    assert not list(tmp_path.glob("*.tmp*"))
    resumed = mpiexec(2, tmp_path, "cpu", "resume")
    assert (resumed.returncode, resumed.stdout) == (0, "2 ranks, 10 steps, epochs\n")
    (alone,) = trained(1)
    np.testing.assert_allclose(np.load(tmp_path / "weights-2-0.npy"), weights(alone), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.cuda
@pytest.mark.parametrize("size", [2, 4])
def test_ranks_on_gpus_train_as_one(size: int, tmp_path: Path) -> None:
    """NCCL adds up the gradients, one card a rank; on the simulator by its stand-in."""
    done = mpiexec(size, tmp_path, "cuda", HOSTGPU_DEVICES=str(size))
    assert (done.returncode, done.stdout) == (0, f"{size} ranks, 10 steps, epochs\n"), done.stderr
    trainer = make("cuda", "float32", **OPTIONS)
    trainer.fit(windows(dtype="float32"), windows(dtype="float32", missing=True))
    for rank in range(size):
        np.testing.assert_allclose(np.load(tmp_path / f"weights-{size}-{rank}.npy"), weights(trainer), atol=2e-6)
        np.testing.assert_array_equal(
            np.load(tmp_path / f"weights-{size}-{rank}.npy"), np.load(tmp_path / f"weights-{size}-0.npy")
        )


@pytest.mark.slow
@pytest.mark.cuda
def test_ranks_agree_on_the_loss_scale_of_float16(tmp_path: Path) -> None:
    """The scale and the weights are the same bits on all ranks, and the scale that of one."""
    done = mpiexec(2, tmp_path, "cuda", "float16", HOSTGPU_DEVICES="2")
    assert (done.returncode, done.stdout) == (0, "2 ranks, 10 steps, epochs\n"), done.stderr
    first, second = (np.load(tmp_path / f"weights-2-{rank}.npy") for rank in range(2))
    np.testing.assert_array_equal(first, second)
    alone = make("cuda", "float16", **OPTIONS)
    alone.fit(windows(dtype="float32"), windows(dtype="float32", missing=True))
    assert alone.state.loss_scale is not None
    np.testing.assert_array_equal(first[-2:], to_host(alone.state.loss_scale.state))
    np.testing.assert_allclose(first[:-2], weights(alone), atol=2e-2)
