"""`tools/install.sh`: what it shows of pip's output, where it looks for Python, what it says when all fails."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from paths import TOOLS

OUTPUT = """Collecting numpy>=2.1
  Downloading numpy-2.4.6-cp311-cp311-manylinux_2_28_x86_64.whl (16.6 MB)
  Installing build dependencies: started
  Created temporary directory: /tmp/x
  [2/23] Building CXX object CMakeFiles/engine_avx2.dir/kernels/cpu/tiles.cpp.o
  [23/23] Linking CXX shared module _cpu.abi3.so
Installing collected packages: numpy, gpulstm
"""
SHOWN = """   Downloading numpy-2.4.6-cp311-cp311-manylinux_2_28_x86_64.whl (16.6 MB)
   Installing build dependencies
   [2/23] Building CXX object engine_avx2: kernels/cpu/tiles.cpp.o
   [23/23] Linking CXX shared module _cpu.abi3.so
   Installing collected packages
"""


@pytest.mark.parametrize("status", [0, 3])
def test_progress_is_shown_and_failure_is_pips(status: int, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(f'#!/bin/sh\nif [ "$1" = -m ]; then cat "{tmp_path}/output"; exit {status}; fi\nexit 0\n')
    python.chmod(0o755)
    (tmp_path / "output").write_text(OUTPUT)
    command = ["bash", str(TOOLS / "install.sh"), "bin/python", "-e", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == SHOWN
    assert done.returncode == status
    assert done.stderr == ("" if status == 0 else OUTPUT)
