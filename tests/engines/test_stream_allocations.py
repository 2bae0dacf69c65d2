"""A step of a stream asks the system for no memory: every allocation of the process is counted while steps run.

A small library, compiled here and loaded before all others, stands in front of the C library's allocation functions, to
which `operator new` goes too.  Python's own small objects come out of its arenas and are not among them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COUNTER = r"""
#include <atomic>
#include <errno.h>
#include <stddef.h>
extern "C" {
void* __libc_malloc(size_t);  // glibc's own, behind the names below
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);

static std::atomic<bool> on{false};
static std::atomic<long> calls{0};
static void count() { if (on.load()) calls.fetch_add(1); }

void count_begin() { calls = 0; on = true; }
long count_end() { on = false; return calls; }

void* malloc(size_t size) { count(); return __libc_malloc(size); }
void* calloc(size_t number, size_t size) { count(); return __libc_calloc(number, size); }
void* realloc(void* old, size_t size) { count(); return __libc_realloc(old, size); }
void* memalign(size_t alignment, size_t size) { count(); return __libc_memalign(alignment, size); }
void* aligned_alloc(size_t alignment, size_t size) { count(); return __libc_memalign(alignment, size); }
int posix_memalign(void** found, size_t alignment, size_t size) {
    count();
    *found = __libc_memalign(alignment, size);
    return *found ? 0 : ENOMEM;
}
}
"""

PROGRAM = """
import ctypes, gc, json, sys
import numpy as np
import gpulstm as gl

counter = ctypes.CDLL(None)
counter.count_end.restype = ctypes.c_long
batch, hidden, threads, normalized = map(int, sys.argv[1:])
gl.set_num_threads(threads)
model = gl.LSTM(8, hidden, 2, layer_norm=bool(normalized), device="cpu", engine="cpu")
step = model.stream(batch)
x, out = np.ones((batch, 8), np.float32), np.empty((batch, hidden), np.float32)

def into(): step(x, out=out)
def fresh(): step(x)
def whole(): model(x[None])

found = {}
gc.collect()
gc.disable()
for work in (into, fresh, whole):
    for times in (100, 1000):
        for _ in range(20):
            work()
        counter.count_begin()
        for _ in range(times):
            work()
        found[f"{work.__name__} {times}"] = counter.count_end()
print(json.dumps(found))
"""


# The second and the third are shared by threads; the third has a layer with options.
@pytest.mark.parametrize(("batch", "hidden", "threads", "normalized"), [(1, 300, 1, 0), (5, 400, 2, 0), (5, 400, 2, 1)])
def test_a_step_allocates_nothing_natively(
    tmp_path: Path, batch: int, hidden: int, threads: int, normalized: int
) -> None:
    compiler = shutil.which("g++") or shutil.which("clang++")
    assert compiler, "this test needs a C++ compiler, as the simulator does"
    source, library = tmp_path / "counter.cpp", tmp_path / "counter.so"
    source.write_text(COUNTER, encoding="utf-8")
    subprocess.run([compiler, "-std=c++17", "-O1", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    environment = {**os.environ, "LD_PRELOAD": str(library)}
    environment.pop("PYTHONMALLOC", None)
    command = [sys.executable, "-c", PROGRAM, str(batch), str(hidden), str(threads), str(normalized)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results["into 100"] == results["into 1000"] == 0
    assert results["fresh 1000"] >= 1000  # the counter works: without `out` there is a new array a step,
    assert results["whole 1000"] >= 1000  # and a call for a whole sequence allocates
