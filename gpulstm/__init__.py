"""Stacked LSTMs in plain array code: the same model on NVIDIA GPUs (CuPy) and on CPUs (NumPy)."""

from __future__ import annotations

from gpulstm import errors, interop
from gpulstm.backend import to_device, to_host
from gpulstm.layers import GRU, LSTM, RNN, Dense

__version__ = "0.1.0"

__all__ = ["GRU", "LSTM", "RNN", "Dense", "errors", "interop", "to_device", "to_host"]
