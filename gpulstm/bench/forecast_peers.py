"""Forecasting libraries that the suite `forecast` compares with, each used as its own documentation begins.

This file is run by an interpreter that has them and not this package (extra `peers-forecast`): at its top it imports
the standard library and NumPy, and a library only inside its function.  All series are numbered from row 0; the test
part is never trained on.  Missing values are carried forward for all of them: their networks have no rule for them.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
LEVELS = (0.1, 0.5, 0.9)
STEPS, CHECKED = 1000, 50  # of training at most, and after how many a library that stops early looks at validation


def neuralforecast(task: dict[str, Any], arrays: Arrays) -> np.ndarray:
    """NHITS with twice the horizon as its input, stopped early by the horizon before the test part; one fit, then
    `cross_validation`.  Without early stopping its quantiles fall together on short series.

    Returns:
        quantiles `(N, H, 3)`, of the origins in the order of their series and rows.
    """
    import pandas as pd
    from neuralforecast import NeuralForecast
    from neuralforecast.losses.pytorch import MQLoss
    from neuralforecast.models import NHITS

    horizon, lengths = task["horizon"], np.diff(arrays["bounds"])
    frame = pd.DataFrame(
        {
            "unique_id": np.repeat(np.arange(len(lengths)), lengths),
            "ds": np.concatenate([np.arange(length) for length in lengths]),
            "y": arrays["value"],
            **{name: arrays[f"future.{name}"] for name in task["future"]},
        }
    )
    model = NHITS(
        h=horizon,
        input_size=2 * horizon,
        loss=MQLoss(quantiles=list(LEVELS)),
        max_steps=STEPS,
        val_check_steps=CHECKED,
        early_stop_patience_steps=3,
        scaler_type="robust",
        start_padding_enabled=True,
        futr_exog_list=list(task["future"]) or None,
        random_seed=task["seed"],
        **_quiet(),
    )
    library = NeuralForecast(models=[model], freq=1)
    results = library.cross_validation(
        frame, n_windows=None, val_size=horizon, test_size=task["tests"], step_size=task["stride"]
    )
    results = results.sort_values(["unique_id", "cutoff", "ds"], kind="stable")
    columns = [name for name in results.columns if name.startswith("NHITS")]
    return results[sorted(columns, key=_level)].to_numpy(np.float64).reshape(-1, horizon, len(LEVELS))


def _level(column: str) -> int:
    """Where a column of NHITS lies among the quantiles: `NHITS_ql0.1` or `NHITS-lo-80.0`, the median, the highest."""
    return 0 if "ql0.1" in column or "-lo-" in column else 2 if "ql0.9" in column or "-hi-" in column else 1


def darts(task: dict[str, Any], arrays: Arrays) -> np.ndarray:
    """N-BEATS with twice the horizon as its input, on scaled series; one fit, then `historical_forecasts`.

    Returns:
        quantiles `(N, H, 3)`, of the origins in the order of their series and rows.
    """
    from darts import TimeSeries
    from darts.dataprocessing.transformers import Scaler
    from darts.models import NBEATSModel
    from darts.utils.likelihood_models.torch import QuantileRegression

    horizon, bounds = task["horizon"], arrays["bounds"]
    parts = [arrays["value"][a:b] for a, b in itertools.pairwise(bounds)]
    shortest = min(len(part) for part in parts) - task["tests"]
    whole = [TimeSeries.from_values(part.astype(np.float32)) for part in parts]
    scaler = Scaler()
    train = scaler.fit_transform([series[: -task["tests"]] for series in whole])
    model = NBEATSModel(
        input_chunk_length=max(1, min(2 * horizon, shortest - horizon)),
        output_chunk_length=horizon,
        n_epochs=100,
        random_state=task["seed"],
        likelihood=QuantileRegression(list(LEVELS)),
        pl_trainer_kwargs={"max_steps": STEPS, **_quiet()},
    )
    model.fit(train)
    results = []
    for number, forecasts in enumerate(
        model.historical_forecasts(
            scaler.transform(whole),
            start=-task["tests"],
            start_format="position",
            forecast_horizon=horizon,
            stride=task["stride"],
            retrain=False,
            last_points_only=False,
            predict_likelihood_parameters=True,
        )
    ):
        low, high = float(parts[number][: -task["tests"]].min()), float(parts[number][: -task["tests"]].max())
        size = high - low if high > low else 1.0  # the scaler's own, of each quantile instead of a series
        results += [forecast.values() * size + low for forecast in forecasts]
    return np.stack(results).astype(np.float64)


def filled(value: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Missing values as the last ones before them in the same series, as this package's networks see them."""
    row = np.arange(len(value))
    known = np.where(np.isnan(value), -1, row)
    known = np.maximum.accumulate(known)
    first = np.repeat(bounds[:-1], np.diff(bounds))  # what lies before the first value of a series stays missing
    return np.where(known >= first, value[known], np.nan)


def _quiet() -> dict[str, Any]:
    return {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_checkpointing": False}


PEERS: dict[str, Callable[[dict[str, Any], Arrays], np.ndarray]] = {"darts": darts, "neuralforecast": neuralforecast}


def main() -> int:
    """Forecast one task.

    The argument: `peer` (a key of `PEERS`), `horizon`, `stride`, `tests`, `season`, `seed`, `future` (names) and the
    files `problem` (`value`, `bounds`, `future.NAME`) and `answer` (`quantiles` `(N, H, 3)`).  Prints JSON: `seconds`
    of the processor and `version`, or the `reason` why there is no answer.
    """
    task = json.loads(sys.argv[1])
    answers, sys.stdout = sys.stdout, sys.stderr  # nothing that a library prints gets between the answers
    with np.load(task["problem"], allow_pickle=False) as file:
        arrays = dict(file)
    arrays["value"] = filled(arrays["value"], arrays["bounds"])
    try:
        __import__(task["peer"])
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)  # where libraries leave their logs
            started = time.process_time()
            quantiles = PEERS[task["peer"]](task, arrays)
            seconds = time.process_time() - started
            os.chdir("/")
        np.savez(task["answer"], quantiles=quantiles)
        result: dict[str, Any] = {"seconds": seconds, "version": version(task["peer"])}
    except (ImportError, RuntimeError, ValueError, MemoryError) as failure:  # what a library says when it cannot serve
        result = {"reason": f"{type(failure).__name__}: {failure}".splitlines()[0]}
    print(json.dumps(result), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
