"""Trains on and forecasts a table of ten million rows and four columns, and prints what it takes.

    python tools/ten_million_rows.py            # CSV and Parquet, in a temporary folder
    python tools/ten_million_rows.py --rows 500000 --kind csv

Each file is written first, and then read, trained on for 100 steps and forecast in a process of its own, whose peak
resident set is reported: that is the interpreter, all libraries and everything else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS = ("time", "load", "wind", "sun")
CHUNK = 100_000  # rows that are made at once


def rows_of(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Times, one a minute, and `(count, 3)` values: two cycles with noise, and what drives them."""
    minute = np.arange(first, first + count)
    draw = np.random.default_rng(first)
    wind = np.sin(minute / 700) + 0.3 * draw.normal(size=count)
    sun = np.maximum(0, np.sin(minute * 2 * np.pi / 1440))
    load = 50 + 10 * np.sin(minute * 2 * np.pi / 1440 - 1) - 3 * wind + draw.normal(size=count)
    return np.datetime64("2005-01-01T00:00") + minute, np.round(np.stack([load, wind, sun], axis=1), 4)


def write(path: Path, rows: int) -> None:
    """A CSV or Parquet file of `rows` rows, by the path's ending."""
    if path.suffix == ".csv":
        with path.open("w") as file:
            file.write(",".join(COLUMNS) + "\n")
            for first in range(0, rows, CHUNK):
                times, values = rows_of(first, min(CHUNK, rows - first))
                lines = zip(times.astype(str).tolist(), *values.T.tolist(), strict=True)
                file.writelines(f"{time},{load},{wind},{sun}\n" for time, load, wind, sun in lines)
        return
    import pyarrow
    import pyarrow.parquet

    writer = None
    for first in range(0, rows, CHUNK):
        times, values = rows_of(first, min(CHUNK, rows - first))
        table = pyarrow.table([times.astype("datetime64[us]"), *values.T], names=list(COLUMNS))
        writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def use(path: Path, rows: int, training: str, progress: bool, steps: int = 100, **changes: Any) -> dict[str, float]:
    """Read, train for `steps` steps, forecast; seconds of each, and resident MiB."""
    import gpulstm as gl
    from gpulstm.data.loading import load_series
    from gpulstm.training.callbacks import Callback, Run

    class Enough(Callback):
        """Ends the run early."""

        def on_step(self, run: Run) -> None:
            if run.step == steps:
                run.stop(f"{steps} steps")

    start, begun = resident("VmRSS"), time.perf_counter()
    series = load_series(path, target="load", past=("wind", "sun"), time="time")
    read = time.perf_counter()
    truncated = {"training": "truncated", "window_scaling": "none"} if training == "truncated" else {}
    options = {"horizon": 60, "context": 240, "hidden_size": 64, "num_layers": 1, "batch_size": 32, **changes}
    forecaster = gl.Forecaster(device="cpu", **options, epochs=1, validation=min(1000, rows // 10), **truncated)  # type: ignore[arg-type]
    forecaster.fit(series, progress=progress, callbacks=[Enough()])
    trained = time.perf_counter()
    forecast = forecaster.predict()
    assert np.isfinite(forecast.mean).all()
    return {
        "read": read - begun,
        "train": trained - read,
        "forecast": time.perf_counter() - trained,
        "start": start,
        "peak": resident("VmHWM"),
    }


def resident(name: str) -> float:
    """A line of /proc/self/status in MiB: `VmRSS` is resident now, `VmHWM` was at most."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def main() -> None:
    """Write the files and use each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--kind", choices=["csv", "parquet"], action="append")
    parser.add_argument("--training", choices=["windows", "truncated"], default="windows")
    parser.add_argument("--members", choices=["auto", "network"], default="network")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--use", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.use:
        progress, members = not arguments.quiet, arguments.members
        print(json.dumps(use(arguments.use, arguments.rows, arguments.training, progress, members=members)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for kind in arguments.kind or ["csv", "parquet"]:
            path = Path(folder) / f"table.{kind}"
            write(path, arguments.rows)
            command = [sys.executable, __file__, "--rows", str(arguments.rows), "--training", arguments.training]
            command += ["--members", arguments.members, "--use", str(path), *(["--quiet"] if arguments.quiet else [])]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            result, size = json.loads(done.stdout.splitlines()[-1]), path.stat().st_size / 2**20
            rows, start, peak = arguments.rows, result["start"], result["peak"]
            print(
                f"{kind}: {rows} rows, {size:.0f} MiB on disk; read {result['read']:.1f} s, "
                f"100 steps {result['train']:.1f} s, forecast {result['forecast']:.2f} s; peak {peak:.0f} MiB "
                f"({start:.0f} of them before), {(peak - start) * 2**20 / rows:.0f} bytes a row"
            )
            path.unlink()


if __name__ == "__main__":
    main()
