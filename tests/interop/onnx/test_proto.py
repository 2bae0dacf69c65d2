"""ONNX's protocol buffers: decoded and encoded without loss, and what is said where the package is missing."""

from __future__ import annotations

import sys

import pytest

import gpulstm as gl
from gpulstm.errors import MissingExtraError
from gpulstm.interop import from_onnx, to_onnx
from gpulstm.interop.onnx.backend import make_backend
from gpulstm.interop.onnx.operators import OPERATORS
from gpulstm.interop.onnx.proto import attribute_types, decode, encode

MODEL = to_onnx(gl.LSTM(2, 3, device="cpu", seed=1))


def test_the_types_of_all_attributes_are_known() -> None:
    named = {(op, name) for op, entry in OPERATORS.items() for name in entry.attributes}
    assert named - attribute_types().keys() <= {("Cast", "round_mode")}  # since ONNX 1.19; the lowest here is 1.17


def test_a_message_there_and_back() -> None:
    """The same bytes for the same model."""
    assert encode(decode(MODEL)) == MODEL == to_onnx(gl.LSTM(2, 3, device="cpu", seed=1))


@pytest.mark.parametrize("data", [b"", MODEL])
def test_without_the_onnx_package(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    message = r"reading and writing ONNX models needs onnx, which is not installed; run: pip install onnx$"
    for use in (lambda: from_onnx(data), lambda: to_onnx(gl.LSTM(2, 3, device="cpu")), make_backend):
        with pytest.raises(MissingExtraError, match=message):
            use()
