"""Record what PyTorch's LSTM, GRU and RNN compute, for tests/test_torch_golden.py.

Run with a Python that has PyTorch 2.13 and safetensors:  python tests/golden/record_torch.py

Writes torch_lstm.safetensors, torch_gru.safetensors and torch_rnn.safetensors next to this file, all in float64.  Every
case has, under `<case>/`:

    weight_ih_l0, ...      the parameters, by PyTorch's names
    x, h_0, c_0, dy, dh, dc        the input, the initial state, the weights of the results in the loss
    y, h_n, c_n            the results
    grad.*                 gradients of sum(y * dy) + sum(h_n * dh) + sum(c_n * dc): of the parameters, x, h_0, c_0
    target, losses         ten Adam steps on mean((y - target)^2) from zero state, the loss before each step
    lengths                of the rows, where the case went through a PackedSequence (enforce_sorted=False)

PyTorch has two biases that are only ever added (but for the GRU's candidate, whose recurrent bias is inside the reset),
and Adam moves each of them; one bias would move by half.  So in the ten steps the second one is held still, except for
that part of the GRU's.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

STEPS, ROWS, INPUTS, HIDDEN = 6, 3, 3, 4
RATE = 0.02
LENGTHS = (4, 6, 1)
CELLS: dict[str, tuple[Any, dict[str, Any]]] = {
    "lstm": (torch.nn.LSTM, {}),
    "gru": (torch.nn.GRU, {}),
    "rnn-tanh": (torch.nn.RNN, {"nonlinearity": "tanh"}),
    "rnn-relu": (torch.nn.RNN, {"nonlinearity": "relu"}),
}


def record(
    kind: Any, options: dict[str, Any], seed: int, lengths: tuple[int, ...] | None = None
) -> dict[str, np.ndarray]:
    """All arrays of one case, by name."""
    torch.manual_seed(seed)
    model = kind(INPUTS, HIDDEN, dtype=torch.float64, **options)
    with torch.no_grad():
        for value in model.parameters():
            value.normal_(std=0.4)
    directions = 2 if options.get("bidirectional") else 1
    count, units = model.num_layers * directions, model.proj_size or HIDDEN
    sizes = [units, *([HIDDEN] if kind is torch.nn.LSTM else [])]
    x = torch.randn(STEPS, ROWS, INPUTS, dtype=torch.float64, requires_grad=True)
    start = [torch.randn(count, ROWS, size, dtype=torch.float64, requires_grad=True) for size in sizes]
    dend = [torch.randn(count, ROWS, size, dtype=torch.float64) for size in sizes]
    dy, target = (torch.randn(STEPS, ROWS, directions * units, dtype=torch.float64) for _ in range(2))

    def forward(state: list[torch.Tensor] | None) -> tuple[torch.Tensor, list[torch.Tensor]]:
        initial = None if state is None else tuple(state) if len(state) == 2 else state[0]
        if lengths is None:
            y, end = model(x, initial)
        else:
            packed, end = model(pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False), initial)
            y, _ = pad_packed_sequence(packed, total_length=STEPS)
        return y, list(end) if isinstance(end, tuple) else [end]

    values = {name: value.detach().clone() for name, value in model.named_parameters()}
    y, end = forward(start)
    (sum((value * d).sum() for value, d in zip(end, dend, strict=True)) + (y * dy).sum()).backward()
    values |= {"x": x, "dy": dy, "y": y, "target": target}
    for name, first, last, d in zip("hc", start, end, dend, strict=False):
        values |= {f"{name}_0": first, f"{name}_n": last, f"d{name}": d, f"grad.{name}_0": first.grad}
    values["grad.x"] = x.grad.clone()
    values |= {f"grad.{name}": value.grad.clone() for name, value in model.named_parameters()}

    optimizer, losses = torch.optim.Adam(model.parameters(), lr=RATE), []
    for _ in range(10):
        optimizer.zero_grad()
        loss = ((forward(None)[0] - target) ** 2).mean()
        loss.backward()
        for name, value in model.named_parameters():
            if name.startswith("bias_hh"):
                value.grad[: 2 * HIDDEN if kind is torch.nn.GRU else None] = 0
        optimizer.step()
        losses.append(loss.detach())
    values["losses"] = torch.stack(losses)
    arrays = {name: np.ascontiguousarray(value.detach().numpy()) for name, value in values.items()}
    return arrays if lengths is None else {**arrays, "lengths": np.array(lengths)}


def main() -> None:
    """Record all cases and write the files."""
    torch.set_num_threads(1)
    cases: dict[str, tuple[str, dict[str, Any], tuple[int, ...] | None]] = {}
    for cell, layers, both in itertools.product(CELLS, (1, 2, 3), (False, True)):
        name = f"{cell}-{layers}{'-both' if both else ''}"
        cases[name] = (cell, {"num_layers": layers, "bidirectional": both}, None)
    for cell in ("lstm", "gru", "rnn-tanh"):
        cases[f"{cell}-lengths"] = (cell, {"num_layers": 2, "bidirectional": True}, LENGTHS)
    for both in (False, True):
        name = f"lstm-projection{'-both' if both else ''}"
        cases[name] = ("lstm", {"num_layers": 2, "bidirectional": both, "proj_size": 2}, None)
    for kind in ("lstm", "gru", "rnn"):
        arrays, metadata = {}, {}
        for seed, (name, (cell, options, lengths)) in enumerate(cases.items()):
            if cell.split("-")[0] == kind:
                cls, fixed = CELLS[cell]
                metadata[name] = {**fixed, **options}
                arrays |= {f"{name}/{key}": a for key, a in record(cls, metadata[name], seed, lengths).items()}
        path = Path(__file__).with_name(f"torch_{kind}.safetensors")
        text = {"torch": torch.__version__, "cases": json.dumps(metadata), "rate": str(RATE), "hidden": str(HIDDEN)}
        save_file(arrays, path, metadata=text)
        print(path.name, path.stat().st_size, "bytes,", len(metadata), "cases")


if __name__ == "__main__":
    main()
