"""Kill the program at random moments of its commands, and look at what it leaves: `make kill-test`.

    python tests/kill.py --kills 1000 --seed 0 --record runs/kills.json

Each round starts train, forecast, backtest, convert or tune, or goes on with a train or tune that was killed, and sends
SIGKILL, SIGTERM, SIGHUP, or SIGINT once or twice after a random share of the processor time that the command takes.
Then every result that is there must be whole: a checkpoint loads, a table and a picture have their ends, a search's
database is sound; no traceback was printed; a signal that asks gave 128 + n; and temporary files do not pile up.  A
training run that was killed is sometimes taken to its end, and must give the bits of one that never was.  After the
last command no temporary file and no lock is left of the dead ones.  Rounds depend on the seed and their number alone;
with `--record` a run goes on after the rounds that the file counts.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np

from gpulstm import __main__ as program
from gpulstm.arrays import checkpoint

SIGNALS = {"SIGKILL": [9], "SIGTERM": [15], "SIGHUP": [1], "SIGINT": [2], "SIGINT twice": [2, 2]}
IMPORTED = ("gpulstm.cli", "gpulstm.forecast.tune", "optuna.storages", "matplotlib.figure", "onnx", "pandas")
NETWORK = ["--horizon", "2", "--context", "8", "--hidden-size", "4", "--num-layers", "1", "--members", "network"]
EPOCHS = ["--epochs", "8", "--patience", "8", "--device", "cpu"]
PILE = 3  # temporary files that dead processes may have left in one folder: the next one's removal can be killed too
FRESH = 0.08  # share of the rounds in an interpreter of their own; the others begin when all is imported
SECONDS = 300  # without progress, after which a process hangs
BUSY = 600  # of processor time, after which it goes round in circles


@dataclass
class Tally:
    """What has been counted so far, as the record keeps it."""

    seed: int
    rounds: int = 0
    commands: Counter[str] = field(default_factory=Counter)
    signals: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    fresh: int = 0  # interpreters
    continued: int = 0
    faults: list[str] = field(default_factory=list)
    takes: dict[str, float] = field(default_factory=dict)  # processor seconds, by command and whether it is fresh

    def line(self) -> str:
        """All of it for a person."""
        told = [f"{count} {name}" for part in (self.commands, self.signals, self.ended) for name, count in part.items()]
        counts = ", ".join([*told, f"{self.fresh} in a fresh interpreter", f"{self.continued} taken to their end"])
        return f"{self.rounds} kills ({counts}): {len(self.faults)} faults"

    def keep(self, record: Path | None) -> None:
        """Write it all down, where that is asked for."""
        if record:
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text(json.dumps(vars(self), indent=1))


class Suite:
    """The commands, the folder that they write into, and what is known of whole runs."""

    def __init__(self, folder: Path, takes: dict[str, float]) -> None:
        self.folder = folder
        table, model = str(folder / "table.csv"), str(folder / "first" / "model.safetensors")
        values = 100 + np.sin(np.arange(70) / 4)
        (folder / "table.csv").write_text("y\n" + "".join(f"{value}\n" for value in values))
        self.train = ["train", table, "--target", "y", *NETWORK, *EPOCHS]
        tune = ["tune", table, "--target", "y", *NETWORK, "--epochs", "2", "--device", "cpu", "--trials", "1"]
        where = ["--force", "--output"]
        self.commands = {
            "train": [*self.train, *where, str(folder / "train")],
            "forecast": ["forecast", model, *where, str(folder / "forecast")],
            "backtest": ["backtest", model, table, "--origins", "3", *where, str(folder / "backtest")],
            "convert": ["convert", model, str(folder / "converted.onnx"), "--force", "--no-check"],
            "tune": [*tune, *where, str(folder / "tune")],
        }
        whole([*self.train, "--output", str(folder / "first")])
        self.bits = weights(folder / "first" / "model.safetensors")
        self.takes = takes or {  # the first run of each also fills caches
            f"{name} {fresh}": min(whole(command, fresh), whole(command, fresh))
            for name, command in self.commands.items()
            for fresh in (True, False)
        }

    def arguments(self, name: str, rng: random.Random) -> list[str]:
        """A command, or how it goes on where an earlier one left something to go on from."""
        command = self.commands[name]
        held = {"train": "run.safetensors", "tune": "tune.db"}.get(name)
        if held and (self.folder / name / held).is_file() and rng.random() < 0.5:
            return [word if word != "--force" else "--resume" for word in command]
        return command

    def torn(self) -> list[str]:
        """What is not whole, of all that was written."""
        bad = []
        for path in self.folder.rglob("*"):
            if path.name.startswith(".") or not path.is_file():
                continue
            data = path.read_bytes()
            if path.suffix == ".safetensors":
                checkpoint.load(path)
            elif path.suffix == ".db":
                bad += [path.name] if database_fault(path) else []
            elif path.suffix == ".onnx":
                onnx = importlib.import_module("onnx")
                onnx.checker.check_model(onnx.load_from_string(data))
            elif (path.suffix == ".png" and not data.endswith(b"IEND\xaeB`\x82")) or (
                path.suffix == ".csv" and not data.endswith(b"\n")
            ):
                bad.append(path.name)
        return bad

    def piled(self) -> list[str]:
        """Folders with more temporary files than processes that can have left them."""
        left = Counter(str(path.parent) for path in self.folder.rglob(".*.tmp"))
        return [f"{count} temporary files in {Path(name).name}" for name, count in left.items() if count > PILE]

    def taken_to_its_end(self) -> str:
        """What is wrong with the run in the folder of train once it has gone on to its end; empty where nothing is."""
        whole([*self.train, "--resume", "--output", str(self.folder / "train")])
        return "" if weights(self.folder / "train" / "model.safetensors") == self.bits else "resumed with other bits"

    def left(self) -> list[str]:
        """Temporary files and locks after every command has run once more."""
        for command in self.commands.values():
            whole(command)
        return [path.name for path in self.folder.rglob(".*")]


def whole(arguments: list[str], fresh: bool = False) -> float:
    """Run the program to its end; the seconds of processor time that it took."""
    process = Process(arguments, fresh)
    used, (status, stderr) = until(process, float("inf")), process.ended()
    assert status == 0, (arguments, status, stderr)
    return used


def weights(path: Path) -> dict[str, bytes]:
    """The arrays of a checkpoint as bytes."""
    return {name: array.tobytes() for name, array in checkpoint.load(path)[0].items()}


def database_fault(path: Path) -> bool:
    """Whether SQLite finds a fault in a database; one without a byte is new."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute("pragma integrity_check").fetchall() != [("ok",)]
    except sqlite3.DatabaseError:
        return True
    finally:
        connection.close()


class Process:
    """The program with these arguments: a fresh interpreter, or a child of this one, which has imported it all.

    Its standard error goes to a file, which `ended` reads.
    """

    def __init__(self, arguments: list[str], fresh: bool) -> None:
        self.status: int | None = None
        self._used = 0.0
        self._stderr = open(os.memfd_create("stderr"), "w+b")  # noqa: SIM115  `ended` closes it
        if fresh:
            command = [sys.executable, "-m", "gpulstm", *arguments]
            self.pid = os.posix_spawn(sys.executable, command, os.environ, file_actions=self._streams())
            return
        self.pid = os.fork()
        if self.pid == 0:
            self._child(arguments)

    def _streams(self) -> list[tuple[int, ...]]:
        return [
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),  # type: ignore[list-item]
            (os.POSIX_SPAWN_DUP2, self._stderr.fileno(), 2),
        ]

    def _child(self, arguments: list[str]) -> NoReturn:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(self._stderr.fileno(), 2)
        status = 1
        try:
            program.main(arguments)
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)

    def over(self) -> bool:
        """Whether it has ended."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None

    def send(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if not self.over():
            os.kill(self.pid, number)

    def used(self) -> float:
        """Seconds of processor time so far."""
        with contextlib.suppress(OSError):  # it has ended
            self._used = time.clock_gettime((~self.pid << 3) | 2)  # Linux: the clock of another process
        return self._used

    def waits_for_a_processor(self) -> bool:
        """Whether it would go on if the machine let it."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "R"
        except OSError:
            return False

    def ended(self) -> tuple[int, str]:
        """Wait; the status and what it printed on standard error."""
        give_up, used = time.monotonic() + SECONDS, -1.0
        while not self.over():
            now = self.used()
            if now < BUSY and (now != used or self.waits_for_a_processor()):
                give_up, used = time.monotonic() + SECONDS, now
            if time.monotonic() > give_up:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                return -signal.SIGKILL, "Traceback: it hangs"
            time.sleep(0.002)
        self._stderr.seek(0)
        text = self._stderr.read().decode(errors="replace")
        self._stderr.close()
        assert self.status is not None
        return self.status, text


def until(process: Process, share: float) -> float:
    """Wait until a process has used so much processor time, or has ended; what it has used."""
    used = 0.0
    while used < share and not process.over():
        used = process.used()
        time.sleep(min(max(0.001, (share - used) / 4), 0.02))
    return used


def catches(process: Process) -> bool:
    """Whether the program's own handlers are in their place: from its first instructions to its last."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        return False
    masks = [line.split()[1] for line in lines if line.startswith("SigCgt")]
    return bool(masks) and bool(int(masks[0], 16) >> (signal.SIGTERM - 1) & 1)


def killed(process: Process, name: str, share: float, pause: float) -> tuple[int, str]:
    """Send the signals of `name` to a process; its status, and what is wrong with how it ended."""
    until(process, share)
    ready = catches(process)
    for number in SIGNALS[name]:
        process.send(number)
        time.sleep(pause if len(SIGNALS[name]) > 1 else 0)
    status, stderr = process.ended()
    asked = SIGNALS[name][0]
    # before its first instruction the interpreter itself ends by the signal; after its work the program ends with 0
    fine = {0, 128 + asked} if ready and name != "SIGKILL" else {0, 128 + asked, -asked}
    if "Traceback" in stderr and (ready or asked != signal.SIGINT):
        return status, f"a traceback: {stderr[-600:]}"
    return status, "" if status in fine else f"status {status}: {stderr[-300:]}"


def one_round(suite: Suite, tally: Tally) -> None:
    """Kill once, and look."""
    rng = random.Random(f"{tally.seed}-{tally.rounds}")
    command, sent = rng.choice(sorted(suite.commands)), rng.choice(sorted(SIGNALS))
    arguments, fresh = suite.arguments(command, rng), rng.random() < FRESH
    kind = f"{command} {fresh}"
    share, pause = 1.1 * rng.random() * suite.takes[kind], rng.random() * 0.05
    process = Process(arguments, fresh)
    status, fault = killed(process, sent, share, pause)
    if status == 0 and "--resume" not in arguments:  # what it takes depends on what else the machine does
        suite.takes[kind] = (suite.takes[kind] + process.used()) / 2
    fault = fault or ", ".join([*suite.torn(), *suite.piled()])
    can_go_on = command == "train" and status and (suite.folder / "train" / "run.safetensors").is_file()
    if not fault and can_go_on and rng.random() < 0.25:
        tally.continued += 1
        fault = suite.taken_to_its_end()
    tally.commands[command] += 1
    tally.fresh += fresh
    tally.signals[sent] += 1
    tally.ended["over before the signal" if status == 0 else "ended by it"] += 1
    if fault:
        tally.faults.append(f"round {tally.rounds}: {' '.join(arguments[:1] + arguments[-2:])}, {sent}: {fault}")
        print(tally.faults[-1], flush=True)
    tally.rounds += 1


def main() -> int:
    """Kill so many times; 1 where anything was torn, left behind or printed as a traceback."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end this part after so long")
    options = parser.parse_args()
    give_up = time.monotonic() + options.seconds
    tally = Tally(options.seed)
    if options.record and options.record.is_file():
        held = json.loads(options.record.read_text())
        if held["seed"] == options.seed:
            counters = {name: Counter(held[name]) for name in ("commands", "signals", "ended")}
            tally = Tally(**{**held, **counters})
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    for name in IMPORTED:
        importlib.import_module(name)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # children inherit what is ignored
    with tempfile.TemporaryDirectory() as name:
        suite = Suite(Path(name), tally.takes)
        tally.takes = suite.takes
        while tally.rounds < options.kills and time.monotonic() < give_up:
            one_round(suite, tally)
            if tally.rounds % 10 == 0:
                print(tally.line(), file=sys.stderr, flush=True)
                tally.keep(options.record)
        if left := suite.left():
            tally.faults.append(f"left behind after the next start: {left}")
            print(tally.faults[-1], flush=True)
    tally.keep(options.record)
    print(tally.line())
    return min(len(tally.faults), 1)


if __name__ == "__main__":
    sys.exit(main())
