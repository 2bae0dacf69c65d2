"""Kill the program at random moments of its commands, and look at what it leaves: `make kill-test`.

    python tests/kill.py --kills 1000 --seed 0

Each round starts train, forecast, backtest or convert in one folder and sends SIGKILL, SIGTERM, SIGHUP, or SIGINT once
or twice after a random share of the time that the command takes.  Then every result that is there must be whole: a
checkpoint loads, a table and a picture have their ends; no traceback was printed; a signal that asks gave 128 + n; and
after the next command no temporary file and no lock is left of the dead one.  The last line counts all of it.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from gpulstm.arrays import checkpoint

SIGNALS = {"KILL": [9], "TERM": [15], "HUP": [1], "INT": [2], "INT INT": [2, 2]}
TRAIN = ["--horizon", "2", "--context", "8", "--hidden-size", "8", "--members", "network", "--epochs", "30"]


def commands(folder: Path) -> dict[str, list[str]]:
    """The commands by name, with all that they write in `folder`."""
    table, model = str(folder / "table.csv"), str(folder / "first" / "model.safetensors")
    where = ["--force", "--output"]
    return {
        "train": ["train", table, "--target", "y", *TRAIN, "--device", "cpu", *where, str(folder / "train")],
        "forecast": ["forecast", model, *where, str(folder / "forecast")],
        "backtest": ["backtest", model, table, "--origins", "3", *where, str(folder / "backtest")],
        "convert": ["convert", model, str(folder / "converted.safetensors"), "--force", "--no-check"],
    }


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    """The program with these arguments."""
    return subprocess.Popen(
        [sys.executable, "-m", "gpulstm", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def torn(folder: Path) -> list[str]:
    """What is not whole, of all that was written."""
    bad = []
    for path in folder.rglob("*"):
        if path.name.startswith(".") or not path.is_file():
            continue
        data = path.read_bytes()
        if path.suffix == ".safetensors" and path.name != "converted.safetensors":
            checkpoint.load(path)
        elif (path.suffix == ".png" and not data.endswith(b"IEND\xaeB`\x82")) or (
            path.suffix == ".csv" and not data.endswith(b"\n")
        ):
            bad.append(path.name)
    return bad


def left(folder: Path) -> list[str]:
    """Temporary files and locks."""
    return [path.name for path in folder.rglob(".*")]


def kill(process: subprocess.Popen[bytes], name: str, pause: float) -> tuple[int, str]:
    """Send the signals of `name` after a while; the status and what was printed."""
    time.sleep(pause)
    for number in SIGNALS[name]:
        process.send_signal(number)
        time.sleep(0.02 * (len(SIGNALS[name]) - 1))
    _, stderr = process.communicate(timeout=120)
    return process.returncode, stderr.decode(errors="replace")


def wrong(name: str, status: int, stderr: str) -> str:
    """What is wrong with the end of a process; empty where nothing is."""
    if "Traceback" in stderr:
        return f"a traceback: {stderr[-300:]}"
    asked = SIGNALS[name][0]
    # before its first instruction the interpreter itself ends by the signal; after its work the program ends with 0
    fine = (0, -asked) if name == "KILL" else (0, -asked, 128 + asked)
    return "" if status in fine else f"status {status}: {stderr[-300:]}"


def main() -> int:
    """Kill so many times; 1 where anything was torn, left behind or printed as a traceback."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, counts, faults = random.Random(options.seed), Counter[str](), []
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # children inherit what is ignored
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        values = 100 + np.sin(np.arange(90) / 4)
        (folder / "table.csv").write_text("y\n" + "".join(f"{value}\n" for value in values))
        known = commands(folder)
        first = [*known["train"][:-1], str(folder / "first")]
        assert start(first).wait() == 0
        takes = {}
        for command, arguments in known.items():
            began = time.monotonic()
            assert start(arguments).wait() == 0, command
            takes[command] = time.monotonic() - began
        for round_ in range(options.kills):
            command, sent = rng.choice(sorted(known)), rng.choice(sorted(SIGNALS))
            status, stderr = kill(start(known[command]), sent, rng.random() * takes[command])
            counts[sent] += 1
            counts["left by the dead"] += len(left(folder))
            fault = wrong(sent, status, stderr) or ", ".join(torn(folder))
            if round_ % 10 == 9:
                print(f"{round_ + 1} kills, {len(faults)} faults so far", file=sys.stderr, flush=True)
            if fault:
                faults.append(f"{round_}: {command}, {sent}: {fault}")
                print(faults[-1], flush=True)
        for command, arguments in known.items():
            assert start(arguments).wait() == 0, command
        if left(folder):
            faults.append(f"left behind after the next start: {left(folder)}")
            print(faults[-1], flush=True)
    told = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
    print(f"{options.kills} kills ({told}): {len(faults)} faults")
    return min(len(faults), 1)


if __name__ == "__main__":
    sys.exit(main())
