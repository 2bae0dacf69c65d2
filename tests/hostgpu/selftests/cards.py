"""Cards of other capabilities, calls that are made to fail, what a GPU alone has: in child processes."""

import cupy as cp
import numpy as np

import hostgpu
from selftests.tools import check, eq, raises, run_child

TF32 = r"""
#include <mma.h>
using namespace nvcuda;
extern "C" __global__ void tf32(const float* a, float* c) {
  wmma::fragment<wmma::matrix_a, 16, 16, 8, wmma::precision::tf32, wmma::row_major> fa;
  wmma::fragment<wmma::matrix_b, 16, 16, 8, wmma::precision::tf32, wmma::row_major> fb;
  wmma::fragment<wmma::accumulator, 16, 16, 8, float> fc;
  wmma::fill_fragment(fc, 0.f);
  wmma::load_matrix_sync(fa, a, 8); wmma::load_matrix_sync(fb, a, 16);
  wmma::mma_sync(fc, fa, fb, fc);
  wmma::store_matrix_sync(c, fc, 16, wmma::mem_row_major);
}"""


@check
def capabilities():
    code = (
        "at = cp.cuda.Device().attributes; p = cp.cuda.runtime.getDeviceProperties(0)\n"
        "k = cp.RawKernel('extern \"C\" __global__ void f(int* o) { *o = __CUDA_ARCH__; }', 'f'); o = cp.zeros(1, 'i')\n"
        "k((1,), (1,), (o,))\n"
        "print(cp.cuda.Device().compute_capability, int(o[0]), at['MaxSharedMemoryPerBlockOptin'], at['MaxThreadsPerMultiProcessor'],"
        " p['major'] * 10 + p['minor'], p['sharedMemPerBlockOptin'])\n"
        "try: k.max_dynamic_shared_size_bytes = 65537; print('granted')\n"
        "except cp.cuda.driver.CUDADriverError: print('refused')\n"
        f"t = cp.RawKernel({TF32!r}, 'tf32')\n"
        "try: t((1,), (32,), (cp.zeros(256, 'f'), cp.zeros(256, 'f'))); print('tf32')\n"
        "except cp.cuda.compiler.CompileException as e: print('no tf32', 'newer compute capability' in str(e))\n"
    )
    expected = {
        "75": "75 750 65536 1024 75 65536\nrefused\nno tf32 True",
        "80": "80 800 166912 2048 80 166912\ngranted\ntf32",
        "120": "120 1200 101376 1536 120 101376\ngranted\ntf32",
    }
    for capability, text in expected.items():
        rc, out = run_child(code, {"HOSTGPU_CAPABILITY": capability})
        assert rc == 0 and text in out, out
    rc, out = run_child("print(cp.cuda.Device().compute_capability)", {"HOSTGPU_CAPABILITY": "91"})
    assert rc == 2 and "expected one of" in out, out
    rc, out = run_child("cp.ones(3) + 1", {"HOSTGPU_CAPABILITY": "70", "HOSTGPU_NVRTC_OLDEST": "75"})
    assert rc and "invalid value for --gpu-architecture" in out, out


@check
def occupancy_of_cooperative_launches():
    code = (
        "k = cp.RawKernel('#include <cooperative_groups.h>\\nextern \"C\" __global__ void f(int* o) { cooperative_groups::this_grid().sync(); }', 'f',"
        " enable_cooperative_groups=True)\n"
        "k.max_dynamic_shared_size_bytes = 60000\n"
        "n = cp.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(k.kernel.ptr, 128, 60000)\n"
        "print(n)\n"
        "k((8 * n,), (128,), (cp.zeros(1, 'i'),), shared_mem=60000)\n"
    )
    for capability, blocks in {"75": 1, "80": 2, "90": 3}.items():
        rc, out = run_child(code, {"HOSTGPU_CAPABILITY": capability, "HOSTGPU_SMS": "8"})
        assert rc == 0 and out.split()[0] == str(blocks), out


@check
def misaligned_loads():
    struct = "struct alignas(8) Four { short x, y, z, w; };"
    for body, number in (
        ("*(float4*)o = *(const float4*)(p + 4);", 16),
        ("*(float2*)(o + 1) = *(const float2*)p;", 8),
        ("Four f = *(const Four*)(p + 4); o[0] = f.x + f.y + f.z + f.w;", 8),
        ("*(uint4*)o = __ldcg((const uint4*)(p + 8));", 16),
    ):
        source = f'{struct} extern "C" __global__ void f(const char* p, float* o) {{ {body} }}'
        code = f"k = cp.RawKernel({source!r}, 'f')\nk((1,), (1,), (cp.zeros(64, 'b'), cp.zeros(64, 'f')))\ncp.cuda.Device().synchronize()"
        rc, out = run_child(code)
        assert rc and ("cudaErrorMisalignedAddress" in out or "MISALIGNED" in out), out
        assert f"takes a multiple of {number} bytes" in out, out


@check
def destruction_does_not_wait():
    code = (
        "n = 1 << 20; a = cp.zeros(n, 'f'); cp.cuda.Device().synchronize()\n"
        "run = cp.cuda.runtime; h = run.streamCreateWithFlags(1); s = cp.cuda.ExternalStream(h); e = run.eventCreateWithFlags(2)\n"
        "pinned = cp.cuda.alloc_pinned_memory(4 * n); host = np.frombuffer(pinned, 'f', n); host[:] = 1\n"
        "a.set(host, stream=s); run.eventRecord(e, h); run.eventDestroy(e); run.streamDestroy(h)\n"
        "host[:] = 2\n"  # the copy is still to come, so this is what it copies
        "print(run.streamQuery(h))\n"  # cudaErrorInvalidResourceHandle
        "for k in range(3): cp.cuda.Stream(non_blocking=True)\n"
        "cp.cuda.Device().synchronize(); print(float(a[0]), float(a[-1]))\n"
    )
    rc, out = run_child(code, {"HOSTGPU_LAZY": "1"})
    assert rc == 0 and out.split() == ["400", "2.0", "2.0"], out
    rc, out = run_child(code, {"HOSTGPU_LAZY": "0"})
    assert rc == 0 and out.split() == ["400", "1.0", "1.0"], out


@check
def calls_that_fail():
    graph = (
        "s = cp.cuda.Stream(non_blocking=True); a = cp.zeros(3); b = a + 1; cp.cuda.Device().synchronize()\n"
        "def record():\n"
        "    with s:\n"
        "        s.begin_capture(); cp.add(a, 1, out=b); return s.end_capture()\n"
    )
    cases = {
        "malloc=2+": ("a = cp.zeros(1 << 20)\nb = cp.zeros(1 << 21)", "OutOfMemoryError"),
        "graph_instantiate=1": (graph + "record()", "cudaErrorMemoryAllocation"),
        "graph_launch=2+": (
            graph + "g = record(); g.launch(s); print('first'); g.launch(s)",
            "cudaErrorMemoryAllocation",
        ),
        "capture=1": (graph + "record()", "cudaErrorStreamCaptureInvalidated"),
        "launch=1": ("cp.zeros(3) + 1", "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"),
        "module_load=1": ("cp.ones(3) + 1", "CUDA_ERROR_OUT_OF_MEMORY"),
    }
    for fault, (code, error) in cases.items():
        rc, out = run_child(code, {"HOSTGPU_FAIL": fault})
        assert rc and error in out, (fault, out)
        assert ("first" in out) == (fault == "graph_launch=2+")
    a = cp.ones(3)
    with hostgpu.failing("launch=2+"):
        eq(a + 1, np.full(3, 2.0))
        for _ in range(2):
            raises(cp.cuda.driver.CUDADriverError, "LAUNCH_OUT_OF_RESOURCES", lambda: a + 1)
    eq(a + 1, np.full(3, 2.0))


@check
def pretended_gpu():
    code = (
        "import hostgpu\n"
        "assert not hostgpu.simulated() and b'simulator' not in cp.cuda.runtime.getDeviceProperties(0)['name']\n"
        "with hostgpu.counting() as c: cp.ones(3) + 1\n"
        "assert c['launches'] == 0 and c['kernels']['add'] == 0, c\n"
        "try: hostgpu.stats()\n"
        "except RuntimeError as e: print(e)\n"
    )
    rc, out = run_child(code, {"HOSTGPU_PRETEND_GPU": "1", "HOSTGPU": ""})
    assert rc == 0 and "does not run under the hostgpu wrapper" in out, out


@check
def reductions_as_on_a_gpu():
    x = np.random.default_rng(3).normal(size=(30, 1041)).astype("f")
    g = cp.asarray(x)
    with hostgpu.counting() as c:
        eq(g.sum(), x.sum(), 1e-4)
        eq(g.max(axis=1), x.max(axis=1))
    assert c["lib"] == 2 and c["calls"] == {"cub reduce": 1, "cub segmented reduce": 1}, c
    for axis in (None, 0, 1):
        for name in ("sum", "prod", "min", "argmax", "mean", "var", "all"):
            eq(getattr(g, name)(axis=axis), getattr(x, name)(axis=axis), 1e-4)
    x[3, 7] = np.nan
    eq(cp.asarray(x).max(), np.float32(np.nan))
    eq(cp.asarray(x).argmin(), np.argmin(x))
    eq(cp.cumsum(g), np.cumsum(cp.asnumpy(g), dtype="f"), 1e-2)
