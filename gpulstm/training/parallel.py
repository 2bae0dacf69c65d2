"""Training by several processes, the ranks of an MPI program: each computes its rows of every batch.

    mpiexec -n 4 gpulstm train sales.csv --target units --time date

Every rank has the same data, draws the same order and holds the same weights.  A batch is cut into runs of rows, one a
rank; the gradients of all are added up in one flat buffer, by MPI on the CPU and by NCCL between GPUs, and every rank
takes the same step.  Rank 0 alone runs the callbacks, writes and prints; what it decides the others are told.

A run ends on all ranks or on none: what every rank finds out alike is an error with `everywhere` set, which rank 0
says; anything else that goes wrong on one rank ends all of them (`ends_all`), since the others wait for it within MPI,
where no Python handler is reached.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, Protocol, cast, runtime_checkable

import numpy as np

from gpulstm.arrays import launch, threads
from gpulstm.arrays.backend import Array, Backend
from gpulstm.errors import ConfigError, DeviceError, GpulstmError, TrainingError, missing_extra, one_line

PARALLEL = ("auto", "none", "mpi")
FAILED = 3  # exit status of ranks that one of them has ended


@runtime_checkable
class Ranks(Protocol):
    """The processes of a run, as one of them sees them; whatever but `abort` is called by all of them in one order.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are.
        local_rank: number among those of the same machine.
    """

    rank: int
    size: int
    local_rank: int

    def all_reduce(self, buffer: Array) -> None:
        """Put the sum over all ranks in the place of a flat array on the device; the same bits on every rank."""

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, a small object of Python."""

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, in their order, on every rank."""

    def agree(self, code: int) -> int:
        """The largest code of all ranks."""

    def barrier(self) -> None:
        """Wait until all ranks are here."""

    def abort(self, reason: str) -> NoReturn:
        """Say why, and end all ranks at once."""


class SingleRank(Ranks):
    """A process by itself."""

    rank, size, local_rank = 0, 1, 0

    def all_reduce(self, buffer: Array) -> None:
        pass

    def broadcast(self, value: Any) -> Any:
        return value

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def agree(self, code: int) -> int:
        return code

    def barrier(self) -> None:
        pass

    def abort(self, reason: str) -> NoReturn:
        raise TrainingError(reason)


class MpiRanks(Ranks):
    """The ranks of an MPI program, by mpi4py, and NCCL between those that compute on GPUs.

    Args:
        communicator: of mpi4py; a duplicate of the world's, so that messages of the program itself are left alone.
        backend: on which this rank computes.

    Raises:
        DeviceError: two ranks would share a GPU, or some of them have none.
        MissingExtraError: NCCL is not installed.
    """

    def __init__(self, communicator: Any, backend: Backend) -> None:
        self._communicator = communicator
        self.rank, self.size = communicator.Get_rank(), communicator.Get_size()
        machines = self.gather(_machine())
        self.local_rank = machines[: self.rank].count(machines[self.rank])
        self._nccl = None
        self._check_devices(machines, backend)
        if backend.is_cuda and self.size > 1:
            from gpulstm.arrays.cupy_backend import Communicator, CupyBackend, nccl_id

            name = self.broadcast(nccl_id() if self.rank == 0 else None)
            self._nccl = Communicator(cast(CupyBackend, backend), self.size, name, self.rank)
        elif self.size > 1:
            self._share_processors(machines)

    def _check_devices(self, machines: list[str], backend: Backend) -> None:
        """Refuse two ranks on one card; a launcher may show each process another card as its first."""
        devices = self.gather(backend.device)
        shown = self.gather(os.environ.get("CUDA_VISIBLE_DEVICES"))
        places = list(zip(machines, shown, devices, strict=True))
        for rank, device in enumerate(devices):
            if (device == "cpu") != (devices[0] == "cpu"):
                raise everywhere(DeviceError(f"rank {rank} computes on {device}, but rank 0 on {devices[0]}"))
            first = places.index(places[rank])
            if device != "cpu" and first < rank:
                raise everywhere(
                    DeviceError(
                        f"ranks {first} and {rank} would share {device} of one machine; start no more ranks there than "
                        "it has cards"
                    )
                )

    def _share_processors(self, machines: list[str]) -> None:
        """Give each rank of a machine its share of the processors, where the launcher has not done so."""
        places = list(zip(machines, self.gather(threads.processors()), strict=True))
        threads.share(places.count(places[self.rank]))

    def all_reduce(self, buffer: Array) -> None:
        if self._nccl is not None:
            self._nccl.sum(buffer)
        else:
            self._communicator.Allreduce(_mpi().IN_PLACE, buffer, op=_mpi().SUM)

    def broadcast(self, value: Any) -> Any:
        return self._communicator.bcast(value, root=0)

    def gather(self, value: Any) -> list[Any]:
        return self._communicator.allgather(value)

    def agree(self, code: int) -> int:
        largest = np.array([code], np.int64)
        self._communicator.Allreduce(_mpi().IN_PLACE, largest, op=_mpi().MAX)
        return int(largest[0])

    def barrier(self) -> None:
        self._communicator.Barrier()

    def abort(self, reason: str) -> NoReturn:
        end_all(self._communicator, reason)


def end_all(communicator: Any, reason: str) -> NoReturn:
    """Say on the process's own standard error which rank ends the others, and why, and do it."""
    say(f"rank {communicator.Get_rank()} of {communicator.Get_size()}: {one_line(reason)}; all ranks end")
    communicator.Abort(FAILED)
    os._exit(FAILED)


def say(sentence: str) -> None:
    """Write on the process's own standard error, whatever became of `sys.stderr`."""
    with contextlib.suppress(OSError):
        os.write(2, f"gpulstm: {sentence}\n".encode())


def ranks_of(parallel: str | Ranks, backend: Backend) -> Ranks:
    """The ranks that a run is shared among.

    Args:
        parallel: "none" for this process alone; "mpi" for all ranks of the MPI program; "auto" for those where a
            launcher (mpiexec, mpirun, srun) started more than one process; ranks are given back as they are.
        backend: on which this process computes.

    Raises:
        ConfigError: another word, or a launcher that does not belong to mpi4py's library.
        MissingExtraError: mpi4py, or NCCL, is not installed.
        DeviceError: as `MpiRanks`.
    """
    if isinstance(parallel, Ranks):
        return parallel
    if parallel not in PARALLEL:
        raise ConfigError(f"parallel is {parallel!r}, expected 'auto', 'none' or 'mpi'")
    started = launch.place()
    if parallel == "none" or (parallel == "auto" and started.size == 1):
        return SINGLE
    world = _mpi().COMM_WORLD
    if world.Get_size() != started.size and started.size > 1:
        raise ConfigError(
            f"the launcher started {started.size} processes, but mpi4py's library of MPI knows of {world.Get_size()}; "
            "start them with the mpiexec of that library, or leave parallel 'none'"
        )
    return _ranks(backend) if world.Get_size() > 1 else SINGLE


SINGLE = SingleRank()


@functools.cache
def _ranks(backend: Backend) -> MpiRanks:
    """The ranks of this process's program; one communicator for all runs on a device."""
    return MpiRanks(_watched().Dup(), backend)


@functools.cache
def _watched() -> Any:
    """The world's communicator, after an exception that nobody catches has been made to end all ranks.

    Without that a rank would wait at its exit for the others for ever.
    """
    world, before = _mpi().COMM_WORLD, sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, traceback: Any) -> None:
        alike = getattr(error, "everywhere", False)
        if not alike or world.Get_rank() == 0:
            before(kind, error, traceback)
        if not alike:
            end_all(world, words(error))

    sys.excepthook = hook
    return world


@functools.cache
def _mpi() -> Any:
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise missing_extra("mpi4py", "training by several processes") from error
    return MPI


def _machine() -> str:
    import socket

    return socket.gethostname()


def everywhere(error: GpulstmError) -> GpulstmError:
    """The error, marked as one that every rank raises alike: rank 0 says it for all, and none has to be ended."""
    error.everywhere = True
    return error


def failed(error: BaseException) -> None:
    """End all ranks where this one alone leaves with an error; nothing in a program that MPI has no part in."""
    module = sys.modules.get("mpi4py.MPI")
    if getattr(error, "everywhere", False) or module is None or not module.Is_initialized() or module.Is_finalized():
        return
    if module.COMM_WORLD.Get_size() > 1:
        end_all(module.COMM_WORLD, words(error))


@contextlib.contextmanager
def ends_all(ranks: Ranks) -> Iterator[None]:
    """Within the block an error of this rank alone ends all ranks."""
    try:
        yield
    except BaseException as error:
        if ranks.size > 1 and not getattr(error, "everywhere", False):
            ranks.abort(words(error))
        raise


def words(error: BaseException) -> str:
    """An error as a clause."""
    if isinstance(error, GpulstmError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def settle(ranks: Ranks, check: Callable[[], None], facts: Callable[[], Mapping[str, Any]]) -> None:
    """Let every rank check what it is about to do, and refuse ranks that are about to do different things.

    Args:
        ranks: all of them come here before they do anything together.
        check: raises where something cannot be.
        facts: what has to be the same on all ranks, by name; asked for only where there are several.

    Raises:
        GpulstmError: that of `check`, of this rank or another, or a ConfigError that names the first rank and the first
            fact that differ from rank 0's; on every rank.
    """
    if ranks.size == 1:
        check()
        return
    own: GpulstmError | None = None
    known: dict[str, Any] = {}
    try:
        check()
        known = dict(facts())
    except GpulstmError as error:
        own = error
    answers = ranks.gather((known, None if own is None else str(own)))
    texts = [text for _, text in answers]
    if own is not None and len(set(texts)) == 1:
        raise everywhere(own)
    for rank, text in enumerate(texts):
        if text is not None:
            raise everywhere(TrainingError(f"rank {rank} of {ranks.size}: {text}"))
    first = answers[0][0]
    for rank, (other, _) in enumerate(answers):
        for name in [*first, *(name for name in other if name not in first)]:
            if first.get(name) != other.get(name):
                raise everywhere(
                    ConfigError(
                        f"rank {rank} has another {name} than rank 0: {other.get(name)!r}, not {first.get(name)!r}; "
                        "start all ranks with the same version, options and data"
                    )
                )


def rows_of(ranks: Ranks, batch: int) -> slice:
    """The rows of a batch of `batch` rows that this rank computes; of a shorter batch those of them that there are.

    The first ranks have one more where they cannot all have as many.
    """
    each, more = divmod(batch, ranks.size)
    first = ranks.rank * each + min(ranks.rank, more)
    return slice(first, first + each + (ranks.rank < more))
