"""The command `convert` where the other libraries are installed: every source and target, both sides compared."""

from __future__ import annotations

import os
import re
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

import keras
import pytest
import torch
from safetensors.torch import save_file

from gpulstm.cli import main

# Keras 3.15 on PyTorch says this of itself with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


class Forecaster(torch.nn.Module):
    """An LSTM and a dense layer on its last step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.fc = torch.nn.LSTM(3, 8, 2, dropout=0.1), torch.nn.Linear(8, 4)


def test_every_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(1)
    save_file(Forecaster().state_dict(), tmp_path / "lstm.safetensors")
    save_file(torch.nn.GRU(3, 5, bidirectional=True).state_dict(), tmp_path / "gru.safetensors")
    kl = keras.layers
    layers = [keras.Input((6, 3)), kl.GRU(4, return_sequences=True), kl.GRU(4), kl.Dense(2)]
    keras.Sequential(layers).save(tmp_path / "model.keras")
    ways = [
        ("lstm.safetensors", "lstm.onnx", "PyTorch on lstm.safetensors", "ONNX Runtime on lstm.onnx"),
        ("lstm.safetensors", "lstm.weights.h5", "PyTorch on lstm.safetensors", "Keras on lstm.weights.h5"),
        ("lstm.onnx", "lstm2.safetensors", "the recurrent nodes of lstm.onnx", "PyTorch on lstm2.safetensors"),
        ("gru.safetensors", "gru.onnx", "PyTorch on gru.safetensors", "ONNX Runtime on gru.onnx"),
        ("gru.onnx", "gru.weights.h5", "the recurrent nodes of gru.onnx", "Keras on gru.weights.h5"),
        ("model.keras", "model.onnx", "Keras on model.keras", "ONNX Runtime on model.onnx"),
        ("model.keras", "model.safetensors", "Keras on model.keras", "PyTorch on model.safetensors"),
    ]
    for source, target, *compared in ways:
        with pytest.raises(SystemExit) as end:
            main(["convert", str(tmp_path / source), str(tmp_path / target)])
        said = capsys.readouterr()
        assert not end.value.code, said.err
        for text in compared:
            results = re.search(re.escape(text) + r"\s*│\s*([\d.e+-]+) │", said.out)
            assert results, said.out
            assert float(results.group(1)) < 1e-6
