"""The command line as tests call it: in this process, or in one of its own."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

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
