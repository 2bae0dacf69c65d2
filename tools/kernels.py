"""Compile every kernel of the CUDA engine for real architectures and write what the compiler says: `make kernels`.

Each program is compiled as CuPy would compile it: NVRTC from its wheel, CuPy's options, and no headers but CuPy's and
those of the runtime's wheel (`nvrtc.py`).  The oldest toolkit compiles for all of CARDS and fills the table, the newest
for NEWEST; the persistent kernels of LARGER sizes are compiled for FEW_CARDS.  What was compiled before is remembered
under build/, so that a second run takes only what has changed.
Writes docs/cuda-kernels.md; ends with status 1 when a kernel does not compile, spills registers or uses local memory.
No GPU is needed.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nvrtc

from gpulstm.arrays.gemm import TENSOR_TILES, TILES, TYPES, is_tensor, threads, tile
from gpulstm.arrays.kernel_source import module_source
from gpulstm.engines.cuda import fused, persistent
from gpulstm.engines.cuda.passes import CELLS

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "cuda-kernels.md"
REMEMBERED = ROOT / "build" / "kernels"
OF_16_BITS = TILES[:1] + TENSOR_TILES  # of few rows, and of more
TENSOR = {"float16": (True,), "bfloat16": (True,), "float32": (False, True), "float64": ()}  # of persistent kernels
CHOSEN = {"float16": OF_16_BITS, "bfloat16": OF_16_BITS, "float32": TILES + TENSOR_TILES, "float64": TILES}
REGISTERS = 65536  # that a block may have, on all of CARDS
NEWEST = (75, 90, 120)  # what the newest toolkit compiles for
HIDDEN = 256  # of the persistent kernels in the table
LARGER = (512, 768, 1024, 2048)  # H at which they are compiled too, as they are planned on a few cards
FEW_CARDS = (80, 90, 120)
BATCHES = tuple(1 << power for power in range(11))  # from which B on the blocks take more rows depends on all else


class Card(NamedTuple):
    """Limits of a compute capability (CUDA C++ Programming Guide, table of technical specifications)."""

    example: str
    threads: int
    blocks: int
    shared: int  # bytes of a multiprocessor
    reserved: int  # of it, for each block
    processors: int  # multiprocessors of the example


CARDS = {
    75: Card("T4", 1024, 16, 65536, 0, 40),
    80: Card("A100", 2048, 32, 167936, 1024, 108),
    86: Card("RTX 3090", 1536, 16, 102400, 1024, 82),
    90: Card("H100", 2048, 32, 233472, 1024, 132),
    100: Card("B200", 2048, 32, 233472, 1024, 148),
    120: Card("RTX 5090", 1536, 24, 102400, 1024, 170),
}


class Variant(NamedTuple):
    """One choice of macros for a file, and what is needed to judge its kernels."""

    file: str
    label: str
    macros: tuple[tuple[str, str], ...]
    threads: int
    kernels: tuple[str, ...]
    shared: int  # dynamic shared memory
    hidden: int = HIDDEN  # H, which persistent kernels depend on

    @property
    def cell(self) -> str | None:
        """The cell that it computes, None for products."""
        return None if self.file == "cuda/gemm.cu" else self.label.split()[0]

    @property
    def needs(self) -> int:
        """The least compute capability."""
        values = dict(self.macros)
        return 80 if values["GL_T"] == "__nv_bfloat16" or ("GL_TENSOR" in values and values["GL_T"] == "float") else 70


def variants() -> Iterator[Variant]:
    """Every kernel that a plan on one of CARDS can choose; the persistent ones at H = 256, see `larger` for others.

    All of them have tensor cores, so ordinary units multiply 16 bits for few rows alone, or where a user forces a tile.
    """
    for cell, dtype in itertools.product(CELLS, TYPES):
        base = (("GL_T", TYPES[dtype][0]), ("GL_R", TYPES[dtype][1]), ("GL_CELL", str(CELLS[cell])))
        for shape in CHOSEN[dtype]:
            kind = "TF32" if is_tensor(shape) and dtype == "float32" else dtype
            where = f"{cell} {kind} {shape[0]}x{shape[1]}{' tensor' if is_tensor(shape) else ''}"
            for name, only in fused.ONLY.items():
                macros = (*base, *tile(shape, dtype), only)
                yield Variant("cuda/fused.cu", where, macros, threads(shape), (name,), 0)
        names = ("gpulstm_pack_forward", "gpulstm_pack_backward", "gpulstm_begin", "gpulstm_begin_backward")
        yield Variant("cuda/pack.cu", f"{cell} {dtype}", base, 256, names, 0)
        for tensor in TENSOR[dtype]:
            for rows, units in itertools.product(persistent.ROWS[tensor], persistent.UNITS[tensor]):
                gates, wide = {"lstm": (4, 4), "gru": (3, 4), "rnn": (1, 1)}[cell]
                for name, columns, depth in (
                    (persistent.FORWARD, wide * units, HIDDEN),
                    (persistent.BACKWARD, units, gates * HIDDEN),
                ):
                    product = persistent.shape(rows, columns, depth, persistent.SIZE[dtype], REGISTERS, tensor)
                    yield resident(cell, dtype, name, product, units, HIDDEN)
    for dtype in TYPES:
        for shape in CHOSEN[dtype]:
            for ta, tb in ((False, False), (True, False), (False, True)):
                kind = "TF32" if is_tensor(shape) and dtype == "float32" else dtype
                order = "NT"[ta] + "NT"[tb]
                where = f"{order} {kind} {shape[0]}x{shape[1]}{' tensor' if is_tensor(shape) else ''}"
                base = (("GL_T", TYPES[dtype][0]), ("GL_R", TYPES[dtype][1]))
                orders = (("GL_TA", str(ta).lower()), ("GL_TB", str(tb).lower()))
                macros = base + orders + tile(shape, dtype)
                yield Variant("cuda/gemm.cu", where, macros, threads(shape), ("gpulstm_gemm",), 0)
                if ta:
                    macros += (("GL_SPLIT", "1"),)
                    yield Variant("cuda/gemm.cu", where, macros, threads(shape), ("gpulstm_gemm_part",), 0)


def resident(cell: str, dtype: str, name: str, product: persistent.Shape, units: int, hidden: int) -> Variant:
    """A persistent kernel."""
    base = (("GL_T", TYPES[dtype][0]), ("GL_R", TYPES[dtype][1]), ("GL_CELL", str(CELLS[cell])))
    kind = "TF32" if product.tensor and dtype == "float32" else dtype
    where = f"{cell} {kind} {product.rows} rows, {units} units{' tensor' if product.tensor else ''}"
    macros = (*base, *product.macros, persistent.ONLY[name])
    return Variant("cuda/persistent.cu", where, macros, product.threads, (name,), product.bytes, hidden)


def larger(arch: int) -> Iterator[Variant]:
    """The persistent kernels that are planned on a card for any batch at the sizes LARGER."""
    card = CARDS[arch]
    limits = card.processors, card.shared - card.reserved, REGISTERS
    for cell, dtype, hidden in itertools.product(CELLS, TYPES, LARGER):
        planned: dict[Variant, None] = {}
        for tensor, batch in itertools.product(TENSOR[dtype], BATCHES):
            where = persistent.layout(cell, dtype, batch, hidden, *limits, tensor)
            if not isinstance(where, str):
                for name, product in ((persistent.FORWARD, where.forward), (persistent.BACKWARD, where.backward)):
                    planned[resident(cell, dtype, name, product, where.units, hidden)] = None
        yield from (variant for variant in planned if variant.needs <= arch)


def essence(source: str) -> str:
    """The tokens of a source: machine code depends neither on comments and layout nor on where a text is cut in two."""
    lines = re.sub(r"//[^\n]*", "", source).replace("\\\n", " ")
    return " ".join(re.findall(r'"[^"]*"|\w+|\S', re.sub(r'"\s+"', "", lines)))


def digest() -> str:
    """What the table depends on: the text of all kernels, and the choices of macros."""
    every = itertools.chain(variants(), *map(larger, FEW_CARDS))
    parts = [f"{variant} {essence(module_source(variant.file, variant.macros))}" for variant in every]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


class Report(NamedTuple):
    """What the compiler says of one kernel."""

    registers: int
    shared: int
    spills: int


def parse(log: str) -> dict[str, Report]:
    """`ptxas -v` output, kernel by kernel."""
    reports = {}
    pattern = re.compile(
        r"Compiling entry function '(\w+)' for 'sm_\d+a?'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads.*?Used (\d+) registers([^\n]*)",
        re.DOTALL,
    )
    for name, stack, stores, loads, registers, rest in pattern.findall(log):
        shared = re.search(r"(\d+) bytes smem", rest)
        spills = int(stack) + int(stores) + int(loads)
        reports[name] = Report(int(registers), int(shared.group(1)) if shared else 0, spills)
    return reports


def remembered(variant: Variant, arch: int, toolkit: nvrtc.Toolkit) -> Path:
    """Where what a toolkit says of a variant is kept."""
    key = f"{toolkit.version} {arch} {essence(module_source(variant.file, variant.macros))}"
    return REMEMBERED / (hashlib.sha256(key.encode()).hexdigest() + ".json")


def compiled(variant: Variant, arch: int, toolkit: nvrtc.Toolkit) -> dict[str, Report]:
    """What a toolkit says of the kernels of a variant, from a file under build/ where it said so before."""
    source, path = module_source(variant.file, variant.macros), remembered(variant, arch, toolkit)
    if path.exists():
        return {name: Report(*numbers) for name, *numbers in json.loads(path.read_text())}
    reports = parse(toolkit.cubin(source, arch)[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([[name, *report] for name, report in reports.items()]))
    return reports


def occupancy(card: Card, report: Report, block: int, dynamic: int) -> int:
    """Threads that a multiprocessor holds at once, in percent of its most; 0 where not even one block fits."""
    registers = -(-report.registers // 8) * 8 * block  # given out by 256 a warp
    shared = report.shared + dynamic + card.reserved
    limits = [card.threads // block, card.blocks, 65536 // registers if registers else card.blocks]
    limits.append(card.shared // shared if shared else card.blocks)
    return 100 * min(limits) * block // card.threads


Reports = dict[tuple[str, int, Variant, str], Report]  # by toolkit, architecture, variant, kernel


def main() -> int:
    """Compile, print what is wrong, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", type=int, action="append", help="a compute capability times ten; all by default")
    parser.add_argument("--newest", type=int, action="append", help="the same for the newest toolkit")
    parser.add_argument("--oldest-only", action="store_true", help="leave the newest toolkit out")
    parser.add_argument(
        "--cell", action="append", choices=CELLS, help="kernels of a cell, and the products; all by default"
    )
    parser.add_argument("--no-larger", action="store_true", help=f"persistent kernels at H = {HIDDEN} alone")
    parser.add_argument("--jobs", type=int, default=2, help="compilations at once")
    parser.add_argument(
        "--compiled", action="store_true", help="compile nothing: a `?` stands for what was not compiled before"
    )
    parser.add_argument("--check", action="store_true", help="compile and judge, write nothing")
    arguments = parser.parse_args()
    toolkits = nvrtc.toolkits()
    if len(toolkits) < 2:
        print(nvrtc.MISSING)
        return 1
    targets = {toolkits[0]: sorted(arguments.arch or CARDS), toolkits[-1]: sorted(arguments.newest or NEWEST)}
    if arguments.oldest_only:
        del targets[toolkits[-1]]
    cells = arguments.cell or list(CELLS)
    chosen = [one for one in variants() if one.cell in (*cells, None)]
    few = () if arguments.no_larger else FEW_CARDS
    others = {arch: [one for one in larger(arch) if one.cell in cells] for arch in few}
    jobs = [
        (variant, arch, toolkit)
        for toolkit, archs in targets.items()
        for arch in archs
        for variant in (*chosen, *others.get(arch, ()))
        if variant.needs <= arch and (not arguments.compiled or remembered(variant, arch, toolkit).exists())
    ]
    reports_of: Reports = {}
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for (variant, arch, toolkit), reports in zip(jobs, pool.map(lambda job: compiled(*job), jobs), strict=True):
            reports_of |= {(toolkit.version, arch, variant, name): reports[name] for name in variant.kernels}
    spilling = {key: report.spills for key, report in reports_of.items() if report.spills}
    for (version, arch, variant, name), spills in spilling.items():
        label = f"{variant.label}, H = {variant.hidden}" if variant.file == "cuda/persistent.cu" else variant.label
        print(f"CUDA {version}, sm_{arch}: {name} ({label}) uses {spills} bytes of local memory")
    if not arguments.check:
        versions = {kit.version: archs for kit, archs in targets.items()}
        PAGE.write_text(page(chosen, others, reports_of, versions, cells), encoding="utf-8")
    print(f"{len(reports_of)} kernels compiled, {len(spilling)} spill")
    return 1 if spilling else 0


def page(
    chosen: list[Variant],
    more: dict[int, list[Variant]],
    reports_of: Reports,
    targets: dict[str, list[int]],
    cells: list[str],
) -> str:
    """The Markdown page; the numbers are those of the first toolkit.

    Args:
        chosen: the kernels of the tables.
        more: those of `larger` by architecture.
        reports_of: what the compilers say of them.
        targets: architectures by toolkit.
        cells: of the kernels.
    """
    version, archs = next(iter(targets.items()))
    others = "; ".join(
        f"CUDA {other} for {', '.join(f'sm_{arch}' for arch in some)}" for other, some in targets.items()
    )
    lines = [
        "# The compiled kernels",
        "",
        "Written by `make kernels`: every kernel of the [CUDA engine](cuda-engine.md) that a plan on these cards can",
        "choose (all have tensor cores, so ordinary units multiply 16 bits for few rows alone), compiled by NVRTC with",
        f"CuPy's options and headers: {others}. The numbers are those of CUDA {version}.",
        "A cell is registers a thread, bytes of shared memory a block (static and dynamic; persistent kernels at H =",
        "256; the last table has other sizes), and theoretical occupancy: the share of a multiprocessor's threads that",
        "registers, shared memory and block limits let it hold. `-`: not there, or too large for a block; `?`: not",
        "compiled since it changed. No kernel spills registers or uses local memory, unless its cell says so. Nothing",
        "here was run on a GPU. A persistent kernel is meant to have a multiprocessor for itself: most of its",
        "registers hold weights.",
        "",
        f"Cells: {', '.join(cells)}.",
        "",
        f"Digest of the sources and variants: `{digest()}`",
        "",
    ]
    for file in sorted({variant.file for variant in chosen}):
        lines += [
            f"## `kernels/{file}`",
            "",
            "| kernel | " + " | ".join(f"sm_{a} ({CARDS[a].example})" for a in archs) + " |",
        ]
        lines.append("| --- |" + " --- |" * len(archs))
        for variant in chosen:
            if variant.file != file:
                continue
            for name in variant.kernels:
                cells = []
                for arch in archs:
                    report = reports_of.get((version, arch, variant, name))
                    percent = report and occupancy(CARDS[arch], report, variant.threads, variant.shared)
                    cells.append(
                        f"{report.registers} / {report.shared + variant.shared} / {percent} %{local(report)}"
                        if report and percent
                        else "?"
                        if report is None and variant.needs <= arch
                        else "-"
                    )
                lines.append(f"| {name.removeprefix('gpulstm_')} {variant.label} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join([*lines, *table_of_larger(more, reports_of, version)])


def local(report: Report) -> str:
    """What a cell says of local memory."""
    return f", {report.spills} B local" if report.spills else ""


def table_of_larger(more: dict[int, list[Variant]], reports_of: Reports, version: str) -> list[str]:
    """Registers of the persistent kernels of other sizes."""
    examples = ", ".join(CARDS[arch].example for arch in more)
    lines = [
        "## `kernels/cuda/persistent.cu` at other sizes",
        "",
        f"Registers a thread of the kernels that are planned there for any batch, on {examples};",
        "`-`: not planned there.",
        "",
        "| kernel | " + " | ".join(f"H = {hidden}" for hidden in LARGER) + " |",
        "| --- |" + " --- |" * len(LARGER),
    ]
    found: dict[tuple[str, str, int, int], str] = {}
    for arch, variants_of in more.items():
        for variant in variants_of:
            name = variant.kernels[0]
            report = reports_of.get((version, arch, variant, name))
            key = name.removeprefix("gpulstm_"), variant.label, variant.hidden, arch
            found[key] = "?" if report is None else f"{report.registers}{local(report)}"
    for name, label in sorted({key[:2] for key in found}):
        sizes = [" / ".join(found.get((name, label, hidden, arch), "-") for arch in more) for hidden in LARGER]
        lines.append(f"| {name} {label} | " + " | ".join(sizes) + " |")
    return [*lines, ""]


if __name__ == "__main__":
    sys.exit(main())
