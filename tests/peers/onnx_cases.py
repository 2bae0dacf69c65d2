"""Models as PyTorch's two exporters write them, with inputs and PyTorch's own results."""

from __future__ import annotations

import io
import logging
import warnings
from typing import Any

import numpy as np
import torch

Case = tuple[bytes, list[np.ndarray], list[np.ndarray]]


class Last(torch.nn.Module):
    """A recurrent layer, a dense layer on its last step, softmax."""

    def __init__(self, rnn: torch.nn.RNNBase, size: int) -> None:
        super().__init__()
        self.rnn, self.fc = rnn, torch.nn.Linear(size, 2)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.rnn(x)[0]
        return torch.softmax(self.fc(y[:, -1] if self.rnn.batch_first else y[-1]), -1)


class Every(torch.nn.Module):
    """A recurrent layer with its state in and out, a dense layer with relu on every step."""

    def __init__(self, rnn: torch.nn.RNNBase, size: int) -> None:
        super().__init__()
        self.rnn, self.fc = rnn, torch.nn.Linear(size, 2)

    def forward(self, x: torch.Tensor, *state: torch.Tensor) -> Any:
        y, end = self.rnn(x, state if len(state) == 2 else state[0])
        return (torch.relu(self.fc(y)), *(end if isinstance(end, tuple) else (end,)))


def modules() -> dict[str, tuple[torch.nn.Module, list[tuple[int, ...]]]]:
    """What is exported: a module, and the shapes of its inputs."""
    torch.manual_seed(3)
    nn, x = torch.nn, (5, 6, 3)
    return {
        "lstm-two-way-batch-first": (Last(nn.LSTM(3, 4, 2, bidirectional=True, batch_first=True), 8), [x]),
        "lstm-state": (Every(nn.LSTM(3, 4), 4), [x, (1, 6, 4), (1, 6, 4)]),
        "gru-dropout": (Last(nn.GRU(3, 4, 2, dropout=0.2), 4), [x]),
        "gru-state": (Every(nn.GRU(3, 4, bidirectional=True), 8), [x, (2, 6, 4)]),
        "rnn-relu": (Last(nn.RNN(3, 4, nonlinearity="relu"), 4), [x]),
        "rnn-no-bias": (Every(nn.RNN(3, 4, 2, bias=False), 4), [x, (2, 6, 4)]),
    }


def export(module: torch.nn.Module, inputs: list[torch.Tensor], dynamo: bool) -> bytes:
    """The model as PyTorch's exporter writes it; the older one (dynamo=False) with open batch and time axes."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations of the exporters themselves
        if dynamo:
            program = torch.onnx.export(module, tuple(inputs), dynamo=True, verbose=False)
            return program.model_proto.SerializeToString()
        file = io.BytesIO()
        names = ["x", "h_0", "c_0"][: len(inputs)]
        axes = {"x": {0: "first", 1: "second"}, "h_0": {1: "batch"}, "c_0": {1: "batch"}}
        torch.onnx.export(module, tuple(inputs), file, dynamo=False, input_names=names, dynamic_axes=axes)
        return file.getvalue()


def cases() -> dict[str, Case]:
    """Every module by each exporter."""
    result = {}
    for name, (module, shapes) in modules().items():
        module.eval()
        inputs = [torch.randn(shape) for shape in shapes]
        with torch.no_grad():
            results = module(*inputs)
        results = results if isinstance(results, tuple) else (results,)
        for dynamo in (False, True):
            data = export(module, inputs, dynamo)
            arrays_in, expected = [value.numpy() for value in inputs], [value.numpy() for value in results]
            result[f"{name}-{'dynamo' if dynamo else 'script'}"] = (data, arrays_in, expected)
    return result
