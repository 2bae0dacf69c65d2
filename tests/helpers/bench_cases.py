"""Cases and contenders that several tests of the benchmark use."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from gpulstm.bench import forecasts
from gpulstm.bench.cases import Case, Contender

TINY = Case(3, 2, 4, 5, 1, "inference")


REFERENCE = Contender("gpulstm reference", "gpulstm", sys.executable, "reference")


def peer(name: str, python: str | Path) -> Contender:
    """A peer under some interpreter."""
    return Contender(name, "torch", str(python))


def script(path: Path, text: str) -> Path:
    """A program to be taken for an interpreter."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def monthly(rows: int = 96) -> forecasts.Case:
    """A season of twelve months and noise."""
    steps = np.arange(rows)
    noise = np.random.default_rng(0).normal(0, 1, rows)
    months = np.datetime64("2000-01", "M") + steps
    return forecasts.Case(
        {"time": months.astype("datetime64[D]"), "value": 50 + 9 * np.sin(steps * np.pi / 6) + noise}, 24, 12
    )


WAVES = forecasts.Task("waves", "", lambda path: monthly(), 12, 6, "OWA")
