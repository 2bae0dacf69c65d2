"""What takes long of several processes and of tables larger than memory: `make test-scale`; prints figures.

    python tests/scale.py ranks --ranks 4
    python tests/scale.py kills --kills 200
    python tests/scale.py rows --rows 10000000 --parts 100
    python tests/scale.py series --series 100000 --parts 100

`ranks` compares the weights of many ranks with those of one.  `kills` kills a rank of `gpulstm train` at random times:
all others must be gone within `SECONDS`, nothing torn, and the run must go on.  `rows` trains from parts and `series`
forecasts them with two workers; both print the largest memory of a process.  Status 1 where a bound is broken.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.arrays import checkpoint
from gpulstm.training.launcher import launcher

SECONDS = 5.0  # within which no rank is left
MEMORY = 1 << 30  # bytes of a process
CONTEXT = 24
PROGRAM = Path(__file__).parent / "training" / "programs" / "ranks.py"


def ranks(count: int, folder: Path) -> list[str]:
    """Faults of `count` ranks next to one."""
    for size in (1, count):
        command = [*launcher(), "-n", str(size), sys.executable, str(PROGRAM), str(folder), "cpu"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    alone = np.load(folder / "weights-1-0.npy")
    apart = [np.abs(np.load(folder / f"weights-{count}-{rank}.npy") - alone).max() for rank in range(count)]
    print(f"{count} ranks: weights up to {max(apart):.1e} from those of one", flush=True)
    return [f"weights are {max(apart):.1e} apart"] * bool(max(apart) > 1e-12)


def processes_in(group: str) -> list[int]:
    """Processes whose environment has this mark."""
    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [number for number in numbers if group.encode() in _said_of(number, "environ")]


def kills(count: int, size: int, seed: int, folder: Path) -> list[str]:
    """Faults of runs one rank of which is killed at a random moment."""
    rng, faults, slowest, hit = random.Random(seed), list[str](), 0.0, 0
    table = folder / "table.csv"
    values = 100 + np.sin(np.arange(200) / 4)
    table.write_text("y\n" + "".join(f"{value}\n" for value in values))
    output = folder / "model"
    train = [sys.executable, "-m", "gpulstm", "train", str(table), "--target", "y", "--members", "network"]
    train += ["--horizon", "4", "--context", str(CONTEXT), "--hidden-size", "8", "--epochs", "40", "--patience", "0"]
    train += ["--test", "0", "--device", "cpu", "--output", str(output), "--force", "--quiet"]
    began = time.monotonic()
    subprocess.run([*launcher(), "-n", str(size), *train], check=True, capture_output=True)
    takes = time.monotonic() - began
    number = 0
    while hit < count and number < 3 * count:
        number += 1
        mark = f"GPULSTM_SCALE_MARK={os.getpid()}-{number}"
        name, _, value = mark.partition("=")
        resume = ["--resume"] if (output / "run.safetensors").is_file() and rng.random() < 0.5 else []
        process = subprocess.Popen(
            [*launcher(), "-n", str(size), *train, *resume],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, name: value},
        )  # fmt: skip
        time.sleep(rng.random() * takes)
        commands = {one: _said_of(one, "cmdline") for one in processes_in(mark)}
        victims = [one for one, words in commands.items() if b"gpulstm\0train" in words and b"mpiexec" not in words]
        if victims:
            os.kill(rng.choice(victims), signal.SIGKILL)
            hit += 1
        killed = time.monotonic()
        try:
            process.communicate(timeout=max(SECONDS, 3 * takes))
        except subprocess.TimeoutExpired:
            faults.append(f"kill {number}: the launcher still waits")
            process.kill()
        while (left := processes_in(mark)) and time.monotonic() - killed < SECONDS:
            time.sleep(0.05)
        if left:
            faults.append(f"kill {number}: {len(left)} processes are left")
            for one in left:
                os.kill(one, signal.SIGKILL)
        if victims:
            slowest = max(slowest, time.monotonic() - killed)
        for path in output.glob("*.safetensors"):
            checkpoint.load(path)  # raises where it is torn
        if number % 10 == 0:
            print(f"{hit} kills, {len(faults)} faults so far", file=sys.stderr, flush=True)
    done = subprocess.run([*launcher(), "-n", str(size), *train], capture_output=True, check=False)
    if done.returncode:
        faults.append(f"the run after the last kill ended with status {done.returncode}")
    print(f"{hit} kills of a rank of {size}: all ended within {slowest:.1f} s, {len(faults)} faults", flush=True)
    return faults + ["too few kills hit a rank"] * (hit < count)


def _said_of(process: int, output: str) -> bytes:
    """A file of the kernel on a process; empty where that has ended, or is another user's."""
    try:
        return Path(f"/proc/{process}/{output}").read_bytes()
    except OSError:
        return b""


def write_parts(folder: Path, parts: int, series: int, rows: int) -> None:
    """Parquet files of so many series of so many rows each."""
    import pandas as pd

    folder.mkdir()
    times = pd.date_range("2020-01-01", periods=rows, freq="h")
    for part in range(parts):
        rng = np.random.default_rng(part)
        wave = np.sin(2 * np.pi * np.arange(rows) / 24)
        values = 10 + wave[None] * rng.uniform(1, 3, (series, 1)) + rng.normal(0, 0.3, (series, rows))
        names = np.repeat([f"s{part}-{one}" for one in range(series)], rows)
        frame = pd.DataFrame({"id": names, "t": np.tile(times, series), "y": values.ravel()})
        frame.to_parquet(folder / f"{part:04}.parquet")


def peak() -> int:
    """Bytes of memory that this process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def rows(total: int, parts: int, folder: Path) -> list[str]:
    """Faults of training from so many rows in parts, in a process of its own."""
    length = 1000
    write_parts(folder / "parts", parts, total // parts // length, length)
    run = subprocess.run([sys.executable, __file__, "fit", str(folder)], check=True, stdout=subprocess.PIPE, text=True)
    bytes_, seconds, steps, loss = run.stdout.split()
    print(
        f"{total} rows in {parts} parts: {steps} steps in {float(seconds):.0f} s, loss {float(loss):.4f}, "
        f"at most {int(bytes_) / 2**20:.0f} MiB",
        flush=True,
    )
    return [f"training took {int(bytes_)} bytes"] * (int(bytes_) > MEMORY)


def fit(folder: Path) -> None:
    """Train one epoch on the parts of a folder; prints memory, seconds, steps and loss."""
    from gpulstm import Forecaster

    began = time.monotonic()
    model = Forecaster(
        horizon=24, context=CONTEXT, hidden_size=16, num_layers=1, batch_size=4096, epochs=1, device="cpu", stride=4
    )
    model.fit(str(folder / "parts"), target="y", time="t", series="id", progress=False)
    model.save(folder / "model.safetensors")
    row = model.history.rows[-1]
    print(peak(), time.monotonic() - began, row["step"], row["train_loss"])


def many_series(count: int, parts: int, folder: Path) -> list[str]:
    """Faults of forecasts of so many series by two workers."""
    import distributed

    write_parts(folder / "parts", parts, count // parts, 60)
    from gpulstm import Forecaster

    model = Forecaster(horizon=24, context=CONTEXT, hidden_size=16, num_layers=1, epochs=1, device="cpu", validation=0)
    model.fit(str(folder / "parts" / "0000.parquet").replace("0000", "000*"), target="y", time="t", series="id",
              progress=False)  # fmt: skip
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit=None, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        began = time.monotonic()
        model.predict(data=str(folder / "parts")).to_parquet(str(folder / "forecast"), write_index=False)
        seconds = time.monotonic() - began
        memory: dict[str, Any] = client.run(peak)
    import pandas as pd

    ids = pd.read_parquet(folder / "forecast", columns=["id"])
    most = max(memory.values())
    print(
        f"{ids.id.nunique()} series in {parts} parts: {len(ids)} rows in {seconds:.0f} s by 2 workers, "
        f"at most {most / 2**20:.0f} MiB each",
        flush=True,
    )
    return [f"{ids.id.nunique()} series"] * (ids.id.nunique() != count) + [f"{most} bytes"] * (most > MEMORY)


def main() -> int:
    """Do what is asked for; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["ranks", "kills", "rows", "series", "fit"])
    parser.add_argument("folder", nargs="?", type=Path)
    for name, default in (("ranks", 4), ("kills", 200), ("rows", 10_000_000), ("series", 100_000), ("parts", 100)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in ("OPENBLAS_NUM_THREADS", "GPULSTM_NUM_THREADS"):
        os.environ[name] = "1"
    if options.what == "fit":
        fit(options.folder)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        faults = {
            "ranks": lambda: ranks(options.ranks, folder),
            "kills": lambda: kills(options.kills, options.ranks, options.seed, folder),
            "rows": lambda: rows(options.rows, options.parts, folder),
            "series": lambda: many_series(options.series, options.parts, folder),
        }[options.what]()
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
