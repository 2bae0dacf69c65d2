"""A forecaster fitted by processes, that mpiexec started or that it starts itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpulstm import Forecaster
from gpulstm.errors import TrainingError
from gpulstm.training.launcher import launcher

SMALL: dict[str, Any] = {
    "horizon": 3,
    "context": 12,
    "hidden_size": 8,
    "device": "cpu",
    "dtype": "float64",
    "epochs": 2,
}
WAVE = np.sin(np.arange(160) / 5) + np.random.default_rng(0).normal(0, 0.1, 160)


@pytest.mark.slow
@pytest.mark.parametrize("members", ["network", "auto"])
def test_processes_that_it_starts_fit_as_one_would(members: str) -> None:
    alone = Forecaster(**SMALL, members=members).fit(WAVE, progress=False)
    together = Forecaster(**SMALL, members=members, devices="cpu:2").fit(WAVE, progress=False)
    np.testing.assert_allclose(together.predict().mean, alone.predict().mean, rtol=1e-10)
    assert together.history.stopped == alone.history.stopped and len(together.history) == len(alone.history)
    assert together.notes == alone.notes
    again = together.fit(WAVE, progress=False, warm_start=True)
    assert again is together and np.isfinite(again.backtest(origins=2).metrics()["model"]["MAE"])


@pytest.mark.slow
def test_an_error_of_a_rank_is_raised_with_its_number() -> None:
    with pytest.raises(TrainingError, match=r"rank \d of 2: validation=0.01 keeps 2 rows"):
        Forecaster(**SMALL, validation=0.01, members="network", devices="cpu:2").fit(WAVE, progress=False)


@pytest.mark.slow
def test_the_command_line_under_mpiexec(tmp_path: Path) -> None:
    """Rank 0 alone writes and prints, and the model is that of one process."""
    (tmp_path / "table.csv").write_text("y\n" + "".join(f"{value}\n" for value in WAVE))
    train = [sys.executable, "-m", "gpulstm", "train", str(tmp_path / "table.csv"), "--target", "y", "--device", "cpu"]
    train += ["--horizon", "3", "--epochs", "2", "--hidden-size", "8", "--dtype", "float64", "--quiet"]
    variables = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    models = []
    for name, start, more in (
        ("one", [], []),
        ("two", [*launcher(), "-n", "2"], []),
        ("own", [], ["--devices", "cpu:2"]),
    ):
        command = [*start, *train, "--output", str(tmp_path / name), *more]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("next: gpulstm forecast") == 1
        models.append(Forecaster.load(tmp_path / name / "model.safetensors", "cpu").predict().mean)
    np.testing.assert_allclose(models[1], models[0], rtol=1e-9)
    np.testing.assert_allclose(models[2], models[0], rtol=1e-9)
