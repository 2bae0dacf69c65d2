"""The suite `forecast` of the command `bench`: a table of tasks and contenders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.bench import forecast_peers, forecasts
from gpulstm.bench.forecasts import Score, Task
from gpulstm.cli.console import console, new_files, number, say, table

FORECAST = "forecast"
SEEDS = 3


def bench_forecasts(
    data: Path | None, names: Sequence[str], seeds: int, output: Path | None, force: bool, python: str | None = None
) -> None:
    """Run the suite and print its table, a contender of a task a row, the mean of the seeds in each.

    Args:
        data: folder of further series.
        names: of tasks; none for all whose files are there.
        seeds: how many, at most `SEEDS`.
        output: folder for forecast.json, or None.
        python: an interpreter that has darts and neuralforecast, which then take part; None leaves them out.
    """
    files = new_files(output, ["forecast.json"], force) if output is not None else []

    def report(task: Task, scores: list[Score]) -> None:
        for score in scores:
            covered = "" if score.coverage is None else f", band covers {score.coverage:.0f} %"
            say(f"{task.name}: {score.contender} {score.measure} {score.value:.4f}{covered}, {score.seconds:.1f} CPU s")

    peers: dict[str, Any] = (
        {} if python is None else {"peers": list(forecast_peers.PEERS), "python": python, "skipped": say}
    )
    results = forecasts.run(forecasts.tasks(data, names), data, range(min(seeds, SEEDS)), report, **peers)
    rows = []
    for task, contender in dict.fromkeys((score.task, score.contender) for score in results):
        own = [score for score in results if (score.task, score.contender) == (task, contender)]
        covered = [score.coverage for score in own if score.coverage is not None]
        rows.append(
            [
                task,
                contender,
                own[0].measure,
                number(float(np.mean([score.value for score in own])), 4),
                number(float(np.mean(covered))) if covered else "-",
                f"{np.mean([score.seconds for score in own]):.1f}",
            ]
        )
    head = ["task", "contender", "measure", "value", "coverage % (of 80)", "CPU s"]
    console().print(table(head, rows, text=3, title=f"Smaller is better; mean of {min(seeds, SEEDS)} seeds"))
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(forecasts.as_json(results), indent=1))
        say(f"written: {path}")
