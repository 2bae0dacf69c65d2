"""Which engine serves a call, and why not a faster one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import ModuleType

from gpulstm.engines import cpu, reference
from gpulstm.engines.cuda import engine as cuda
from gpulstm.engines.spec import Call
from gpulstm.errors import ConfigError, EngineError

ENGINES: tuple[ModuleType, ...] = (cuda, cpu, reference)  # fastest first; the last one serves everything
VARIABLE = "GPULSTM_ENGINE"


@dataclass(frozen=True)
class Choice:
    """The engine for a call.

    Attributes:
        engine: module with `forward` and `backward` (see `reference`).
        call: what it serves.
        refused: name and reason of each faster engine that does not serve the call.
    """

    engine: ModuleType
    call: Call
    refused: tuple[tuple[str, str], ...]

    @property
    def path(self) -> str:
        """How the engine computes, in a few words."""
        return str(self.engine.describe(self.call))


def by_name(name: str, source: str = "engine") -> ModuleType:
    """The engine of that name.

    Args:
        name: "reference", "cpu" or "cuda".
        source: the argument or variable that asked for it, for the message.

    Raises:
        ConfigError: there is no engine of that name.
    """
    named = {engine.name: engine for engine in ENGINES}
    if name not in named:
        raise ConfigError(f"{source} is {name!r}, expected one of {', '.join(named)}")
    return named[name]


def choose(call: Call, forced: str | None = None) -> Choice:
    """The first engine that supports the call, or the one that is forced.

    Args:
        call: what is asked.
        forced: an engine's name; None takes the environment variable GPULSTM_ENGINE, and without it the choice is free.

    Raises:
        ConfigError: there is no engine of that name.
        EngineError: the forced engine cannot serve the call; the message says why.
    """
    source, forced = ("engine", forced) if forced else (VARIABLE, os.environ.get(VARIABLE))
    if forced:
        engine = by_name(forced, source)
        reason = engine.supports(call)
        if reason is not None:
            raise EngineError(f"engine {forced!r} was asked for but cannot serve this call: {reason}")
        return Choice(engine, call, ())
    refused: list[tuple[str, str]] = []
    for engine in ENGINES:
        reason = engine.supports(call)
        if reason is None:
            return Choice(engine, call, tuple(refused))
        refused.append((engine.name, reason))
    raise EngineError(f"no engine serves this call: {refused}")  # cannot happen while the reference serves everything
