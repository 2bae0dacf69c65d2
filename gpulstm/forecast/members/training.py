"""Training of network members: what a simple forecast, or a ridge, leaves, by the package's own layers and trainer.

The head starts at zero, so that before the first step the network is the member that it starts from; training stops
where validation says, and a network that no step improved is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpulstm.arrays.backend import Backend
from gpulstm.arrays.checkpoint import load
from gpulstm.data.windows import Batch
from gpulstm.engines.spec import StackSpec
from gpulstm.errors import CheckpointError
from gpulstm.forecast.members.network import LEVELS, Residual, patches
from gpulstm.forecast.members.ridge import Ridge
from gpulstm.forecast.members.space import Space
from gpulstm.forecast.panel import View
from gpulstm.losses import Pinball
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.optimizers import AdamW
from gpulstm.schedules import Cosine
from gpulstm.training.callbacks import Callback, CheckpointEvery, EarlyStopping, Progress
from gpulstm.training.history import History
from gpulstm.training.parallel import SINGLE, Ranks
from gpulstm.training.trainer import Trainer

JUDGED = 1500  # validation windows at most
PASSES = 40  # over all windows, at most, in a run
FEW = 300  # windows below which batches and runs are small
GAIN = 1e-3  # by which a network has to lower the loss of what it starts from


@dataclass(frozen=True)
class Training:
    """How network members are trained.

    Args:
        cell, hidden_size, num_layers, dropout, recurrent_dropout, layer_norm, dtype: of the stack; see `StackSpec`.
        learning_rate, weight_decay, clip_norm: of the run; the rate falls along a cosine to 2 %.
        epochs: judged stretches of the run; each has 50 steps of 128 windows, or for few windows 10 of 32.
        patience: stretches without progress after which training stops, or None.
        seed: of weights and order.
        device, engine, memory: as `Forecaster`.
    """

    cell: str = "lstm"
    hidden_size: int = 64
    num_layers: int = 1
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    layer_norm: bool = False
    dtype: str = "float32"
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    clip_norm: float | None = 1.0
    epochs: int | None = None
    patience: int | None = 4
    batch_size: int | None = None
    seed: int = 0
    device: str = "auto"
    engine: str | None = None
    memory: Any = None


class Windows:
    """Arrays as a trainer reads windows.

    Args:
        x: `(N, T, I)`.
        target: `(N, H)`, NaN where not observed.
        weight: `(N,)`.
        steps, batch: of an epoch, which draws its windows from all of them; 0 for one pass over all.
    """

    targets, future = 1, 0

    def __init__(self, x: np.ndarray, target: np.ndarray, weight: np.ndarray, steps: int = 0, batch: int = 0) -> None:
        self.x, self.steps, self.batch = np.ascontiguousarray(x.transpose(1, 0, 2)), steps, batch
        seen = ~np.isnan(target)
        self.target = np.where(seen, target, 0.0).astype(x.dtype)
        self.weight = (seen * weight[:, None]).astype(x.dtype)
        self.inputs, self.horizon, self.context = x.shape[2], target.shape[1], x.shape[1]

    def __len__(self) -> int:
        return max(len(self.target), self.steps * self.batch)

    def batches(self, size: int, order: np.ndarray | None = None) -> list[np.ndarray]:
        """Indices of the windows of an epoch in runs of `size`; `order` is a permutation of `len(self)`."""
        count = len(self.target)
        if order is None:
            return [np.arange(start, min(start + size, count)) for start in range(0, count, size)]
        order = order[: self.steps * size] % count
        return [order[start : start + size] for start in range(0, len(order), size)]

    def gather(self, indices: np.ndarray, backend: Backend) -> Batch:
        """The windows of `indices` on a device."""
        x, target = backend.from_host(self.x[:, indices]), backend.from_host(self.target[indices, :, None])
        return Batch(x, target, weight=backend.from_host(self.weight[indices, :, None]))


@dataclass(frozen=True, eq=False)
class Part:
    """Windows, in the space's own values, and how much each counts `(N,)`."""

    view: View
    weight: np.ndarray


@dataclass(frozen=True, eq=False)
class Origin:
    """What a network starts from.

    Args:
        space: how it sees windows.
        ridge: whose residual is learned, or None for that of the space's base.
        start: number of the member that it starts from.
        key: names the run among those of a fit.
    """

    space: Space
    ridge: Ridge | None
    start: int
    key: str

    @property
    def warm_key(self) -> str:
        """Names what it starts from in later fits, too."""
        return f"{'base' if self.ridge is None else 'ridge'} {self.space.name}"


class Runs:
    """The training runs of a fit, one after another, and the checkpoint that it goes on from.

    Args:
        callbacks: of the first run, whose history is the fit's.
        progress: a bar on stderr.
        checkpoint: a file to which the present run is saved after every epoch.
        resume: such a file.  Runs before the one that it holds are done again, to the same bits.
        warm: weights to start from, by what a network starts from (`Origin.warm_key`), where they fit.
        identity: what a run that goes on must have in common with the saved one, by name; see `Trainer`.
        ranks: who trains.

    Attributes:
        histories: of the runs so far.
    """

    def __init__(
        self,
        callbacks: Sequence[Callback] = (),
        progress: bool = False,
        checkpoint: Any = None,
        resume: Any = None,
        warm: Mapping[str, Mapping[str, np.ndarray]] | None = None,
        identity: Mapping[str, Any] | None = None,
        ranks: Ranks = SINGLE,
    ) -> None:
        self.warm = {} if warm is None else warm
        self.histories: list[History] = []
        self.callbacks, self.progress, self.checkpoint, self.resume = callbacks, progress, checkpoint, resume
        self.identity, self.ranks = dict(identity or {}), ranks
        self._key: str | None = None

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C, or a callback, ended the last run."""
        return bool(self.histories) and self.histories[-1].stopped not in ("epochs", "early stopping")

    def watchers(self) -> list[Callback]:
        """The callbacks of the next run."""
        found: list[Callback] = [Progress(self.progress), *(() if self.histories else self.callbacks)]
        if self.checkpoint is not None:
            found.append(CheckpointEvery(self.checkpoint, epochs=1))
        return found

    def fit(self, key: str, trainer: Trainer, train: Any, validation: Any, early: EarlyStopping | None) -> History:
        """Run a trainer, or go on with the run that the checkpoint holds."""
        over = False
        if self.resume is not None and self._key is None:
            extra = load(self.resume)[1].get("extra", {})
            if "member" not in extra:
                raise CheckpointError(f"{self.resume} holds no run of a mixture's network, expected one that fit saved")
            self._key = extra["member"]
        if self._key == key:
            trainer.restore(self.resume)
            over = early is not None and early.scalars()["waited"] >= early.patience
        history = trainer.history if over else trainer.fit(train, validation)
        if over:
            history.stopped = "early stopping"
        self.histories.append(history)
        return history


def train(
    origin: Origin, learn: Part, judge: Part | None, options: Training, runs: Runs, epochs: int | None = None
) -> Residual | None:
    """Train one network.

    Args:
        learn: training windows.
        judge: validation windows; None trains for `epochs` epochs and keeps the last weights.
        runs: of the fit.
        epochs: of the run, where nothing judges it.

    Returns:
        the network of the best epoch, or None where none was better than what it starts from.
    """
    count = len(learn.view)
    steps, size, whole = (10, 32, 10) if count < FEW else (int(np.clip(PASSES * count / (12 * 128), 10, 50)), 128, 12)
    size = size if options.batch_size is None else options.batch_size
    whole = whole if options.epochs is None else options.epochs
    target, x = _learned(origin, learn.view)
    network = _new(target, x, options)
    early = EarlyStopping(options.patience) if judge is not None and options.patience is not None else None
    trainer = Trainer(
        network,
        Pinball(LEVELS),
        AdamW(weight_decay=options.weight_decay),
        Cosine(options.learning_rate, steps * whole, 0.02 * options.learning_rate),
        epochs=whole if judge is not None else max(1, epochs or whole),
        batch_size=size,
        clip_norm=options.clip_norm,
        seed=options.seed,
        memory=options.memory,
        restore_best=judge is not None,
        callbacks=[*runs.watchers(), *([] if early is None else [early])],
        extra={"member": origin.key},
        identity=runs.identity,
        parallel=runs.ranks,
    )
    dtype = network.config.stack.data_dtype
    windows = Windows(x.astype(dtype), target, learn.weight, steps, size)
    if judge is None:
        _warm(network, runs.warm.get(origin.warm_key))
        runs.fit(origin.key, trainer, windows, None, None)
        return Residual(origin.space, origin.ridge, network, trainer.epoch, origin.start)
    view, weight = judge.view, judge.weight
    if len(view) > JUDGED:
        keep = np.linspace(0, len(view) - 1, JUDGED).round().astype(int)
        view, weight = view.at(keep), weight[keep]
    judged, x = _learned(origin, view)
    validation: Any = Windows(x.astype(dtype), judged, weight)
    before = trainer.evaluate(validation)
    _warm(network, runs.warm.get(origin.warm_key))
    history = runs.fit(origin.key, trainer, windows, validation, early)
    if history.best_loss is None or history.best_epoch is None or not history.best_loss < (1 - GAIN) * before:
        return None
    return Residual(origin.space, origin.ridge, network, history.best_epoch, origin.start)


def _new(target: np.ndarray, x: np.ndarray, options: Training) -> Network:
    """A network whose median is 0 before the first step, and whose other quantiles are those of the targets."""
    stack = StackSpec(
        options.cell,  # type: ignore[arg-type] # checked by the options
        x.shape[2],
        options.hidden_size,
        options.num_layers,
        dtype=options.dtype,
        dropout=options.dropout,
        recurrent_dropout=options.recurrent_dropout,
        layer_norm=options.layer_norm,
    )
    config = NetworkConfig(stack, target.shape[1], 1, len(LEVELS))
    network = Network(config, device=options.device, seed=options.seed, engine=options.engine)
    known = np.where(np.isnan(target).all(axis=0), 0.0, target)
    quantiles = np.nanquantile(known, LEVELS, axis=0).T
    quantiles[:, LEVELS.index(0.5)] = 0.0
    network.params["head.W"][...] = 0
    network.params["head.b"][...] = network.backend.from_host(quantiles.reshape(-1).astype(stack.dtype))
    return network


def _warm(network: Network, weights: Mapping[str, np.ndarray] | None) -> None:
    """Put weights of an earlier fit into a network, where they have its shapes."""
    if weights is None or {name: value.shape for name, value in weights.items()} != {
        name: value.shape for name, value in network.params.items()
    }:
        return
    network.params.load(weights)


def _learned(origin: Origin, view: View) -> tuple[np.ndarray, np.ndarray]:
    """What is to be learned of windows `(N, H)`, and what is read `(N, T, p)`."""
    scaled = origin.space.scaled(view)
    target = origin.space.residual(view, scaled)
    if origin.ridge is not None:
        target = target - scaled.inputs @ origin.ridge.weights
    horizon = scaled.base.shape[1]
    length = scaled.inputs.shape[1] - horizon - scaled.extra - 1
    return target, patches(scaled.inputs, length, horizon, scaled.extra)
