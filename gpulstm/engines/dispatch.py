"""Which engine serves a call, and why not a faster one."""

from __future__ import annotations

import functools
import warnings

from gpulstm.arrays.variables import variables
from gpulstm.engines import cpu, reference
from gpulstm.engines.cuda import engine as cuda
from gpulstm.engines.spec import Call, Engine, Plan
from gpulstm.errors import ConfigError, EngineError

ENGINES: tuple[Engine, ...] = (cuda, cpu, reference)  # fastest first; the last one serves everything
VARIABLE = "GPULSTM_ENGINE"
LARGE = 1e8  # multiply-adds of a call from which missing native code is worth a warning


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
            if engine is reference and not (forced or call.on_cuda):
                _say_slow(call, dict(refused)[cpu.name])
            return engine.complete(Plan(call, engine, tuple(refused), segment=call.steps))
        refused.append((engine.name, reason))
    if forced:
        raise EngineError(f"engine {forced!r} was asked for but cannot serve this call: {refused[0][1]}")
    raise EngineError(f"no engine serves this call: {refused}")  # cannot happen while the reference serves everything


@functools.cache
def _warn_once(reason: str) -> None:
    warnings.warn(
        f"NumPy computes this layer, several times slower than native code: {reason}", RuntimeWarning, stacklevel=2
    )


def _say_slow(call: Call, reason: str) -> None:
    """Warn, once in a process, where a large call has no native code."""
    spec = call.spec
    features = sum(spec.layer_input_size(layer) + spec.state_size for layer in range(spec.num_layers))
    if call.steps * call.batch * features * spec.gates * spec.hidden_size * spec.directions >= LARGE:
        _warn_once(reason)
