"""Stacked LSTMs in plain array code: the same model on NVIDIA GPUs (CuPy) and on CPUs (NumPy)."""

__version__ = "0.1.0"
