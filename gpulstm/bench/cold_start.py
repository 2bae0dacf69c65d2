"""Cold starts: from nothing to the first forecast, timed from outside, each in a fresh interpreter.

What each does: import the library, load the weights from a safetensors file, give one forecast, print it.  The time is
from the start of the process to the printed line, interpreter included; the interpreter alone is measured next to them.
Started with a case as JSON and a folder, this module trains the model for a moment and writes the files.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.arrays import checkpoint
from gpulstm.bench.cases import Case
from gpulstm.bench.peers import torch_weights
from gpulstm.forecast.forecaster import Forecaster
from gpulstm.model.network import Network, NetworkConfig

HORIZON = 24
CHECKPOINT, WEIGHTS, INPUT, EXPECTED = "model.safetensors", "torch.safetensors", "x.safetensors", "expected.json"

OWN = """
import json, sys
import gpulstm
forecast = gpulstm.Forecaster.load(sys.argv[1], device="cpu").predict()
print(json.dumps(forecast.mean.reshape(-1).tolist()), flush=True)
"""
TORCH = """
import json, sys
import torch
from safetensors.torch import load_file
inputs, hidden, layers, outputs = map(int, sys.argv[2:6])
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = torch.nn.LSTM(inputs, hidden, layers)
        self.head = torch.nn.Linear(hidden, outputs)
    def forward(self, x):
        return self.head(self.rnn(x)[0][-1])
model = Model()
model.load_state_dict(load_file(sys.argv[1] + "/torch.safetensors"))
with torch.inference_mode():
    print(json.dumps(model(load_file(sys.argv[1] + "/x.safetensors")["x"]).reshape(-1).tolist()), flush=True)
"""
NOTHING = "print('[]', flush=True)"


class StartError(Exception):
    """A cold start that gave no forecast, or (`wrong`) another one than expected."""

    def __init__(self, sentence: str, wrong: bool = False) -> None:
        super().__init__(sentence)
        self.wrong = wrong


@dataclass(frozen=True)
class Start:
    """Something that starts, and what it must print.

    Attributes:
        name, side, plan: as in `suites.Result`.
        command: of the process.
        expected: the numbers that it must print; compared to 1e-4 of their norm.
    """

    name: str
    side: str
    plan: str
    command: tuple[str, ...]
    expected: np.ndarray

    def once(self, environment: Mapping[str, str]) -> float:
        """Seconds from the start of the process to the line that it prints.

        Raises:
            StartError: it printed none, or other numbers.
        """
        before = time.perf_counter()
        try:
            process = subprocess.Popen(
                self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(environment)
            )
        except OSError as error:
            raise StartError(f"{self.command[0]} cannot be started: {error.strerror}") from error
        assert process.stdout is not None
        line = process.stdout.readline()
        taken = time.perf_counter() - before
        _, complaint = process.communicate()
        if process.returncode or not line:
            last = complaint.strip().splitlines()[-1:] or [f"ended with status {process.returncode}"]
            raise StartError(last[0])
        forecast = np.array(json.loads(line), dtype=np.float64)
        if forecast.shape != self.expected.shape or not np.linalg.norm(forecast - self.expected) <= 1e-4 * max(
            float(np.linalg.norm(self.expected)), 1e-9
        ):
            raise StartError("it computes something else: its forecast is not the expected one", wrong=True)
        return taken


def prepare(case: Mapping[str, Any], folder: str | Path) -> None:
    """Train a forecaster of the case's shape for a moment and write its checkpoint and what PyTorch needs.

    Args:
        case: steps, batch, inputs, hidden, layers; steps is the context, batch and inputs are 1.
        folder: where to.
    """
    from safetensors.numpy import save_file

    folder, context = Path(folder), case["steps"]
    index = np.arange(context + 2 * HORIZON)
    forecaster = Forecaster(
        members=("network",),
        horizon=HORIZON,
        context=context,
        hidden_size=case["hidden"],
        num_layers=case["layers"],
        epochs=1,
        validation=0,
        device="cpu",
    )
    forecaster.fit(np.sin(index / 7) + index / 100, progress=False)
    forecaster.save(folder / CHECKPOINT)
    arrays, meta = checkpoint.load(folder / CHECKPOINT)
    network = Network(NetworkConfig.from_dict(meta["network"]), device="cpu", engine="reference", initial=False)
    weights = {name.removeprefix("weights."): arrays[name] for name in arrays if name.startswith("weights.")}
    network.params.load(weights)
    inputs = network.config.stack.input_size
    x = np.random.default_rng(0).standard_normal((context, 1, inputs), dtype=np.float32)
    raw, _, _ = network.forward(x)
    rnn = {name.removeprefix("rnn."): value for name, value in weights.items() if name.startswith("rnn.")}
    state = {f"rnn.{name}": value for name, value in torch_weights(rnn).items()}
    state |= {"head.weight": np.ascontiguousarray(weights["head.W"].T), "head.bias": weights["head.b"]}
    save_file(state, folder / WEIGHTS)
    save_file({"x": x}, folder / INPUT)
    expected = {
        "gpulstm": forecaster.predict().mean.reshape(-1).tolist(),
        "PyTorch": raw.reshape(-1).tolist(),
        "inputs": inputs,
    }
    (folder / EXPECTED).write_text(json.dumps(expected), encoding="utf-8")


def starts(case: Case, folder: str | Path, torch_python: str | None) -> list[Start]:
    """This package, PyTorch under its interpreter (unless None), and the interpreter alone."""
    folder = Path(folder)
    expected = json.loads((folder / EXPECTED).read_text(encoding="utf-8"))
    raw = np.array(expected["PyTorch"])
    sizes = map(str, (expected["inputs"], case.hidden, case.layers, raw.size))
    own = (sys.executable, "-c", OWN, str(folder / CHECKPOINT))
    results = [Start("gpulstm", "own", "import, load, forecast", own, np.array(expected["gpulstm"]))]
    if torch_python is not None:
        command = (torch_python, "-c", TORCH, str(folder), *sizes)
        results.append(Start("PyTorch", "peer", "import, load_state_dict, forward", command, raw))
    results.append(Start("Python alone", "aside", "nothing", (sys.executable, "-c", NOTHING), np.array([])))
    return results


def main() -> int:
    """Prepare a folder."""
    prepare(json.loads(sys.argv[1]), sys.argv[2])
    return 0


if __name__ == "__main__":
    sys.exit(main())
