"""The options of a forecaster: each with its default and meaning, their checks, and the parts that they describe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any

import numpy as np

from gpulstm import validate
from gpulstm.arrays.devices import resolve
from gpulstm.arrays.dtypes import NAMES, is_half
from gpulstm.data.scaling import KINDS, check_window_kind
from gpulstm.data.splits import Amount, parse_amount
from gpulstm.data.tbptt import BORDERS, check_reach
from gpulstm.engines.spec import StackSpec
from gpulstm.errors import ConfigError
from gpulstm.losses import LOSSES, MSE, GaussianNLL, Loss, Pinball, from_config
from gpulstm.model.initializers import check_chrono
from gpulstm.model.memory import Memory, check_memory
from gpulstm.training.parallel import PARALLEL
from gpulstm.validate import described, documented, number_of, whole_of

CELLS = ("lstm", "gru", "rnn")
LIKELIHOODS = ("quantile", "gaussian", "point")
TRAININGS = ("windows", "truncated")
STRATEGIES = ("direct", "recursive")
SCHEDULES = ("cosine", "constant")
TRANSFORMS = ("none", "log", "boxcox", "auto")
RESIDUALS = ("none", "seasonal", "auto")
SKIPS = ("none", "linear", "auto")

TASK, NETWORK, TRAINING = "The task", "The network", "Training"  # headings of the options on the command line

AUTO = "auto"
ALONE = ("network",)
KINDS_OF_MEMBERS = ("simple", "ridge", "network")
AutoCount = Any  # a whole number, or "auto"
AutoNumber = Any  # a number, or "auto"
Likelihood = Any  # a name of `LIKELIHOODS`, or a `Loss`
AUTOMATIC = ("horizon", "context", "num_layers", "batch_size", "epochs")
PLACE = ("device", "parallel", "devices")  # where and by whom, which is no part of a model
FREE = ("epochs", "patience", "memory", "engine", "draws")  # what may be another when a run goes on

RENAMED = {"carry": "stream_rows"}  # options of older checkpoints, by what they are called now


def parse_count(text: str) -> int | str:
    """A whole number or "auto"; anything else is judged by the config."""
    number = whole_of(text)
    return text if number is None else number


def parse_patience(text: str) -> int | str | None:
    """The same, and 0 for None."""
    return parse_count(text) or None


def parse_number(text: str) -> float | str:
    """A number or "auto"; anything else is judged by the config."""
    number = number_of(text)
    return text if number is None else number


def check_members(members: Any) -> str | tuple[str, ...]:
    """The members as a tuple in the usual order, or "auto".

    Raises:
        ConfigError: an unknown one, or no simple ones next to a ridge.
    """
    if isinstance(members, str):
        members = (members,)
    if not isinstance(members, Sequence) or not members:
        raise ConfigError(f"members is {members!r}, expected 'auto' or some of {', '.join(KINDS_OF_MEMBERS)}")
    if tuple(members) == (AUTO,):
        return AUTO
    for name in members:
        if name not in KINDS_OF_MEMBERS:
            raise ConfigError(f"members holds {name!r}, expected 'auto' or some of {', '.join(KINDS_OF_MEMBERS)}")
    found = tuple(name for name in KINDS_OF_MEMBERS if name in members)
    if found != ALONE and "simple" not in found:
        raise ConfigError(f"members is {found!r}, expected 'simple' among them, or ('network',) alone")
    if found == ("simple", "network"):
        raise ConfigError("members is ('simple', 'network'), but networks learn what the ridge leaves; add 'ridge'")
    return found


@documented
@dataclass(frozen=True)
class ForecasterConfig:
    """The options of a `Forecaster`; the command line has the same ones.

    Raises:
        ConfigError: an option out of range, or a combination that cannot be.
    """

    horizon: AutoCount = described(
        AUTO, "steps ahead; auto for one season, less for short series", TASK, parse=parse_count
    )
    context: AutoCount = described(
        AUTO, "rows that a network sees; auto for what season and length ask for", TASK, parse=parse_count
    )
    hidden_size: int = described(64, "units per recurrent layer", NETWORK)
    num_layers: AutoCount = described(
        AUTO, "recurrent layers; auto for 2, or 1 as a member", NETWORK, aliases=("--layers",), parse=parse_count
    )
    quantiles: Sequence[float] = described(
        (0.1, 0.5, 0.9), "levels, strictly rising; likelihood point does not use them", TASK, aliases=("--quantile",)
    )
    device: str = described("auto", "auto, cpu, cuda or cuda:N", NETWORK)
    seed: int = described(0, "of weights, order of the data, dropout and draws", TRAINING)
    _: KW_ONLY
    members: str | Sequence[str] = described(
        AUTO,
        "who forecasts: auto (simple forecasts, a ridge and small networks, mixed by validation), simple and any of "
        "ridge and network, or network alone for a single one",
        TASK,
        many=True,
    )
    nonnegative: bool | None = described(
        None, "keep forecasts and bands at zero or above; by default for counts and sales", TASK
    )
    cell: str = described("lstm", "kind of recurrent layer: lstm, gru or rnn", NETWORK)
    likelihood: Likelihood = described(
        "quantile",
        "quantile (pinball loss), gaussian (mean and scale by likelihood) or point (squared error); in Python also a "
        "loss of your own, an object of a class of gpulstm.losses.Loss",
        TASK,
        parse=str,
    )
    strategy: str = described(
        "direct",
        "direct (the head gives the whole horizon) or recursive (one step, fed back in several draws; any horizon may "
        "be asked for, and there can be no past covariates, whose future is not known)",
        TASK,
    )
    scaling: str = described(
        "standard", "by the training rows: standard, minmax, robust or none; see data.scaling.Scaler", TASK
    )
    window_scaling: str = described(
        "last", "by each window's context: last, mean, standard or none; see data.scaling.window_statistics", TASK
    )
    past_scaling: str = described(
        "window", "of past covariates, for a single network: window (by its context too, as targets) or none", TASK
    )
    transform: str = described(
        "none",
        "of the targets before all else, for a single network: none, log, boxcox (with the power under which steps "
        "vary most evenly) or auto (what validation rows find best)",
        TASK,
    )
    residual: str = described(
        "none",
        "what a single network learns: none (the values, scaled), seasonal (their difference from those a season "
        "before) or auto (what validation rows find best)",
        TASK,
    )
    skip: str = described(
        "none",
        "what a single network's forecast is added to: none, linear (a linear map of the window, fitted in closed "
        "form) or auto (what validation rows find best)",
        NETWORK,
    )
    season: int | None = described(
        None,
        "rows in a season, for the seasonal-naive forecast and MASE; None takes that of the time step (24 of hours, 7 "
        "of days, 52 of weeks, 12 of months), else 1",
        TASK,
    )
    dropout: float = described(0.0, "rate between layers", NETWORK)
    recurrent_dropout: float = described(0.0, "rate within the recurrence", NETWORK)
    layer_norm: bool = described(False, "layer normalization", NETWORK)
    chrono: int | None = described(
        None,
        "rows that memory may have to reach, from which the gates' biases start (chrono initialization); None for the "
        "usual start",
        NETWORK,
    )
    dtype: str = described(
        "float32",
        "float32, float64 or, on CUDA, bfloat16 or float16: passes in half precision, weights and steps in float32, "
        "for float16 with a loss scale that finds itself",
        NETWORK,
    )
    embedding: int | None = described(
        None,
        "values from which on a category is read by a single network as a learned vector; those with fewer, and all of "
        "them by default, are one column a value",
        NETWORK,
    )
    engine: str | None = described(None, "force an engine; see gpulstm info", NETWORK)
    learning_rate: AutoNumber = described(
        AUTO, "first rate of AdamW; auto for 0.005, or 0.003 as a member", TRAINING, parse=parse_number
    )
    schedule: str = described(
        "cosine", "of the rate: cosine (down to a hundredth over all epochs) or constant", TRAINING
    )
    weight_decay: AutoNumber = described(
        AUTO, "of AdamW; auto for 0, or 0.0001 as a member", TRAINING, parse=parse_number
    )
    clip_norm: float | None = described(1.0, "largest norm of the gradients; None for no limit", TRAINING)
    batch_size: AutoCount = described(
        AUTO, "windows in a step; auto for 64, or as a member 128, of few windows 32", TRAINING, parse=parse_count
    )
    epochs: AutoCount = described(
        AUTO,
        "passes over the training windows, at most; auto for 30, or as a member 12 of 50 steps, of few windows 10 of "
        "10",
        TRAINING,
        parse=parse_count,
    )
    patience: AutoCount = described(
        AUTO,
        "epochs without progress after which training stops; auto for 10, or 4 as a member; None (on the command line "
        "0) for never",
        TRAINING,
        parse=parse_patience,
    )
    validation: Amount = described(
        AUTO,
        "kept from training at the end of every series to judge members and epochs by: auto (what horizon and length "
        "ask for), a fraction of the rows, a number of rows, or the date at which it begins",
        TRAINING,
        parse=parse_amount,
    )
    test: Amount = described(
        0.0,
        "kept from training for a backtest, given as validation is; auto for what horizon and length ask for",
        TRAINING,
        parse=parse_amount,
    )
    stride: int = described(1, "rows between training windows", TRAINING)
    draws: int = described(200, "draws of the recursive strategy", TASK)
    stream_rows: int = described(
        0,
        "with a window scaling, rows over which a stream keeps its state before it starts over from a fresh context; "
        "training windows are then scaled by their rows up to as many before their end, so that the network knows such "
        "states; 0 starts over at each update, which forecasts a little better",
        TASK,
    )
    min_context: int | None = described(
        None,
        "rows that a series too short for a whole context has to have, to be padded on the left; shorter ones get "
        "simple forecasts; None for a quarter of the context",
        TASK,
    )
    memory: Memory = described(
        None,
        "bound on what a training step takes in addition to the parameters: bytes, 256MiB or the like, or sqrt; the "
        "result is the same bits with any, and without one training is fastest",
        TRAINING,
    )
    training: str = described(
        "windows",
        "windows (every stretch of context rows by itself, in random order) or truncated (the series are read once an "
        "epoch in as many lanes as a batch has rows, and the state is carried on: for series of millions of rows and "
        "memory that reaches further than a window; it needs window scaling none)",
        TRAINING,
    )
    chunk: int = described(64, "rows that a step of truncated training moves on", TRAINING)
    reach: int | None = described(
        None,
        "rows that gradients of truncated training flow back through, a multiple of the chunk; None for the chunk",
        TRAINING,
    )
    borders: str = described(
        "reset",
        "state at the border of two series of truncated training: reset (zeros) or carry (that of the series before)",
        TRAINING,
    )
    parallel: str = described(
        "auto",
        "who trains: none (this process), mpi (all ranks of the MPI program) or auto (those that mpiexec started)",
        TRAINING,
    )
    devices: str | None = described(
        None,
        "train by a process for each of these, which are started: all GPUs, some by number (0,1), or cpu:4 for four "
        "processes on the CPU",
        TRAINING,
    )

    def __post_init__(self) -> None:
        validate.plain_numbers(self)
        _check_values(self)
        _check_choices(self)
        _check_together(self)

    @property
    def single(self) -> bool:
        """Whether a single network forecasts, because it was asked for or because only a network can do what was."""
        return self.members == ALONE or bool(self.alone())

    def alone(self) -> list[str]:
        """The options that only a single network has, as `name=value`."""
        usual = {"likelihood": "quantile", "strategy": "direct", "training": "windows", "stream_rows": 0}
        usual |= {"transform": "none", "residual": "none", "skip": "none"}
        usual |= {"chrono": None, "embedding": None, "scaling": "standard", "window_scaling": "last", "stride": 1}
        return [f"{name}={getattr(self, name)!r}" for name, value in usual.items() if getattr(self, name) != value]

    def to_dict(self) -> dict[str, Any]:
        """The options as JSON holds them; those of `PLACE` are not among them."""
        options = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in PLACE}
        options["quantiles"] = list(self.quantiles)
        if isinstance(self.likelihood, Loss):
            options["likelihood"] = self.likelihood.config()
        options["members"] = self.members if isinstance(self.members, str) else list(self.members)
        for name in ("validation", "test"):
            amount = options[name]
            if not isinstance(amount, (int, float, str)):
                options[name] = amount.item() if isinstance(amount, (np.integer, np.floating)) else str(amount)
        return options

    def identity(self) -> dict[str, Any]:
        """The options that a training run cannot go on with others of; those left out change no number of it."""
        return {name: value for name, value in self.to_dict().items() if name not in FREE}

    @classmethod
    def from_dict(cls, options: dict[str, Any], device: str, likelihood: Loss | None = None) -> ForecasterConfig:
        """The options that `to_dict` gave, also those of an older version.

        Half precision is for CUDA: on another device its weights are used in float32.

        Raises:
            ConfigError: an option out of range.
            TypeError: there is no such option.
        """
        older = {} if "members" in options else {"members": ALONE}  # files of 0.1.0 hold a single network
        own = options.get("likelihood")
        if isinstance(own, dict):
            known = own.get("name") in {loss.name for loss in LOSSES}
            if not known and (likelihood is None or likelihood.name != own.get("name")):
                raise ConfigError(
                    f"it was fitted with the loss {own.get('name')!r} of its own; give it: load(path, likelihood=...)"
                )
            options = {**options, "likelihood": from_config(own) if likelihood is None else likelihood}
        named = {**older, "past_scaling": "none", **{RENAMED.get(name, name): value for name, value in options.items()}}
        if is_half(named.get("dtype")) and not resolve(device).is_cuda:
            named["dtype"] = "float32"
        return cls(**named, device=device)

    def loss(self) -> Loss:
        """What the likelihood and the quantiles mean."""
        if isinstance(self.likelihood, Loss):
            return self.likelihood
        if self.likelihood == "point":
            return MSE()
        levels = tuple(self.quantiles)
        return Pinball(levels) if self.likelihood == "quantile" else GaussianNLL(levels)

    def stack(self, inputs: int) -> StackSpec:
        """The recurrent layers for windows of `inputs` features."""
        return StackSpec(
            self.cell,  # type: ignore[arg-type] # checked above
            inputs,
            self.hidden_size,
            2 if self.num_layers == AUTO else self.num_layers,
            dtype=self.dtype,
            dropout=self.dropout,
            recurrent_dropout=self.recurrent_dropout,
            layer_norm=self.layer_norm,
        )

    @property
    def least(self) -> int:
        """Rows that a series has to have for the network to forecast it."""
        return max(1, self.context // 4) if self.min_context is None else min(self.min_context, self.context)

    @property
    def training_horizon(self) -> int:
        """Steps that the head gives: the whole horizon, or one that the recursive strategy feeds back."""
        return self.horizon if self.strategy == "direct" else 1

    @property
    def scale_lag(self) -> int:
        """Rows that a training window may go on after those that scale it: a stream's, and what is fed back."""
        fed_back = self.horizon - 1 if self.strategy == "recursive" else 0
        return min(self.stream_rows + fed_back, self.context - 1)


def _set(config: ForecasterConfig, name: str, value: Any) -> None:
    """Put the checked value of an option in the place of what was given."""
    object.__setattr__(config, name, value)


def _check_values(config: ForecasterConfig) -> None:
    """Raise unless every number is in its range; put plain numbers in the place of what stands for them."""
    _set(config, "members", check_members(config.members))
    for name in ("horizon", "context", "hidden_size", "num_layers", "batch_size", "epochs", "stride", "draws"):
        if name not in AUTOMATIC or getattr(config, name) != AUTO:
            _set(config, name, validate.count(name, getattr(config, name)))
    if config.nonnegative is not None:
        validate.flag("nonnegative", config.nonnegative)
    _set(config, "seed", validate.seed(config.seed))
    _set(config, "stream_rows", validate.count("stream_rows", config.stream_rows, at_least=0))
    if config.context != AUTO and config.stream_rows >= config.context:
        raise ConfigError(f"stream_rows is {config.stream_rows}, expected less than the context of {config.context}")
    for name in ("season", "patience", "min_context", "embedding"):
        if getattr(config, name) is not None and (name, getattr(config, name)) != ("patience", AUTO):
            _set(config, name, validate.count(name, getattr(config, name)))
    check_memory(config.memory)
    for name in ("memory", "validation", "test"):
        if isinstance(getattr(config, name), np.generic) and not isinstance(getattr(config, name), np.datetime64):
            _set(config, name, getattr(config, name).item())
    for name in ("dropout", "recurrent_dropout"):
        _set(config, name, validate.real(name, getattr(config, name), at_least=0, below=1))
    _set(config, "layer_norm", validate.flag("layer_norm", config.layer_norm))
    _set(config, "quantiles", validate.levels("quantiles", config.quantiles))
    check_window_kind(config.window_scaling)
    if config.learning_rate != AUTO:
        _set(config, "learning_rate", validate.real("learning_rate", config.learning_rate, above=0))
    if config.weight_decay != AUTO:
        _set(config, "weight_decay", validate.real("weight_decay", config.weight_decay, at_least=0))
    if config.clip_norm is not None:
        _set(config, "clip_norm", validate.real("clip_norm", config.clip_norm, above=0))


def _check_choices(config: ForecasterConfig) -> None:
    """Raise unless every name is one of those that the option knows."""
    for name, choices in (
        ("cell", CELLS),
        ("likelihood", LIKELIHOODS),
        ("strategy", STRATEGIES),
        ("schedule", SCHEDULES),
        ("scaling", KINDS),
        ("past_scaling", ("window", "none")),
        ("training", TRAININGS),
        ("borders", BORDERS),
        ("dtype", NAMES),
        ("parallel", PARALLEL),
        ("transform", TRANSFORMS),
        ("residual", RESIDUALS),
        ("skip", SKIPS),
    ):
        value = getattr(config, name)
        if value not in choices and not (name == "likelihood" and isinstance(value, Loss)):
            raise ConfigError(f"{name} is {value!r}, expected any of {', '.join(map(repr, choices))}")


def _check_together(config: ForecasterConfig) -> None:
    """Raise unless the options can be had together."""
    chunk, reach = check_reach(config.chunk, config.chunk if config.reach is None else config.reach)
    _set(config, "chunk", chunk)
    _set(config, "reach", None if config.reach is None else reach)
    if config.training == "truncated" and config.window_scaling != "none":
        raise ConfigError(
            f"training='truncated' needs window_scaling='none', got {config.window_scaling!r}: a state that is "
            "carried on belongs to one scale"
        )
    added = [f"{name}={getattr(config, name)!r}" for name in ("residual", "skip") if getattr(config, name) != "none"]
    carried = {"strategy": "direct", "training": "windows", "stream_rows": 0}
    for name, value in carried.items() if added else ():
        if getattr(config, name) != value:
            raise ConfigError(
                f"{added[0]} needs {name}={value!r}, got {getattr(config, name)!r}: each window has its own"
            )
    if config.transform != "none" and config.training == "truncated":
        raise ConfigError(f"transform={config.transform!r} needs training='windows', got 'truncated'")
    if is_half(config.dtype) and not resolve(config.device).is_cuda:
        raise ConfigError(f"dtype is {config.dtype!r}, which is for CUDA; on the cpu expected 'float32' or 'float64'")
    config.loss()
    _set(config, "chrono", check_chrono(config.stack(1), config.chrono))
    alone = config.alone()
    if alone and config.members not in (AUTO, ALONE):
        raise ConfigError(f"members is {config.members!r}, but {alone[0]} is of a single network: members=('network',)")
