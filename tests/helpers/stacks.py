"""The public layers by the name of their cell."""

from __future__ import annotations

import functools
from typing import Any

import gpulstm as gl

CELLS: dict[str, Any] = {"lstm": gl.LSTM, "gru": gl.GRU, "rnn": gl.RNN}
WITH_RELU: dict[str, Any] = {**CELLS, "relu": functools.partial(gl.RNN, nonlinearity="relu")}
