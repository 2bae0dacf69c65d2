"""A forecaster's fit by processes that this one starts: `Forecaster(devices="all")`, `gpulstm train --devices 0,1`.

The series go to the ranks in a file, and what was fitted comes back as the file that `Forecaster.save` writes.
"""

from __future__ import annotations

import pickle
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpulstm.arrays.launch import place
from gpulstm.errors import GpulstmError, TrainingError
from gpulstm.training import launcher
from gpulstm.training.interrupts import deferred
from gpulstm.training.parallel import failed

if TYPE_CHECKING:
    from gpulstm.forecast.forecaster import Forecaster

_JOB, _START, _FITTED, _END = "job.pickle", "start.safetensors", "fitted.safetensors", "end.pickle"


def wanted(devices: str | None) -> list[str]:
    """What each of several processes is to compute on; empty where this process is to fit alone, or is one of them."""
    if devices is None or place().size > 1:
        return []
    chosen = launcher.cards(devices)
    return chosen if len(chosen) > 1 else []


def fit(forecaster: Forecaster, chosen: list[str], data: Any, options: dict[str, Any]) -> None:
    """Let processes fit `forecaster`, which has what they found afterwards.

    Args:
        chosen: what each of them computes on.
        data: the series, or a table in parts.
        options: of `Forecaster.fit`.

    Raises:
        GpulstmError: what the ranks raised.
        TrainingError: one of them died.
    """
    with tempfile.TemporaryDirectory(prefix="gpulstm-ranks-") as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "ranks").mkdir()
        if options.get("warm_start"):
            forecaster.save(folder / _START)
        config = replace(forecaster.config, device="cpu" if chosen[0] == "cpu" else "cuda")
        with (folder / _JOB).open("wb") as file:
            pickle.dump((config, data, options), file)

        def interrupted(stop: Callable[[], None]) -> None:
            stack.enter_context(deferred(stop))

        arguments = ["-m", "gpulstm.forecast.ranks", name]
        reason = launcher.run(len(chosen), arguments, folder / "ranks", launcher.visible(chosen), interrupted)
        end = pickle.loads((folder / _END).read_bytes()) if (folder / _END).is_file() else None
        if isinstance(end, GpulstmError):
            raise end
        if reason is not None or end is None:
            raise TrainingError(reason or "the ranks ended without a result")
        likelihood = config.likelihood if not isinstance(config.likelihood, str) else None
        fitted = type(forecaster).load(folder / _FITTED, forecaster.config.device, likelihood=likelihood)
        forecaster._fitted, forecaster.notes, forecaster.history = fitted.fitted, fitted.notes, end


def main(name: str) -> None:
    """One rank."""
    from gpulstm.forecast.forecaster import Forecaster

    folder, first = Path(name), place().rank == 0
    launcher.register()
    with (folder / _JOB).open("rb") as file:
        config, data, options = pickle.load(file)
    end: Any = None
    try:
        forecaster = Forecaster.of(config)
        if options.get("warm_start"):
            forecaster._fitted = Forecaster.load(folder / _START, config.device).fitted
        forecaster.fit(data, **options)
        forecaster.save(folder / _FITTED)
        end = forecaster.history
    except GpulstmError as error:
        failed(error)  # all ranks end, unless each has this error
        end = error
    if first:
        (folder / _END).write_bytes(pickle.dumps(end))


if __name__ == "__main__":
    main(sys.argv[1])
