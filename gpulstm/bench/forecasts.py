"""The suite `forecast`: the forecaster with its defaults on real series, next to the naive forecasts.

Each task fits on the rows before its test part and forecasts from origins within it.  What is measured: MASE (scaled by
the seasonal-naive error of the training rows), OWA as the M4 competition defines it, or the squared error of
standardized values; how much the 80 % band covers; and processor seconds of fitting.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm import metrics
from gpulstm.bench import forecast_peers
from gpulstm.data import datasets
from gpulstm.errors import ConfigError, DataError
from gpulstm.forecast.baselines import naive2

LEVELS = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Case:
    """Series, cut into what may be seen and what is to be forecast.

    Attributes:
        table: columns of all rows: `value`, and where they are, `time`, `series` and covariates known ahead.
        future: names of those covariates.
        tests: rows of each series in the test part.
        validation: rows before them that members are judged on, or None for the default.
        season: rows in a season.
    """

    table: dict[str, np.ndarray]
    tests: int
    season: int
    future: tuple[str, ...] = ()
    validation: int | None = None


@dataclass(frozen=True)
class Task:
    """One row of the table.

    Attributes:
        name: of the task.
        file: that the folder has to hold; "" for a bundled series.
        read: from the path to the series.
        horizon: steps of a forecast.
        stride: rows between origins.
        measure: "MASE", "OWA" or "MSE".
    """

    name: str
    file: str
    read: Callable[[Path], Case]
    horizon: int
    stride: int
    measure: str


@dataclass(frozen=True)
class Score:
    """What a contender reached in a task.

    Attributes:
        task, contender, measure, seed: which.
        value: of the measure; smaller is better.
        coverage: share of actual values within the 80 % band, in percent, or None.
        seconds: of the processor, for fitting and forecasting.
    """

    task: str
    contender: str
    measure: str
    seed: int
    value: float
    coverage: float | None
    seconds: float


def _csv(path: Path) -> Any:
    import pandas as pd

    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


def _one(column: str, clock: str, tests: int, season: int, *future: str) -> Callable[[Path], Case]:
    def read(path: Path) -> Case:
        import pandas as pd

        frame = _csv(path)
        table = {"time": pd.to_datetime(frame[clock]).to_numpy(), "value": frame[column].to_numpy(np.float64)}
        table |= {name: frame[name].to_numpy(np.float64) for name in future}
        return Case(table, tests, season, tuple(future))

    return read


def _daily(path: Path) -> Case:
    import pandas as pd

    frame = _csv(path)
    mean = frame.groupby(pd.to_datetime(frame["time"]).dt.normalize())["demand"].mean()
    return Case({"time": mean.index.to_numpy(), "value": mean.to_numpy(np.float64)}, 90, 7)


def _panel(tests: int, season: int) -> Callable[[Path], Case]:
    def read(path: Path) -> Case:
        frame = _csv(path).sort_values(["series", "step"], kind="stable")
        table = {
            "series": frame["series"].to_numpy(str),
            "time": frame["step"].to_numpy(np.float64),
            "value": frame["value"].to_numpy(np.float64),
        }
        return Case(table, tests, season)

    return read


def _etth2(path: Path) -> Case:
    """The published split: 8640 rows to train, 2880 to validate, 2880 to test; standardized by the first."""
    import pandas as pd

    frame = _csv(path).iloc[:14400]
    value = frame["OT"].to_numpy(np.float64)
    value = (value - value[:8640].mean()) / value[:8640].std()
    return Case({"time": pd.to_datetime(frame["date"]).to_numpy(), "value": value}, 2880, 24, validation=2880)


TASKS = (
    Task("co2", "", _one("co2", "date", 312, 52), 52, 13, "MASE"),
    Task("seattle_weather", "", _one("temp_max", "date", 365, 7), 14, 1, "MASE"),
    Task("air_passengers", "air_passengers.csv", _one("passengers", "month", 36, 12), 12, 1, "MASE"),
    Task("electricity_daily", "electricity_hourly.csv", _daily, 14, 1, "MASE"),
    Task("electricity_hourly", "electricity_hourly.csv", _one("demand", "time", 1440, 24), 24, 24, "MASE"),
    Task(
        "electricity_known",
        "electricity_hourly.csv",
        _one("demand", "time", 1440, 24, "temperature", "holiday"),
        24,
        24,
        "MASE",
    ),
    Task("etth2_24", "etth2.parquet", _etth2, 24, 1, "MSE"),
    Task("etth2_96", "etth2.parquet", _etth2, 96, 1, "MSE"),
    Task("m3_quarterly", "m3_quarterly.parquet", _panel(8, 4), 8, 1, "OWA"),
    Task("m3_monthly", "m3_monthly.parquet", _panel(18, 12), 18, 1, "OWA"),
    Task("m4_hourly", "m4_hourly.parquet", _panel(48, 24), 48, 1, "OWA"),
)


def tasks(folder: Path | None, names: Sequence[str] = ()) -> list[Task]:
    """The tasks whose files are there: the bundled series without a folder.

    Raises:
        ConfigError: a name that is no task.
        DataError: a task was asked for and its file is not there.
    """
    known = [task.name for task in TASKS]
    for name in names:
        if name not in known:
            raise ConfigError(f"task is {name!r}, expected any of {', '.join(known)}")
    chosen = []
    for task in TASKS:
        readable = not task.file or (folder is not None and (folder / task.file).is_file())
        if names and task.name in names and not readable:
            raise DataError(f"the task {task.name} needs {task.file} in the folder of --data")
        if readable and (not names or task.name in names):
            chosen.append(task)
    return chosen


def read(task: Task, folder: Path | None) -> Case:
    """The series of a task."""
    return task.read(datasets.path(task.name) if not task.file or folder is None else folder / task.file)


@dataclass(frozen=True)
class Truth:
    """What is to be forecast: N origins.

    Attributes:
        bounds: `(series + 1,)` where each series begins in the table.
        series: `(N,)`; `origins` `(N,)` rows of the table.
        actual: `(N, H)`; `scale` `(N,)` what MASE divides by.
    """

    bounds: np.ndarray
    series: np.ndarray
    origins: np.ndarray
    actual: np.ndarray
    scale: np.ndarray


def truth(case: Case, horizon: int, stride: int) -> Truth:
    """The origins of a case, and what came."""
    value = case.table["value"]
    names = case.table.get("series", np.zeros(len(value), int))
    bounds = np.concatenate([[0], np.flatnonzero(names[1:] != names[:-1]) + 1, [len(value)]])
    stops = bounds[1:] - case.tests
    parts = [np.arange(a, b - horizon + 1, stride) for a, b in zip(stops, bounds[1:], strict=True)]
    series = np.repeat(np.arange(len(stops)), [len(part) for part in parts])
    origins = np.concatenate(parts)
    scales = []
    for start, stop in zip(bounds[:-1], stops, strict=True):
        steps = np.abs(value[start + case.season : stop] - value[start : stop - case.season])
        scales.append(np.nanmean(steps) if np.nanmean(steps) > 0 else 1.0)
    actual = value[origins[:, None] + np.arange(horizon)]
    return Truth(bounds, series, origins, actual, np.array(scales)[series])


def score(case: Case, known: Truth, forecast: np.ndarray, measure: str) -> float:
    """The measure of forecasts `(N, H)`."""
    error = np.abs(known.actual - forecast)
    if measure == "MSE":
        return float(np.nanmean(error**2))
    scaled = float((np.nanmean(error, axis=1) / known.scale).mean())
    if measure == "MASE":
        return scaled
    targets, horizon = case.table["value"][:, None], known.actual.shape[1]
    second = naive2(targets, known.bounds, known.origins, horizon, case.season)[..., 0]
    relative = [metrics.smape(known.actual, each) for each in (forecast, second)]
    other = float((np.nanmean(np.abs(known.actual - second), axis=1) / known.scale).mean())
    return (relative[0] / relative[1] + scaled / other) / 2


def baselines(task: Task, case: Case, known: Truth) -> list[Score]:
    """The naive and the seasonal-naive forecast."""
    value = case.table["value"]
    scores = []
    for name, season in (("seasonal naive", case.season), ("naive", 1)):
        lags = season * (np.arange(task.horizon) // season + 1) - np.arange(task.horizon)
        forecast = value[known.origins[:, None] - lags]
        scores.append(Score(task.name, name, task.measure, 0, score(case, known, forecast, task.measure), None, 0.0))
    return scores


def ours(task: Task, case: Case, known: Truth, seed: int, **options: Any) -> Score:
    """The forecaster with its defaults."""
    from gpulstm.forecast.forecaster import Forecaster

    started = time.process_time()
    more: dict[str, Any] = {} if case.validation is None else {"validation": case.validation}
    forecaster = Forecaster(
        task.horizon,
        quantiles=LEVELS,
        seed=seed,
        test=case.tests,
        season=case.season,
        device="cpu",
        **{**more, **options},
    )
    roles: dict[str, Any] = {name: name for name in ("time", "series") if name in case.table}
    forecaster.fit(case.table, target="value", future=case.future, missing="interpolate", progress=False, **roles)
    result = forecaster.backtest(stride=task.stride)
    seconds = time.process_time() - started
    assert result.quantiles is not None
    low, median, high = np.moveaxis(result.quantiles[:, :, 0], -1, 0)
    covered = metrics.coverage(known.actual, low, high)
    return Score(task.name, "gpulstm", task.measure, seed, score(case, known, median, task.measure), covered, seconds)


def peer(task: Task, case: Case, known: Truth, seed: int, name: str, python: str) -> Score | str:
    """Another library, in a process of an interpreter that has it; see `forecast_peers`.

    Returns:
        its score, or the reason why there is none.
    """
    with tempfile.TemporaryDirectory() as folder:
        problem, answer = Path(folder) / "problem.npz", Path(folder) / "answer.npz"
        ahead: dict[str, Any] = {f"future.{column}": case.table[column] for column in case.future}
        np.savez(problem, value=case.table["value"], bounds=known.bounds, **ahead)
        asked = {"peer": name, "horizon": task.horizon, "stride": task.stride, "tests": case.tests, "seed": seed}
        asked |= {"future": case.future, "problem": str(problem), "answer": str(answer)}
        command = [python, forecast_peers.__file__, json.dumps(asked)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return f"{name} ended with {done.returncode}: {''.join(done.stderr.strip().splitlines()[-1:])}"
        said = json.loads(done.stdout)
        if "reason" in said:
            return f"{name} has no answer for {task.name}: {said['reason']}"
        with np.load(answer, allow_pickle=False) as file:
            low, median, high = np.moveaxis(file["quantiles"], -1, 0)
    covered = metrics.coverage(known.actual, low, high)
    value, label = score(case, known, median, task.measure), f"{name} {said['version']}"
    return Score(task.name, label, task.measure, seed, value, covered, said["seconds"])


def run(
    chosen: Sequence[Task],
    folder: Path | None,
    seeds: Sequence[int] = (0, 1, 2),
    report: Callable[[Task, list[Score]], None] = lambda task, scores: None,
    peers: Sequence[str] = (),
    python: str = sys.executable,
    skipped: Callable[[str], None] = lambda reason: None,
) -> list[Score]:
    """All tasks with all seeds.

    Args:
        chosen: tasks.
        folder: of their files.
        seeds: of this package's fits; peers take the first.
        report: called after each task with its scores.
        peers: other libraries, by the names of `forecast_peers.PEERS`.
        python: the interpreter that has them.
        skipped: called with the reason why one of them has no answer.
    """
    results: list[Score] = []
    for task in chosen:
        case = read(task, folder)
        known = truth(case, task.horizon, task.stride)
        scores = [*baselines(task, case, known), *(ours(task, case, known, seed) for seed in seeds)]
        if task.file == "etth2.parquet":
            scores.append(dlinear(task, case, known))
        answers = [peer(task, case, known, next(iter(seeds), 0), name, python) for name in peers]
        scores += [answer for answer in answers if isinstance(answer, Score)]
        for answer in answers:
            if isinstance(answer, str):
                skipped(answer)
        report(task, scores)
        results += scores
    return results


def dlinear(task: Task, case: Case, known: Truth, context: int = 336, rate: float = 0.005) -> Score:
    """DLinear (Zeng et al. 2023, "Are transformers effective for time series forecasting?", AAAI 37) as its authors
    train it: squared error, Adam, batches of 32, ten epochs at most, the rate halved after each, patience 3.
    """
    started = time.process_time()
    value = case.table["value"]
    last = int(known.origins[0])
    kept = case.validation or task.horizon
    rng = np.random.default_rng(0)

    def windows(origins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = value[origins[:, None] + np.arange(-context, 0)]
        ends = np.concatenate([np.repeat(x[:, :1], 12, axis=1), x, np.repeat(x[:, -1:], 12, axis=1)], axis=1)
        sums = np.cumsum(np.concatenate([np.zeros((len(x), 1)), ends], axis=1), axis=1)
        trend = (sums[:, 25:] - sums[:, :-25]) / 25
        return np.concatenate([x - trend, trend, np.ones((len(x), 1))], axis=1), value[
            origins[:, None] + np.arange(task.horizon)
        ]

    x, y = windows(np.arange(context, last - kept - task.horizon + 1))
    judged_x, judged_y = windows(np.arange(last - kept, last - task.horizon + 1))
    weights = np.full((2 * context + 1, task.horizon), 1 / context)
    weights[-1] = 0
    first, second = np.zeros_like(weights), np.zeros_like(weights)
    best, best_loss, waited, step = weights, np.inf, 0, 0
    for epoch in range(10):
        order = rng.permutation(len(x))
        for start in range(0, len(order) - 31, 32):
            run = order[start : start + 32]
            gradient = x[run].T @ (x[run] @ weights - y[run]) * (2 / y[run].size)
            step += 1
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            moved = (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
            weights = weights - rate * 0.5**epoch * moved
        loss = float(((judged_x @ weights - judged_y) ** 2).mean())
        if loss < best_loss:
            best, best_loss, waited = weights, loss, 0
        else:
            waited += 1
            if waited >= 3:
                break
    forecast = windows(known.origins)[0] @ best
    seconds = time.process_time() - started
    return Score(task.name, "DLinear", task.measure, 0, score(case, known, forecast, task.measure), None, seconds)


def as_json(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """The scores as JSON holds them."""
    return [asdict(each) for each in scores]
