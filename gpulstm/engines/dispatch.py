"""Which engine serves a call, and why not a faster one."""

from __future__ import annotations

from gpulstm.arrays.variables import variables
from gpulstm.engines import cpu, reference
from gpulstm.engines.cuda import engine as cuda
from gpulstm.engines.spec import Call, Engine, Plan
from gpulstm.errors import ConfigError, EngineError

ENGINES: tuple[Engine, ...] = (cuda, cpu, reference)  # fastest first; the last one serves everything
VARIABLE = "GPULSTM_ENGINE"


def by_name(name: str, source: str = "engine") -> Engine:
    """The engine of that name.

    Args:
        name: "reference", "cpu" or "cuda".
        source: the argument or variable that asked for it, for the message.

    Raises:
        ConfigError: there is no engine of that name.
    """
    engines = {engine.name: engine for engine in ENGINES}
    if name not in engines:
        raise ConfigError(f"{source} is {name!r}, expected one of {', '.join(engines)}")
    return engines[name]


def choose(call: Call, forced: str | None = None) -> Plan:
    """The plan of a call by the first engine that supports it, or by the one that is forced.

    Args:
        call: the shape.
        forced: an engine's name; None takes the environment variable GPULSTM_ENGINE, and without it the choice is free.

    Raises:
        ConfigError: there is no engine of that name.
        EngineError: the forced engine cannot serve the call; the message says why.
    """
    source, forced = ("engine", forced) if forced else (VARIABLE, variables().get(VARIABLE))
    refused: list[tuple[str, str]] = []
    for engine in [by_name(forced, source)] if forced else ENGINES:
        reason = engine.supports(call)
        if reason is None:
            return engine.complete(Plan(call, engine, tuple(refused), segment=call.steps))
        refused.append((engine.name, reason))
    if forced:
        raise EngineError(f"engine {forced!r} was asked for but cannot serve this call: {refused[0][1]}")
    raise EngineError(f"no engine serves this call: {refused}")  # cannot happen while the reference serves everything
