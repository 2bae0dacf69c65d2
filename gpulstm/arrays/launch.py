"""What a launcher of several processes (mpiexec, mpirun, srun) says of this one, before any library of MPI is asked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

# variables with the rank, the number of ranks, and the rank among those of this machine
_VARIABLES = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),  # Open MPI
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),  # MPICH and Intel MPI
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),  # srun
)


class Place(NamedTuple):
    """Where a process stands among those that were started together.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        local_rank: its number among those of the same machine.
    """

    rank: int
    size: int
    local_rank: int


def place(variables: Mapping[str, str] | None = None) -> Place:
    """The place of this process, `(0, 1, 0)` where nobody started it with others.

    Args:
        variables: of the environment; by default those of the process.
    """
    variables = os.environ if variables is None else variables
    for rank, size, local in _VARIABLES:
        if variables.get(rank, "").isdecimal() and variables.get(size, "").isdecimal() and int(variables[size]) > 1:
            known = variables.get(local, "")
            return Place(int(variables[rank]), int(variables[size]), int(known) if known.isdecimal() else 0)
    return Place(0, 1, 0)
