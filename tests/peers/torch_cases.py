"""PyTorch's recurrent layers run on random configurations: what the live comparison and the golden files share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

KINDS = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}


def random_options(rng: np.random.Generator) -> dict[str, Any]:
    """A random layer: cell, sizes, layers, directions, bias, projection, nonlinearity."""
    cell = rng.choice(["lstm", "lstm", "gru", "rnn"])
    hidden = int(rng.integers(1, 8))
    options: dict[str, Any] = {
        "cell": str(cell),
        "input_size": int(rng.integers(1, 7)),
        "hidden_size": hidden,
        "num_layers": int(rng.integers(1, 4)),
        "bidirectional": bool(rng.integers(2)),
        "bias": bool(rng.integers(4)),
    }
    if cell == "lstm" and hidden > 1 and rng.integers(2):
        options["proj_size"] = int(rng.integers(1, hidden))
    if cell == "rnn":
        options["nonlinearity"] = str(rng.choice(["tanh", "relu"]))
    return options


def make(options: dict[str, Any], seed: int, dtype: torch.dtype = torch.float64) -> torch.nn.RNNBase:
    """The PyTorch layer with weights of about unit gain, so that no gate is near its linear range alone."""
    options = dict(options)
    torch.manual_seed(seed)
    module = KINDS[options.pop("cell")](dtype=dtype, **options)
    with torch.no_grad():
        for weight in module.parameters():
            weight.normal_(0.0, 0.5)
    return module


def data(module: torch.nn.RNNBase, rng: np.random.Generator, steps: int, batch: int, lengths: bool) -> dict[str, Any]:
    """Inputs, initial state, lengths (each at least 1: PyTorch takes no 0) and the gradients of all results."""
    directions = 2 if module.bidirectional else 1
    units = module.proj_size or module.hidden_size
    count = module.num_layers * directions
    results: dict[str, Any] = {
        "x": rng.normal(size=(steps, batch, module.input_size)),
        "h0": rng.normal(size=(count, batch, units)),
        "dy": rng.normal(size=(steps, batch, directions * units)),
        "dh": rng.normal(size=(count, batch, units)),
    }
    if module.mode == "LSTM":
        results["c0"] = rng.normal(size=(count, batch, module.hidden_size))
        results["dc"] = rng.normal(size=(count, batch, module.hidden_size))
    if lengths:
        results["lengths"] = rng.integers(1, steps + 1, size=batch)
        past = np.arange(steps)[:, None] >= results["lengths"]
        results["dy"][past] = 0.0  # those outputs are padding, which PyTorch's gradients do not see
    return results


def run(module: torch.nn.RNNBase, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
    """PyTorch's outputs, final state and all gradients, padded as they came."""
    tensors = {
        name: torch.tensor(value, requires_grad=True) for name, value in inputs.items() if name in ("x", "h0", "c0")
    }
    module.zero_grad()
    state = (tensors["h0"], tensors["c0"]) if "c0" in inputs else tensors["h0"]
    x = tensors["x"]
    if "lengths" in inputs:
        lengths = torch.tensor(inputs["lengths"])
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        out, end = module(packed, state)
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(out, total_length=x.shape[0])
    else:
        y, end = module(x, state)
    ends = end if isinstance(end, tuple) else (end,)
    results = (y, *ends)
    weights = [torch.tensor(inputs[name]) for name in ("dy", "dh", "dc") if name in inputs]
    sum((result * weight).sum() for result, weight in zip(results, weights, strict=True)).backward()
    actual = dict(zip(("y", "hn", "cn"), (result.detach().numpy() for result in results), strict=False))
    actual |= {f"d{name}": tensor.grad.numpy() for name, tensor in tensors.items()}
    actual |= {f"grad/{name}": weight.grad.numpy().copy() for name, weight in module.named_parameters()}
    return actual
