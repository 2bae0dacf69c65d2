"""Forecasts of tables in parts, on the command line: Dask maps the model over them and writes Parquet."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from gpulstm.cli.console import new_files, say
from gpulstm.errors import ConfigError, missing_extra
from gpulstm.forecast.forecaster import Forecaster


def forecast_parts(
    forecaster: Forecaster, data: str, horizon: int | None, scheduler: str, output: Path, force: bool
) -> None:
    """Forecast all series of a table in parts into `forecast.parquet`, a folder with a file a part.

    Args:
        data: a folder or pattern.
        scheduler: address of a Dask scheduler, whose workers see the same files; empty for this process alone.

    Raises:
        ConfigError: the scheduler does not answer.
        MissingExtraError: Dask is not installed.
    """
    (folder,) = new_files(output, ["forecast.parquet"], force)
    result = forecaster.predict(data, horizon)
    with workers(scheduler):
        result.to_parquet(str(folder), write_index=False, overwrite=folder.exists())  # type: ignore[attr-defined]
    say(f"written: {folder}, {result.npartitions} parts")  # type: ignore[attr-defined]


@contextlib.contextmanager
def workers(scheduler: str) -> Any:
    """Within the block Dask computes on the workers of a scheduler, or, without an address, in this process.

    Raises:
        ConfigError: the scheduler does not answer.
    """
    try:
        import dask
        import distributed
    except ImportError as error:
        raise missing_extra("dask[dataframe,distributed]", "tables in parts") from error
    if not scheduler:
        with dask.config.set(scheduler="synchronous"):
            yield
        return
    try:
        client = distributed.Client(scheduler, timeout="20s")
    except (OSError, ValueError) as error:
        raise ConfigError(f"--scheduler {scheduler} does not answer: {error}") from error
    with client:
        yield
