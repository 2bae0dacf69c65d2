"""The headers of kernels/ compiled for the host, and kernels compiled for real architectures.

On the host they give the same numbers as the Python that states the same equations.  For GPUs a few kernels are
compiled where there is a compiler, and the table of all of them, docs/cuda-kernels.md, is held against the sources.
"""

from __future__ import annotations

import ctypes
import re
import runpy
import shutil
import subprocess
from typing import Any

import numpy as np
import nvrtc
import pytest
from paths import DOCS, TOOLS

from gpulstm.arrays import random
from gpulstm.arrays.kernel_source import kernel_folder, kernel_preamble, module_source
from gpulstm.engines import cells
from gpulstm.engines.spec import StackSpec, State

SIZE = 257  # hidden units, one row
SOURCE = """
#include "cuda/state.cuh"
#include "equations/philox.h"
extern "C" {
void philox(const unsigned* counter, const unsigned* key, unsigned* out) {
  gl_philox(counter[0], counter[1], counter[2], counter[3], key[0], key[1], out);
}
#define EACH(R, NAME) \\
  void lstm_##NAME(long n, R* z, const R* c_old, R* c, R* h) { \\
    for (long k = 0; k < n; ++k) h[k] = gl_lstm(z[k], z[n + k], z[2 * n + k], z[3 * n + k], c_old[k], c[k]); } \\
  void lstm_backward_##NAME(long n, R* z, const R* c_old, const R* c, const R* dh, const R* dc, R* dc_old) { \\
    for (long k = 0; k < n; ++k) dc_old[k] = \\
      gl_lstm_backward(z[k], z[n + k], z[2 * n + k], z[3 * n + k], c_old[k], c[k], dh[k], dc[k]); } \\
  void gru_##NAME(long n, R* z, const R* s, const R* h_old, R* h) { \\
    for (long k = 0; k < n; ++k) h[k] = gl_gru(z[k], z[n + k], z[2 * n + k], s[k], h_old[k]); } \\
  void gru_backward_##NAME(long n, R* z, R* s, const R* h_old, const R* dh, R* dh_old) { \\
    for (long k = 0; k < n; ++k) dh_old[k] = \\
      gl_gru_backward(z[k], z[n + k], z[2 * n + k], s[k], h_old[k], dh[k]); } \\
  void rnn_##NAME(long n, const R* z, R* h, int relu) { \\
    for (long k = 0; k < n; ++k) h[k] = gl_rnn(z[k], relu != 0); } \\
  void rnn_backward_##NAME(long n, const R* h, const R* dh, R* dz, int relu) { \\
    for (long k = 0; k < n; ++k) dz[k] = gl_rnn_backward(h[k], dh[k], relu != 0); }
EACH(double, float64)
EACH(float, float32)
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The functions of SOURCE."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    assert compiler, "this test needs a C++ compiler, as the simulator does"
    folder = tmp_path_factory.mktemp("kernels")
    source, built = folder / "host.cpp", folder / "host.so"
    source.write_text(SOURCE, encoding="utf-8")
    command = [compiler, "-std=c++17", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function"]
    subprocess.run([*command, f"-I{kernel_folder()}", str(source), "-o", str(built)], check=True)
    return ctypes.CDLL(str(built))


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)


def call(function, *arguments: np.ndarray | int) -> None:
    """Call with pointers to arrays, and integers as they are; the first argument is the size."""
    function(
        ctypes.c_long(SIZE), *(a.ctypes.data_as(ctypes.c_void_p) if isinstance(a, np.ndarray) else a for a in arguments)
    )


def tolerance(dtype: str) -> dict[str, float]:
    """A few units in the last place: NumPy's tanh and the C library's differ by that."""
    unit = float(np.finfo(dtype).eps)
    return {"rtol": 16 * unit, "atol": 16 * unit}


def plain_cell(name: str, dtype: str, **options: str) -> tuple[cells.Cell, dict[str, np.ndarray]]:
    """A cell whose recurrent weights are zero, so that its step is the arithmetic of the gates alone."""
    spec = StackSpec(name, 1, SIZE, dtype=dtype, **options)
    params = {key: np.zeros(shape, dtype) for key, shape in spec.layer_shapes(0).items()}
    return cells.make_cell(np, spec), params


def draw(rng: np.random.Generator, dtype: str, count: int) -> list[np.ndarray]:
    """Rows `(1, SIZE)`, some of them far out where the activations are flat."""
    scale = np.where(rng.random(SIZE) < 0.1, 30.0, 1.5)
    return [(rng.normal(size=(1, SIZE)) * scale).astype(dtype) for _ in range(count)]


@pytest.mark.parametrize(
    ("counter", "key"),
    [
        ([0, 0, 0, 0], [0, 0]),
        ([2**32 - 1] * 4, [2**32 - 1] * 2),
        ([1, 2, 3, 4], [5, 6]),
        ([9, 1 << 23, 7, 6], [1 << 31, 4]),
    ],
)
def test_philox(library: ctypes.CDLL, counter: list[int], key: list[int]) -> None:
    words, keys, out = np.array(counter, np.uint32), np.array(key, np.uint32), np.empty(4, np.uint32)
    library.philox(pointer(words), pointer(keys), pointer(out))
    expected = random.philox(np, tuple(np.array(word, np.uint64) for word in counter), (key[0], key[1]))
    assert out.tolist() == [int(word) for word in expected]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_lstm(library: ctypes.CDLL, dtype: str, rng: np.random.Generator) -> None:
    cell, params = plain_cell("lstm", dtype)
    *z, c_old, dh, dc, v = draw(rng, dtype, 8)
    a = np.concatenate(z, axis=1)
    new, saved = cell.step(params, a, v, State(v, c_old))
    gates, c, h, dc_old = a.copy(), np.empty_like(c_old), np.empty_like(c_old), np.empty_like(c_old)
    call(library[f"lstm_{dtype}"], gates, c_old, c, h)
    np.testing.assert_allclose(h, new.h, **tolerance(dtype))
    np.testing.assert_allclose(c, new.c, **tolerance(dtype))
    i, f, g, o = saved[:4]
    np.testing.assert_allclose(gates, np.concatenate([i, f, g, o], axis=1), **tolerance(dtype))
    gates[...] = np.concatenate([i, f, g, o], axis=1)
    grads = {key: np.zeros_like(value) for key, value in params.items()}
    dz, _, _, dold = cell.step_backward(params, saved, dh, dc, grads)
    call(library[f"lstm_backward_{dtype}"], gates, c_old, new.c, dh, dc, dc_old)
    scale = float(np.abs(dz).max())
    np.testing.assert_allclose(gates / scale, dz / scale, **tolerance(dtype))
    np.testing.assert_allclose(dc_old / scale, dold.c / scale, **tolerance(dtype))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_gru(library: ctypes.CDLL, dtype: str, rng: np.random.Generator) -> None:
    cell, params = plain_cell("gru", dtype)
    *z, s, h_old, dh = draw(rng, dtype, 6)
    params["b_hn"][...] = s[0]  # with W_h = 0 this is all of s
    a = np.concatenate(z, axis=1)
    new, saved = cell.step(params, a, h_old, State(h_old, None))
    gates, h, dh_old, ds = a.copy(), np.empty_like(h_old), np.empty_like(h_old), s.copy()
    call(library[f"gru_{dtype}"], gates, s, h_old, h)
    np.testing.assert_allclose(h, new.h, **tolerance(dtype))
    np.testing.assert_allclose(gates, np.concatenate(saved[:3], axis=1), **tolerance(dtype))
    gates[...] = np.concatenate(saved[:3], axis=1)
    grads = {key: np.zeros_like(value) for key, value in params.items()}
    da, dproduct, _, dold = cell.step_backward(params, saved, dh, None, grads)
    call(library[f"gru_backward_{dtype}"], gates, ds, h_old, dh, dh_old)
    scale = float(np.abs(da).max())
    np.testing.assert_allclose(gates / scale, da / scale, **tolerance(dtype))
    np.testing.assert_allclose(ds / scale, dproduct[:, 2 * SIZE :] / scale, **tolerance(dtype))
    np.testing.assert_allclose(dh_old, dold.h, **tolerance(dtype))


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_rnn(library: ctypes.CDLL, dtype: str, nonlinearity: str, rng: np.random.Generator) -> None:
    cell, params = plain_cell("rnn", dtype, nonlinearity=nonlinearity)
    z, dh, v = draw(rng, dtype, 3)
    z[0, 0] = 0.0
    new, saved = cell.step(params, z, v, State(v, None))
    h, dz, relu = np.empty_like(z), np.empty_like(z), int(nonlinearity == "relu")
    call(library[f"rnn_{dtype}"], z, h, relu)
    np.testing.assert_allclose(h, new.h, **tolerance(dtype))
    expected = cell.step_backward(params, saved, dh, None, {key: np.zeros_like(p) for key, p in params.items()})[0]
    call(library[f"rnn_backward_{dtype}"], new.h, dh, dz, relu)
    np.testing.assert_allclose(dz, expected, **tolerance(dtype))


def test_the_preamble_holds_each_header_once() -> None:
    text = kernel_preamble(("cuda/state.cuh", "equations/gates.h"))
    for guard in ("GPULSTM_STATE_CUH", "GPULSTM_GATES_H", "GPULSTM_INLINE_H"):
        assert text.count(f"#define {guard}\n") == 1
    assert text.index("define GL_INLINE") < text.index("gl_lstm(") < text.index("gl_lstm_step(")


SAMPLE = (
    ("gpulstm_forward", "lstm float32 32x64"),
    ("gpulstm_gemm", "NT TF32 32x64 tensor"),
    ("gpulstm_backward_all", "lstm float32 8 rows, 8 units"),
    ("gpulstm_forward_all", "lstm float16 32 rows, 16 units tensor"),
)
BFLOAT = ("gpulstm_forward", "gru bfloat16 32x64 tensor")


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    """The program that writes the table."""
    return runpy.run_path(str(TOOLS / "kernels.py"), run_name="kernels")


def sample(table: dict[str, Any], name: str, label: str) -> Any:
    """The variant that has a kernel under a label, with that kernel alone."""
    results = [one for one in table["variants"]() if one.label == label and name in one.kernels]
    assert len(results) == 1, (name, label)
    return results[0]._replace(kernels=(name,))


def test_every_kernel_is_in_the_table_and_the_table_is_of_these_sources(table: dict[str, Any]) -> None:
    """Written by `make kernels`; no spill."""
    page = (DOCS / "cuda-kernels.md").read_text(encoding="utf-8")
    assert f"Digest of the sources and variants: `{table['digest']()}`" in page, "run make kernels"
    assert "sm_75 " in page and "sm_90 " in page
    assert " B local" not in page
    assert "Cells: lstm, gru, rnn." in page
    for variant in table["variants"]():
        for name in variant.kernels:
            assert f"| {name.removeprefix('gpulstm_')} {variant.label} |" in page
    others = page[page.index("## `kernels/cuda/persistent.cu` at other sizes") :]
    for arch in table["FEW_CARDS"]:
        for variant in table["larger"](arch):
            assert f"| {variant.kernels[0].removeprefix('gpulstm_')} {variant.label} |" in others
    assert "?" not in others


def test_larger_persistent_kernels_are_those_that_are_planned(table: dict[str, Any]) -> None:
    """Both passes, plain and on tensor cores, in tiles of few rows and of more."""
    larger = list(table["larger"](90))
    assert len(set(larger)) == len(larger)
    assert {variant.hidden for variant in larger} == {512, 768, 1024, 2048}
    labels = {(variant.kernels[0], variant.label) for variant in larger if variant.hidden == 1024}
    for name in ("gpulstm_forward_all", "gpulstm_backward_all"):
        for label in ("float32 4 rows, 8 units", "float32 8 rows, 8 units", "TF32 32 rows, 16 units tensor"):
            assert (name, f"lstm {label}") in labels
        for rows in (16, 32):
            for dtype in ("float16", "bfloat16"):
                assert (name, f"lstm {dtype} {rows} rows, 16 units tensor") in labels
    none = {variant.label for variant in table["larger"](90) if variant.hidden == 2048 and "float32" in variant.label}
    assert not any(label.startswith("lstm") for label in none)  # a block would need more shared memory than there is


@pytest.mark.ptx
@pytest.mark.parametrize(("name", "label"), [*SAMPLE, BFLOAT])
def test_some_kernels_compile_for_real_architectures_as_the_table_says(
    table: dict[str, Any], name: str, label: str
) -> None:
    page = (DOCS / "cuda-kernels.md").read_text(encoding="utf-8")
    variant = sample(table, name, label)
    heads = next(line for line in page.splitlines() if line.startswith("| kernel |")).split("|")
    row = next(line for line in page.splitlines() if line.startswith(f"| {name.removeprefix('gpulstm_')} {label} |"))
    column = next(index for index, head in enumerate(heads) if "sm_90 " in head)
    for toolkit in nvrtc.toolkits():
        report = table["compiled"](variant, 90, toolkit)[name]
        assert report.spills == 0
        assert 16 <= report.registers <= 65536 // variant.threads
        if f"The numbers are those of CUDA {toolkit.version}." in page:
            assert row.split("|")[column].split()[0] == str(report.registers)


def test_no_kernel_needs_a_header_that_comes_with_nvcc_alone() -> None:
    """CuPy compiles them with NVRTC; its wheels have these headers, and what a storage type needs."""
    asked = {
        file.name: set(re.findall(r"#include <(.*)>", file.read_text(encoding="utf-8")))
        for file in (kernel_folder() / "cuda").iterdir()
    }
    asked["mma.cuh"].remove("hg_mma.h")  # the simulator's
    assert set().union(*asked.values()) == {"cooperative_groups.h", "cuda_pipeline.h"}


@pytest.mark.ptx
@pytest.mark.parametrize(("arch", "copy"), [(75, "ld.global.cg.v4"), (80, "cp.async.cg.shared.global")])
@pytest.mark.parametrize(("name", "label"), SAMPLE[2:])
def test_the_persistent_kernel_reads_what_other_blocks_wrote_past_the_caches_of_a_multiprocessor(
    table: dict[str, Any], name: str, label: str, arch: int, copy: str
) -> None:
    """In the intermediate code: copies from L2, and no load through the read-only cache."""
    variant = sample(table, name, label)
    code = nvrtc.toolkits()[0].ptx(module_source(variant.file, variant.macros), arch)
    assert copy in code
    assert ("ldmatrix.sync" in code) == ("tensor" in label)
    assert ("mma.sync.aligned.m16n8k" + ("16" if arch >= 80 else "8") in code) == ("tensor" in label)
    assert "ld.global.nc" not in code
    assert re.search(r"atom\S*\.release\.gpu|fence\.\S*gpu|membar\.gl", code)
    assert re.search(r"ld\.acquire\.gpu|fence\.\S*gpu|membar\.gl", code)
