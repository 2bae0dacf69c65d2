"""Compile every kernel of the CUDA engine for real architectures and write what the compiler says: `make kernels`.

nvcc where there is one, else NVRTC from its wheel (`nvrtc.py` beside this file).  Variants of a file are compiled as
one text, with nvcc for all architectures at once; what was compiled before is remembered under build/, so that a second
run takes only what has changed.  Writes docs/cuda-kernels.md; ends with status 1 when a kernel does not compile, spills
registers or uses local memory.  No GPU is needed.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import itertools
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpulstm.arrays.gemm import TENSOR_TILES, TILES, TYPES, is_tensor, threads, tile
from gpulstm.arrays.kernel_source import kernel_folder, kernel_preamble, kernel_source
from gpulstm.engines.cuda import persistent
from gpulstm.engines.cuda.passes import CELLS

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "cuda-kernels.md"
REMEMBERED = ROOT / "build" / "kernels"
CHOSEN = {"float16": TENSOR_TILES, "float32": TILES + TENSOR_TILES, "float64": TILES}
REGISTERS = 65536  # that a block may have, on all of CARDS
INCLUDE = re.compile(r"^#include .*$", re.MULTILINE)
KERNEL = re.compile(r'(^extern "C" __global__.*?\b(gpulstm_\w+)\(.*?^}$)', re.MULTILINE | re.DOTALL)


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
    """Every kernel that a plan on one of CARDS can choose; the persistent ones at the sizes of H = 256.

    All of them have tensor cores, so no float16 is multiplied on ordinary units unless a user forces a tile.
    """
    for cell, dtype in itertools.product(CELLS, TYPES):
        base = (("GL_T", TYPES[dtype][0]), ("GL_R", TYPES[dtype][1]), ("GL_CELL", str(CELLS[cell])))
        for shape in CHOSEN[dtype]:
            kind = "TF32" if is_tensor(shape) and dtype == "float32" else dtype
            where = f"{cell} {kind} {shape[0]}x{shape[1]}{' tensor' if is_tensor(shape) else ''}"
            names = ("gpulstm_forward", "gpulstm_backward")
            yield Variant("cuda/fused.cu", where, base + tile(shape, dtype), threads(shape), names, 0)
        names = ("gpulstm_pack_forward", "gpulstm_pack_backward", "gpulstm_begin", "gpulstm_begin_backward")
        yield Variant("cuda/pack.cu", f"{cell} {dtype}", base, 256, names, 0)
        for tensor in {"float16": (True,), "float32": (False, True), "float64": ()}[dtype]:
            for rows, units in itertools.product(persistent.ROWS[tensor], persistent.UNITS[tensor]):
                gates, wide = {"lstm": (4, 4 * units), "gru": (3, 4 * units), "rnn": (1, units)}[cell]
                for name, columns, depth in (("forward", wide, 256), ("backward", units, 256 * gates)):
                    product = persistent.shape(rows, columns, persistent.SIZE[dtype], REGISTERS, tensor)
                    kind = "TF32" if tensor and dtype == "float32" else dtype
                    where = f"{cell} {kind} {rows} rows, {units} units{' tensor' if tensor else ''}"
                    names = (f"gpulstm_{name}_all",)
                    shared = product.bytes(depth)
                    yield Variant("cuda/persistent.cu", where, base + product.macros, product.threads, names, shared)
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


def digest() -> str:
    """What the table depends on: the text of all kernels, and the choices of macros."""
    files = sorted((*kernel_folder().glob("cuda/*.cu*"), *kernel_folder().glob("*.h")))
    parts = [file.read_bytes() for file in files] + [repr(tuple(variants())).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def text(file: str, chosen: Sequence[tuple[int, Variant]]) -> str:
    """One source with variants of a file, each in a namespace and under names of its own, with its kernels alone."""
    half = any(dict(variant.macros)["GL_T"] == "__half" for _, variant in chosen)
    lines = ["#include <cuda_fp16.h>", "#define GL_HALF"] if half else []
    body = kernel_source(file)
    for include in re.findall(r'^#include "(.*)"$', body, re.MULTILINE):
        if "tensor" not in include:
            lines.append(kernel_preamble((include,)))
        elif any("GL_TENSOR" in dict(variant.macros) for _, variant in chosen):
            lines += ["#define GL_TENSOR", kernel_preamble((include,)), "#undef GL_TENSOR"]
    lines += re.findall(r"^#include <.*>$", body, re.MULTILINE)
    kernels = KERNEL.findall(body)
    for number, variant in chosen:
        lines.append(f"namespace variant_{number} {{")
        lines += [f"#define {name} {value}" for name, value in variant.macros]
        mine = INCLUDE.sub("", body)
        for whole, name in kernels:
            mine = mine.replace(whole, whole.replace(name, f"v{number}_{name}") if name in variant.kernels else "")
        lines += [mine, *(f"#undef {name}" for name, _ in variant.macros), "}"]
    return "\n".join(lines)


class Report(NamedTuple):
    """What the compiler says of one kernel."""

    registers: int
    shared: int
    spills: int


Reports = dict[tuple[int, str], Report]  # by architecture and kernel
Compiler = Callable[[str, Sequence[int]], str]  # source, architectures -> what ptxas -v says


def parse(log: str) -> Reports:
    """`ptxas -v` output, kernel by kernel."""
    found = {}
    pattern = re.compile(
        r"Compiling entry function '(\w+)' for 'sm_(\d+)a?'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads.*?Used (\d+) registers([^\n]*)",
        re.DOTALL,
    )
    for name, arch, stack, stores, loads, registers, rest in pattern.findall(log):
        shared = re.search(r"(\d+) bytes smem", rest)
        found[int(arch), name] = Report(
            int(registers), int(shared.group(1)) if shared else 0, int(stack) + int(stores) + int(loads)
        )
    return found


def family(arch: int) -> int:
    """The architecture whose intermediate code an architecture's machine code is made from: 7.5, 8.0 or 10.0."""
    return 75 if arch < 80 else 80 if arch < 100 else 100


def nvcc(source: str, archs: Sequence[int]) -> str:
    """Compile with nvcc; what ptxas says."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.cu"
        path.write_text(source, encoding="utf-8")
        command = ["nvcc", "-std=c++17", "-fatbin", "-Xptxas", "-v", "-o", f"{path}bin", str(path)]
        for base, group in itertools.groupby(archs, family):
            command.append(f"-gencode=arch=compute_{base},code=[{','.join(f'sm_{arch}' for arch in group)}]")
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise SystemExit(f"does not compile:\n{run.stderr[-4000:]}")
        return run.stderr


def compiler() -> tuple[str, Compiler] | None:
    """The compiler at hand and its name, or None."""
    if shutil.which("nvcc"):
        version = subprocess.run(["nvcc", "--version"], capture_output=True, text=True).stdout
        return "nvcc " + (re.search(r"release [\d.]+, V([\d.]+)", version) or ["", "?"])[1], nvcc
    sys.path.insert(0, str(Path(__file__).parent))
    import nvrtc

    if nvrtc.library() is None:
        return None
    return f"NVRTC {nvrtc.version()}", lambda source, archs: "\n".join(nvrtc.compiled(source, arch) for arch in archs)


def reports(chosen: Sequence[Variant], archs: Sequence[int], compile: Compiler) -> Reports:
    """What is said of some variants of one file, kernels under the names that `text` gives them."""
    found: Reports = {}
    for modern, some in itertools.groupby(archs, lambda arch: arch >= 80):
        there = [(number, one) for number, one in enumerate(chosen) if one.needs <= (80 if modern else 75)]
        if there:
            found |= parse(compile(text(chosen[0].file, there), list(some)))
    return found


def remembered(chosen: Sequence[Variant], archs: Sequence[int], named: str, compile: Compiler) -> Reports:
    """`reports`, from a file under build/ where the same text was compiled before by the same compiler."""
    source = text(chosen[0].file, list(enumerate(chosen)))
    path = REMEMBERED / (hashlib.sha256(f"{named} {archs} {source}".encode()).hexdigest() + ".json")
    if path.exists():
        return {(arch, name): Report(*numbers) for arch, name, *numbers in json.loads(path.read_text())}
    found = reports(chosen, archs, compile)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([[*place, *report] for place, report in found.items()]))
    return found


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
    parser.add_argument("--jobs", type=int, default=2, help="compilers at once")
    parser.add_argument("--check", action="store_true", help="compile and judge, write nothing")
    arguments = parser.parse_args()
    archs = sorted(arguments.arch or CARDS)
    at_hand = compiler()
    if at_hand is None:
        print("neither nvcc nor NVRTC is here; run: pip install nvidia-cuda-nvrtc-cu12 nvidia-cuda-runtime-cu12")
        return 1
    named, compile = at_hand
    chosen = list(variants())

    def together(variant: Variant) -> tuple[str, ...]:  # small texts, so that little is compiled anew after a change
        macros = dict(variant.macros)
        return variant.file, *(macros.get(f"GL_{name}", "") for name in ("T", "CELL", "TB", "TENSOR"))

    jobs = [list(some) for _, some in itertools.groupby(sorted(chosen, key=together), together)]
    found: dict[tuple[int, Variant, str], Report] = {}
    with ThreadPoolExecutor(arguments.jobs) as pool:
        work = functools.partial(remembered, archs=archs, named=named, compile=compile)
        for job, part in zip(jobs, pool.map(work, jobs), strict=True):
            for (number, variant), arch in itertools.product(enumerate(job), archs):
                if variant.needs <= arch:
                    found |= {(arch, variant, name): part[arch, f"v{number}_{name}"] for name in variant.kernels}
    spilling = {key: report.spills for key, report in found.items() if report.spills}
    for (arch, variant, name), spills in spilling.items():
        print(f"sm_{arch}: {name} ({variant.label}) uses {spills} bytes of local memory")
    if not arguments.check:
        PAGE.write_text(page(chosen, found, archs, named), encoding="utf-8")
    print(f"{len(found)} kernels compiled with {named} for {len(archs)} architectures, {len(spilling)} spill")
    return 1 if spilling else 0


def page(chosen: list[Variant], found: dict[tuple[int, Variant, str], Report], archs: list[int], named: str) -> str:
    """The Markdown page."""
    lines = [
        "# The compiled kernels",
        "",
        f"Written by `make kernels` with {named}: every kernel of the [CUDA engine](cuda-engine.md) that a plan on",
        "these cards can choose (all have tensor cores, so float16 is not multiplied on ordinary units), compiled for",
        "real architectures. A cell is registers a thread, bytes of shared memory a block (static and dynamic;",
        "persistent kernels at H = 256), and theoretical occupancy: the share of a multiprocessor's threads that",
        "registers, shared memory and block limits let it hold. `-`: not there, or too large for a block.",
        "No kernel spills registers or uses local memory, unless its cell says so. Nothing here was run on a GPU.",
        "A persistent kernel is meant to have a multiprocessor for itself: most of its registers hold weights.",
        "With nvcc the machine code of 8.x and 9.0 is made from the intermediate code of 8.0, that of 12.0 from 10.0.",
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
                    report = found.get((arch, variant, name))
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
