"""Record Keras's recurrent layers for tests/test_interop_keras.py: weights, data, masks, results; a model file.

Run with a Python that has Keras 3, PyTorch 2.13 and safetensors:  python tests/golden/record_interop_keras.py

Writes next to this file interop_keras.safetensors: for every case `<case>/weight/<n>` (Keras's order), `<case>/x
(B, T, I)`, `<case>/mask (B, T)` where there is one, `<case>/y` and the final state `<case>/state/<n>`, float64, with
class and config in the metadata; and interop_keras.keras and interop_keras.weights.h5: one model, float32, in each kind
of file, with its input and result in `model/x` and `model/y`.
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import torch
from keras import layers as kl
from keras.src.backend.common import dtypes
from safetensors.numpy import save_file

HERE = Path(__file__).parent
CASES = {
    "lstm": lambda: kl.LSTM(4, return_sequences=True),
    "lstm-activations": lambda: kl.LSTM(3, activation="elu", recurrent_activation="hard_sigmoid", use_bias=False),
    "lstm-backwards": lambda: kl.LSTM(3, go_backwards=True, return_sequences=True),
    "lstm-zeros": lambda: kl.LSTM(3, zero_output_for_mask=True),
    "gru": lambda: kl.GRU(4, return_sequences=True),
    "gru-reset-before": lambda: kl.GRU(4, reset_after=False),
    "rnn-relu": lambda: kl.SimpleRNN(4, activation="relu", return_sequences=True),
    "two-way": lambda: kl.Bidirectional(kl.LSTM(3, return_sequences=True)),
    "two-way-last": lambda: kl.Bidirectional(kl.GRU(3)),
    "two-way-sum": lambda: kl.Bidirectional(kl.GRU(3, return_sequences=True), merge_mode="sum"),
    "two-way-mul": lambda: kl.Bidirectional(kl.SimpleRNN(3), merge_mode="mul"),
    "two-way-ave": lambda: kl.Bidirectional(kl.LSTM(3), merge_mode="ave"),
}


def layers(rng: np.random.Generator) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Every case with and without a mask that has gaps, in float64."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"  # otherwise Keras multiplies in float32 on PyTorch
    arrays: dict[str, np.ndarray] = {}
    configs: dict[str, object] = {}
    for case, make in CASES.items():
        layer = make()
        layer.build((None, None, 2))
        layer.set_weights([rng.normal(size=weight.shape) * 0.6 for weight in layer.get_weights()])
        inner = [layer.forward_layer, layer.backward_layer] if isinstance(layer, kl.Bidirectional) else [layer]
        config = layer.get_config()
        for part in [layer, *inner]:
            part.return_state = True
        for masked in (False, True):
            name = f"{case}-masked" if masked else case
            x, mask = rng.normal(size=(3, 6, 2)), rng.random(size=(3, 6)) < 0.6
            mask_tensor = torch.tensor(mask) if masked else None
            y, *state = layer(torch.tensor(x), mask=mask_tensor)
            arrays |= {f"{name}/weight/{index}": value for index, value in enumerate(layer.get_weights())}
            arrays |= {f"{name}/x": x, f"{name}/y": y.detach().numpy(), **({f"{name}/mask": mask} if masked else {})}
            arrays |= {f"{name}/state/{index}": value.detach().numpy() for index, value in enumerate(state)}
            configs[name] = {"class_name": type(layer).__name__, "config": config}
    return arrays, configs


def model(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A model in both kinds of file."""
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    model = keras.Sequential(
        [keras.Input((6, 2)), kl.GRU(4, return_sequences=True), kl.Dropout(0.2), kl.GRU(4), kl.Dense(3)]
    )
    model.set_weights([rng.normal(size=weight.shape) * 0.6 for weight in model.get_weights()])
    model.save(HERE / "interop_keras.keras")
    model.save_weights(HERE / "interop_keras.weights.h5")
    x = rng.normal(size=(3, 6, 2)).astype("f4")
    return {"model/x": x, "model/y": model(torch.tensor(x), training=False).detach().numpy()}


def main() -> None:
    """Run all cases and write the files."""
    rng = np.random.default_rng(5)
    arrays, configs = layers(rng)
    arrays |= model(rng)
    path = HERE / "interop_keras.safetensors"
    arrays = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    save_file(arrays, path, metadata={"keras": keras.__version__, "cases": json.dumps(configs)})
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # Keras on PyTorch with NumPy 2 warns of itself
    main()
