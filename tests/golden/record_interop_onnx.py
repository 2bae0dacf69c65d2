"""Record ONNX models and their results for tests/test_interop_onnx.py.

Run with a Python that has PyTorch 2.13, onnx, onnxscript and safetensors:  python tests/golden/record_interop_onnx.py

Writes interop_onnx.safetensors next to this file: for every case the file's bytes `<case>/model`, `<case>/input/<n>`
and `<case>/output/<n>`.  The cases are the recurrent ones of the ONNX project's own node tests (onnx.backend.test,
Apache-2.0, github.com/onnx/onnx) and models written by both of PyTorch's exporters, with PyTorch's results.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
import onnx_cases

STARTS = ("test_lstm_", "test_gru_", "test_rnn_", "test_simple_rnn_")


def node_cases() -> dict[str, onnx_cases.Case]:
    """ONNX's own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # making some of ONNX's cases overflows on purpose
        from onnx.backend.test.loader import load_model_tests

        cases = [case for case in load_model_tests(kind="node") if case.name.startswith(STARTS)]
    recorded = {}
    for case in cases:
        folder = Path(case.model_dir) if case.model_dir else None
        if case.data_sets:
            inputs, expected = case.data_sets[0]
            model = case.model
        else:
            assert folder
            model = onnx.load(folder / "model.onnx")
            inputs, expected = (
                [
                    numpy_helper.to_array(onnx.load_tensor(file))
                    for file in sorted((folder / "test_data_set_0").glob(f"{kind}_*.pb"))
                ]
                for kind in ("input", "output")
            )
        recorded[case.name] = (model.SerializeToString(), list(inputs), list(expected))
    return recorded


def main() -> None:
    """Collect all cases and write the file."""
    arrays: dict[str, np.ndarray] = {}
    for name, (model, inputs, expected) in {**node_cases(), **onnx_cases.cases()}.items():
        arrays[f"{name}/model"] = np.frombuffer(model, np.uint8)
        arrays |= {f"{name}/input/{index}": np.ascontiguousarray(value) for index, value in enumerate(inputs)}
        arrays |= {f"{name}/output/{index}": np.ascontiguousarray(value) for index, value in enumerate(expected)}
    path = Path(__file__).with_name("interop_onnx.safetensors")
    save_file(arrays, path, metadata={"onnx": onnx.__version__, "torch": torch.__version__})
    print(path, path.stat().st_size, "bytes,", sum(name.endswith("/model") for name in arrays), "cases")


if __name__ == "__main__":
    main()
