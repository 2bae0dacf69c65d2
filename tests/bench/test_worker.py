"""The process of a contender: what it needs, and what it compares."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
from bench_cases import TINY

import gpulstm.bench.worker
from gpulstm.bench import problem, worker


def test_without_numpy_the_worker_says_how_to_get_it(tmp_path: Path) -> None:
    """By its path and without the site's packages, as in an environment that has neither NumPy nor this package."""
    command = [sys.executable, "-I", "-S", gpulstm.bench.worker.__file__, "{}"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "pip install" in json.loads(run.stdout)["reason"]


def test_by_its_path_the_worker_finds_the_peers_and_not_this_package(tmp_path: Path) -> None:
    """PyTorch's own environment: NumPy is there; a stand-in for `torch` shows that the path was followed to its end.

    The worker's folder is not on the path of imports, as with PYTHONSAFEPATH.
    """
    path = tmp_path / "problem.npz"
    np.savez(path, **problem.arrays({**vars(TINY)}))
    (tmp_path / "torch.py").write_text("raise ImportError('a stand-in')")
    task = {"contender": "torch", "device": "cpu", "problem": str(path), "case": vars(TINY)}
    code = f"import sys, runpy; sys.path.append({str(tmp_path)!r}); sys.argv = ['', {json.dumps(task)!r}];"
    code += "sys.modules['gpulstm'] = None; sys.modules.pop('torch', None); sys.path.insert(0, sys.path.pop());"
    code += f"runpy.run_path({worker.__file__!r}, run_name='__main__')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "PyTorch is not installed for" in json.loads(run.stdout)["reason"]


def test_results_are_compared_by_name_shape_and_norm() -> None:
    arrays = {"x": np.ones(2), "expected.y": np.array([3.0, 4.0]), "expected.dx": np.zeros(2)}
    assert worker.difference({"y": np.array([3.0, 4.0]), "dx": np.zeros(2)}, arrays) == (0.0, "")
    assert worker.difference({"y": np.array([3.0, 4.5]), "dx": np.zeros(2)}, arrays) == (0.1, "y")
    assert worker.difference({"y": np.array([3.0, 4.0])}, arrays) == (math.inf, "dx")
    assert worker.difference({"y": np.zeros((2, 1)), "dx": np.zeros(2)}, arrays) == (math.inf, "y")
    assert worker.difference({"y": np.array([3.0, math.nan]), "dx": np.zeros(2)}, arrays) == (math.inf, "y")


def test_the_peak_is_that_of_the_call_alone() -> None:
    """64 MiB that are touched and freed again show in the peak, and not in what the next measurement starts from."""
    size = 64 << 20
    first = worker.peak_of(lambda: np.ones(size, np.int8), rounds=2)
    assert len(first["seconds"]) == 2 and min(first["seconds"]) > 0
    assert size / 2 < first["peak"] - first["start"] < 4 * size
    second = worker.peak_of(lambda: None, rounds=1)
    assert second["peak"] - second["start"] < size / 2
