"""What a time step costs by count: writes docs/instruction-counts.md.  No GPU is needed.

The interpreter of tests/ptx runs the kernels' PTX and counts how often each instruction is executed; the disassembler
says from which line of that PTX each instruction of the machine code comes.  Together they give the machine
instructions that a warp executes in a step, and the interpreter counts the sectors of memory that a step asks for.

What was counted before is remembered under build/ by the sources of the kernels, so that a run that was stopped goes
on.  The numbers of the tables are kept in docs/benchmarks/instruction-counts.json, next to those of the first kernels
(commit cd00d9a), for `gpu_check.py` to predict by.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "ptx"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import nvrtc
from ptx.cases import ALL_TILES, Case, launch
from ptx.device import Launch, PtxBackend
from ptx.machine import Settings

import kernels
from gpulstm.arrays.gemm import FEW_ROWS_DEPTH, TENSOR_TILES, TYPES, choose_tile, is_deep, tile
from gpulstm.arrays.kernel_source import digest, module_source
from gpulstm.engines.cuda import fused
from gpulstm.engines.cuda.passes import CELLS
from gpulstm.engines.cuda.planner import step_sizes

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "instruction-counts.md"
NUMBERS = ROOT / "docs" / "benchmarks" / "instruction-counts.json"
REMEMBERED = ROOT / "build" / "counts"
PROCESSORS, CLOCK, SCHEDULERS = 132, 1.98e9, 4  # of an H100 SXM: multiprocessors, boost clock, schedulers of each
LARGE = (1024, 16, 768)  # T, B, H that others have published times for
# Milliseconds of cuDNN in float16 on an H100, forward, and forward and backward, as read from the plots of FlashRNN
# (Pöppel et al. 2024, arXiv:2412.07752).
CUDNN = (2.01, 5.19)
SHAPES = ((4, 128), (16, 256))  # B, H, looked at closely
BATCHES, WIDTHS = (1, 4, 16, 64), (64, 128, 256, 512, 1024)
DEPTH_BEFORE = 32  # of a turn of the first kernels' loop
TIMED = ((32, 64), (256, 128), LARGE[1:])  # in addition, what gpu_check.py times
FAMILIES = {
    "FFMA": "multiply-add", "FMUL": "multiply-add", "HMMA": "tensor", "MUFU": "function", "LDS": "shared",
    "STS": "shared", "LDSM": "shared", "LDG": "global", "STG": "global", "LDGSTS": "global", "BRA": "flow",
    "BAR": "flow", "ISETP": "flow", "BSSY": "flow", "BSYNC": "flow",
}  # fmt: skip
_LINE = re.compile(r"//## File \"\.nv_debug_ptx_txt\", line (\d+)")
_APART = re.compile(r"BRA\.DIV UR\d+, `\((\.L_\w+)\)")
_LABEL = re.compile(r"^(\.L_x_\w+):")
_TO = re.compile(r"`\((\.L_x_\w+)\)")
_SUBROUTINE = re.compile(r"^\$\w.*:$")
_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)")


@dataclass(frozen=True)
class Step:
    """One time step of a kernel.

    Attributes:
        machine: machine instructions that a warp executes, by family.
        product: those from the first multiply of the product to the last.
        virtual: PTX instructions that a warp executes.
        warps: of a multiprocessor that has a block.
        blocks: of the grid.
        sectors: of 32 bytes, asked for by the whole grid.
        spills: bytes of local memory, which registers did not suffice for.
    """

    machine: dict[str, float]
    product: float
    virtual: float
    warps: int
    blocks: int
    sectors: int
    spills: int = 0

    @property
    def instructions(self) -> float:
        """Machine instructions of a warp."""
        return sum(self.machine.values())

    def share(self, family: str) -> float:
        """Of the machine instructions, in percent."""
        return 100 * self.machine.get(family, 0.0) / self.instructions

    def within(self, family: str) -> float:
        """Of the instructions of the product, in percent; more than all of a family are not."""
        return min(100.0, 100 * self.machine.get(family, 0.0) / self.product) if self.product else 0.0

    @property
    def seconds(self) -> float:
        """The least time that issuing the instructions takes: one a cycle and scheduler, waves of blocks one by one."""
        return self.issued / SCHEDULERS / CLOCK

    @property
    def issued(self) -> float:
        """Machine instructions of a multiprocessor, whose blocks take turns where there are more than one."""
        return -(-self.blocks // PROCESSORS) * self.instructions * self.warps


def disassembled(toolkit: nvrtc.Toolkit, source: str, capability: int) -> tuple[str, str]:
    """The machine code of a source as text, and what the compiler says of it."""
    program = next(nvrtc.FOLDER.glob("sass/nvidia/*/bin/nvdisasm"))
    cubin, log = toolkit.cubin(source, capability, lines=True)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(program), "-c", "-gp", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout, log


def loops_over_depth(toolkit: nvrtc.Toolkit, source: str, capability: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(tensor instructions, all instructions) of the loops of a source's machine code that have any of these.

    The first is the one that copies pieces of 16 bytes, the second the one for rows that such pieces do not fit.
    """
    codes: list[str] = []
    places: dict[str, int] = {}
    found: dict[bool, tuple[int, int]] = {}
    for row in disassembled(toolkit, source, capability)[0].splitlines():
        if label := _LABEL.match(row):
            places[label.group(1)] = len(codes)
        elif instruction := _INSTRUCTION.search(row):
            codes.append(instruction.group(1))
            if codes[-1] == "BRA" and (to := _TO.search(row)) and to.group(1) in places:
                loop = codes[places[to.group(1)] :]
                if "HMMA" in loop:
                    found.setdefault("LDGSTS" in loop, (loop.count("HMMA"), len(loop)))
    return found[True], found[False]


def machine_lines(toolkit: nvrtc.Toolkit, source: str, capability: int) -> tuple[list[tuple[int, str]], int]:
    """(line of the PTX, opcode) of each machine instruction of a source with one kernel; bytes of spilled registers."""
    text, log = disassembled(toolkit, source, capability)
    lines, line, skipped = [], 0, False
    apart = set(_APART.findall(text))  # where a warp goes whose threads are not together, up to the next branch back
    for row in text.splitlines():
        if _SUBROUTINE.match(row):
            line = 0  # a division, for example, which is of no line and not within a step
        skipped |= row.rstrip(":") in apart
        if match := _LINE.search(row):
            line = int(match.group(1))
        elif instruction := _INSTRUCTION.search(row):
            lines.append((0 if skipped else line, instruction.group(1)))
            skipped &= instruction.group(1) != "BRA"
    return lines, sum(report.spills for report in kernels.parse(log).values())


def _executed(one: Launch) -> Counter[int]:
    """Warps that executed each line of the PTX."""
    lines: Counter[int] = Counter()
    for x, count in zip(one.kernel.code, one.counters.executed, strict=True):
        lines[x.line] += int(count)
    return lines


def measure(case: Case, toolkit: nvrtc.Toolkit) -> dict[str, Step]:
    """Count a step, by direction, as the difference between runs of three and of two steps."""
    runs = []
    for steps in (2, 3):
        backend = PtxBackend(toolkit, case.capability, Settings(checked=False, counted=True), size=1 << 28, lines=True)
        launch(replace(case, sizes=(steps, *case.sizes[1:])), backend)
        runs.append(backend.launches)
    steps_of = {
        "forward": ("gpulstm_forward", "gpulstm_forward_all"),
        "backward": ("gpulstm_backward", "gpulstm_backward_all"),
    }
    return {
        name: _step(*([one for one in run if one.kernel.name in kernels] for run in runs), toolkit, case.capability)
        for name, kernels in steps_of.items()
    }


def _step(fewer: list[Launch], more: list[Launch], toolkit: nvrtc.Toolkit, capability: int) -> Step:
    first = more[0]
    warps = first.grid[0] * first.grid[1] * first.block[0] // 32
    counts = sum((_executed(one) for one in more), Counter())
    counts.subtract(sum((_executed(one) for one in fewer), Counter()))
    machine: Counter[str] = Counter()
    lines, spills = machine_lines(toolkit, first.source, capability)
    executed = [(line, code) for line, code in lines if code != "NOP"]
    for line, code in executed:
        machine[FAMILIES.get(code, "other")] += counts[line]
    tensor = [line for line, code in executed if code == "HMMA" and counts[line]]
    product = sum(counts[line] for line, _ in executed if tensor and tensor[0] <= line <= max(tensor))
    sectors = [sum(traffic.taken for one in run for traffic in one.counters.sectors.values()) for run in (more, fewer)]
    return Step(
        {family: count / warps for family, count in machine.items()},
        product / warps,
        sum(counts.values()) / warps,
        first.block[0] // 32,
        first.grid[0] * first.grid[1],
        sectors[0] - sectors[1],
        spills,
    )


def remembered(case: Case, toolkit: nvrtc.Toolkit) -> Path:
    """Where the counts of a case are kept."""
    return REMEMBERED / (hashlib.sha256(f"{case} {toolkit.version} {digest()}".encode()).hexdigest() + ".json")


def fused_tiles(dtype: str, batch: int, hidden: int) -> tuple[int, ...]:
    """The tiles of ALL_TILES that a plan takes for a fused forward and backward step of an LSTM."""
    return tuple(
        ALL_TILES.index(
            choose_tile(batch, columns, PROCESSORS, dtype == "float16", deep=is_deep(dtype, depth, columns))
        )
        for columns, depth in step_sizes(4, hidden)
    )


def passes_of(case: Case) -> dict[str, Case]:
    """What is measured for each pass: a backward step has a tile of its own."""
    if case.form != "fused":
        return {"forward": case, "backward": case}
    _, backward = fused_tiles(case.dtype, case.sizes[1], case.sizes[3])
    return {"forward": case, "backward": replace(case, tile=backward)}


def counted(case: Case, toolkit: nvrtc.Toolkit) -> dict[str, Step]:
    """`measure`, from files under build/ where it said so before."""
    steps = {}
    for name, one in passes_of(case).items():
        path = remembered(one, toolkit)
        if not path.exists():
            both = {direction: asdict(step) for direction, step in measure(one, toolkit).items()}
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(both))
        steps[name] = Step(**json.loads(path.read_text())[name])
    return steps


def row(name: str, step: Step) -> str:
    """A line of the table."""
    shares = " | ".join(
        f"{step.share(family):.0f}" for family in ("multiply-add", "tensor", "shared", "global", "flow")
    )
    size = 32 * step.sectors / 1024
    counts = f"{step.virtual:.0f} | {step.instructions:.0f} | {step.warps}"
    return f"| {name} | {counts} | {shares} | {step.within('tensor'):.0f} | {step.blocks} | {size:.0f} |"


def all_cases() -> dict[tuple[str, str], list[Case]]:
    """The cases of the tables by form and dtype, each with the tile that a plan would take for the forward step."""
    cases: dict[tuple[str, str], list[Case]] = {}
    for form, dtype in itertools.product(("persistent", "fused"), ("float32", "float16")):
        tensor = dtype == "float16"
        cases[form, dtype] = [
            Case(
                form,
                "lstm",
                dtype,
                (2, batch, 4, hidden),
                tile=fused_tiles(dtype, batch, hidden)[0] if form == "fused" else 0,
                tensor=tensor and form == "persistent",
            )
            for batch, hidden in (*itertools.product(BATCHES, WIDTHS), *TIMED)
        ]
    return cases


def table(form: str, dtype: str, cases: list[Case], toolkit: nvrtc.Toolkit) -> list[str]:
    """Before and after, for all sizes."""
    before = json.loads(NUMBERS.read_text(encoding="utf-8"))["before"]
    family = "tensor" if dtype == "float16" else "multiply-add"
    lines = [
        f"### {form}, {dtype}",
        "",
        f"| B x H | forward, before | now | backward, before | now | {family} %, forward | backward | in the product "
        "| spills |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case in cases:
        steps, cells = counted(case, toolkit), []
        for name, step in steps.items():
            old = before.get(key_of(case, name))
            cells += ["-" if old is None else f"{old:.0f}", f"{step.issued:.0f}"]
        cells += [f"{step.share(family):.1f}" for step in steps.values()]
        within = [f"{step.within('tensor'):.0f}" for step in steps.values()]
        cells += [" / ".join(within) if dtype == "float16" else "-", str(sum(step.spills for step in steps.values()))]
        lines.append(f"| {case.sizes[1]} x {case.sizes[3]} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def main() -> int:
    """Count, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counted", action="store_true", help="leave out the sizes that were not counted before")
    arguments = parser.parse_args()
    if not nvrtc.toolkits() or not any(nvrtc.FOLDER.glob("sass/nvidia/*/bin/nvdisasm")):
        print(nvrtc.MISSING)
        return 1
    toolkit = nvrtc.toolkits()[0]
    chosen = {
        kind: [
            case
            for case in cases
            if not arguments.counted or all(remembered(one, toolkit).exists() for one in passes_of(case).values())
        ]
        for kind, cases in all_cases().items()
    }
    lines = [
        "# What a step costs by count",
        "",
        f"Written by `python tools/instruction_counts.py` with NVRTC {toolkit.version}, for compute capability 9.0.",
        "Nothing here was run on a GPU: the interpreter of `tests/ptx` counts how often each PTX instruction is",
        "executed, the disassembler says which machine instructions came of it. An instruction is one of a warp. LSTM;",
        "the persistent form lies as on a card of 132 multiprocessors.",
        "",
        "## Before and now",
        "",
        "What a multiprocessor executes in a time step: machine instructions of a warp, times its warps, times the",
        "blocks that it works through one after the other. `before`: the kernels of commit cd00d9a, counted in the",
        "same way, in the layouts and tiles that its plans took. Shares are percent of the instructions now; `in the",
        "product`: the share of tensor instructions from the product's first multiply to its last, forward / backward.",
        "`spills`: bytes of local memory, now.",
        "",
        "A sum stays in the lane that the tensor core leaves it in. So with fewer than sixteen rows many lanes have",
        f"nothing to do in the gates, and up to a depth of {FEW_ROWS_DEPTH} the fused step of float16 takes a plain",
        "tile where all its blocks run at once. A lane's gates are two bytes in a sector of 32, so a forward step on",
        "tensor cores asks the L2 cache for more than it did.",
        "",
    ]
    if arguments.counted:
        lines += ["Sizes that were not counted since the kernels changed are left out.", ""]
    for (form, dtype), cases in chosen.items():
        lines += table(form, dtype, cases, toolkit)
    lines += [
        *loops(chosen["fused", "float16"], toolkit),
        "## Two sizes closely",
        "",
        "Of a warp; shares are percent of the machine instructions. KiB is what a step of the whole layer asks of the",
        "L2 cache, in sectors of 32 bytes. `product` as above.",
        "",
        "| kernel, dtype, B x H | PTX | machine | warps | multiply-add | tensor | shared | global | flow | product "
        "| blocks | KiB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (form, dtype), cases in chosen.items():
        for case in cases:
            batch, hidden = case.sizes[1], case.sizes[3]
            if (batch, hidden) in SHAPES:
                steps = counted(case, toolkit)
                lines += [row(f"{form} {name}, {dtype}, {batch} x {hidden}", step) for name, step in steps.items()]
    lines += ["", *large(toolkit)]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    numbers = json.loads(NUMBERS.read_text(encoding="utf-8"))
    numbers["now"] = {
        key_of(case, name): round(step.issued)
        for case in itertools.chain(*chosen.values())
        for name, step in counted(case, toolkit).items()
    }
    NUMBERS.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    return 0


def key_of(case: Case, name: str) -> str:
    """What the numbers of a pass are kept by."""
    return f"{case.form} {case.dtype} {case.sizes[1]} {case.sizes[3]} {name}"


def loops(cases: list[Case], toolkit: nvrtc.Toolkit) -> list[str]:
    """Tensor instructions in the fused step's loop over the depth, before and now."""
    numbers = json.loads(NUMBERS.read_text(encoding="utf-8"))
    base = (("GL_T", TYPES["float16"][0]), ("GL_R", TYPES["float16"][1]), ("GL_CELL", str(CELLS["lstm"])))
    lines = [
        "## The fused step's loop over the depth",
        "",
        "Tensor instructions in the machine code of the loop, float16. Where rows lie whole in pieces of 16 bytes (H a",
        "multiple of 8) the loop copies them and asks about nothing: what is left over of the depth is multiplied",
        "before it, the last chunk after it. `now` is that loop, which all sizes of the tables above take. Other rows",
        "have a loop of their own, `other rows`, which asks about every number, as the only one did `before`; of these",
        "two all is counted that they hold, also what is not executed. The persistent kernels have most of their",
        "product, or all, without a loop over the depth; their shares of a whole step are above.",
        "",
    ]
    steps = {case.sizes[3]: counted(case, toolkit)["forward"].issued for case in cases if case.sizes[1] == LARGE[1]}
    if {512, 1024} <= set(steps):
        depth = TENSOR_TILES[0][2]
        old = numbers["before"]
        first, last = (old[f"fused float16 {LARGE[1]} {hidden} forward"] for hidden in (512, 1024))
        deeper = 4 * (1024 - 512)  # of each of four warps
        now, before = (steps[1024] - steps[512]) * depth / deeper, (last - first) * DEPTH_BEFORE / deeper
        tensor = depth // 8
        lines += [
            "A turn of the forward step's smallest tile, by the difference between H = 512 and 1024 at B = "
            f"{LARGE[1]},",
            f"executes {now:.0f} instructions, {tensor} of them tensor ({100 * tensor / now:.1f} %), for a depth of "
            f"{depth};",
            f"before {before:.0f}, 4 of them ({400 / before:.1f} %), for {DEPTH_BEFORE}.",
            "",
        ]
    lines += [
        "| tile | forward, before | now | other rows | backward, before | now | other rows |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for shape in TENSOR_TILES:
        name, cells = f"{shape[0]}x{shape[1]}", []
        for kernel, old in zip(fused.ONLY, numbers["loops before"][name], strict=True):
            source = module_source("cuda/fused.cu", (*base, *tile(shape, "float16"), fused.ONLY[kernel]))
            for tensor, every in (old, *loops_over_depth(toolkit, source, 90)):
                cells.append(f"{100 * tensor / every:.1f} % ({tensor} of {every})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def large(toolkit: nvrtc.Toolkit) -> list[str]:
    """The shape that others have published times for."""
    steps, batch, hidden = LARGE
    lines = [
        f"## T={steps}, B={batch}, H={hidden} next to cuDNN",
        "",
        "Published, measured by others on an H100 (Pöppel et al. 2024, arXiv:2412.07752): cuDNN in float16 takes",
        f"{CUDNN[0]} ms forward and {CUDNN[1]} ms forward and backward. The counts give a floor for the persistent",
        f"form here, not a prediction of its time: the least time in which {SCHEDULERS} schedulers a multiprocessor at",
        f"{CLOCK / 1e9:g} GHz can issue a step's instructions. What a step waits for comes on top: the grid's barrier,",
        "latencies of L2 and shared memory; so do the products over all time steps.",
        "",
        "| dtype | pass | machine instructions | tensor % | multiply-add % | KiB | issue floor, ms | cuDNN, ms |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    published = {"forward": CUDNN[0], "backward": CUDNN[1] - CUDNN[0]}
    for dtype, tensor in (("float16", True), ("float32", False)):
        case = Case("persistent", "lstm", dtype, (2, batch, 4, hidden), tensor=tensor)
        for name, step in counted(case, toolkit).items():
            other = f"{published[name]:.2f}" if dtype == "float16" else "-"
            shares = f"{step.share('tensor'):.1f} | {step.share('multiply-add'):.1f} | {32 * step.sectors / 1024:.0f}"
            floor = f"{1e3 * steps * step.seconds:.2f}"
            lines.append(f"| {dtype} | {name} | {step.instructions:.0f} | {shares} | {floor} | {other} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
