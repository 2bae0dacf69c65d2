"""Record Keras models as tf2onnx writes them, for tests/test_interop_onnx.py.

Run with a Python that has TensorFlow, Keras 3, tf2onnx, onnx and safetensors:
python tests/golden/record_interop_tf2onnx.py

Writes interop_tf2onnx.safetensors next to this file: for every case the bytes of the file, `<case>/model`, its input
`<case>/input/0` and Keras's result `<case>/output/0`, float32.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow
import tf2onnx
from keras import layers as kl
from safetensors.numpy import save_file

CASES = {
    "tf2onnx-lstm": lambda: [kl.LSTM(4), kl.Dense(2)],
    "tf2onnx-lstm-two-way": lambda: [kl.Bidirectional(kl.LSTM(4, return_sequences=True)), kl.Dense(2, "relu")],
    "tf2onnx-lstm-two-layers": lambda: [
        kl.LSTM(4, return_sequences=True),
        kl.Dropout(0.2),
        kl.LSTM(3),
        kl.Dense(2, "softmax"),
    ],
}


def main() -> None:
    """Export all cases and write the file."""
    keras.utils.set_random_seed(1)
    arrays: dict[str, np.ndarray] = {}
    for name, layers in CASES.items():
        model = keras.Sequential([keras.Input((6, 3)), *layers()])
        x = np.random.default_rng(0).normal(size=(5, 6, 3)).astype("f4")
        arrays[f"{name}/input/0"], arrays[f"{name}/output/0"] = x, model.predict(x, verbose=0)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            model.export(path, format="onnx", verbose=False)
            arrays[f"{name}/model"] = np.frombuffer(path.read_bytes(), np.uint8)
    path = Path(__file__).with_name("interop_tf2onnx.safetensors")
    versions = {"tensorflow": tensorflow.__version__, "tf2onnx": tf2onnx.__version__, "keras": keras.__version__}
    save_file(arrays, path, metadata=versions)
    path.chmod(0o644)
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
