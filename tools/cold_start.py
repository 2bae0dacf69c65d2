"""Where a cold start goes: CPU time of fresh processes that do more and more of it, as Markdown.

    python tools/cold_start.py

Each figure is the least user and system time of many processes: on a machine with other work that says more than the
time on the wall, which `gpulstm bench` measures next to PyTorch's.  Byte code is at hand, as in an installation.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import gpulstm as gl

LOAD = "import gpulstm, sys; f = gpulstm.Forecaster.load(sys.argv[1], device='cpu')"
STAGES = {
    "interpreter": "pass",
    "+ NumPy": "import numpy",
    "+ `import gpulstm`": "import gpulstm",
    "+ the forecaster": "import gpulstm; gpulstm.Forecaster",
    "+ `load`": LOAD,
    "+ first `predict`": LOAD + "; f.predict()",
}


def least(code: str, model: Path, environment: dict[str, str], repeat: int) -> float:
    """The least CPU time of a process in milliseconds."""
    best = float("inf")
    for _ in range(repeat):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code, str(model)], check=True, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return best * 1e3


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=20)
    repeat = parser.parse_args().repeat
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model.safetensors")
        forecaster = gl.Forecaster(horizon=24, context=156, epochs=1, validation=0, device="cpu")
        forecaster.fit(np.sin(np.arange(204) / 7), progress=False).save(model)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = folder
        print("| up to | CPU time, ms |\n| --- | --- |")
        for stage, code in STAGES.items():
            least(code, model, environment, 1)  # writes the byte code
            print(f"| {stage} | {least(code, model, environment, repeat):.0f} |", flush=True)


if __name__ == "__main__":
    main()
