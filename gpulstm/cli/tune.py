"""The command `tune`: search for options with optuna."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from gpulstm.arrays import files
from gpulstm.cli.console import console, new_files, number, polite, say, table
from gpulstm.cli.forecaster import FILES, MODEL, RUN, Force, Job, Output, Table, table_path
from gpulstm.cli.options import with_options
from gpulstm.data.loading import load_series
from gpulstm.data.options import TableOptions
from gpulstm.errors import ConfigError
from gpulstm.forecast.config import ForecasterConfig
from gpulstm.forecast.forecaster import Forecaster

SEARCH = "The search"
STUDY = "tune.db"


@polite
@partial(with_options)
def tune(
    data: Table,
    table_options: TableOptions,
    config: ForecasterConfig,
    trials: Annotated[int, typer.Option(help="Options to try.", rich_help_panel=SEARCH)] = 20,
    timeout: Annotated[float, typer.Option(help="Seconds; 0 for no limit.", rich_help_panel=SEARCH)] = 0.0,
    resume: Annotated[bool, typer.Option(help="Go on with the search in --output.", rich_help_panel=FILES)] = False,
    output: Output = Path("runs/tune"),
    force: Force = False,
) -> None:
    """Search for the network's options with optuna, judged by validation rows, and fit with the best.

    Example: gpulstm tune sales.csv --target units --time date --trials 30

    Writes tune.db, from which --resume goes on, and model.safetensors.
    """
    from gpulstm.forecast.tune import check_database
    from gpulstm.forecast.tune import tune as search

    new_files(output, [MODEL] if resume else [MODEL, STUDY], force or resume)
    series = load_series(table_path(data), table_options, guess=True, embedding=config.embedding)
    with files.locked(output, ConfigError):
        if force and not resume:
            for name in (STUDY, f"{STUDY}-journal"):  # in this order: SQLite ignores a journal without a database
                (output / name).unlink(missing_ok=True)
        elif (output / STUDY).exists():
            check_database(output / STUDY)
        best, study = search(
            Forecaster.of, config, series, trials=trials, timeout=timeout or None, storage=f"sqlite:///{output / STUDY}"
        )
        rows = [[name, str(value)] for name, value in study.best_params.items()]
        console().print(table(["option", "best"], rows, title=f"validation error {number(study.best_value, 4)}"))
        say(f"{len(study.trials)} trials so far; go on with --resume")
        Job(output, True, True).fit(Forecaster.of(best), series, RUN, False)
