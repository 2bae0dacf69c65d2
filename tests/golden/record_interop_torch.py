"""Record PyTorch's recurrent layers for tests/test_interop_torch.py: weights, data, results and all gradients.

Run with a Python that has PyTorch 2.13 and safetensors:  python tests/golden/record_interop_torch.py

Writes interop_torch.safetensors next to this file: for every case `<case>/weight/<name>`, `<case>/given/<name>`
and `<case>/result/<name>` as tests/peers/torch_cases.py defines them, float64 (lengths int64).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
import torch_cases

CASES = {
    "lstm": {"cell": "lstm", "input_size": 3, "hidden_size": 4},
    "lstm-two-way": {"cell": "lstm", "input_size": 2, "hidden_size": 3, "num_layers": 2, "bidirectional": True},
    "lstm-projection": {"cell": "lstm", "input_size": 3, "hidden_size": 5, "num_layers": 2, "proj_size": 2},
    "lstm-no-bias": {"cell": "lstm", "input_size": 2, "hidden_size": 3, "bias": False},
    "gru": {"cell": "gru", "input_size": 3, "hidden_size": 4, "num_layers": 2},
    "gru-two-way": {"cell": "gru", "input_size": 2, "hidden_size": 3, "bidirectional": True},
    "rnn": {"cell": "rnn", "input_size": 3, "hidden_size": 4, "num_layers": 3},
    "rnn-relu": {"cell": "rnn", "input_size": 2, "hidden_size": 3, "bidirectional": True, "nonlinearity": "relu"},
}


def main() -> None:
    """Run all cases, each without and with lengths, and write the file."""
    arrays, options = {}, {}
    for seed, (case, chosen) in enumerate(CASES.items()):
        module = torch_cases.make(chosen, seed)
        for lengths in (False, True):
            name = f"{case}-lengths" if lengths else case
            data = torch_cases.data(module, np.random.default_rng(seed), 5, 3, lengths)
            parts = {
                "weight": {key: value.numpy() for key, value in module.state_dict().items()},
                "given": data,
                "result": torch_cases.run(module, data),
            }
            for part, values in parts.items():
                arrays |= {f"{name}/{part}/{key}": np.ascontiguousarray(value) for key, value in values.items()}
            options[name] = chosen
    path = Path(__file__).with_name("interop_torch.safetensors")
    save_file(arrays, path, metadata={"torch": torch.__version__, "cases": json.dumps(options)})
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
