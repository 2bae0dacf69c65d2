"""Models of other libraries in and out: PyTorch, Keras, ONNX.

PyTorch and Keras are not imported and need not be installed; ONNX models need the onnx package.
"""

from __future__ import annotations

from gpulstm.interop.keras.convert import from_keras, to_keras
from gpulstm.interop.keras.net import KerasNet
from gpulstm.interop.onnx.export import to_onnx
from gpulstm.interop.onnx.net import OnnxNet, from_onnx
from gpulstm.interop.onnx.stack_import import stack_from_onnx
from gpulstm.interop.torch import from_torch, to_torch

__all__ = [
    "KerasNet",
    "OnnxNet",
    "from_keras",
    "from_onnx",
    "from_torch",
    "stack_from_onnx",
    "to_keras",
    "to_onnx",
    "to_torch",
]
