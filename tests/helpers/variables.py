"""The type of the fixture `set_variable`."""

from __future__ import annotations

from collections.abc import Callable

SetVariable = Callable[[str, str | None], None]  # name and value, None to unset it
