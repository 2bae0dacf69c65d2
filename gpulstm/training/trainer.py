"""The training loop: batches in a seeded order, a step each, until the epochs are done or something stops it.

A run is a pure function of its inputs.  The order of the windows depends on `(seed, epoch)` alone and dropout masks on
the network's seed and its count of passes; what else a run consists of is in `runstate`.

Losses stay on the device.  The host looks at them every `log_every` steps and at the end of an epoch.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from gpulstm import validate
from gpulstm.arrays.backend import Array
from gpulstm.arrays.random import host_generator
from gpulstm.data.tbptt import Lanes
from gpulstm.data.windows import Batch, WindowSet
from gpulstm.errors import ShapeError, TrainingError
from gpulstm.losses import Loss
from gpulstm.model.memory import Memory, check_memory
from gpulstm.model.network import Network
from gpulstm.optimizers import Optimizer
from gpulstm.schedules import Schedule
from gpulstm.training.callbacks import Callback
from gpulstm.training.gradients import GradientPass, Result
from gpulstm.training.history import History
from gpulstm.training.state import RunState
from gpulstm.training.step_log import StepLog, first_bad, means

_ORDER = 0x0DE5  # which stream of the seed the order of the data is drawn from


def data_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """A permutation of `count` windows that depends on nothing but the seed and the epoch, whatever NumPy's version.

    Returns:
        `(count,)` int64.
    """
    words = host_generator(seed, _ORDER, epoch).bit_generator.random_raw(count)
    return np.argsort(words, kind="stable")


class Trainer(RunState):
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
        memory: bound on what a step takes besides the parameters, as `Recurrent.forward`; the run is the same bits with
            any.
        restore_best: whether `fit` ends with the weights of the best epoch (lowest validation loss, or training loss
            without a validation set) in the network, however it ends.  The last weights are kept beside them, and a
            further `fit` or a checkpoint goes on from those.
        log_every: steps between two looks of the host at the losses.
        callbacks: told of every step and epoch, in this order, those that save after the others.
        extra: what else belongs into a checkpoint, as JSON can hold it: a scaler, the columns of a table.

    Attributes:
        epoch: epochs that are over.
        batch: batches of the present epoch that are done.
        history: rows of all epochs so far.

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
    ) -> None:
        self.epochs = validate.count("epochs", epochs)
        self.memory = check_memory(memory)
        self.restore_best = validate.flag("restore_best", restore_best)
        self.log_every = validate.count("log_every", log_every)
        super().__init__(
            network,
            loss,
            optimizer,
            schedule,
            batch_size=batch_size,
            clip_norm=clip_norm,
            seed=seed,
            callbacks=callbacks,
            extra=extra,
        )
        self._grads = self.weights.like()
        self._pass = GradientPass(network, loss, self._grads, self.clip_norm, self.memory, self.loss_scale)
        self._train: WindowSet | Lanes | None = None  # while a loop runs
        self._next: Any = None  # the state that a step leaves to the next one
        self._states: list[Any] = []  # before each step since the host last looked at the losses
        self._passes = 1  # forward passes of a step
        self._stop = ""

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
        self._check_windows("train", train)
        if validation is not None:
            self._check_windows("validation", validation)
        self._check_memory(train)
        if not self._whole:
            raise TrainingError("the last step was cut off in the middle; go on from a checkpoint with restore()")
        if self.batch and self._windows != len(train):
            raise TrainingError(
                f"the run stands within an epoch over {self._windows} windows, train has {len(train)}; go on with the "
                "same windows"
            )
        self._train, self._windows, self._stop = train, len(train), ""
        if self._last is not None:
            self.weights.flat[...] = self._last
            self._publish()
            self._last = None
        self.history.stopped, self.history.restored = "", False
        ended = "failed"
        # overflow is looked for in the losses, where the step can be named, and need not be warned of besides
        with self.network.backend.activate(), np.errstate(over="ignore", invalid="ignore"), _deferred_interrupt(self):
            try:
                self._tell("on_start")
                while not self._stop and self.epoch < self.epochs:
                    self._run_epoch(train, validation)
                ended = self._stop or "epochs"
            finally:
                self._log, self._live, self._train = self._present_log(), None, None
                self.history.stopped = ended
                self._put_best_back()
                self._tell("on_stop")
        return self.history

    def explain(self, steps: int, batch: int | None = None) -> str:
        """How a training step on windows of `steps` rows is computed, and whether it is replayed as a CUDA graph.

        Args:
            steps: T.
            batch: B; the run's batch size if None.
        """
        batch = self.batch_size if batch is None else batch
        plan = self.network.explain(steps, batch, training=True, memory=self.memory)
        whole = self._pass.explain(steps, batch)
        return f"{plan}\n  graph of a whole training pass: {whole}"

    def evaluate(self, windows: WindowSet) -> float:
        """The mean loss over all windows, with the present weights and without dropout; waits for the device."""
        self._check_windows("windows", windows)
        with self.network.backend.activate():
            return self._evaluate(windows, lambda: False)

    def save(self, path: str | os.PathLike[str]) -> None:
        if self._train is not None:
            self._check_finite()  # a broken state must not take the place of a good checkpoint
        super().save(path)

    def _run_epoch(self, train: WindowSet | Lanes, validation: WindowSet | None) -> None:
        started = time.perf_counter()
        runs = self._batches(train)
        self._live = StepLog(self.network.backend, len(runs), self.weights.flat.dtype)
        if self._log is not None:
            self._live.load(self._log)
            self._log = None
        while self.batch < len(runs):
            self._step(train, runs[self.batch])
            looks = self.batch % self.log_every == 0 or self.batch == len(runs)
            if looks:
                losses = self._check_finite()
                self._tell("on_log", float(losses[-1]))
            self._tell("on_step")
            if self._stop:
                self._check_finite()
                return
        judged = None
        if validation is not None:
            judged = self._evaluate(validation, lambda: bool(self._stop))
            if self._stop:  # within the validation, which is done anew when the run goes on
                return
        self._end_epoch(judged, time.perf_counter() - started)

    def _batches(self, train: WindowSet | Lanes) -> list[np.ndarray]:
        if isinstance(train, Lanes):
            return train.batches(self.batch_size)
        return train.batches(self.batch_size, data_order(self.seed, self.epoch, len(train)))

    def _step(self, train: WindowSet | Lanes, indices: np.ndarray) -> None:
        assert self._live is not None
        network, calls, done = self.network, self.network.calls, False
        try:
            batch = train.gather(indices, network.backend)
            found = self._gradients(batch)
            amount = batch.target.size if found.amount is None else found.amount
            self._whole = False
            scale = self._live.record(self.batch, found.value, found.norm, found.scale, amount)
            self.optimizer.step(self.weights, self._grads, rate=self.schedule.rate(self.step), scale=scale)
            if self.loss_scale is not None:
                self.loss_scale.move(found.scale)
                self._publish()
            self._states.append(self._state)
            self._state, self._passes = self._next, network.calls - calls
            self.batch += 1
            self._whole = done = True
        except MemoryError as error:  # CuPy's is one too
            raise TrainingError(
                f"memory is full at step {self.step + 1} with batch_size {self.batch_size}; choose a smaller one"
            ) from error
        finally:
            if not done:
                network.calls = calls

    def _gradients(self, batch: Batch) -> Result:
        """The loss of a batch and the norm of its gradients, which are in `_grads` afterwards."""
        if not self._pass.is_of(self.network, self.loss, self._grads, self.clip_norm, self.memory):
            own = self.network, self.loss, self._grads, self.clip_norm, self.memory
            self._pass = GradientPass(*own, self.loss_scale)
        found = self._pass(
            batch.x,
            batch.target,
            batch.future,
            batch.weight,
            self._start(batch),
            read=batch.read,
            carry=batch.state_at,
        )
        self._next = found.state
        return found

    def _start(self, batch: Batch) -> Any:
        """The state that a step begins with: that of the step before, or zeros for rows that begin."""
        if self._state is None or batch.fresh is None or batch.fresh.all():
            return None
        rows, xp = batch.fresh.size, self.network.backend.xp
        if not batch.fresh.any() and self._rows(self._state) == rows:
            return self._state
        old = self.network.backend.from_host(~batch.fresh)[None, :, None]
        parts = self._state if isinstance(self._state, tuple) else (self._state,)
        found = tuple(xp.where(old, part[:, :rows], xp.zeros((), part.dtype)) for part in parts)
        return found if isinstance(self._state, tuple) else found[0]

    @staticmethod
    def _rows(state: Any) -> int:
        return (state[0] if isinstance(state, tuple) else state).shape[1]

    def _check_finite(self) -> np.ndarray:
        """Let the host see the losses of the epoch so far; a step that was not finite ends the run."""
        log = self._present_log()
        if log is None:
            return np.zeros(0)
        bad = first_bad(log)
        if bad is not None:
            self._fail(bad, float(log[0, bad]))
        self._states.clear()
        return log[0]

    def _fail(self, bad: int, value: float) -> NoReturn:
        """Go back to before the bad step, whose weights the latch has kept, find out what was wrong, and say it."""
        assert self._train is not None
        late = self.batch - bad
        self.batch -= late
        self.optimizer.steps -= late
        self.network.calls -= late * self._passes
        self._state = self._states[-late]
        runs = self._batches(self._train)
        where = f"step {self.step + 1} (epoch {self.epoch + 1}, batch {bad + 1} of {len(runs)})"
        what = f"the loss is {value}" if not math.isfinite(value) else "the norm of the gradients is not finite"
        cause = self._cause(self._train.gather(runs[bad], self.network.backend))
        raise TrainingError(f"training stopped at {where}: {what}; {cause}; {self._rescue()}")

    def _cause(self, batch: Batch) -> str:
        known = batch.target if batch.weight is None else batch.target * (batch.weight > 0)
        data = {"x": batch.x, "future": batch.future, "target": known}
        name = _first_not_finite({key: value for key, value in data.items() if value is not None})
        if name is not None:
            return f"its windows hold a value in {name} that is not finite"
        name = _first_not_finite(self.weights)
        if name is not None:
            return f"parameter {name!r} was not finite before it"
        calls = self.network.calls
        self._gradients(batch)
        self.network.calls = calls
        name = _first_not_finite(self._grads)
        found = "all gradients are finite" if name is None else f"the gradient of {name!r} is the first not finite"
        return f"the weights before it are finite, {found}; a lower rate or clip_norm may help"

    def _rescue(self) -> str:
        if self._best is None:
            return "no epoch was over yet, so the weights are those before that step"
        if self.restore_best:
            return f"the weights of the best epoch ({self.history.best_epoch}) are back in the network"
        return "the weights are those before that step"

    def _end_epoch(self, judged: float | None, seconds: float) -> None:
        log = self._present_log()
        assert log is not None
        loss, norm = means(log)
        judge = loss if judged is None else judged
        if not math.isfinite(judge):
            name = _first_not_finite(self.weights)
            cause = "all weights are finite, so look at its windows" if name is None else f"parameter {name!r} is not"
            raise TrainingError(
                f"the validation loss after step {self.step} (epoch {self.epoch + 1}) is {judge}: {cause}; "
                f"{self._rescue()}"
            )
        self.epoch, self.batch, self._state = self.epoch + 1, 0, None
        if self.history.best_loss is None or judge < self.history.best_loss:
            self.history.best_loss, self.history.best_epoch = judge, self.epoch
            self._best = self.weights.flat.copy()
        row = {
            "epoch": self.epoch,
            "step": self.step,
            "train_loss": loss,
            "validation_loss": judged,
            "rate": self.schedule.rate(self.step - 1),
            "gradient_norm": norm,
            "seconds": seconds,
        }
        self.schedule.observe(judge)
        self.history.rows.append(row)
        self._tell("on_epoch", row)

    def _evaluate(self, windows: WindowSet, stopped: Callable[[], bool]) -> float:
        """The mean loss; of no meaning once `stopped()`."""
        backend = self.network.backend
        total, amount = backend.zeros((), np.float64), backend.zeros((), np.float64)
        for run in windows.batches(self.batch_size):
            if stopped():
                break
            batch = windows.gather(run, backend)
            raw, _, _ = self.network.forward(batch.x, batch.future, memory=self.memory)
            value, _ = self.loss(raw, batch.target, batch.weight)
            share = float(batch.target.size) if batch.weight is None else batch.weight.sum().astype(np.float64)
            total = total + value.astype(np.float64) * share
            amount = amount + share
        there = float(amount)
        return float(total) / there if there else 0.0

    def _tell(self, event: str, *values: Any) -> None:
        for callback in self.callbacks:
            self._tell_one(callback, event, *values)

    def _tell_one(self, callback: Callback, event: str, *values: Any) -> None:
        """A Ctrl-C within a callback finds the state whole, and so only stops the run."""
        try:
            getattr(callback, event)(self, *values)
        except KeyboardInterrupt:
            self.stop("interrupted")

    def _put_best_back(self) -> None:
        if self.restore_best and self._best is not None:
            self._last = self.weights.flat.copy()
            self.weights.flat[...] = self._best
            self._publish()
            self.history.restored = True

    def _check_memory(self, train: WindowSet | Lanes) -> None:
        read = train.chunk if isinstance(train, Lanes) else None
        rows = min(self.batch_size, len(train))
        self.network.explain(train.context, rows, training=True, memory=self.memory, read=read)

    def _check_windows(self, name: str, windows: WindowSet | Lanes) -> None:
        config = self.network.config
        pairs = {
            "inputs": (windows.inputs, config.stack.input_size),
            "horizon": (windows.horizon, config.horizon),
            "targets": (windows.targets, config.targets),
            "future covariates": (windows.future, config.future_size),
        }
        for what, (there, here) in pairs.items():
            if there != here:
                raise ShapeError(f"the windows of {name} have {what} {there}, the network was made for {here}")
        if not len(windows):
            raise ShapeError(f"{name} has no windows, expected at least one")
        if isinstance(windows, Lanes):
            windows.batches(self.batch_size)  # refuses another number of rows


def _first_not_finite(arrays: Mapping[str, Array]) -> str | None:
    """The first name whose array holds a NaN or an infinity; both come through a maximum."""
    for name, value in arrays.items():
        if value.size and not math.isfinite(float(abs(value).max())):
            return name
    return None


@contextlib.contextmanager
def _deferred_interrupt(trainer: Trainer) -> Iterator[None]:
    """Let the first Ctrl-C stop the run after the present step; the second does what it always does.

    Outside of the main thread, or where a program handles Ctrl-C itself, nothing is changed.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def once(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        trainer.stop("interrupted")

    signal.signal(signal.SIGINT, once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
