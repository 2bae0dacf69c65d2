"""Cases and contenders that several tests of the benchmark use."""

from __future__ import annotations

import sys
from pathlib import Path

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
