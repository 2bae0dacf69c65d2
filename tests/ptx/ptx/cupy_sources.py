"""The CUDA sources that CuPy writes for elementwise kernels, asked of CuPy itself.

CuPy writes them while it compiles, for which it needs a device: a process of its own on the simulator is asked, which
stops CuPy before anything runs.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

_TESTS = Path(__file__).resolve().parents[2]


class CupySources:
    """One such process, started when the first source is asked for."""

    _options: ClassVar[dict[str, list[str]]] = {}

    @classmethod
    def get(
        cls, name: str, inputs: str, outputs: str, body: str, preamble: str, values: list[Any], size: int | None
    ) -> str:
        """The source of `cupy.ElementwiseKernel(inputs, outputs, body, name, preamble=preamble)` for these values."""
        described = tuple(
            ("array", value.dtype.name, value.shape)
            if isinstance(value, np.ndarray)
            else ("scalar", value.dtype.name, ())
            for value in values
        )
        return cls._ask(name, inputs, outputs, body, preamble, described, size)

    @classmethod
    def options(cls) -> list[str]:
        """What CuPy gave to NVRTC with the last source."""
        return cls._options["last"]

    @classmethod
    @functools.cache
    def _ask(cls, *question: Any) -> str:
        process = cls._process()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("the process that asks CuPy for its sources has ended")
        answer = json.loads(line)
        cls._options["last"] = answer["options"]
        return answer["source"]

    @classmethod
    @functools.cache
    def _process(cls) -> subprocess.Popen[str]:
        command = [
            str(_TESTS / "hostgpu" / "hostgpu"),
            sys.executable,
            str(_TESTS / "ptx" / "programs" / "cupy_sources.py"),
        ]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
