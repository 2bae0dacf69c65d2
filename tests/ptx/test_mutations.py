"""Faults put into the kernels' own PTX are seen: by a check, or at least by wrong numbers."""

from __future__ import annotations

import re
from collections.abc import Callable

import nvrtc
import pytest
from ptx import faults
from ptx.cases import Case, run
from ptx.faults import PtxError

pytestmark = pytest.mark.ptx

FUSED = Case("fused", "lstm", "float32", (2, 9, 2, 40), tile=1)
PERSISTENT = Case("persistent", "lstm", "float32", (3, 5, 2, 40), limits=(("processors", 8),))
TILE = Case("fused", "lstm", "float16", (2, 17, 2, 24), tile=4)
SHUFFLE = r"shfl\.sync\.bfly\.b32\s+(%\w+)\|%\w+,\s*(%\w+),[^;]*;"
MATRIX_ROW = r"(ldmatrix\S+\s+\{[^}]*\}, )\[%(\w+)(?:\+\d+)?\]"
WRONG = "ldmatrix.sync.aligned.m8n8.x4.trans.shared"
TENSOR = Case("persistent", "gru", "float16", (2, 17, 2, 40), tensor=True, limits=(("processors", 8),))

SEVERAL = Case("persistent", "lstm", "float16", (2, 70, 2, 40), tensor=True, limits=(("processors", 3),))


def without(pattern: str, number: int | None = None) -> Callable[[str], str]:
    """A mutation that drops an instruction: all that match, or one in each kernel."""

    def mutate(text: str) -> str:
        if number is None:
            return re.sub(pattern, "", text)
        parts = re.split(r"(?=\.visible \.entry)", text)
        return "".join(_drop(part, pattern, number) for part in parts)

    return mutate


def _drop(part: str, pattern: str, number: int) -> str:
    places = list(re.finditer(pattern, part))
    if number >= len(places):
        return part
    return part[: places[number].start()] + part[places[number].end() :]


BARRIER = r"bar\.sync\s+0;"


def seen(case: Case, toolkit: nvrtc.Toolkit, mutate: Callable[[str], str]) -> set[str]:
    """What is found; "wrong" where a result is."""
    try:
        result = run(case, toolkit, mutate)
    except PtxError as error:
        return {str(error).split(" in gpulstm")[0]}
    wrong = any(not error <= case.tolerance for error in result.errors.values())
    return result.backend.faults.kinds | ({"wrong"} if wrong else set())


@pytest.mark.parametrize(
    ("case", "mutate", "expected"),
    [
        (FUSED, without(BARRIER, 0), {faults.SHARED_RACE, faults.UNWRITTEN}),
        (FUSED, without(BARRIER, 1), {faults.SHARED_RACE}),
        (FUSED, without(r"st\.shared\S+\s[^;]*;", 0), {faults.UNWRITTEN}),
        (PERSISTENT, without(BARRIER, 0), {faults.SHARED_RACE}),
        (PERSISTENT, without(r"cp\.async\.wait_group[^;]*;"), {faults.IN_FLIGHT, faults.NEVER_WAITED}),
        (PERSISTENT, without(r"barrier\.sync\s+0;"), {faults.GRID_RACE}),
    ],
)
def test_a_fault_in_a_kernel_is_seen(
    case: Case, mutate: Callable[[str], str], expected: set[str], toolkit: nvrtc.Toolkit
) -> None:
    assert seen(case, toolkit, mutate) & expected


@pytest.mark.long
@pytest.mark.parametrize(
    ("case", "mutate", "expected"),
    [
        (PERSISTENT, lambda text: text.replace("atom.add.release.gpu", "atom.add.relaxed.gpu"), {faults.GRID_RACE}),
        (PERSISTENT, lambda text: text.replace("ld.acquire.gpu", "ld.relaxed.gpu"), {faults.GRID_RACE}),
        (TENSOR, without(BARRIER, 3), {faults.SHARED_RACE}),
        (TENSOR, lambda text: text.replace("ldmatrix.sync.aligned.m8n8.x4.shared", WRONG), {"wrong"}),
        (TILE, without(BARRIER, 1), {faults.SHARED_RACE}),
        (TILE, lambda text: re.sub(SHUFFLE, r"mov.b32 \1, \2;", text), {"wrong"}),
        (TILE, lambda text: re.sub(MATRIX_ROW, r"\1[%\2+8]", text), {faults.MISALIGNED}),
        (TENSOR, without(r"cp\.async\.commit_group;"), {faults.IN_FLIGHT, faults.NEVER_WAITED}),
    ],
)
def test_more_faults_in_kernels_are_seen(
    case: Case, mutate: Callable[[str], str], expected: set[str], toolkit: nvrtc.Toolkit
) -> None:
    assert seen(case, toolkit, mutate) & expected


@pytest.mark.long
@pytest.mark.parametrize("number", range(9))
def test_each_barrier_of_a_block_on_tensor_cores_is_needed_and_missed(number: int, toolkit: nvrtc.Toolkit) -> None:
    """Of a layer whose blocks have several tiles of rows, so that one product follows another without the grid's."""
    assert seen(SEVERAL, toolkit, without(BARRIER, number)) & {faults.SHARED_RACE}


@pytest.mark.long
def test_without_a_mutation_there_is_nothing_to_see(toolkit: nvrtc.Toolkit) -> None:
    for case in (FUSED, PERSISTENT, TENSOR, SEVERAL):
        assert seen(case, toolkit, lambda text: text) == set()
