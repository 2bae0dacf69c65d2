"""Each check of the interpreter sees its fault: small kernels with one, and without it."""

from __future__ import annotations

import numpy as np
import pytest
from ptx import faults
from ptx.faults import PtxError
from ptx.machine import Settings
from ptx.memory import GlobalMemory
from test_interpreter import launch

ADDRESSES = """
  mov.u32 %r5, shared; shl.b32 %r6, %r0, 2; add.s32 %r5, %r5, %r6;
  mul.wide.s32 %a3, %r3, 4; add.s64 %a4, %a0, %a3; add.s64 %a5, %a1, %a3;
"""
GRID = np.zeros(64, "i4"), np.zeros(64, "i4"), np.zeros(1, "u4")


def found(body: str, *arrays: np.ndarray, grid: int = 1, block: int = 64, settings: Settings | None = None) -> set[str]:
    """The kinds of faults in a launch, also of one that stops."""
    try:
        _, machine = launch(ADDRESSES + body, *(arrays or GRID), grid=grid, block=block, settings=settings)
    except PtxError as error:
        kind = str(error).split(" in kernel")[0]
        return {kind}
    return machine.faults.kinds


EXCHANGE = "st.shared.u32 [%r5], %r0; BARRIER ld.shared.u32 %r7, [%r5+NEXT]; st.global.u32 [%a4], %r7;"


def exchange(barrier: str, past: str = "") -> str:
    """Thread t reads what thread t + 1 wrote, the last one what it wrote itself."""
    body = EXCHANGE.replace("BARRIER", barrier).replace("+NEXT", "")
    read = "setp.lt.s32 %p1, %r0, 63; @%p1 add.s32 %r5, %r5, 4;"
    return body.replace("ld.shared", f"{read} ld.shared") + past


def test_a_race_in_shared_memory() -> None:
    assert found(exchange("bar.sync 0;")) == set()
    assert found(exchange("")) == {faults.SHARED_RACE}
    assert found(exchange("bar.sync 0;", "st.shared.u32 [%r5], %r0;")) == {faults.SHARED_RACE}  # written while read
    assert found(exchange("bar.sync 0;", "bar.sync 0; st.shared.u32 [%r5], %r0;")) == {faults.SHARED_RACE}  # two write
    assert found("mov.u32 %r5, shared; st.shared.u32 [%r5], %r0;") == {faults.SHARED_RACE}  # all write one place


def test_a_race_within_a_block_in_global_memory() -> None:
    write_then_read = "st.global.u32 [%a4], %r0; BARRIER xor.b32 %r6, %r0, 1; mul.wide.s32 %a6, %r6, 4; add.s64 %a6, %a0, %a6; ld.global.u32 %r7, [%a6];"
    assert found(write_then_read.replace("BARRIER", "bar.sync 0;")) == set()
    assert found(write_then_read.replace("BARRIER", "")) == {faults.BLOCK_RACE}
    assert found("ld.global.u32 %r7, [%a0]; st.global.u32 [%a4], %r7;") == {faults.BLOCK_RACE}  # thread 0 writes it


GRID_BARRIER = """
  bar.sync 0; setp.ne.s32 %p1, %r0, 0; @%p1 bra wait;
  ADD
spin:
  LOAD setp.lt.u32 %p2, %r8, 2; @%p2 bra spin;
wait:
  AFTER
"""
ADD, LOAD, AFTER = "atom.add.release.gpu.u32 %r8, [%a2], 1;", "ld.acquire.gpu.u32 %r8, [%a2];", "bar.sync 0;"
READ_OTHER = "xor.b32 %r6, %r3, 32; mul.wide.s32 %a6, %r6, 4; add.s64 %a6, %a0, %a6; ld.global.u32 %r7, [%a6]; st.global.u32 [%a5], %r7;"


def across(add: str = ADD, load: str = LOAD, after: str = AFTER) -> str:
    """Two blocks exchange what they wrote over a barrier of the grid."""
    barrier = GRID_BARRIER.replace("ADD", add).replace("LOAD", load).replace("AFTER", after)
    return f"st.global.u32 [%a4], %r3; {barrier} {READ_OTHER}"


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
def test_a_race_between_blocks(seed: int | None) -> None:
    settings = Settings(seed=seed)

    def kinds(body: str) -> set[str]:
        return found(body, grid=2, block=32, settings=settings)

    assert kinds(across()) == set()
    assert kinds(f"st.global.u32 [%a4], %r3; bar.sync 0; {READ_OTHER}") >= {faults.GRID_RACE}
    assert kinds(across(add="atom.add.relaxed.gpu.u32 %r8, [%a2], 1;")) >= {faults.GRID_RACE}  # nothing is released
    assert kinds(across(load="ld.relaxed.gpu.u32 %r8, [%a2];")) >= {faults.GRID_RACE}  # nothing is acquired
    assert kinds(across(after="")) >= {faults.GRID_RACE}  # the other threads go on at once
    assert kinds(across(add=ADD.replace(".gpu", ".cta"))) == {faults.SCOPE}
    assert kinds("st.global.u32 [%a0], %r3;") >= {faults.GRID_RACE}


def test_late_stores_reach_the_other_block_by_a_release_alone() -> None:
    """Values, not checks: without release, or with the store after it, an old value is read in some order of blocks."""

    def right(body: str, seed: int) -> bool:
        settings = Settings(seed=seed, late=True, checked=False)
        arrays, _ = launch(ADDRESSES + body, *GRID, grid=2, block=32, settings=settings)
        return bool((arrays[1].get() == np.arange(64) ^ 32).all())

    assert all(right(across(), seed) for seed in range(8))
    assert not all(right(across(add="atom.add.relaxed.gpu.u32 %r8, [%a2], 1;"), seed) for seed in range(8))
    late = (
        across()
        .replace("st.global.u32 [%a4], %r3;", "", 1)
        .replace(ADD, f"{ADD}")
        .replace("spin:", "st.global.u32 [%a4], %r3;\nspin:")
    )
    assert not all(right(late, seed) for seed in range(8))


def test_unwritten_memory() -> None:
    memory = GlobalMemory(1 << 16)
    assert not memory.written[memory.allocate(64)]
    assert found("ld.shared.u32 %r7, [%r5];") == {faults.UNWRITTEN}
    assert found("st.shared.u32 [%r5], %r0; ld.shared.u32 %r7, [%r5];") == set()
    assert found("ld.global.u32 %r7, [%a4];", np.full(64, 0xFFFFFFFF, "u4")) == set()  # the host wrote it
    gap = "add.s64 %a4, %a4, 256; ld.global.u32 %r7, [%a4];"
    assert found(gap, np.zeros(64, "i4")) == {faults.OUT_OF_BOUNDS}


def test_what_no_kernel_and_no_host_wrote() -> None:
    from ptx.machine import Machine
    from ptx.parser import parse
    from test_interpreter import HEAD

    memory = GlobalMemory(1 << 16)
    array = memory.empty((64,), "f4")
    kernel = parse(HEAD + "ld.global.f32 %f1, [%a0+128]; ret; }")["kernel"]
    pointers = [array.data.ptr.to_bytes(8, "little")] * 3
    assert Machine(kernel, memory, (1, 1, 1), (32, 1), pointers).run().faults.kinds == {faults.UNWRITTEN}
    array[32] = 1.0
    assert not Machine(kernel, memory, (1, 1, 1), (32, 1), pointers).run().faults


def test_alignment_and_bounds() -> None:
    assert found("ld.global.v2.u32 {%r7, %r8}, [%a4];") == {faults.MISALIGNED}
    assert found("add.s64 %a4, %a4, 2; ld.global.u32 %r7, [%a4];") == {faults.MISALIGNED}
    assert found("st.shared.v4.u32 [%r5], {%r0, %r0, %r0, %r0};") == {faults.MISALIGNED}
    assert found("st.global.u32 [%a4+-4], %r0;") == {faults.OUT_OF_BOUNDS}
    assert found("st.global.u32 [%a4+4], %r0;", np.zeros(64, "i4")) == {faults.OUT_OF_BOUNDS}
    assert found("st.shared.u32 [%r5+4096], %r0;") == {faults.OUT_OF_BOUNDS}


COPY = "shl.b32 %r6, %r0, 4; mov.u32 %r5, shared; add.s32 %r5, %r5, %r6; cvt.s64.s32 %a6, %r6; add.s64 %a6, %a0, %a6; cp.async.cg.shared.global [%r5], [%a6], 16; cp.async.commit_group;"
WAIT = "cp.async.wait_group 0;"


def test_asynchronous_copies() -> None:
    values = np.arange(256, dtype="i4")

    def kinds(body: str) -> set[str]:
        return found(COPY + body, values)

    neighbor = "xor.b32 %r6, %r6, 16; mov.u32 %r5, shared; add.s32 %r5, %r5, %r6; ld.shared.u32 %r7, [%r5];"
    assert kinds(f"{WAIT} ld.shared.u32 %r7, [%r5];") == set()
    assert kinds("ld.shared.u32 %r7, [%r5];" + WAIT) == {faults.IN_FLIGHT}
    assert kinds("cp.async.wait_group 1; ld.shared.u32 %r7, [%r5];" + WAIT) == {faults.IN_FLIGHT}
    assert kinds(f"{WAIT} bar.sync 0; {neighbor}") == set()
    assert kinds(f"{WAIT} {neighbor}") == {faults.SHARED_RACE}
    assert kinds(f"bar.sync 0; {WAIT} {neighbor}") == {faults.SHARED_RACE}
    assert kinds("") == {faults.NEVER_WAITED}


MATRIX = "mov.u32 %r5, shared; shl.b32 %r6, %r0, 4; add.s32 %r5, %r5, %r6; ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r10, %r11, %r12, %r13}, [%r5];"
FILL = "shl.b32 %r6, %r0, 4; mov.u32 %r5, shared; add.s32 %r5, %r5, %r6; st.shared.v4.u32 [%r5], {%r9, %r9, %r9, %r9}; bar.sync 0;"


def test_matrices_of_whole_warps() -> None:
    zero = "mov.u32 %r9, 0;" + FILL
    assert found(zero + MATRIX) == set()
    assert found(zero + "setp.lt.s32 %p1, %r0, 40; @!%p1 bra over;" + MATRIX + "\nover:\n") == {faults.PARTIAL_WARP}
    assert found(zero + MATRIX.replace("[%r5]", "[%r5+8]")) == {faults.MISALIGNED}
    assert found(MATRIX) == {faults.UNWRITTEN}
    multiply = (
        "mov.f32 %f1, 0f00000000; mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {F}, {A}, {%r10, %r11}, {F};"
    )
    multiply = multiply.replace("{A}", "{%r10, %r11, %r12, %r13}").replace("{F}", "{%f1, %f1, %f1, %f1}")
    some = "setp.lt.s32 %p1, %r0, 40; @!%p1 bra over;"
    for operation in (multiply, "shfl.sync.bfly.b32 %r7, %r0, 1, 31, -1;"):
        assert found(zero + MATRIX + some + operation + "\nover:\n") == {faults.PARTIAL_WARP}
    assert found("shfl.sync.bfly.b32 %r7, %r0, 1, 31, 65535;") == {faults.PARTIAL_WARP}
    assert found(zero + MATRIX + multiply) == set()
    assert found("mov.u32 %r9, 1;" + FILL + MATRIX + multiply) == {faults.NOT_TF32}


def test_threads_that_never_come() -> None:
    half = "setp.lt.s32 %p1, %r0, 32; @%p1 bra over; bar.sync 0;\nover:\n"
    assert found(half) == set()  # the others have ended, which counts as having come
    assert found(
        half + "xor.b32 %r7, %r0, %r0;\nloop:\n ld.acquire.gpu.u32 %r7, [%a2]; setp.eq.u32 %p2, %r7, 0; @%p2 bra loop;"
    ) == {faults.DEADLOCK}
    assert found("trap;") == {faults.TRAP}
    assert found("\nloop:\n bra loop;", settings=Settings(limit=1000)) == {faults.TOO_LONG}
