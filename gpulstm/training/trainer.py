"""The training loop: batches in a seeded order, a step each, until the epochs are done or something stops it.

A run is a pure function of its inputs.  The order of the windows depends on `(seed, epoch)` alone and dropout masks on
the network's seed and its count of passes.  What else a run consists of is in `state`; `steps` takes the steps.

Losses stay on the device.  The host looks at them every `log_every` steps and at the end of an epoch.

A run may be shared among the ranks of an MPI program (`parallel`), each of which goes through the same loop.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from gpulstm import validate
from gpulstm.arrays.params import ParamDict
from gpulstm.arrays.random import host_generator
from gpulstm.data.streamed import AnyWindows, StreamedWindows
from gpulstm.data.tbptt import Lanes
from gpulstm.data.windows import WindowSet
from gpulstm.engines.spec import Plan
from gpulstm.errors import ShapeError, TrainingError
from gpulstm.losses import Loss
from gpulstm.model.memory import Memory, check_memory
from gpulstm.model.network import Network
from gpulstm.optimizers import Adam, Optimizer
from gpulstm.schedules import Schedule
from gpulstm.training.callbacks import Callback
from gpulstm.training.history import History
from gpulstm.training.interrupts import deferred
from gpulstm.training.parallel import Ranks, ends_all, everywhere, ranks_of, settle
from gpulstm.training.shared import Crew, facts_of, follow_verdicts, gathered, own_rows
from gpulstm.training.state import RunState, in_order
from gpulstm.training.step_log import first_bad, means
from gpulstm.training.steps import Steps, first_not_finite

_ORDER = 0x0DE5  # purpose of the random numbers that order the data


def data_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """A permutation of `count` windows that depends on nothing but the seed and the epoch, whatever NumPy's version.

    Returns:
        `(count,)` int64.
    """
    words = host_generator(seed, _ORDER, epoch).bit_generator.random_raw(count)
    return np.argsort(words, kind="stable")


class Trainer:
    """Trains a network on windows.

    Args:
        network: changed in place.
        loss: its `outputs` are the P of the network.
        optimizer: `Adam()` by default.
        schedule: a schedule, or a number for a constant rate; 1e-3 by default.
        epochs: how many epochs a whole run has, those before a checkpoint included.
        batch_size: windows in a step.
        clip_norm: largest global norm of the gradients, or None.
        seed: of the order of the windows.
        memory: bound on what a step takes, as in `Recurrent.forward`; the run has the same bits with any.
        restore_best: whether `fit` leaves the weights of the best epoch (lowest validation loss, or training loss
            without a validation set) in the network; a further `fit` or a checkpoint goes on from the last ones.
        log_every: steps between two looks of the host at the losses.
        callbacks: told of every step and epoch, those that save after the others.
        extra: what else belongs into a checkpoint, as JSON can hold it: a scaler, the columns of a table.
        identity: what else `restore` compares with the checkpoint, by name, as JSON can hold it.
        parallel: who trains: "none" this process alone, "mpi" all ranks of the MPI program, "auto" those where a
            launcher such as mpiexec started several.  All of them then call the same methods with the same data; the
            result is that of one process to rounding, and the same bits for the same number of ranks.

    Attributes:
        ranks: who trains, as this process sees them.
        state: what the run consists of between two steps: optimizer, schedule, counters, best weights.

    Raises:
        ConfigError: an option out of range, or a loss whose outputs are not the network's.
        DeviceError: two ranks share a GPU.
        MissingExtraError: ranks need mpi4py, or NCCL on GPUs, which is not installed.
    """

    def __init__(
        self,
        network: Network,
        loss: Loss,
        optimizer: Optimizer | None = None,
        schedule: Schedule | float = 1e-3,
        *,
        epochs: int = 20,
        batch_size: int = 32,
        clip_norm: float | None = None,
        seed: int = 0,
        memory: Memory = None,
        restore_best: bool = True,
        log_every: int = 50,
        callbacks: Sequence[Callback] = (),
        extra: Mapping[str, Any] | None = None,
        identity: Mapping[str, Any] | None = None,
        parallel: str | Ranks = "auto",
    ) -> None:
        self.epochs = validate.count("epochs", epochs)
        self.memory = check_memory(memory)
        self.restore_best = validate.flag("restore_best", restore_best)
        self.log_every = validate.count("log_every", log_every)
        self.callbacks = in_order(callbacks)
        self.extra = dict(extra or {})
        self.state = RunState(
            network,
            loss,
            Adam() if optimizer is None else optimizer,
            schedule,
            batch_size=batch_size,
            clip_norm=clip_norm,
            seed=seed,
            identity=identity,
        )
        self.ranks = ranks_of(parallel, network.backend)
        self._steps = Steps(self.state, self.memory, self.ranks)
        self._train: AnyWindows | None = None  # while a loop runs
        self._crew = Crew(self.ranks, self.callbacks, self._prepare_save)

    @property
    def network(self) -> Network:
        """What is trained."""
        return self.state.network

    @property
    def weights(self) -> ParamDict:
        """The network's parameters, or, for a network of 16 bits, the run's float32 masters of them."""
        return self.state.weights

    @property
    def history(self) -> History:
        """Rows of all epochs so far."""
        return self.state.history

    @property
    def epoch(self) -> int:
        """Epochs that are over."""
        return self.state.epoch

    @property
    def batch(self) -> int:
        """Batches of the present epoch that are done."""
        return self.state.batch

    @property
    def step(self) -> int:
        """Optimizer steps taken so far."""
        return self.state.step

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch; 0 before the first `fit`."""
        return self.state.steps_per_epoch

    def stop(self, reason: str) -> None:
        """End the run after the present step; for callbacks."""
        self._crew.reason = self._crew.reason or reason

    def fit(self, train: AnyWindows, validation: WindowSet | None = None) -> History:
        """Train until `epochs` epochs are over, a callback stops the run, or Ctrl-C does.

        The first Ctrl-C ends the run after the present step, with the state whole: `save` then writes a checkpoint that
        goes on from there.  A second one ends it at once.

        Args:
            train: what to learn from: windows in random order, those of a table in parts too, or lanes in the order of
                time.
            validation: what to judge the epochs by.

        Returns:
            the history, whose `stopped` tells why the run ended.

        Raises:
            ShapeError: the windows do not fit the network.
            ConfigError: a step cannot be done in `memory`.
            TrainingError: a loss or gradient is not finite (the step and the parameter are named), or memory is full.
        """
        state = self.state
        settle(self.ranks, lambda: check_run(self, train, validation), lambda: facts_of(self, train, validation))
        follow_verdicts(self.ranks, self.network.backend)
        take_way(self, train)
        self._steps.begin(train)
        self._train, state.windows, self._crew.reason = train, len(train), ""
        state.show_last()
        state.history.stopped = ""
        ended = "failed"
        # overflow is looked for in the losses, where the step can be named, and needs no warning as well
        with (
            self.network.backend.activate(),
            np.errstate(over="ignore", invalid="ignore"),
            deferred(lambda: self.stop("interrupted")),
        ):
            try:
                with ends_all(self.ranks):
                    self._crew.tell(self, "on_start")
                    while not self._crew.reason and state.epoch < self.epochs:
                        self._run_epoch(train, validation)
                ended = self._crew.reason or "epochs"
            finally:
                state.close_log()
                self._train, state.history.stopped = None, ended
                if self.restore_best:
                    state.show_best()
                with ends_all(self.ranks):
                    self._crew.tell(self, "on_stop")
        return state.history

    def explain(self, steps: int, batch: int | None = None) -> str:
        """How a training step on windows of `steps` rows is computed, and whether it is replayed as a CUDA graph.

        Args:
            steps: T.
            batch: B; the run's batch size if None.
        """
        batch = self.state.batch_size if batch is None else batch
        plan = self.network.explain(steps, batch, training=True, memory=self.memory)
        return f"{plan}\n  graph of a whole training pass: {self._steps.explain(steps, batch)}"

    def evaluate(self, windows: WindowSet) -> float:
        """The mean loss over all windows, with the present weights and without dropout; waits for the device.

        Ranks share the windows, so all of them call it.
        """
        check_windows("windows", windows, self.state)
        with self.network.backend.activate():
            return self._steps.mean_loss(windows, lambda: False)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint that `restore` goes on from, on this device or another, and with any number of ranks.

        Rank 0 writes it.  Between two runs all ranks call this; in a callback rank 0 does alone, and the others help.

        Raises:
            TrainingError: the last step was cut off in the middle by a second Ctrl-C, or one was not finite.
            CheckpointError: the file cannot be written; one that was there is as it was.
        """
        self._crew.call_for_save()
        state = self._prepare_save()
        if self.ranks.rank == 0:
            self.state.save(path, self.callbacks, self.extra, state)

    def _prepare_save(self) -> Any:
        """The part of `save` that all ranks take: the network's state for all rows of a batch."""
        if self._train is not None:
            self._check_finite()  # a broken state must not take the place of a good checkpoint
        return gathered(self.ranks, self.state.network_state)

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Go on from a checkpoint: `fit` with the same windows then continues that run bit for bit.

        Network, loss, optimizer, schedule, batch size, clipping and seed must be those of the run that was saved;
        epochs, callbacks, the device and the number of ranks may differ.  `extra` becomes that of the checkpoint.

        Raises:
            CheckpointError: the file is no training checkpoint, is damaged, or belongs to another run; the weights are
                untouched then.
        """
        self.extra = self.state.restore(path, self.callbacks)
        self.state.network_state = own_rows(self.ranks, self.state.network_state, self.state.batch_size)

    def _run_epoch(self, train: AnyWindows, validation: WindowSet | None) -> None:
        started, state = time.perf_counter(), self.state
        runs = batches(train, state)
        state.open_log(len(runs))
        while state.batch < len(runs):
            self._steps.take(train, runs[state.batch])
            if state.batch % self.log_every == 0 or state.batch == len(runs):
                losses = self._check_finite()
                self._crew.tell(self, "on_log", float(losses[-1]))
            self._crew.tell(self, "on_step")
            if self._crew.reason:
                self._check_finite()
                return
        judged = None
        if validation is not None:
            judged = self._steps.mean_loss(validation, lambda: bool(self._crew.reason))
            self._crew.meet()
            if self._crew.reason:  # within the validation, which is repeated when the run goes on
                return
        self._end_epoch(judged, time.perf_counter() - started)

    def _check_finite(self) -> np.ndarray:
        """Let the host see the losses of the epoch so far; a step that was not finite ends the run."""
        log = self.state.losses()
        if log is None:
            return np.zeros(0)
        bad = first_bad(log)
        if bad is not None:
            self._fail(bad, float(log[0, bad]))
        self._steps.seen()
        return log[0]

    def _fail(self, bad: int, value: float) -> NoReturn:
        """Go back to before the bad step, whose weights the latch has kept, find out what was wrong, and say it."""
        assert self._train is not None
        state = self.state
        self._steps.undo(state.batch - bad)
        runs = batches(self._train, state)
        where = f"step {state.step + 1} (epoch {state.epoch + 1}, batch {bad + 1} of {len(runs)})"
        fault = f"the loss is {value}" if not math.isfinite(value) else "the norm of the gradients is not finite"
        cause = self._steps.cause(self._train, runs[bad])
        raise everywhere(
            TrainingError(f"training stopped at {where}: {fault}; {cause}; {rescue(self.state, self.restore_best)}")
        )

    def _end_epoch(self, judged: float | None, seconds: float) -> None:
        state = self.state
        log = state.losses()
        assert log is not None
        loss, norm = means(log)
        judge = loss if judged is None else judged
        if not math.isfinite(judge):
            name = first_not_finite(state.weights)
            cause = "all weights are finite, so look at its windows" if name is None else f"parameter {name!r} is not"
            raise everywhere(
                TrainingError(
                    f"the validation loss after step {state.step} (epoch {state.epoch + 1}) is {judge}: {cause}; "
                    f"{rescue(self.state, self.restore_best)}"
                )
            )
        state.epoch, state.batch, state.network_state = state.epoch + 1, 0, None
        if state.history.best_loss is None or judge < state.history.best_loss:
            state.history.best_loss, state.history.best_epoch = judge, state.epoch
            state.keep_best()
        row = {
            "epoch": state.epoch,
            "step": state.step,
            "train_loss": loss,
            "validation_loss": judged,
            "rate": state.schedule.rate(state.step - 1),
            "gradient_norm": norm,
            "seconds": seconds,
        }
        state.schedule.observe(judge)
        state.history.rows.append(row)
        self._crew.tell(self, "on_epoch", row)


def batches(train: AnyWindows, state: RunState) -> Sequence[Any]:
    """The windows or chunks of each step of the present epoch."""
    if isinstance(train, Lanes):
        return train.batches(state.batch_size)
    if isinstance(train, StreamedWindows):
        return train.batches(state.batch_size, state.seed, state.epoch)
    return train.batches(state.batch_size, data_order(state.seed, state.epoch, len(train)))


def take_way(trainer: Trainer, train: AnyWindows) -> None:
    """Say where a run goes on in another form of the CUDA engine than it was computed in so far."""
    state, plan = trainer.state, plan_of_steps(trainer, train)
    way = f"{plan.form} form with {'own products' if plan.products == 'own' else 'cuBLAS'}" if plan.form else ""
    if state.way and way and way != state.way:
        warnings.warn(
            f"the run was computed in the {state.way} so far and goes on in the {way}: its numbers agree to rounding, "
            "not to the bit",
            RuntimeWarning,
            stacklevel=3,
        )
    state.way = way


def plan_of_steps(trainer: Trainer, train: AnyWindows) -> Plan:
    """How the steps of a run will be computed."""
    read = train.chunk if isinstance(train, Lanes) else None
    rows = -(-min(trainer.state.batch_size, len(train)) // trainer.ranks.size)
    return trainer.network.explain(train.context, rows, training=True, memory=trainer.memory, read=read)


def check_run(trainer: Trainer, train: AnyWindows, validation: WindowSet | None) -> None:
    """Refuse a run that cannot be, before anything is changed: errors as `Trainer.fit`."""
    state = trainer.state
    state.check_saved(trainer.callbacks, trainer.extra)
    check_windows("train", train, state)
    if validation is not None:
        check_windows("validation", validation, state)
    plan_of_steps(trainer, train)
    if not state.whole:
        raise TrainingError("the last step was cut off in the middle; go on from a checkpoint with restore()")
    if state.batch and state.windows != len(train):
        raise TrainingError(
            f"the run stands within an epoch over {state.windows} windows, train has {len(train)}; go on with the "
            "same windows"
        )


def rescue(state: RunState, restore_best: bool) -> str:
    """A clause that says which weights a failed run leaves in the network."""
    if state.best is None:
        return "no epoch was over yet, so the weights are those before that step"
    if restore_best:
        return f"the weights of the best epoch ({state.history.best_epoch}) are back in the network"
    return "the weights are those before that step"


def check_windows(name: str, windows: AnyWindows, state: RunState) -> None:
    """Refuse windows that do not fit the network of a run.

    Raises:
        ShapeError: their features, horizon or targets are not the network's, or there are none.
        ConfigError: lanes of another number than the batch size.
    """
    config = state.network.config
    pairs = {
        "inputs": (windows.inputs, config.input_size),
        "horizon": (windows.horizon, config.horizon),
        "targets": (windows.targets, config.targets),
        "future covariates": (windows.future, config.future_size),
    }
    for size, (came, expected) in pairs.items():
        if came != expected:
            raise ShapeError(f"the windows of {name} have {size} {came}, the network was made for {expected}")
    if not len(windows):
        raise ShapeError(f"{name} has no windows, expected at least one")
    if isinstance(windows, Lanes):
        windows.batches(state.batch_size)  # refuses another number of rows
