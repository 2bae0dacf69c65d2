"""Answers, line by line as JSON, with the source that CuPy gives to NVRTC for an elementwise kernel.

Runs on the simulator: `tests/hostgpu/hostgpu python tests/ptx/programs/cupy_sources.py`.  A question is the list of
`CupySources._ask`; the compilation is stopped as soon as its source is known.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from typing import Any


class _Stopped(Exception):
    """Carries a source and its options out of CuPy."""

    def __init__(self, source: str, options: tuple[str, ...]) -> None:
        super().__init__("stopped before compiling")
        self.source, self.options = source, options


def main() -> None:
    """Answer until the input ends."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CUPY_CACHE_DIR"] = folder  # empty, so that every kernel is compiled
        import cupy
        import cupy.cuda.compiler as compiler

        def stop(program: Any, options: tuple[str, ...] = (), log_stream: Any = None) -> Any:
            if not program.src:  # CuPy asks which compiler it has
                return compile_(program, options, log_stream)
            raise _Stopped(program.src, tuple(options))

        def value(kind: str, dtype: str, shape: list[int]) -> Any:
            return cupy.empty(shape, dtype) if kind == "array" else cupy.dtype(dtype).type(0)

        kept = cupy.zeros(1)  # so that the memory pool and its kernels are there before the compiler is stopped
        compile_, compiler._NVRTCProgram.compile = compiler._NVRTCProgram.compile, stop
        for line in sys.stdin:
            name, inputs, outputs, body, preamble, described, size = json.loads(line)
            kernel = cupy.ElementwiseKernel(inputs, outputs, body, name, preamble=preamble)
            arguments = [value(*each) for each in described]
            try:
                kernel(*arguments, **({} if size is None else {"size": size}))
            except _Stopped as stopped:
                print(json.dumps({"source": stopped.source, "options": stopped.options}), flush=True)
        del kept


if __name__ == "__main__":
    main()
