"""Read files given as `reader path` lines on stdin, each in a process of its own; a line of JSON for each.

A line says how it ended ("own": an error of the package's, "result", or the name of another exception or signal), the
message, the seconds of processor time and the MiB of memory that it took.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import warnings
from pathlib import Path

from readers import READERS

from gpulstm.errors import GpulstmError

IMPORTED = {"study": ("optuna.storages", "sqlalchemy.dialects.sqlite", "alembic.migration", "alembic.config")}
SECONDS = 20  # of processor time, after which a child is stopped
ADDRESSES = 2**33  # bytes that a child may ask for, so that a bomb harms no one else


def peak() -> int:
    """The largest resident set of this process so far, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def outcome(reader: str, path: Path) -> tuple[str, str]:
    """How reading a file ends."""
    try:
        READERS[reader](path)
    except GpulstmError as error:
        return "own", str(error)
    except BaseException as error:
        return type(error).__name__, str(error)[:500]
    return "result", ""


def child(reader: str, path: Path, out: int) -> None:
    """Read one file, and write the line."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    Path("/proc/self/clear_refs").write_text("5")
    before, start = peak(), resource.getrusage(resource.RUSAGE_SELF)
    how, message = outcome(reader, path)
    end = resource.getrusage(resource.RUSAGE_SELF)
    seconds = end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime
    line = {"how": how, "message": message, "seconds": seconds, "mib": (peak() - before) / 2**20}
    os.write(out, json.dumps(line).encode() + b"\n")


def main() -> None:
    """Fork a child for each line."""
    warnings.simplefilter("error")
    for line in sys.stdin:
        reader, path = line.rstrip("\n").split(" ", 1)
        for name in IMPORTED.get(reader, ()):
            importlib.import_module(name)  # once, for all children
        sys.stdout.flush()
        number = os.fork()
        if number == 0:
            child(reader, Path(path), 1)
            os._exit(0)
        _, status = os.waitpid(number, 0)
        if status:
            how = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"status {status}"
            print(json.dumps({"how": how, "message": "", "seconds": SECONDS, "mib": 0}), flush=True)


if __name__ == "__main__":
    main()
