"""The interpreter on a few lines of PTX each: arithmetic, flow, memory, and the layouts of the matrix instructions."""

from __future__ import annotations

import numpy as np
import pytest
from ptx.faults import PtxError
from ptx.kinds import bits_of_bfloat16, bits_of_tf32
from ptx.machine import Machine, Settings
from ptx.memory import DeviceArray, GlobalMemory
from ptx.parser import Address, Bits, Integer, parse

HEAD = """
.version 8.0
.target sm_80
.address_size 64
.visible .entry kernel(.param .u64 p0, .param .u64 p1, .param .u64 p2)
{
  .reg .pred %p<9>; .reg .b16 %h<9>; .reg .b32 %r<60>; .reg .f32 %f<20>; .reg .b64 %a<20>; .reg .f64 %d<9>;
  .shared .align 16 .b8 shared[4096];
  ld.param.u64 %a0, [p0]; ld.param.u64 %a1, [p1]; ld.param.u64 %a2, [p2];
  mov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mad.lo.s32 %r3, %r1, %r2, %r0;
"""


def launch(
    body: str, *arrays: np.ndarray, grid: int = 1, block: int = 32, settings: Settings | None = None
) -> tuple[list[DeviceArray], Machine]:
    """Run a body on copies of three arrays at most; those copies and the machine."""
    memory = GlobalMemory(1 << 20)
    placed = [memory.array(array) for array in arrays]
    pointers = [array.data.ptr.to_bytes(8, "little") for array in placed]
    pointers += [bytes(8)] * (3 - len(pointers))
    kernel = parse(HEAD + body + "\n ret;\n}\n")["kernel"]
    machine = Machine(kernel, memory, (grid, 1, 1), (block, 1), pointers, settings=settings or Settings())
    return placed, machine.run()


def elementwise(
    code: str, kind: str, register: str, *inputs: np.ndarray, result: str = "f4", width: str = "f32"
) -> np.ndarray:
    """Element i of the inputs in registers 1, 2, ..., what `code` leaves in register 9 stored as element i."""
    size = inputs[0].dtype.itemsize
    stacked = np.concatenate(inputs)
    body = f"mul.wide.s32 %a3, %r3, {size}; add.s64 %a4, %a0, %a3;\n"
    for index in range(len(inputs)):
        body += f"ld.global.{kind} {register}{index + 1}, [%a4+{index * 32 * size}];\n"
    out = np.zeros(32, result)
    body += f"{code}\n mul.wide.s32 %a5, %r3, {out.itemsize}; add.s64 %a5, %a1, %a5; st.global.{width} [%a5], OUT;"
    body = body.replace("OUT", {"f32": "%f9", "b32": "%r9", "f64": "%d8", "b16": "%h8"}[width])
    return launch(body, stacked, out)[0][1].get()


RNG = np.random.default_rng(3)
A, B, C = (RNG.normal(size=32).astype("f4") * 10 for _ in range(3))
I, J, K = (RNG.integers(-(2**31), 2**31, 32).astype("i4") for _ in range(3))
SMALL = RNG.integers(0, 40, 32).astype("i4")


@pytest.mark.parametrize(
    ("code", "inputs", "expected"),
    [
        ("add.rn.f32 %f9, %f1, %f2;", (A, B), A + B),
        ("sub.f32 %f9, %f1, %f2;", (A, B), A - B),
        ("mul.ftz.f32 %f9, %f1, %f2;", (A, np.full(32, 1e-38, "f4")), np.where(np.abs(A * np.float32(1e-38)) < 1.17549435e-38, 0, A * np.float32(1e-38))),
        ("fma.rn.f32 %f9, %f1, %f2, %f3;", (A, B, C), (A.astype("f8") * B + C).astype("f4")),
        ("div.rn.f32 %f9, %f1, %f2;", (A, B), A / B),
        ("min.f32 %f9, %f1, %f2;", (A, B), np.minimum(A, B)),
        ("max.f32 %f9, %f1, 0f40000000;", (A,), np.maximum(A, np.float32(2))),
        ("abs.f32 %f4, %f1; sqrt.rn.f32 %f9, %f4;", (A,), np.sqrt(np.abs(A))),
        ("neg.f32 %f9, %f1;", (A,), -A),
        ("copysign.f32 %f9, %f1, %f2;", (A, B), np.copysign(B, A)),
        ("setp.gtu.f32 %p1, %f1, %f2; selp.f32 %f9, %f1, %f2, %p1;", (A, B), np.maximum(A, B)),
        ("setp.gtu.f32 %p1, %f1, 0f7FC00000; selp.f32 %f9, 0f3F800000, 0f00000000, %p1;", (A,), np.ones(32)),
        ("setp.gt.f32 %p1, %f1, 0f7FC00000; selp.f32 %f9, 0f3F800000, 0f00000000, %p1;", (A,), np.zeros(32)),
        ("setp.gt.ftz.f32 %p1, %f1, 0f00000000; selp.f32 %f9, %f1, 0f00000000, %p1;", (A,), np.maximum(A, 0)),
        ("ex2.approx.f32 %f9, %f1;", (A / 8,), np.exp2((A / 8).astype("f8"))),
        ("cvt.rni.s32.f32 %r4, %f1; cvt.rn.f32.s32 %f9, %r4;", (A,), np.rint(A)),
        ("cvt.rzi.s32.f32 %r4, %f1; cvt.rn.f32.s32 %f9, %r4;", (A,), np.trunc(A)),
        ("cvt.rn.f16.f32 %h1, %f1; cvt.f32.f16 %f9, %h1;", (A,), A.astype("f2")),
        ("cvt.rn.bf16.f32 %h1, %f1; cvt.f32.bf16 %f9, %h1;", (A,), (bits_of_bfloat16(A).astype("u4") << np.uint32(16)).view("f4")),
        ("cvt.rna.tf32.f32 %r4, %f1; mov.b32 %f9, %r4;", (A,), bits_of_tf32(A).view("f4")),
        ("{ .reg .f32 t; add.f32 t, %f1, %f1; mov.f32 %f9, t; }", (A,), 2 * A),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_floats(code: str, inputs: tuple[np.ndarray, ...], expected: np.ndarray) -> None:
    np.testing.assert_array_equal(elementwise(code, "f32", "%f", *inputs), np.asarray(expected, "f4"))


def unsigned(values: np.ndarray) -> np.ndarray:
    return values.view("u4").astype("u8")


@pytest.mark.parametrize(
    ("code", "inputs", "expected"),
    [
        ("add.s32 %r9, %r11, %r12;", (I, J), I + J),
        ("mul.lo.s32 %r9, %r11, %r12;", (I, J), I * J),
        ("mul.hi.u32 %r9, %r11, %r12;", (I, J), unsigned(I) * unsigned(J) >> np.uint64(32)),
        ("mad.lo.s32 %r9, %r11, %r12, %r13;", (I, J, K), I * J + K),
        ("mul.wide.s32 %a9, %r11, %r12; cvt.u32.u64 %r9, %a9;", (I, J), I.astype("i8") * J),
        ("div.s32 %r9, %r11, 7;", (I,), np.trunc(I / 7)),
        ("rem.s32 %r9, %r11, 7;", (I,), np.fmod(I, np.int32(7))),
        ("shl.b32 %r9, %r11, %r12;", (I, SMALL), unsigned(I) << SMALL.astype("u8")),
        ("shr.u32 %r9, %r11, %r12;", (I, SMALL), unsigned(I) >> SMALL.astype("u8")),
        ("shr.s32 %r9, %r11, %r12;", (I, SMALL), I >> np.minimum(SMALL, 31)),
        ("and.b32 %r4, %r11, %r12; or.b32 %r5, %r4, 5; xor.b32 %r6, %r5, %r12; not.b32 %r9, %r6;", (I, J), ~((I & J | 5) ^ J)),
        ("bfi.b32 %r9, %r11, %r12, 4, 9;", (I, J), J & ~(0x1FF << 4) | (I & 0x1FF) << 4),
        ("bfe.u32 %r9, %r11, 4, 9;", (I,), I >> 4 & 0x1FF),
        ("prmt.b32 %r9, %r11, %r12, 0x5410;", (I, J), unsigned(I) & 0xFFFF | (unsigned(J) & 0xFFFF) << np.uint64(16)),
        ("lop3.b32 %r9, %r11, %r12, %r13, 0x96;", (I, J, K), I ^ J ^ K),
        ("shf.l.wrap.b32 %r9, %r11, %r12, 5;", (I, J), J << 5 | (I >> 27 & 31)),
        ("mov.b32 {%h1, %h2}, %r11; mov.b32 %r9, {%h2, %h1};", (I,), unsigned(I) >> np.uint64(16) | unsigned(I) << np.uint64(16)),
        ("setp.lt.u32 %p1, %r11, %r12; selp.b32 %r9, 1, 0, %p1;", (I, J), unsigned(I) < unsigned(J)),
        ("setp.lt.s32 %p1, %r11, %r12; @!%p1 bra over; mov.u32 %r11, %r12;\nover:\n mov.u32 %r9, %r11;", (I, J), np.maximum(I, J)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_integers(code: str, inputs: tuple[np.ndarray, ...], expected: np.ndarray) -> None:
    result = elementwise(code, "u32", "%r1", *inputs, result="u4", width="b32")
    np.testing.assert_array_equal(result, np.asarray(expected).astype("i8").astype("u4"))


def test_the_parser_reads_operands_scopes_and_lines() -> None:
    kernel = parse(HEAD + "@!%p1 ld.global.v2.f32 {%f1, %f2}, [%a0+-8];\nadd.f32 %f1, 0f3F800000, %f2;\nret; }")[
        "kernel"
    ]
    load, add = kernel.code[-3:-1]
    assert (load.opcode, load.modifiers, load.negated) == ("ld", ("global", "v2", "f32"), True)
    assert isinstance(load.operands[1], Address) and load.operands[1].offset == -8
    assert add.operands[1] == Bits(0x3F800000, 4) and add.line == load.line + 1
    assert kernel.shared_bytes == 4096 and kernel.parameters[2].offset == 16
    assert Integer(5) in parse(HEAD + "mov.u32 %r1, 5; ret; }")["kernel"].code[-2].operands


def test_threads_part_and_meet_again() -> None:
    body = """
      mov.u32 %r9, 0; mov.u32 %r8, 0;
    loop:
      add.s32 %r9, %r9, %r8; add.s32 %r8, %r8, 1; setp.le.s32 %p1, %r8, %r0; @%p1 bra loop;
      mul.wide.s32 %a3, %r3, 4; add.s64 %a3, %a0, %a3; st.global.u32 [%a3], %r9;
    """
    (out,), machine = launch(body, np.zeros(64, "i4"), block=64)
    thread = np.arange(64)
    np.testing.assert_array_equal(out.get(), thread * (thread + 1) // 2)
    stores = [x.pc for x in machine.kernel.code if x.opcode == "st"]
    assert machine.counters.executed[stores[0]] == 2  # once a warp: all threads had met


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(PtxError, match="no opcode vote"):
        launch("vote.sync.ballot.b32 %r4, %p1, -1;")
    with pytest.raises(PtxError, match="takes 3 arguments"):
        Machine(parse(HEAD + "ret; }")["kernel"], GlobalMemory(1 << 16), (1, 1, 1), (32, 1), [])


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_a_barrier_of_the_grid_built_from_release_and_acquire(seed: int | None) -> None:
    """Block b reads what block b - 1 wrote before the barrier, in any order of blocks, with late stores as well."""
    body = """
      mul.wide.s32 %a3, %r3, 4; add.s64 %a4, %a0, %a3; st.global.u32 [%a4], %r3;
      bar.sync 0;
      setp.ne.s32 %p1, %r0, 0; @%p1 bra wait;
      atom.add.release.gpu.u32 %r5, [%a1], 1;
    spin:
      ld.acquire.gpu.u32 %r5, [%a1]; setp.lt.u32 %p2, %r5, 3; @%p2 bra spin;
    wait:
      bar.sync 0;
      add.s32 %r6, %r3, 64; rem.s32 %r6, %r6, 96; mul.wide.s32 %a5, %r6, 4; add.s64 %a5, %a0, %a5;
      ld.global.u32 %r7, [%a5]; add.s64 %a6, %a2, %a3; st.global.u32 [%a6], %r7;
    """
    settings = Settings(seed=seed, late=seed is not None)
    arrays, machine = launch(body, np.zeros(96, "i4"), np.zeros(1, "u4"), np.zeros(96, "i4"), grid=3, settings=settings)
    assert not machine.faults, str(machine.faults)
    np.testing.assert_array_equal(arrays[2].get(), (np.arange(96) + 64) % 96)


def test_copies_in_groups_arrive_when_they_are_waited_for() -> None:
    body = """
      mov.u32 %r5, shared; shl.b32 %r6, %r0, 4; add.s32 %r5, %r5, %r6; mul.wide.s32 %a3, %r6, 1; add.s64 %a4, %a0, %a3;
      cp.async.cg.shared.global [%r5], [%a4], 16; cp.async.commit_group;
      cp.async.cg.shared.global [%r5+512], [%a4+512], 16; cp.async.commit_group;
      cp.async.wait_group 1; ld.shared.v4.f32 {%f1, %f2, %f3, %f4}, [%r5];
      cp.async.wait_group 0; ld.shared.v4.f32 {%f5, %f6, %f7, %f8}, [%r5+512];
      add.f32 %f1, %f1, %f8; shr.u32 %r7, %r6, 2; mul.wide.s32 %a5, %r7, 1; add.s64 %a5, %a1, %a5; st.global.f32 [%a5], %f1;
    """
    values = RNG.normal(size=256).astype("f4")
    (_, out), machine = launch(body, values, np.zeros(32, "f4"))
    assert not machine.faults, str(machine.faults)
    np.testing.assert_array_equal(out.get(), values[0:128:4] + values[131::4])


MMA = """
  mul.wide.s32 %a3, %r0, 16; add.s64 %a4, %a0, %a3; ld.global.v4.u32 {%r10, %r11, %r12, %r13}, [%a4];
  mul.wide.s32 %a5, %r0, 8; add.s64 %a6, %a1, %a5; ld.global.v2.u32 {%r14, %r15}, [%a6];
  mov.f32 %f1, 0f3F800000; mov.f32 %f2, %f1; mov.f32 %f3, %f1; mov.f32 %f4, %f1;
  mma.sync.aligned.SHAPE.row.col.f32.KIND.KIND.f32 {%f1, %f2, %f3, %f4}, {%r10, %r11, %r12, %r13}, {%r14, %r15}, {%f1, %f2, %f3, %f4};
  add.s64 %a7, %a2, %a3; st.global.v4.f32 [%a7], {%f1, %f2, %f3, %f4};
"""


@pytest.mark.parametrize("kind", ["f16", "bf16", "tf32"])
def test_the_layout_of_mma(kind: str) -> None:
    """As the ISA gives it for a lane: groupID = lane / 4, threadID_in_group = lane % 4 (9.7.14.5.8 and 9.7.14.5.7)."""
    depth, per = (8, 1) if kind == "tf32" else (16, 2)
    a, b = RNG.integers(-4, 5, (16, depth)).astype("f4"), RNG.integers(-4, 5, (depth, 8)).astype("f4")
    encode = {"f16": lambda v: v.astype("f2").view("u2"), "bf16": bits_of_bfloat16, "tf32": lambda v: v.view("u4")}[
        kind
    ]
    left, right = (
        np.zeros((32, 4 * per), "u4" if per == 1 else "u2"),
        np.zeros((32, 2 * per), "u4" if per == 1 else "u2"),
    )
    for lane in range(32):
        group, within = divmod(lane, 4)
        for i in range(4 * per):
            row = group + (8 if i // per % 2 else 0)
            column = within * per + i % per + (depth // 2 if i >= 2 * per else 0)
            left[lane, i] = encode(a[row, column : column + 1])[0]
        for i in range(2 * per):
            row = within * per + i % per + (depth // 2 if i >= per else 0)
            right[lane, i] = encode(b[row, group : group + 1])[0]
    shape = "m16n8k8" if kind == "tf32" else "m16n8k16"
    arrays, machine = launch(MMA.replace("SHAPE", shape).replace("KIND", kind), left, right, np.zeros((32, 4), "f4"))
    expected = a @ b + 1
    for lane in range(32):
        group, within = divmod(lane, 4)
        for i in range(4):
            assert arrays[2].get()[lane, i] == expected[group + (8 if i > 1 else 0), within * 2 + i % 2]
    assert not machine.faults


@pytest.mark.parametrize("transposed", [False, True])
def test_the_layout_of_ldmatrix(transposed: bool) -> None:
    """Lane l gets elements 2 (l % 4) and the next of row l / 4 of each matrix, or of column l / 4."""
    trans = ".trans" if transposed else ""
    body = f"""
      mov.u32 %r5, shared; shl.b32 %r6, %r0, 4; add.s32 %r5, %r5, %r6; mul.wide.s32 %a3, %r6, 1; add.s64 %a4, %a0, %a3;
      ld.global.v4.u32 {{%r10, %r11, %r12, %r13}}, [%a4]; st.shared.v4.u32 [%r5], {{%r10, %r11, %r12, %r13}};
      bar.sync 0;
      ldmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 {{%r20, %r21, %r22, %r23}}, [%r5];
      add.s64 %a5, %a1, %a3; st.global.v4.u32 [%a5], {{%r20, %r21, %r22, %r23}};
    """
    matrices = RNG.integers(0, 2**16, (4, 8, 8)).astype("u2")
    (_, out), machine = launch(body, matrices, np.zeros((32, 8), "u2"))
    assert not machine.faults, str(machine.faults)
    for lane in range(32):
        row, column = divmod(lane, 4)
        for index, matrix in enumerate(matrices.swapaxes(1, 2) if transposed else matrices):
            assert (
                out.get()[lane, 2 * index : 2 * index + 2].tolist() == matrix[row, 2 * column : 2 * column + 2].tolist()
            )


def test_half_of_the_depth_before_capability_eight() -> None:
    """m16n8k8 of halves has the first registers of m16n8k16 (9.7.14.5.6)."""
    a, b = RNG.integers(-4, 5, (16, 8)).astype("f2"), RNG.integers(-4, 5, (8, 8)).astype("f2")
    left, right = np.zeros((32, 8), "f2"), np.zeros((32, 4), "f2")
    for lane in range(32):
        group, within = divmod(lane, 4)
        left[lane, :2], left[lane, 2:4] = a[group, 2 * within :][:2], a[group + 8, 2 * within :][:2]
        right[lane, :2] = b[2 * within :, group][:2]
    body = MMA.replace("SHAPE", "m16n8k8").replace("KIND", "f16")
    body = body.replace("{%r10, %r11, %r12, %r13}, {%r14, %r15}", "{%r10, %r11}, {%r14}")
    arrays, machine = launch(body, left.view("u2"), right.view("u2"), np.zeros((32, 4), "f4"))
    assert not machine.faults
    for lane in range(32):
        group, within = divmod(lane, 4)
        for i in range(4):
            expected = (a.astype("f4") @ b.astype("f4"))[group + (8 if i > 1 else 0), within * 2 + i % 2] + 1
            assert arrays[2].get()[lane, i] == expected


def test_a_shuffle_takes_the_value_of_the_other_lane() -> None:
    body = """
      shfl.sync.bfly.b32 %r1|%p1, %r0, 1, 31, -1; selp.u32 %r2, %r1, 0, %p1;
      mul.wide.s32 %a3, %r0, 4; add.s64 %a4, %a0, %a3; st.global.u32 [%a4], %r2;
    """
    (out,), machine = launch(body, np.zeros(64, "u4"), block=64)
    assert not machine.faults
    np.testing.assert_array_equal(out.get(), np.arange(64) ^ 1)


def test_bank_conflicts_and_sectors_are_counted() -> None:
    body = """
      mov.u32 %r5, shared; shl.b32 %r6, %r0, 7; rem.s32 %r6, %r6, 4096; add.s32 %r7, %r5, %r6; st.shared.u32 [%r7], %r0;
      mul.wide.s32 %a3, %r0, 128; add.s64 %a3, %a0, %a3; st.global.u32 [%a3], %r0;
    """
    _, machine = launch(body, np.zeros(32 * 32, "i4"), settings=Settings(counted=True))
    (shared,), (sectors,) = machine.counters.shared.values(), machine.counters.sectors.values()
    assert (shared.requests, shared.taken, shared.least) == (1, 32, 1)
    assert (sectors.requests, sectors.taken, sectors.least) == (1, 32, 4)
