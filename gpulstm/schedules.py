"""Schedules: the learning rate as a function of the number of optimizer steps taken so far.

`rate(step)` is pure, so a run that goes on from a checkpoint needs nothing but the step.  `OnPlateau` also hears the
loss after every epoch, and its state goes into the checkpoint.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from gpulstm import validate
from gpulstm.errors import CheckpointError, ConfigError


@dataclass
class Schedule(ABC):
    """Base of all schedules.

    Attributes:
        name: as in a checkpoint and on the command line.
    """

    name: ClassVar[str]

    @abstractmethod
    def rate(self, step: int) -> float:
        """The learning rate of the step with this number, counted from 0."""

    def observe(self, loss: float) -> None:  # noqa: B027 - most schedules do not listen
        """Hear the loss of an epoch (of the validation set where there is one)."""

    def scalars(self) -> dict[str, Any]:
        """What a run needs, in addition to the step, to go on as if it had not stopped; most schedules need nothing."""
        return {}

    def restore(self, scalars: Mapping[str, Any]) -> None:
        """Take back what `scalars` gave.

        Raises:
            CheckpointError: they are those of another schedule.
        """
        try:
            validate.scalars(f"the state of the schedule {self.name!r}", scalars, self.scalars())
        except ConfigError as error:
            raise CheckpointError(str(error)) from None

    def config(self) -> dict[str, Any]:
        """Name and options, as a checkpoint keeps them; `from_config` takes them back."""
        return validate.to_config(self)


@dataclass
class Constant(Schedule):
    """The same rate always.

    Args:
        base: the learning rate, above 0.
    """

    name: ClassVar[str] = "constant"
    base: float = 1e-3

    def __post_init__(self) -> None:
        self.base = validate.real("base", self.base, above=0)

    def rate(self, step: int) -> float:
        return self.base


@dataclass
class Step(Schedule):
    """`base * factor^k` after k times `every` steps.

    Args:
        base: the first learning rate, above 0.
        every: how many steps a rate holds.
        factor: above 0, at most 1.
    """

    name: ClassVar[str] = "step"
    base: float = 1e-3
    every: int = 1000
    factor: float = 0.1

    def __post_init__(self) -> None:
        self.base = validate.real("base", self.base, above=0)
        self.every = validate.count("every", self.every)
        self.factor = validate.real("factor", self.factor, above=0, at_most=1)

    def rate(self, step: int) -> float:
        return self.base * self.factor ** (step // self.every)


@dataclass
class Cosine(Schedule):
    """Half a cosine from `base` down to `floor` over `steps` steps, then `floor` (Loshchilov & Hutter 2017, equation 5,
    without restarts).

    Args:
        base: the first learning rate, above 0.
        steps: how many steps the way down takes.
        floor: the last learning rate, from 0 to `base`.
    """

    name: ClassVar[str] = "cosine"
    base: float = 1e-3
    steps: int = 1000
    floor: float = 0.0

    def __post_init__(self) -> None:
        self.base = validate.real("base", self.base, above=0)
        self.steps = validate.count("steps", self.steps)
        self.floor = validate.real("floor", self.floor, at_least=0, at_most=self.base)

    def rate(self, step: int) -> float:
        part = min(step, self.steps) / self.steps
        return self.floor + (self.base - self.floor) * 0.5 * (1.0 + math.cos(math.pi * part))


@dataclass
class WarmUp(Schedule):
    """A straight rise to the first rate of another schedule, which then begins (Goyal et al. 2017, section 2.2).

    Step k of the rise has the share `(k + 1) / (steps + 1)` of that rate, so that it never is 0.

    Args:
        inner: the schedule after the rise.
        steps: how many steps the rise takes.
    """

    name: ClassVar[str] = "warmup"
    inner: Schedule = field(default_factory=Constant)
    steps: int = 100

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Schedule):
            raise ConfigError(f"inner is {self.inner!r}, expected a schedule")
        self.steps = validate.count("steps", self.steps)

    def rate(self, step: int) -> float:
        if step >= self.steps:
            return self.inner.rate(step - self.steps)
        return self.inner.rate(0) * (step + 1) / (self.steps + 1)

    def observe(self, loss: float) -> None:
        self.inner.observe(loss)

    def scalars(self) -> dict[str, Any]:
        return self.inner.scalars()

    def restore(self, scalars: Mapping[str, Any]) -> None:
        self.inner.restore(scalars)

    def config(self) -> dict[str, Any]:
        return {"name": self.name, "inner": self.inner.config(), "steps": self.steps}


@dataclass
class OnPlateau(Schedule):
    """A rate that falls when the loss has not got better for a while.

    An epoch is better when its loss is below the best so far times `1 - threshold` (below the best so far less
    `threshold` times its size where that is negative).  After more than `patience` epochs in a row that are not, the
    rate is multiplied by `factor`, and for `cooldown` epochs none is counted.  A NaN is not better.

    Args:
        base: the first learning rate, above 0.
        factor: above 0, below 1.
        patience: epochs without progress that are let pass.
        threshold: relative progress that counts, at least 0.
        cooldown: epochs after a fall that are let pass.
        floor: the lowest rate, from 0 to `base`.
    """

    name: ClassVar[str] = "plateau"
    base: float = 1e-3
    factor: float = 0.5
    patience: int = 5
    threshold: float = 1e-4
    cooldown: int = 0
    floor: float = 0.0
    _now: float = field(default=0.0, init=False, repr=False)
    _best: float | None = field(default=None, init=False, repr=False)
    _bad: int = field(default=0, init=False, repr=False)
    _cooling: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        self.base = validate.real("base", self.base, above=0)
        self.factor = validate.real("factor", self.factor, above=0, below=1)
        self.patience = validate.count("patience", self.patience, at_least=0)
        self.threshold = validate.real("threshold", self.threshold, at_least=0)
        self.cooldown = validate.count("cooldown", self.cooldown, at_least=0)
        self.floor = validate.real("floor", self.floor, at_least=0, at_most=self.base)
        self._now = self.base

    def rate(self, step: int) -> float:
        """The rate that holds now, whatever the step."""
        return self._now

    def observe(self, loss: float) -> None:
        better = self._best is None or loss < self._best - self.threshold * abs(self._best)
        if better and math.isfinite(loss):
            self._best, self._bad = loss, 0
        else:
            self._bad += 1
        if self._cooling > 0:
            self._cooling, self._bad = self._cooling - 1, 0
        if self._bad > self.patience:
            self._now = max(self._now * self.factor, self.floor)
            self._cooling, self._bad = self.cooldown, 0

    def scalars(self) -> dict[str, Any]:
        return {"now": self._now, "best": self._best, "bad": self._bad, "cooling": self._cooling}

    def restore(self, scalars: Mapping[str, Any]) -> None:
        super().restore(scalars)
        self._now, self._best = scalars["now"], scalars["best"]
        self._bad, self._cooling = scalars["bad"], scalars["cooling"]


SCHEDULES: tuple[type[Schedule], ...] = (Constant, Step, Cosine, WarmUp, OnPlateau)


def from_config(config: Mapping[str, Any]) -> Schedule:
    """The schedule that `Schedule.config` described, at its beginning."""
    config = dict(config)
    if config.get("name") == WarmUp.name and isinstance(config.get("inner"), Mapping):
        config["inner"] = from_config(config["inner"])
    return validate.from_config("schedule", SCHEDULES, config)
