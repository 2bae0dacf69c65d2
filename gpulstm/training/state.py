"""All that a training run consists of between two steps, and how a checkpoint holds it.

A run that goes on from a checkpoint computes the same numbers, bit for bit, as one that never stopped.  The file holds
weights, moments, schedule, the count of passes that keys the dropout masks, the batches of the epoch so far with their
losses, the network's state after the last of them, the best weights and the callbacks' counters.  The order of the
windows needs no state: it is a function of the seed and the epoch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpulstm import validate
from gpulstm.arrays import checkpoint, files
from gpulstm.arrays.backend import Array
from gpulstm.arrays.dtypes import is_half
from gpulstm.arrays.params import ParamDict
from gpulstm.errors import CheckpointError, ConfigError, TrainingError
from gpulstm.losses import Loss
from gpulstm.model.network import Network
from gpulstm.model.state import of_parts, parts
from gpulstm.optimizers import Optimizer
from gpulstm.schedules import Constant, Schedule
from gpulstm.training.callbacks import Callback
from gpulstm.training.history import History
from gpulstm.training.mixed_precision import LossScale, masters
from gpulstm.training.saved import read
from gpulstm.training.step_log import StepLog


class RunState:
    """What is trained, with what, and how far; `Trainer` has one.

    Args:
        network, loss, optimizer, schedule: as `Trainer`.
        batch_size, clip_norm, seed: as `Trainer`.

    Attributes:
        epoch: epochs that are over.
        batch: batches of the present epoch that are done.
        windows: of the training set that the present epoch began with.
        history: rows of all epochs so far.
        loss_scale: for a network in float16, else None.
        best: flat weights of the best epoch, or None before one is over.
        last: flat weights that training goes on from, while the best are in the network, else None.
        log: losses and norms of the present epoch while a loop runs, else None.
        network_state: of the lanes after the last step, where the next one goes on from it; None within no epoch.
        whole: False while weights and moments are being changed.
        way: of the CUDA engine to compute the last `fit`, "" before one; no part of a run's identity.

    Raises:
        ConfigError: an object of another kind, an option out of range, or a loss whose outputs are not the network's.
    """

    def __init__(
        self,
        network: Network,
        loss: Loss,
        optimizer: Optimizer,
        schedule: Schedule | float,
        *,
        batch_size: int,
        clip_norm: float | None,
        seed: int,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        for name, value, kind in (
            ("network", network, Network),
            ("loss", loss, Loss),
            ("optimizer", optimizer, Optimizer),
        ):
            if not isinstance(value, kind):
                raise ConfigError(f"{name} is {value!r}, expected an object of a class of {kind.__module__}")
        self.network, self.loss, self.optimizer = network, loss, optimizer
        self.schedule = schedule if isinstance(schedule, Schedule) else Constant(schedule)
        self.batch_size = validate.count("batch_size", batch_size)
        self.clip_norm = None if clip_norm is None else validate.real("clip_norm", clip_norm, above=0)
        self.seed = validate.seed(seed)
        self.identity = dict(identity or {})
        if loss.outputs != network.config.outputs:
            raise ConfigError(
                f"the loss {loss.name!r} needs {loss.outputs} outputs per target, the network gives "
                f"{network.config.outputs}"
            )
        dtype = network.params.flat.dtype
        self._masters = masters(network.params) if is_half(dtype) else None
        self.loss_scale = LossScale(network.backend) if dtype == np.float16 else None
        self.optimizer.init(self.weights)
        self.epoch, self.batch, self.windows = 0, 0, 0
        self.history = History()
        self.best: Array | None = None
        self.last: Array | None = None
        self.log: StepLog | None = None
        self._saved_log: np.ndarray | None = None  # of the present epoch, while no loop runs
        self.network_state: Any = None
        self.whole = True
        self.way = ""

    @property
    def weights(self) -> ParamDict:
        """What is trained: the network's parameters, or, for a network of 16 bits, the float32 masters of the run.

        Masters are made with the run; what is put into the network from outside afterward is overwritten.
        """
        return self.network.params if self._masters is None else self._masters

    @property
    def step(self) -> int:
        """Optimizer steps taken so far."""
        return self.optimizer.steps

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch; 0 before the first `fit`."""
        return -(-self.windows // self.batch_size)

    def save(
        self,
        path: str | os.PathLike[str],
        callbacks: Sequence[Callback] = (),
        extra: Mapping[str, Any] | None = None,
        network_state: Any = None,
    ) -> None:
        """Write a checkpoint that `restore` goes on from, on this device or another.

        Args:
            path: the file.
            callbacks: whose counters are kept.
            extra: what else is kept, as JSON can hold it.
            network_state: for the rows of all ranks.

        Raises:
            TrainingError: the last step was cut off in the middle by a second Ctrl-C, or one was not finite.
            CheckpointError: the file cannot be written; one that was there is as it was.
        """
        if not self.whole:
            raise TrainingError("the last step was cut off in the middle, so there is no whole state to save")
        arrays = {f"weights.{name}": value for name, value in self._named(self.last).items()}
        if self.best is not None:
            arrays |= {f"best.{name}": value for name, value in self._named(self.best).items()}
        arrays |= {f"optimizer.{name}": value for name, value in self.optimizer.arrays().items()}
        if self.loss_scale is not None:
            arrays["loss_scale"] = self.loss_scale.state
        log = self.losses()
        if log is not None:
            arrays["log"] = log
        arrays |= {f"state.{name}": part for name, part in zip("hc", parts(network_state), strict=False)}
        meta = {
            "kind": "training",
            "run": self.run_config(),
            "optimizer": self.optimizer.scalars(),
            "schedule": self.schedule.scalars(),
            "counters": {
                "epoch": self.epoch,
                "batch": self.batch,
                "calls": self.network.calls,
                "windows": self.windows,
            },
            "history": self.history.state(),
            "callbacks": {callback.name: callback.scalars() for callback in callbacks if callback.scalars()},
            "extra": dict(extra or {}),
            "way": self.way,
        }
        checkpoint.save(path, arrays, meta)

    def restore(self, path: str | os.PathLike[str], callbacks: Sequence[Callback] = ()) -> dict[str, Any]:
        """Take back what `save` wrote.

        Network, loss, optimizer, schedule, batch size, clipping and seed must be those of the run that was saved;
        callbacks and the device may differ.

        Returns:
            `extra` of the checkpoint.

        Raises:
            CheckpointError: the file is no training checkpoint, is damaged, or belongs to another run; the weights are
                untouched then.
        """
        saved = read(path)
        for key, own in self.run_config().items():
            if key not in saved.run:
                raise CheckpointError(
                    f"{path} was written by an older version of gpulstm, which did not keep the {key} of a run: begin "
                    "the run again, or go on with that version"
                )
            if saved.run[key] != own:
                name, first, second = _difference(key, saved.run[key], own)
                if name == "schedule.steps":
                    raise CheckpointError(
                        f"{path} belongs to a run whose schedule falls over {first} steps, here over {second}: epochs, "
                        "batch_size and the windows set how many; go on with those of the run, or train with "
                        "schedule='constant'"
                    )
                raise CheckpointError(f"{path} belongs to another run: its {name} is {first!r}, here it is {second!r}")
        for values in (saved.weights, saved.best) if saved.best else (saved.weights,):
            self._check_weights(path, values)
        with files.damaged(f"{path} is no whole training run", CheckpointError):
            if (saved.loss_scale is None) != (self.loss_scale is None):
                raise CheckpointError(f"{path} is no whole training run: only float16 has a loss scale")
            for callback in callbacks:
                if callback.name in saved.callbacks:
                    callback.restore(saved.callbacks[callback.name])
            self.schedule.restore(saved.schedule)
            self.optimizer.restore(saved.optimizer, saved.optimizer_scalars)
            if self.loss_scale is not None:
                self.loss_scale.restore(saved.loss_scale)
        self.weights.load(saved.weights)
        self.publish()
        self.best = self._flat(saved.best) if saved.best else None
        self.last, self.log, self._saved_log = None, None, saved.log
        state = {name: self.network.backend.from_host(part) for name, part in saved.state.items()}
        self.network_state = of_parts(state.get("h"), state.get("c"))
        self.epoch, self.batch = saved.counters["epoch"], saved.counters["batch"]
        self.windows, self.network.calls = saved.counters["windows"], saved.counters["calls"]
        self.history, self.whole, self.way = saved.history, True, saved.way
        return saved.extra

    def open_log(self, steps: int) -> None:
        """Begin the log of an epoch of `steps` steps, or go on with that of an epoch that was interrupted."""
        self.log = StepLog(self.network.backend, steps, self.weights.flat.dtype)
        if self._saved_log is not None:
            self.log.load(self._saved_log)
            self._saved_log = None

    def close_log(self) -> None:
        """Keep the log of the present epoch on the host: no loop runs any more."""
        self._saved_log, self.log = self.losses(), None

    def losses(self) -> np.ndarray | None:
        """Losses, norms and amounts `(3, batch)` of the present epoch so far, on the host; None between epochs."""
        if not self.batch:
            return None
        return self._saved_log if self.log is None else self.log.host(self.batch)

    def keep_best(self) -> None:
        """Remember the weights as those of the best epoch."""
        self.best = self.weights.flat.copy()

    def show_best(self) -> None:
        """Put the weights of the best epoch into the network, and remember the last ones to go on from."""
        if self.best is not None:
            self.last = self.weights.flat.copy()
            self.weights.flat[...] = self.best
            self.publish()
            self.history.restored = True

    def show_last(self) -> None:
        """Put the weights that training goes on from back into the network."""
        if self.last is not None:
            self.weights.flat[...] = self.last
            self.publish()
            self.last = None
        self.history.restored = False

    def run_config(self) -> dict[str, Any]:
        """What a run that goes on must have in common with the one that was saved, as JSON gives it back."""
        options = {
            **self.identity,  # named first, as its names are those that a person typed
            "network": self.network.config.to_dict(),
            "network_seed": self.network.seed,
            "loss": self.loss.config(),
            "optimizer": self.optimizer.config(),
            "schedule": self.schedule.config(),
            "batch_size": self.batch_size,
            "clip_norm": self.clip_norm,
            "seed": self.seed,
        }
        return json.loads(_text("what the run consists of", options))

    def check_saved(self, callbacks: Sequence[Callback], extra: Mapping[str, Any]) -> None:
        """Raise unless a checkpoint could hold the run: better now than after an hour of training.

        Raises:
            ConfigError: something is none of what JSON can hold; it is named.
        """
        self.run_config()
        _text("extra", extra)
        for callback in callbacks:
            _text(f"the state of the callback {callback.name!r}", callback.scalars())

    def publish(self) -> None:
        """Put the weights into the network, where it has copies of its own."""
        if self._masters is not None:
            with self.network.backend.activate():
                self.network.params.flat[...] = self._masters.flat

    def _check_weights(self, path: Any, values: Mapping[str, np.ndarray]) -> None:
        params = self.weights
        unmatched = sorted(values.keys() ^ params.keys())
        if unmatched:
            raise CheckpointError(
                f"{path} belongs to another model: parameter {unmatched[0]!r} is in only one of the two"
            )
        for name, value in values.items():
            if value.shape != params[name].shape or value.dtype != params[name].dtype:
                raise CheckpointError(
                    f"{path} belongs to another model: parameter {name!r} is {value.dtype} {value.shape}, expected "
                    f"{params[name].dtype} {params[name].shape}"
                )

    def _named(self, flat: Array | None) -> ParamDict:
        """The weights, or a flat copy of such by name."""
        if flat is None:
            return self.weights
        named = self.weights.like()
        named.flat[...] = flat
        return named

    def _flat(self, values: Mapping[str, np.ndarray]) -> Array:
        named = self.weights.like()
        named.load(values)
        return named.flat


def in_order(callbacks: Sequence[Callback]) -> list[Callback]:
    """The callbacks as given, but those that save after the others; two with state must have names of their own."""
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise ConfigError(
                f"callbacks holds {callback!r}, expected objects of a class of gpulstm.training.callbacks"
            )
    names = [callback.name for callback in callbacks if callback.scalars()]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"callbacks has two named {name!r}, whose state a checkpoint could not tell apart")
    return sorted(callbacks, key=lambda callback: callback.last)


def _text(what: str, values: Mapping[str, Any]) -> str:
    try:
        return json.dumps(values, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{what} cannot be saved: {error}") from error


def _difference(name: str, saved: Any, own: Any) -> tuple[str, Any, Any]:
    """Where two configs first differ: the name of the entry, down through dicts, and its two values."""
    if isinstance(saved, dict) and isinstance(own, dict):
        for key in sorted(saved.keys() | own.keys()):
            if saved.get(key) != own.get(key):
                return _difference(f"{name}.{key}", saved.get(key), own.get(key))
    return name, saved, own
