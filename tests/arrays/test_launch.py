"""What launchers say of a process: rank, number of ranks, and rank on its machine."""

from __future__ import annotations

import pytest

from gpulstm.arrays.launch import Place, place


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Place(0, 1, 0)),
        ({"PMI_RANK": "3", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1"}, Place(3, 4, 1)),
        ({"PMI_RANK": "0", "PMI_SIZE": "1"}, Place(0, 1, 0)),
        (
            {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_RANK": "2"},
            Place(2, 8, 2),
        ),
        ({"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "6"}, Place(5, 6, 0)),
        ({"PMI_RANK": "x", "PMI_SIZE": "4"}, Place(0, 1, 0)),
    ],
)
def test_the_place_is_read_from_the_environment(variables: dict[str, str], expected: Place) -> None:
    assert place(variables) == expected
