"""The options of a forecaster: their defaults, their checks, and the parts that they describe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from gpulstm import validate
from gpulstm.arrays.devices import resolve
from gpulstm.data.scaling import KINDS, check_window_kind
from gpulstm.data.splits import Amount
from gpulstm.data.tbptt import BORDERS, check_reach
from gpulstm.engines.spec import DTYPES, StackSpec
from gpulstm.errors import ConfigError
from gpulstm.forecast.predictor import BATCH, Draws
from gpulstm.losses import MSE, GaussianNLL, Loss, Pinball
from gpulstm.model.initializers import check_chrono
from gpulstm.model.memory import Memory, check_memory

if TYPE_CHECKING:
    from gpulstm.schedules import Schedule

CELLS = ("lstm", "gru", "rnn")
LIKELIHOODS = ("quantile", "gaussian", "point")
TRAININGS = ("windows", "truncated")
STRATEGIES = ("direct", "recursive")
SCHEDULES = ("cosine", "constant")


@dataclass(eq=False)
class Settings:
    """The options of a `Forecaster`.

    Args:
        horizon: steps ahead.
        context: rows that a forecast sees.
        hidden_size, num_layers: of the recurrent stack.
        quantiles: levels, strictly rising; not used by `likelihood="point"`.
        device: "auto", "cpu", "cuda" or "cuda:N".
        seed: of weights, order of the data, dropout and draws.
        cell: "lstm", "gru" or "rnn".
        likelihood: "quantile" (pinball loss), "gaussian" (mean and scale by likelihood) or "point" (squared error).
        strategy: "direct" (the head gives the whole horizon) or "recursive" (one step, fed back in `draws` draws; any
            horizon may be asked for, and there can be no past covariates, whose future is not known).
        scaling: "standard", "minmax", "robust" or "none", by the training rows; see `scaling.Scaler`.
        window_scaling: "last", "mean", "standard" or "none", by each window's own context; see
            `scaling.window_statistics`.
        season: rows in a season, for the seasonal-naive forecast and MASE; None takes that of the time step (24 of
            hours, 7 of days, 52 of weeks, 12 of months), else 1.
        dropout, recurrent_dropout, layer_norm: of the stack; see `StackSpec`.
        chrono: T_max, about as many rows as memory may have to reach, from which the gates' biases start; see `LSTM`.
        dtype: "float32", "float64", or on CUDA "float16": passes in half precision, weights and steps in float32 with a
            loss scale that finds itself.
        engine: force an engine; None chooses.
        learning_rate, schedule: the first rate, and "cosine" (down to a hundredth over all epochs) or "constant".
        weight_decay: of AdamW.
        clip_norm: largest norm of the gradients, or None.
        batch_size, epochs: of training.
        training: "windows" (every stretch of `context` rows by itself, in random order) or "truncated" (the series are
            read once an epoch in `batch_size` lanes, with the state carried on; see `truncated`), which suits series of
            millions of rows and memory that reaches further than a window.  It needs `window_scaling="none"`.
        chunk, reach: of truncated training: rows that a step moves on, and rows that gradients flow back through, a
            multiple of `chunk` (the chunk itself by default).
        borders: of truncated training: "reset" starts each series from the state of zeros, "carry" goes on with the
            state of the series before.
        memory: bound on what a training step takes besides the parameters: bytes, "256MiB" or the like, or "sqrt"; see
            `Recurrent.forward`.  The result is the same bits with any; None keeps everything, which is fastest.
        patience: epochs without progress after which training stops, or None.
        validation, test: what is kept from training at the end of every series, to choose the best epoch by and for
            `backtest`: a fraction of the rows, a number of rows, or the date at which it begins.
        stride: rows between training windows.
        draws: of the recursive strategy.
        carry: with a window scaling, rows over which `stream` carries the state on before it starts over from a fresh
            context; training windows are then placed by their rows up to `carry` before their end, so that the network
            knows such states.  0 starts over at each update, which forecasts a little better.

    Raises:
        ConfigError: an option out of range, or a combination that cannot be.
    """

    horizon: int = 52
    context: int = 156
    hidden_size: int = 64
    num_layers: int = 2
    quantiles: Sequence[float] = (0.1, 0.5, 0.9)
    device: str = "auto"
    seed: int = 0
    _: KW_ONLY
    cell: str = "lstm"
    likelihood: str = "quantile"
    strategy: str = "direct"
    scaling: str = "standard"
    window_scaling: str = "last"
    season: int | None = None
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    layer_norm: bool = False
    chrono: int | None = None
    dtype: str = "float32"
    engine: str | None = None
    learning_rate: float = 5e-3
    schedule: str = "cosine"
    weight_decay: float = 0.0
    clip_norm: float | None = 1.0
    batch_size: int = 64
    epochs: int = 30
    patience: int | None = 10
    validation: Amount = 0.1
    test: Amount = 0.0
    stride: int = 1
    draws: int = 200
    carry: int = 0
    memory: Memory = None
    training: str = "windows"
    chunk: int = 64
    reach: int | None = None
    borders: str = "reset"

    def __post_init__(self) -> None:
        for name in ("horizon", "context", "hidden_size", "num_layers", "batch_size", "epochs", "stride", "draws"):
            setattr(self, name, validate.count(name, getattr(self, name)))
        self.seed = validate.count("seed", self.seed, at_least=0)
        self.carry = validate.count("carry", self.carry, at_least=0)
        if self.carry >= self.context:
            raise ConfigError(f"carry is {self.carry}, expected less than the context of {self.context}")
        self.season = None if self.season is None else validate.count("season", self.season)
        self.patience = None if self.patience is None else validate.count("patience", self.patience)
        check_memory(self.memory)
        self.quantiles = validate.levels("quantiles", self.quantiles)
        check_window_kind(self.window_scaling)
        for name, known in (
            ("cell", CELLS),
            ("likelihood", LIKELIHOODS),
            ("strategy", STRATEGIES),
            ("schedule", SCHEDULES),
            ("scaling", KINDS),
            ("training", TRAININGS),
            ("borders", BORDERS),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected any of {', '.join(map(repr, known))}")
        self.chunk, reach = check_reach(self.chunk, self.chunk if self.reach is None else self.reach)
        self.reach = None if self.reach is None else reach
        if self.training == "truncated" and self.window_scaling != "none":
            raise ConfigError(
                f"training='truncated' needs window_scaling='none', got {self.window_scaling!r}: a state that is "
                "carried on belongs to one scale"
            )
        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype is {self.dtype!r}, expected any of {', '.join(map(repr, DTYPES))}")
        if self.dtype == "float16" and not resolve(self.device).is_cuda:
            raise ConfigError("dtype is 'float16', which is for CUDA; on the cpu expected 'float32' or 'float64'")
        self.loss()
        validate.real("learning_rate", self.learning_rate, above=0)
        validate.real("weight_decay", self.weight_decay, at_least=0)
        if self.clip_norm is not None:
            self.clip_norm = validate.real("clip_norm", self.clip_norm, above=0)
        self.chrono = check_chrono(self.stack(1), self.chrono)

    def to_dict(self) -> dict[str, Any]:
        """The arguments of this forecaster as JSON holds them; the device is not among them."""
        found = {f.name: getattr(self, f.name) for f in fields(Settings) if f.name != "device"}
        found["quantiles"] = list(self.quantiles)
        for name in ("validation", "test"):
            amount = found[name]
            if not isinstance(amount, (int, float, str)):
                found[name] = amount.item() if isinstance(amount, (np.integer, np.floating)) else str(amount)
        return found

    def loss(self) -> Loss:
        """What the likelihood and the quantiles mean."""
        if self.likelihood == "point":
            return MSE()
        levels = tuple(self.quantiles)
        return Pinball(levels) if self.likelihood == "quantile" else GaussianNLL(levels)

    def rate(self, steps: int) -> Schedule:
        """The schedule of a run of `steps` steps."""
        from gpulstm.schedules import Constant, Cosine

        if self.schedule == "constant":
            return Constant(self.learning_rate)
        return Cosine(self.learning_rate, steps, 0.01 * validate.real("learning_rate", self.learning_rate, above=0))

    def stack(self, inputs: int) -> StackSpec:
        """The recurrent layers for windows of `inputs` features."""
        return StackSpec(
            self.cell,  # type: ignore[arg-type] # checked above
            inputs,
            self.hidden_size,
            self.num_layers,
            dtype=self.dtype,
            dropout=self.dropout,
            recurrent_dropout=self.recurrent_dropout,
            layer_norm=self.layer_norm,
        )

    @property
    def training_carry(self) -> int:
        """Rows that a training window may reach past those that place it: what is carried, and what is fed back."""
        fed = self.horizon - 1 if self.strategy == "recursive" else 0
        return min(self.carry + fed, self.context - 1)

    def sampling(self) -> Draws | None:
        """How the recursive strategy draws; None for the direct one."""
        return None if self.strategy == "direct" else Draws(self.draws, self.seed)

    def passes(self) -> dict[str, Any]:
        """Windows a forecast takes at once, and in what memory: with a bound, as many as a training step."""
        return {"batch": BATCH if self.memory is None else min(BATCH, self.batch_size), "memory": self.memory}
