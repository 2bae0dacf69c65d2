"""Models that run: where they come from, what goes in and comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_models import LAYERS, H, X

from gpulstm.errors import (
    ConfigError,
    DeviceError,
    DTypeError,
    InteropError,
    ShapeError,
)
from gpulstm.interop import from_onnx, to_onnx


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        from_onnx(tmp_path / "none.onnx")
    with pytest.raises(InteropError, match="cannot be read: Is a directory"):
        from_onnx(tmp_path)
    with pytest.raises(InteropError, match="source is a int, expected a path, bytes or an"):
        from_onnx(3)


class Proto:
    """What an `onnx.ModelProto` offers."""

    def SerializeToString(self) -> bytes:
        return to_onnx(LAYERS["rnn"])


def test_sources(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    data = to_onnx(LAYERS["rnn"], path)
    x = np.ones((2, 1, 3), np.float32)
    expected = from_onnx(data, device="cpu").run([x])[0]
    for source in (path, str(path), bytearray(data), memoryview(data), Proto()):
        np.testing.assert_array_equal(from_onnx(source, device="cpu").run([x])[0], expected)
    assert repr(from_onnx(data, device="cpu")).startswith("OnnxNet(x, h_0 -> y, h_n, ")


@pytest.mark.parametrize(
    ("inputs", "outputs", "error", "message"),
    [
        ([], None, ShapeError, "input 'x' is missing; there are: x, h_0"),
        (X, None, ShapeError, "inputs is a ndarray, expected a list or a dict of arrays"),
        (3, None, ShapeError, "inputs is a int, expected a list or a dict"),
        ([X, H, H], None, ShapeError, "inputs has 3 arrays, expected at most 2: x, h_0"),
        ({"x": X, "h": H}, None, ShapeError, "there is no input 'h'; there are: x, h_0"),
        ([X[0]], None, ShapeError, r"input 'x' has shape \(1, 3\), expected \('time', 'batch', 3\)"),
        ([X[..., :2]], None, ShapeError, r"input 'x' has shape \(2, 1, 2\), expected"),
        ([X.astype("U1")], None, DTypeError, "input 'x' has dtype <U1, expected real numbers"),
        ([X], ["z"], ConfigError, "there is no output 'z'; there are: y, h_n"),
        ([X, np.zeros((3, 5, 4))], None, InteropError, r"initial_h of shape|Expand node"),
    ],
)  # fmt: skip
def test_wrong_inputs(inputs: Any, outputs: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        from_onnx(to_onnx(LAYERS["rnn"]), device="cpu").run(inputs, outputs)


def test_chosen_outputs() -> None:
    net = from_onnx(to_onnx(LAYERS["rnn"]), device="cpu")
    both, last = net.run([X]), net.run([X], ["h_n"])
    assert len(last) == 1
    np.testing.assert_array_equal(last[0], both[1])


@pytest.mark.cuda
def test_host_arrays_are_not_moved_to_a_gpu_in_silence() -> None:
    with pytest.raises(DeviceError, match="input 'x' is a ndarray on the host but the model is on cuda:0"):
        from_onnx(to_onnx(LAYERS["rnn"]), device="cuda").run([X])
