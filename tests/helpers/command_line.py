"""The command line as tests call it: in this process, or in one of its own."""

from __future__ import annotations

import contextlib
import csv
import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from typer.testing import CliRunner

from gpulstm import __main__ as program
from gpulstm.cli import app


def call(*arguments: str | Path) -> Any:
    """The command line in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def spawn(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, as a person starts it."""
    command = [sys.executable, "-m", "gpulstm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def forked(*arguments: str | Path, prepare: Callable[[], None] = lambda: None) -> tuple[int, str]:
    """The command line in a child of this process, which has all imports behind it; its status and standard error.

    Args:
        prepare: what the child does first, such as to set its limits.
    """
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks where there are threads: ours take care of them
        child = os.fork()
    if child == 0:
        _child(arguments, prepare, write)
    os.close(write)
    with open(read, encoding="utf-8", errors="replace") as stderr:
        text = stderr.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


def _child(arguments: Sequence[str | Path], prepare: Callable[[], None], stderr: int) -> NoReturn:
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(stderr, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115  not pytest's
        prepare()
        program.main([str(argument) for argument in arguments])
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
