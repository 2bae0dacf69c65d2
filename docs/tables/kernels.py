"""Compile every kernel of the CUDA engine for real architectures and write what the compiler says: `make kernels`.

nvcc where there is one, else NVRTC from its wheel (`nvrtc.py` beside this file).  All variants of a file are compiled
as one text per architecture.  Writes docs/cuda-kernels.md; ends with status 1 when a kernel does not compile, spills
registers or uses local memory.  No GPU is needed.
"""

from __future__ import annotations

import argparse
import itertools
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gpulstm.backend import kernel_preamble, kernel_source
from gpulstm.engines.cuda import persistent
from gpulstm.engines.cuda.steps import CELLS
from gpulstm.products import TENSOR_TILES, TILES, TYPES, is_tensor, threads, tile

PAGE = Path(__file__).resolve().parents[1] / "cuda-kernels.md"
INCLUDE = re.compile(r"^#include .*$", re.MULTILINE)


class Card(NamedTuple):
    """Limits of a compute capability (CUDA C++ Programming Guide, table of technical specifications)."""

    example: str
    threads: int
    blocks: int
    shared: int  # bytes of a multiprocessor
    reserved: int  # of it, for each block


CARDS = {
    75: Card("T4", 1024, 16, 65536, 0),
    80: Card("A100", 2048, 32, 167936, 1024),
    86: Card("RTX 3090", 1536, 16, 102400, 1024),
    90: Card("H100", 2048, 32, 233472, 1024),
    100: Card("B200", 2048, 32, 233472, 1024),
    120: Card("RTX 5090", 1536, 24, 102400, 1024),
}


class Variant(NamedTuple):
    """One choice of macros for a file, and what is needed to judge its kernels."""

    file: str
    label: str
    macros: tuple[tuple[str, str], ...]
    threads: int
    kernels: tuple[str, ...]
    shared: int  # dynamic shared memory at H = 256

    @property
    def needs(self) -> int:
        """The least compute capability."""
        values = dict(self.macros)
        return 80 if "GL_TENSOR" in values and values["GL_T"] == "float" else 70


def variants() -> Iterator[Variant]:
    """Every kernel that the engine can ask for; the persistent ones at the sizes of H = 256."""
    for cell, dtype in itertools.product(CELLS, TYPES):
        base = (("GL_T", TYPES[dtype][0]), ("GL_R", TYPES[dtype][1]), ("GL_CELL", str(CELLS[cell])))
        for shape in TILES if dtype == "float64" else TILES + TENSOR_TILES:
            kind = "TF32" if is_tensor(shape) and dtype == "float32" else dtype
            where = f"{cell} {kind} {shape[0]}x{shape[1]}{' tensor' if is_tensor(shape) else ''}"
            names = ("gpulstm_forward", "gpulstm_backward")
            yield Variant("cuda/fused.cu", where, base + tile(shape, dtype), threads(shape), names, 0)
        names = ("gpulstm_pack_forward", "gpulstm_pack_backward", "gpulstm_begin", "gpulstm_begin_backward")
        yield Variant("cuda/pack.cu", f"{cell} {dtype}", base, 256, names, 0)
        if dtype == "float64":
            continue
        for rows, units in itertools.product(persistent.ROWS, persistent.UNITS):
            size = 2 if dtype == "float16" else 4
            gates, wide = {"lstm": (4, 4 * units), "gru": (3, 4 * units), "rnn": (1, units)}[cell]
            for name, columns, depth in (("forward", wide, 256), ("backward", units, 256 * gates)):
                shape = persistent.shape(rows, columns)
                shared = persistent.bytes_of(shape, depth * columns * size)
                where = f"{cell} {dtype} {rows} rows, {units} units"
                macros = base + tile(shape, dtype)
                yield Variant("cuda/persistent.cu", where, macros, 256, (f"gpulstm_{name}_all",), shared)
    for dtype in TYPES:
        for shape in TILES if dtype == "float64" else TILES + TENSOR_TILES:
            for ta, tb in ((False, False), (True, False), (False, True)):
                kind = "TF32" if is_tensor(shape) and dtype == "float32" else dtype
                order = "NT"[ta] + "NT"[tb]
                where = f"{order} {kind} {shape[0]}x{shape[1]}{' tensor' if is_tensor(shape) else ''}"
                base = (("GL_T", TYPES[dtype][0]), ("GL_R", TYPES[dtype][1]))
                orders = (("GL_TA", str(ta).lower()), ("GL_TB", str(tb).lower()))
                macros = base + orders + tile(shape, dtype)
                yield Variant("cuda/gemm.cu", where, macros, threads(shape), ("gpulstm_gemm",), 0)


def text(file: str, chosen: list[tuple[int, Variant]]) -> str:
    """One source with all variants of a file, each in a namespace and under names of its own."""
    half = any(dict(variant.macros)["GL_T"] == "__half" for _, variant in chosen)
    tensor = any("GL_TENSOR" in dict(variant.macros) for _, variant in chosen)
    lines = ["#include <cuda_fp16.h>", "#define GL_HALF"] if half else []
    if tensor:
        lines += ["#define GL_TENSOR", kernel_preamble(("cuda/tensor.cuh",)), "#undef GL_TENSOR"]
    body = kernel_source(file)
    for include in re.findall(r'^#include "(.*)"$', body, re.MULTILINE):
        if "tensor" not in include:
            lines.append(kernel_preamble((include,)))
    lines += re.findall(r"^#include <.*>$", body, re.MULTILINE)
    everything = re.findall(r"\b(gpulstm_\w+)\(", body)
    for number, variant in chosen:
        lines.append(f"namespace variant_{number} {{")
        lines += [f"#define {name} {value}" for name, value in variant.macros]
        lines += [f"#define {name} v{number}_{name}" for name in everything]
        lines.append(INCLUDE.sub("", body))
        lines += [f"#undef {name}" for name in (*everything, *(name for name, _ in variant.macros))]
        lines.append("}")
    return "\n".join(lines)


class Report(NamedTuple):
    """What the compiler says of one kernel."""

    registers: int
    shared: int
    spills: int


def parse(log: str) -> dict[str, Report]:
    """`ptxas -v` output by kernel."""
    found = {}
    pattern = re.compile(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
        r".*?Used (\d+) registers([^\n]*)",
        re.DOTALL,
    )
    for name, stack, stores, loads, registers, rest in pattern.findall(log):
        shared = re.search(r"(\d+) bytes smem", rest)
        found[name] = Report(
            int(registers), int(shared.group(1)) if shared else 0, int(stack) + int(stores) + int(loads)
        )
    return found


def nvcc(source: str, arch: int) -> str:
    """Compile with nvcc; what ptxas says."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.cu"
        path.write_text(source, encoding="utf-8")
        command = ["nvcc", f"-arch=sm_{arch}", "-std=c++17", "-cubin", "-Xptxas", "-v", "-o", f"{path}bin", str(path)]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise SystemExit(f"sm_{arch} does not compile:\n{run.stderr[-4000:]}")
        return run.stderr


def occupancy(card: Card, report: Report, block: int, dynamic: int) -> int:
    """Threads that a multiprocessor holds at once, in percent of its most; 0 where not even one block fits."""
    registers = -(-report.registers // 8) * 8 * block  # given out by 256 a warp
    shared = report.shared + dynamic + card.reserved
    limits = [card.threads // block, card.blocks, 65536 // registers if registers else card.blocks]
    limits.append(card.shared // shared if shared else card.blocks)
    return 100 * min(limits) * block // card.threads


def main() -> int:
    """Compile, print what is wrong, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", type=int, action="append", help="a compute capability times ten; all by default")
    parser.add_argument("--check", action="store_true", help="compile and judge, write nothing")
    arguments = parser.parse_args()
    archs = arguments.arch or list(CARDS)
    chosen = list(enumerate(variants()))
    files = sorted({variant.file for _, variant in chosen})
    if shutil.which("nvcc"):
        compiler, version = nvcc, subprocess.run(["nvcc", "--version"], capture_output=True, text=True).stdout
        named = "nvcc " + (re.search(r"release [\d.]+, V([\d.]+)", version) or ["", "?"])[1]
    else:
        sys.path.insert(0, str(Path(__file__).parent))
        import nvrtc

        compiler, named = nvrtc.compiled, f"NVRTC {nvrtc.version()}"
    jobs = [(file, arch, half) for file in files for arch in archs for half in (False, True)]

    def build(job: tuple[str, int, bool]) -> dict[tuple[int, int, str], Report]:
        file, arch, half = job
        mine = [
            (number, variant)
            for number, variant in chosen
            if variant.file == file and variant.needs <= arch and (dict(variant.macros)["GL_T"] == "__half") == half
        ]
        reports = parse(compiler(text(file, mine), arch))
        return {
            (arch, number, name): reports[f"v{number}_{name}"] for number, variant in mine for name in variant.kernels
        }

    found: dict[tuple[int, int, str], Report] = {}
    with ThreadPoolExecutor(2) as pool:
        for part in pool.map(build, jobs):
            found |= part
    spilling = {key: report.spills for key, report in found.items() if report.spills}
    for (arch, number, name), spills in spilling.items():
        print(f"sm_{arch}: {name} ({chosen[number][1].label}) uses {spills} bytes of local memory")
    if not arguments.check:
        PAGE.write_text(page(chosen, found, archs, named), encoding="utf-8")
    print(f"{len(found)} kernels compiled with {named} for {len(archs)} architectures, {len(spilling)} spill")
    return 1 if spilling else 0


def page(
    chosen: list[tuple[int, Variant]], found: dict[tuple[int, int, str], Report], archs: list[int], named: str
) -> str:
    """The Markdown page."""
    lines = [
        "# The compiled kernels",
        "",
        f"Written by `make kernels` with {named}: every kernel of the [CUDA engine](cuda-engine.md), compiled for real",
        "architectures. A cell is registers a thread, bytes of shared memory a block (static and dynamic; persistent",
        "kernels at H = 256), and theoretical occupancy: the share of a multiprocessor's threads that registers,",
        "shared memory and block limits let it hold at once. `-` is what an architecture does not have or cannot hold.",
        "No kernel spills registers or uses local memory, unless its cell says so. Nothing here was run on a GPU.",
        "",
    ]
    for file in sorted({variant.file for _, variant in chosen}):
        lines += [
            f"## `kernels/{file}`",
            "",
            "| kernel | " + " | ".join(f"sm_{a} ({CARDS[a].example})" for a in archs) + " |",
        ]
        lines.append("| --- |" + " --- |" * len(archs))
        for number, variant in chosen:
            if variant.file != file:
                continue
            for name in variant.kernels:
                cells = []
                for arch in archs:
                    report = found.get((arch, number, name))
                    percent = report and occupancy(CARDS[arch], report, variant.threads, variant.shared)
                    spills = f", {report.spills} B local" if report and report.spills else ""
                    cells.append(
                        f"{report.registers} / {report.shared + variant.shared} / {percent} %{spills}"
                        if report and percent
                        else "-"
                    )
                lines.append(f"| {name.removeprefix('gpulstm_')} {variant.label} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
