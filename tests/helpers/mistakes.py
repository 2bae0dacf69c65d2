"""Mistakes that a user can make with a layer: each raises its class with one sentence that names the argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.errors import GpulstmError

STEPS, ROWS, INPUTS, HIDDEN = 4, 3, 2, 5


Mistake = tuple[type[GpulstmError], str]


def lstm(**options: Any) -> gl.LSTM:
    return gl.LSTM(INPUTS, HIDDEN, device="cpu", **options)


def gru(**options: Any) -> gl.GRU:
    return gl.GRU(INPUTS, HIDDEN, device="cpu", **options)


def x(*shape: int) -> np.ndarray:
    return np.ones(shape or (STEPS, ROWS, INPUTS), "float32")


def check(call: Callable[..., Any], mistake: Mistake, *arguments: Any) -> None:
    """The call raises the class, which is its own and no other, with one sentence that begins as told."""
    kind, message = mistake
    with pytest.raises(GpulstmError, match=message) as caught:
        call(*arguments)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value) and ". " not in str(caught.value)


def texts(table: dict[Any, Mistake]) -> Any:
    return [pytest.param(call, mistake, id=mistake[1][:50]) for call, mistake in table.items()]
