"""The same weights in another library, run on the same input: what `gpulstm convert` compares with.

Each function gives the other library's outputs as `(T, B, O)`, or `(B, O)` of a network, or None where that library is
not installed.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.errors import InteropError
from gpulstm.interop import from_onnx
from gpulstm.model.network import Network
from gpulstm.model.stack import Recurrent


def torch_outputs(model: Recurrent | Network, weights: Mapping[str, np.ndarray], x: np.ndarray) -> Any:
    """PyTorch's layer of the same sizes with these weights (names without a prefix, or `rnn.*` and `head.*`)."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    stack = model.rnn if isinstance(model, Network) else model
    spec, kinds = stack.spec, {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}
    more: dict[str, Any] = {"nonlinearity": spec.nonlinearity} if spec.cell == "rnn" else {}
    more |= {"proj_size": spec.proj_size} if spec.proj_size else {}
    dtype = getattr(torch, spec.dtype)
    sizes = (spec.input_size, spec.hidden_size, spec.num_layers)
    layer = kinds[spec.cell](*sizes, bidirectional=spec.bidirectional, bias=spec.bias, dtype=dtype, **more)
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in weights.items()}
    own = {name.removeprefix("rnn."): value for name, value in tensors.items() if not name.startswith("head.")}
    layer.load_state_dict(own)
    with torch.no_grad():
        y = layer(torch.from_numpy(x))[0]
        if isinstance(model, Network):
            y = y[-1] @ tensors["head.weight"].T + tensors["head.bias"]
    return y.numpy()


def keras_outputs(model: Any, x: np.ndarray) -> Any:
    """A Keras model, or a file of one, on x `(T, B, I)`."""
    if importlib.util.find_spec("keras") is None:
        return None
    _choose_keras_backend()
    import keras

    if isinstance(model, (str, Path)):
        model = keras.saving.load_model(model, compile=False, safe_mode=True)
    y = keras.ops.convert_to_numpy(model(keras.ops.convert_to_tensor(x.swapaxes(0, 1)), training=False))
    return y.swapaxes(0, 1) if y.ndim == 3 else y


def keras_model(model: Recurrent | Network, path: Path) -> Any:
    """A Sequential of Keras with the layers of `model`, which reads its weights from a `.weights.h5` file."""
    if importlib.util.find_spec("keras") is None:
        return None
    _choose_keras_backend()
    import keras

    stack = model.rnn if isinstance(model, Network) else model
    spec = stack.spec
    if spec.activations or spec.nonlinearity != "tanh":
        return None  # their names in Keras are the reader's matter; the arrays are the same
    kinds = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "rnn": keras.layers.SimpleRNN}
    layers: list[Any] = [keras.Input((None, spec.input_size))]
    for index in range(spec.num_layers):
        options: dict[str, Any] = {"use_bias": spec.bias, "dtype": spec.dtype}
        options["return_sequences"] = not isinstance(model, Network) or index < spec.num_layers - 1
        if spec.cell == "gru":
            options["reset_after"] = spec.reset_after
        layer = kinds[spec.cell](spec.hidden_size, **options)
        layers.append(keras.layers.Bidirectional(layer) if spec.bidirectional else layer)
    if isinstance(model, Network):
        layers.append(keras.layers.Dense(model.config.head_outputs, dtype=spec.dtype))
    other = keras.Sequential(layers)
    other.load_weights(path)
    return other


def onnx_outputs(path: Path, x: np.ndarray) -> tuple[str, np.ndarray]:
    """ONNX Runtime's first output, or where it is not installed, or has no operators of this dtype, this library's own.

    Not that of onnx.reference, which leaves out clip, coupled gates and activations without a word.
    """
    if importlib.util.find_spec("onnxruntime") is not None and x.dtype == np.float32:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # it warns of the state's default, which is meant
        session = onnxruntime.InferenceSession(path, options)
        return "ONNX Runtime", np.asarray(session.run(None, {"x": x})[0])
    return "this library's reader", from_onnx(path, device="cpu").run([x])[0]


def outputs(model: Any, x: np.ndarray) -> np.ndarray:
    """This library's outputs: every step of a stack, `(B, O)` of a network, what a `KerasNet` gives."""
    if isinstance(model, Network):
        return np.asarray(model.forward(x)[0]).reshape(x.shape[1], -1)
    return np.asarray(model(x)[0])


def largest(result: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference of two results of one shape."""
    result = result.reshape(expected.shape) if result.size == expected.size else result
    if result.shape != expected.shape:
        raise InteropError(f"the other library gives a result of shape {result.shape}, expected {expected.shape}")
    return float(np.abs(result - expected).max(initial=0.0))


def _choose_keras_backend() -> None:
    """Keras needs a library underneath; where nothing says which, PyTorch or JAX if they are there."""
    for name in ("torch", "jax"):
        if "KERAS_BACKEND" not in os.environ and importlib.util.find_spec(name) is not None:
            os.environ["KERAS_BACKEND"] = name
