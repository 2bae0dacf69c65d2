"""The environment variables that say how calls are computed, read once."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping

from gpulstm.errors import ConfigError


@functools.cache
def variables() -> Mapping[str, str]:
    """Those of this package and CuPy's that are set, as they were when they were first asked for.

    `variables.cache_clear()` forgets them; plans that were made by them are forgotten by `model.plan.forget_plans()`.
    """
    return {name: value for name, value in os.environ.items() if name.startswith(("GPULSTM_", "CUPY_")) and value}


def switch(name: str) -> bool | None:
    """Whether a variable that is 0 or 1 is on; None where it is not set.

    Raises:
        ConfigError: it is something else.
    """
    value = variables().get(name)
    if value not in (None, "0", "1"):
        raise ConfigError(f"{name} is {value!r}, expected 0 or 1")
    return None if value is None else value == "1"
