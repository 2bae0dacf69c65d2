"""Callbacks of a training run: a progress bar, early stopping, logs, checkpoints.

A callback is told where the run is and may stop it; it never touches the numbers.  It is called between steps only, so
whatever it saves can be gone on from.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO

from gpulstm import validate
from gpulstm.errors import CheckpointError, ConfigError, missing_extra
from gpulstm.model.network import Network
from gpulstm.training.history import History, Row


class Run(Protocol):
    """What a callback may use of a `Trainer`."""

    epochs: int

    @property
    def epoch(self) -> int:
        """Epochs that are over."""

    @property
    def history(self) -> History:
        """Rows of all epochs so far."""

    @property
    def step(self) -> int:
        """Optimizer steps taken so far."""

    @property
    def network(self) -> Network:
        """What is trained."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""

    def stop(self, reason: str) -> None:
        """End the run after the present step."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint."""


class Callback:
    """Base of all callbacks; each method does nothing until overridden.

    Attributes:
        name: under which a checkpoint keeps its state.
        last: called after all others, so that what it saves has heard everything.
    """

    name = ""
    last = False

    def on_start(self, run: Run) -> None:
        """The run begins, or goes on from a checkpoint."""

    def on_step(self, run: Run) -> None:
        """A step was taken; nothing has waited for the device."""

    def on_log(self, run: Run, loss: float) -> None:
        """The host has looked at the losses: `loss` is that of the last step.  Every `log_every` steps."""

    def on_epoch(self, run: Run, row: Row) -> None:
        """An epoch is over; `row` is its line of the history."""

    def on_stop(self, run: Run) -> None:
        """The run has ended, for the reason in `run.history.stopped`; the best weights are back if that was asked."""

    def scalars(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {}

    def restore(self, scalars: Mapping[str, Any]) -> None:
        """Take back what `scalars` gave.

        Raises:
            CheckpointError: it is the state of another kind of callback.
        """
        try:
            validate.scalars(f"the state of the callback {self.name!r}", scalars, self.scalars())
        except ConfigError as error:
            raise CheckpointError(str(error)) from None


class EarlyStopping(Callback):
    """Stop when the loss has not got better for `patience` epochs in a row.

    The loss is that of the validation set, or of training without one.  The trainer keeps the best weights and puts
    them back at the end (`restore_best`).

    Args:
        patience: epochs without progress after which to stop, at least 1.
        min_delta: by how much a loss must be below the best to count, at least 0.
    """

    name = "early_stopping"

    def __init__(self, patience: int = 10, min_delta: float = 0.0) -> None:
        self.patience = validate.count("patience", patience)
        self.min_delta = validate.real("min_delta", min_delta, at_least=0)
        self._best: float | None = None
        self._waited = 0

    def on_epoch(self, run: Run, row: Row) -> None:
        loss = row["train_loss"] if row["validation_loss"] is None else row["validation_loss"]
        assert loss is not None  # the training loss of an epoch is always there
        if self._best is None or loss < self._best - self.min_delta:
            self._best, self._waited = float(loss), 0
            return
        self._waited += 1
        if self._waited >= self.patience:
            run.stop("early stopping")

    def scalars(self) -> dict[str, Any]:
        return {"best": self._best, "waited": self._waited}

    def restore(self, scalars: Mapping[str, Any]) -> None:
        super().restore(scalars)
        self._best, self._waited = scalars["best"], scalars["waited"]


class Progress(Callback):
    """A bar over all steps (tqdm), the engine's name before it and the last losses behind; it goes away at the end.

    Args:
        enabled: False for silence.
        file: where to write; stderr by default.
    """

    name = "progress"

    def __init__(self, enabled: bool = True, file: TextIO | None = None) -> None:
        self.enabled, self.file = enabled, file
        self._bar: Any = None

    def on_start(self, run: Run) -> None:
        file = self.file or sys.stderr
        if not self.enabled or file is None:  # a service has no standard error
            return
        from tqdm import tqdm

        total = run.epochs * run.steps_per_epoch
        engine = run.network.explain(1, 1, training=True).engine.name
        known: Any = {"total": total, "initial": min(run.step, total), "desc": engine, "unit": "step"}
        self._bar = tqdm(**known, file=file, dynamic_ncols=True, leave=False)

    def on_step(self, run: Run) -> None:
        if self._bar is not None:
            self._bar.update()

    def on_log(self, run: Run, loss: float) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(f"epoch {run.epoch + 1}/{run.epochs}, loss {loss:.4g}{self._validation(run)}")

    def on_stop(self, run: Run) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    @staticmethod
    def _validation(run: Run) -> str:
        rows = run.history.rows
        judged = rows[-1]["validation_loss"] if rows else None
        return "" if judged is None else f", validation {judged:.4g}"


class HistoryCSV(Callback):
    """The history as a CSV, rewritten whole after every epoch, so that it is there whatever ends the run.

    Args:
        path: the file; `History.from_csv` reads it.
    """

    name = "history_csv"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def on_start(self, run: Run) -> None:
        run.history.to_csv(self.path)  # a folder that cannot be written to is refused before any work is lost

    def on_epoch(self, run: Run, row: Row) -> None:
        run.history.to_csv(self.path)


class TensorBoard(Callback):
    """Losses, rate and gradient norm for TensorBoard, one point an epoch, written by tensorboardX.

    Args:
        folder: of the event files.

    Raises:
        MissingExtraError: tensorboardX is not installed (extra `tensorboard`).
    """

    name = "tensorboard"

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            import tensorboardX  # noqa: F401 - only whether it is there
        except ImportError as error:
            raise missing_extra("tensorboardX", "the TensorBoard log") from error
        self.folder = Path(folder)
        self._writer: Any = None

    def on_start(self, run: Run) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(self.folder))

    def on_epoch(self, run: Run, row: Row) -> None:
        tags = {
            "loss/train": "train_loss",
            "loss/validation": "validation_loss",
            "rate": "rate",
            "gradient_norm": "gradient_norm",
        }
        for tag, column in tags.items():
            if row[column] is not None:
                self._writer.add_scalar(tag, row[column], global_step=run.step)
        self._writer.flush()

    def on_stop(self, run: Run) -> None:
        if self._writer is not None:  # None where the run ended before it began
            self._writer.close()
            self._writer = None


class CheckpointEvery(Callback):
    """A checkpoint every so many epochs or steps, and one more at the end unless the run failed.

    Args:
        path: the file; `{epoch}` and `{step}` in it are replaced, else each checkpoint replaces the last.
        epochs: write after this many epochs, or None.
        steps: write after this many steps, or None; with neither, only at the end.
    """

    name = "checkpoint_every"
    last = True

    def __init__(self, path: str | os.PathLike[str], *, epochs: int | None = None, steps: int | None = None) -> None:
        self.path = os.fspath(path)
        self.epochs = None if epochs is None else validate.count("epochs", epochs)
        self.steps = None if steps is None else validate.count("steps", steps)

    def on_start(self, run: Run) -> None:
        folder = self._path(run).parent
        if not folder.is_dir():
            raise ConfigError(f"path is {self.path!r}, but there is no folder {str(folder)!r}")

    def on_step(self, run: Run) -> None:
        if self.steps is not None and run.step % self.steps == 0:
            run.save(self._path(run))

    def on_epoch(self, run: Run, row: Row) -> None:
        if self.epochs is not None and run.epoch % self.epochs == 0:
            run.save(self._path(run))

    def on_stop(self, run: Run) -> None:
        if run.history.stopped != "failed":
            run.save(self._path(run))

    def _path(self, run: Run) -> Path:
        return Path(self.path.replace("{epoch}", str(run.epoch)).replace("{step}", str(run.step)))
