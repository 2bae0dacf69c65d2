"""The training loop: batches in a seeded order, a step each, until the epochs are done or something stops it.

A run is a pure function of its inputs.  The order of the windows depends on `(seed, epoch)` alone and dropout masks on
the network's seed and its count of passes.  What else a run consists of is in `state`; `steps` takes the steps.

Losses stay on the device.  The host looks at them every `log_every` steps and at the end of an epoch.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from gpulstm import validate
from gpulstm.arrays.params import ParamDict
from gpulstm.arrays.random import host_generator
from gpulstm.data.tbptt import Lanes
from gpulstm.data.windows import WindowSet
from gpulstm.errors import ShapeError, TrainingError
from gpulstm.losses import Loss
from gpulstm.model.memory import Memory, check_memory
from gpulstm.model.network import Network
from gpulstm.optimizers import Adam, Optimizer
from gpulstm.schedules import Schedule
from gpulstm.training.callbacks import Callback
from gpulstm.training.history import History
from gpulstm.training.interrupts import deferred
from gpulstm.training.state import RunState, in_order
from gpulstm.training.step_log import first_bad, means
from gpulstm.training.steps import Steps, first_not_finite

_ORDER = 0x0DE5  # which stream of the seed the order of the data is drawn from


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

    Attributes:
        state: what the run consists of between two steps: optimizer, schedule, counters, best weights.

    Raises:
        ConfigError: an option out of range, or a loss whose outputs are not the network's.
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
        self._steps = Steps(self.state, self.memory)
        self._train: WindowSet | Lanes | None = None  # while a loop runs
        self._stop = ""

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
    def engine(self) -> str:
        """The name of the engine that computes the recurrent layers."""
        return self.network.rnn.plan(1, self.state.batch_size, training=True).engine.name

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch; 0 before the first `fit`."""
        return self.state.steps_per_epoch

    def stop(self, reason: str) -> None:
        """End the run after the present step; for callbacks."""
        self._stop = self._stop or reason

    def fit(self, train: WindowSet | Lanes, validation: WindowSet | None = None) -> History:
        """Train until `epochs` epochs are over, a callback stops the run, or Ctrl-C does.

        The first Ctrl-C ends the run after the present step, with the state whole: `save` then writes a checkpoint that
        goes on from there.  A second one ends it at once.

        Args:
            train: what to learn from: windows in random order, or lanes in that of time.
            validation: what to judge the epochs by.

        Returns:
            the history, whose `stopped` tells why the run ended.

        Raises:
            ShapeError: the windows do not fit the network.
            ConfigError: a step cannot be done in `memory`.
            TrainingError: a loss or gradient is not finite (the step and the parameter are named), or memory is full.
        """
        state = self.state
        state.check_saved(self.callbacks, self.extra)
        check_windows("train", train, state)
        if validation is not None:
            check_windows("validation", validation, state)
        read = train.chunk if isinstance(train, Lanes) else None
        rows = min(state.batch_size, len(train))
        self.network.explain(
            train.context, rows, training=True, memory=self.memory, read=read
        )  # refuses what cannot be
        if not state.whole:
            raise TrainingError("the last step was cut off in the middle; go on from a checkpoint with restore()")
        if state.batch and state.windows != len(train):
            raise TrainingError(
                f"the run stands within an epoch over {state.windows} windows, train has {len(train)}; go on with the "
                "same windows"
            )
        self._train, state.windows, self._stop = train, len(train), ""
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
                self._tell("on_start")
                while not self._stop and state.epoch < self.epochs:
                    self._run_epoch(train, validation)
                ended = self._stop or "epochs"
            finally:
                state.close_log()
                self._train, state.history.stopped = None, ended
                if self.restore_best:
                    state.show_best()
                self._tell("on_stop")
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
        """The mean loss over all windows, with the present weights and without dropout; waits for the device."""
        check_windows("windows", windows, self.state)
        with self.network.backend.activate():
            return self._mean_loss(windows, lambda: False)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint that `restore` goes on from, on this device or another.

        Raises:
            TrainingError: the last step was cut off in the middle by a second Ctrl-C, or one was not finite.
            CheckpointError: the file cannot be written; one that was there is as it was.
        """
        if self._train is not None:
            self._check_finite()  # a broken state must not take the place of a good checkpoint
        self.state.save(path, self.callbacks, self.extra)

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Go on from a checkpoint: `fit` with the same windows then continues that run bit for bit.

        Network, loss, optimizer, schedule, batch size, clipping and seed must be those of the run that was saved;
        epochs, callbacks and the device may differ.  `extra` becomes that of the checkpoint.

        Raises:
            CheckpointError: the file is no training checkpoint, is damaged, or belongs to another run; the weights are
                untouched then.
        """
        self.extra = self.state.restore(path, self.callbacks)

    def _run_epoch(self, train: WindowSet | Lanes, validation: WindowSet | None) -> None:
        started, state = time.perf_counter(), self.state
        runs = batches(train, state)
        state.open_log(len(runs))
        while state.batch < len(runs):
            self._steps.take(train, runs[state.batch])
            if state.batch % self.log_every == 0 or state.batch == len(runs):
                losses = self._check_finite()
                self._tell("on_log", float(losses[-1]))
            self._tell("on_step")
            if self._stop:
                self._check_finite()
                return
        judged = None
        if validation is not None:
            judged = self._mean_loss(validation, lambda: bool(self._stop))
            if self._stop:  # within the validation, which is repeated when the run goes on
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
        what = f"the loss is {value}" if not math.isfinite(value) else "the norm of the gradients is not finite"
        cause = self._steps.cause(self._train.gather(runs[bad], self.network.backend))
        raise TrainingError(f"training stopped at {where}: {what}; {cause}; {rescue(self.state, self.restore_best)}")

    def _end_epoch(self, judged: float | None, seconds: float) -> None:
        state = self.state
        log = state.losses()
        assert log is not None
        loss, norm = means(log)
        judge = loss if judged is None else judged
        if not math.isfinite(judge):
            name = first_not_finite(state.weights)
            cause = "all weights are finite, so look at its windows" if name is None else f"parameter {name!r} is not"
            raise TrainingError(
                f"the validation loss after step {state.step} (epoch {state.epoch + 1}) is {judge}: {cause}; "
                f"{rescue(self.state, self.restore_best)}"
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
        self._tell("on_epoch", row)

    def _mean_loss(self, windows: WindowSet, stopped: Callable[[], bool]) -> float:
        """The mean loss over all windows; of no meaning once `stopped()`."""
        state, backend = self.state, self.network.backend
        total, amount = backend.zeros((), np.float64), backend.zeros((), np.float64)
        for run in windows.batches(state.batch_size):
            if stopped():
                break
            batch = windows.gather(run, backend)
            raw, _, _ = state.network.forward(batch.x, batch.future, memory=self.memory)
            value, _ = state.loss(raw, batch.target, batch.weight)
            share = float(batch.target.size) if batch.weight is None else batch.weight.sum().astype(np.float64)
            total = total + value.astype(np.float64) * share
            amount = amount + share
        targets = float(amount)
        return float(total) / targets if targets else 0.0

    def _tell(self, event: str, *values: Any) -> None:
        for callback in self.callbacks:
            self._tell_one(callback, event, *values)

    def _tell_one(self, callback: Callback, event: str, *values: Any) -> None:
        """A Ctrl-C within a callback finds the state whole, and so only stops the run."""
        try:
            getattr(callback, event)(self, *values)
        except KeyboardInterrupt:
            self.stop("interrupted")


def batches(train: WindowSet | Lanes, state: RunState) -> list[np.ndarray]:
    """The windows or chunks of each step of the present epoch."""
    if isinstance(train, Lanes):
        return train.batches(state.batch_size)
    return train.batches(state.batch_size, data_order(state.seed, state.epoch, len(train)))


def rescue(state: RunState, restore_best: bool) -> str:
    """A clause that says which weights a failed run leaves in the network."""
    if state.best is None:
        return "no epoch was over yet, so the weights are those before that step"
    if restore_best:
        return f"the weights of the best epoch ({state.history.best_epoch}) are back in the network"
    return "the weights are those before that step"


def check_windows(name: str, windows: WindowSet | Lanes, state: RunState) -> None:
    """Refuse windows that do not fit the network of a run.

    Raises:
        ShapeError: their features, horizon or targets are not the network's, or there are none.
        ConfigError: lanes of another number than the batch size.
    """
    config = state.network.config
    pairs = {
        "inputs": (windows.inputs, config.stack.input_size),
        "horizon": (windows.horizon, config.horizon),
        "targets": (windows.targets, config.targets),
        "future covariates": (windows.future, config.future_size),
    }
    for what, (came, expected) in pairs.items():
        if came != expected:
            raise ShapeError(f"the windows of {name} have {what} {came}, the network was made for {expected}")
    if not len(windows):
        raise ShapeError(f"{name} has no windows, expected at least one")
    if isinstance(windows, Lanes):
        windows.batches(state.batch_size)  # refuses another number of rows
