"""What a time step costs by count: writes docs/instruction-counts.md.  No GPU is needed.

The interpreter of tests/ptx runs the kernels' PTX and counts how often each instruction is executed; the disassembler
says from which line of that PTX each instruction of the machine code comes.  Together they give the machine
instructions that a warp executes in a step, and the interpreter counts the sectors of memory that a step asks for.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "ptx"))

import nvrtc
from ptx.cases import Case, launch
from ptx.device import Launch, PtxBackend
from ptx.machine import Settings

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "instruction-counts.md"
PROCESSORS, CLOCK, SCHEDULERS = 132, 1.98e9, 4  # of an H100 SXM: multiprocessors, boost clock, schedulers of each
LARGE = (1024, 16, 768)  # T, B, H that others have published times for
# Milliseconds of cuDNN in float16 on an H100, forward, and forward and backward, as read from the plots of FlashRNN
# (Pöppel et al. 2024, arXiv:2412.07752).
CUDNN = (2.01, 5.19)
SHAPES = ((4, 128), (16, 256))  # B, H
FAMILIES = {
    "FFMA": "multiply-add", "FMUL": "multiply-add", "HMMA": "tensor", "MUFU": "function", "LDS": "shared",
    "STS": "shared", "LDSM": "shared", "LDG": "global", "STG": "global", "LDGSTS": "global", "BRA": "flow",
    "BAR": "flow", "ISETP": "flow", "BSSY": "flow", "BSYNC": "flow",
}  # fmt: skip
_LINE = re.compile(r"//## File \"\.nv_debug_ptx_txt\", line (\d+)")
_APART = re.compile(r"BRA\.DIV UR\d+, `\((\.L_\w+)\)")
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
    """

    machine: dict[str, float]
    product: float
    virtual: float
    warps: int
    blocks: int
    sectors: int

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
        waves = -(-self.blocks // PROCESSORS)
        return waves * self.instructions * self.warps / SCHEDULERS / CLOCK


def machine_lines(toolkit: nvrtc.Toolkit, source: str, capability: int) -> list[tuple[int, str]]:
    """(line of the PTX, opcode) of each machine instruction of a source with one kernel."""
    program = next(nvrtc.FOLDER.glob("sass/nvidia/*/bin/nvdisasm"))
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(toolkit.cubin(source, capability, lines=True)[0])
        file.flush()
        command = [str(program), "-c", "-gp", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
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
    return lines


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
    executed = [(line, code) for line, code in machine_lines(toolkit, first.source, capability) if code != "NOP"]
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
    )


def row(name: str, step: Step) -> str:
    """A line of the table."""
    shares = " | ".join(
        f"{step.share(family):.0f}" for family in ("multiply-add", "tensor", "shared", "global", "flow")
    )
    size = 32 * step.sectors / 1024
    counts = f"{step.virtual:.0f} | {step.instructions:.0f} | {step.warps}"
    return f"| {name} | {counts} | {shares} | {step.within('tensor'):.0f} | {step.blocks} | {size:.0f} |"


def main() -> int:
    """Count, and write the page."""
    if not nvrtc.toolkits() or not any(nvrtc.FOLDER.glob("sass/nvidia/*/bin/nvdisasm")):
        print(nvrtc.MISSING)
        return 1
    toolkit = nvrtc.toolkits()[0]
    lines = [
        "# What a step costs by count",
        "",
        f"Written by `python tools/instruction_counts.py` with NVRTC {toolkit.version}, for compute capability 9.0.",
        "Nothing here was run on a GPU: the interpreter of `tests/ptx` counts how often each PTX instruction is",
        "executed, the disassembler says which machine instructions came of it. An instruction is one of a warp;",
        "shares are percent of the machine instructions; KiB is what a step of the whole layer asks of the L2 cache,",
        "in sectors of 32 bytes. `product`: the share of tensor instructions in the loop of the product alone, from its",
        "first multiply to its last. LSTM; the persistent form lies as it would on a card with 132 multiprocessors.",
        "",
        "| kernel, dtype, B x H | PTX | machine | warps | multiply-add | tensor | shared | global | flow | product "
        "| blocks | KiB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for dtype, tensor in (("float32", False), ("float16", True)):
        for batch, hidden in SHAPES:
            case = Case("persistent", "lstm", dtype, (2, batch, 4, hidden), tensor=tensor)
            lines += [row(f"persistent {n}, {dtype}, {batch} x {hidden}", s) for n, s in measure(case, toolkit).items()]
    for tile, batch, hidden in ((0, 4, 128), (1, 16, 256)):
        case = Case("fused", "lstm", "float32", (2, batch, 4, hidden), tile=tile)
        lines += [row(f"fused {n}, float32, {batch} x {hidden}", s) for n, s in measure(case, toolkit).items()]
    lines += ["", *large(toolkit)]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


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
        for name, step in measure(case, toolkit).items():
            other = f"{published[name]:.2f}" if dtype == "float16" else "-"
            shares = f"{step.share('tensor'):.1f} | {step.share('multiply-add'):.1f} | {32 * step.sectors / 1024:.0f}"
            floor = f"{1e3 * steps * step.seconds:.2f}"
            lines.append(f"| {dtype} | {name} | {step.instructions:.0f} | {shares} | {floor} | {other} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
