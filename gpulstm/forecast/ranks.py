"""A fit by processes that this one starts: `Forecaster(devices="all")`, `gpulstm train --devices 0,1`.

The series go to the ranks in a file, and what was fitted comes back as the file that `Forecaster.save` writes.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from gpulstm.data.parts import Parts
from gpulstm.data.series import SeriesSet
from gpulstm.errors import GpulstmError, TrainingError
from gpulstm.forecast import fitted as artifacts
from gpulstm.training import launcher
from gpulstm.training.history import History
from gpulstm.training.interrupts import deferred

JOB, START, FITTED, END = "job.pickle", "start.safetensors", "fitted.safetensors", "end.pickle"


def fit(fitting: Any, chosen: list[str], data: SeriesSet | Parts) -> tuple[Any, History, list[str]]:
    """Let processes fit.

    Args:
        fitting: a `Fitting`.
        chosen: what each of them computes on, by `launcher.cards`.
        data: the series, or a table in parts.

    Returns:
        what was fitted, the history of the first run, and sentences on what the data made necessary.

    Raises:
        GpulstmError: what the ranks raised.
        TrainingError: one of them died.
    """
    config = fitting.config
    with tempfile.TemporaryDirectory(prefix="gpulstm-ranks-") as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "ranks").mkdir()
        if fitting.earlier is not None:
            fitting.earlier.save(folder / START, config.to_dict(), History(), [])
        job = fitting.on("cpu" if chosen[0] == "cpu" else "cuda")
        (folder / JOB).write_bytes(pickle.dumps((job, data)))

        def interrupted(stop: Callable[[], None]) -> None:
            stack.enter_context(deferred(stop))

        arguments = ["-m", "gpulstm.forecast.started", name]
        reason = launcher.run(len(chosen), arguments, folder / "ranks", launcher.visible(chosen), interrupted)
        end = pickle.loads((folder / END).read_bytes()) if (folder / END).is_file() else None
        if isinstance(end, GpulstmError):
            raise end
        if reason is not None or end is None:
            raise TrainingError(reason or "the ranks ended without a result")
        likelihood = config.likelihood if not isinstance(config.likelihood, str) else None
        _, fitted, _, notes = artifacts.load(folder / FITTED, config.device, likelihood)
        return fitted, end, notes
