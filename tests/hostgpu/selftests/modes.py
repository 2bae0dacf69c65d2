"""Errors that are reported, and the switches of the simulator."""

import cupy as cp
import cupyx

import hostgpu
from selftests.tools import check, raises, run_child, settle


@check
def compile_and_launch_errors():
    raises(
        cp.cuda.compiler.CompileException,
        "foo",
        lambda: cp.RawKernel('extern "C" __global__ void k() { foo(); }', "k").compile(),
    )
    k = cp.RawKernel('extern "C" __global__ void k2(float* p) { p[0] = 1; }', "k2")
    raises(cp.cuda.driver.CUDADriverError, "INVALID_VALUE", lambda: k((1,), (2048,), (cp.zeros(1, "f"),)))
    k = cp.RawKernel("__global__ void k3(float* p) { p[0] = 1; }", "k3")  # not extern "C"
    raises(cp.cuda.driver.CUDADriverError, "NOT_FOUND", lambda: k((1,), (1,), (cp.zeros(1, "f"),)))


@check
def crashes_are_reported():
    rk = 'k = cp.RawKernel(r"""extern "C" __global__ void k(float* p, float* q) { %s }""", "k")\n'
    for body, call, want, env in (
        ("p[1 << 28] = 1;", 'k((1,),(32,),(cp.zeros(4,"f"), cp.zeros(4,"f")))', "illegal address", {}),
        ("*(float*)16 = 1;", 'k((1,),(32,),(cp.zeros(4,"f"), cp.zeros(4,"f")))', "not device memory", {}),
        ("p[0] = 1;", 'k((1,),(1,),(np.zeros(4,"f").ctypes.data, cp.zeros(4,"f")))', "not device memory", {}),
        (
            "if (threadIdx.x & 1) __syncthreads(); else __syncwarp(0x55555555u | 2u);",
            'k((1,),(32,),(cp.zeros(4,"f"), cp.zeros(4,"f")))',
            "deadlock",
            {},
        ),
        (
            "extern __shared__ float s[]; s[threadIdx.x] = 1;",
            'k((1,),(32,),(cp.zeros(4,"f"), cp.zeros(4,"f")), shared_mem=64)',
            "shared memory",
            {},
        ),
        (
            "p[4] = 1;",
            'cp.cuda.set_allocator(None); k((1,),(1,),(cp.zeros(4,"f"), cp.zeros(4,"f")))',
            "out of bounds",
            {"HOSTGPU_MEMCHECK": "1"},
        ),
    ):
        rc, out = run_child(rk % body + call + "; cp.cuda.Device().synchronize()", env)
        assert rc == 1 and want in out and ("CUDADriverError" in out or "CUDARuntimeError" in out), (
            body,
            rc,
            out[-1500:],
        )


@check
def race_finders():
    # a missing __syncthreads shows when the thread order changes
    code = '''
k = cp.RawKernel(r"""extern "C" __global__ void k(const float* x, float* y) {
  __shared__ float s[64]; s[threadIdx.x] = x[threadIdx.x]; y[threadIdx.x] = threadIdx.x ? s[threadIdx.x-1] : 0; }""", "k")
x = cp.arange(64, dtype='f'); y = cp.zeros(64, 'f'); k((1,), (64,), (x, y))
print('same' if (y.get()[1:] == np.arange(63)).all() else 'differs')
'''
    plain = {"HOSTGPU_SCHED": "", "HOSTGPU_LAZY": ""}
    assert run_child(code, plain)[1].strip() == "same"
    assert run_child(code, {"HOSTGPU_SCHED": "reverse"})[1].strip() == "differs"
    # a missing wait between streams shows when work is only done on demand
    code = """
s = cp.cuda.Stream(non_blocking=True); x = cp.zeros(4); cp.cuda.Device().synchronize()
with s: x += 1
print('same' if x.get()[0] == 1 else 'differs')
"""
    assert run_child(code, plain)[1].strip() == "same"
    assert run_child(code, {"HOSTGPU_LAZY": "1"})[1].strip() == "differs"


@check
def counters():
    s = cp.cuda.Stream(non_blocking=True)
    x, y = cp.ones((8, 8), "f"), cp.empty((8, 8), "f")
    pinned = cupyx.zeros_pinned((8, 8), "f")
    k = cp.ElementwiseKernel("T a", "T b", "b = a * 2", "st_cnt")
    k(x, y), x @ x, s.synchronize()  # compile, create handles
    settle()
    with hostgpu.counting() as c:
        for _ in range(3):
            k(x, y)
        y.fill(0)  # a memset
        y.data.memset(0, 256)
        x @ x
    assert (
        c["launches"] == 3 and c["kernels"] == {"st_cnt": 3} and c["blas"] == 1 and list(c["calls"].values()) == [1]
    ), c
    assert c["memsets"] == 2 and c["bytes_memset"] == 512
    assert c["sync_stream"] == c["sync_implicit"] == c["copies_d2h"] == c["mallocs"] == 0
    with hostgpu.counting() as c:
        y.get()  # pageable: blocks
        y.data.copy_to_host_async(pinned.ctypes.data, 256, s)
        x.data.copy_from_host_async(pinned.ctypes.data, 128, s)
        cp.cuda.runtime.memcpy(y.data.ptr, x.data.ptr, 64, 3)
        s.synchronize()
        e = s.record()
        e.synchronize()
        cp.cuda.Stream.null.wait_event(e)
        cp.cuda.Device().synchronize()
        assert s.done
    assert (
        (c["copies_d2h"], c["bytes_d2h"]) == (2, 512)
        and (c["copies_h2d"], c["bytes_h2d"]) == (1, 128)
        and (c["copies_d2d"], c["bytes_d2d"]) == (1, 64)
    )
    assert (
        c["sync_implicit"] == 1
        and c["sync_stream"] == 2
        and c["sync_event"] == 1
        and c["sync_device"] == 1
        and c["queries"] == 1
    )
    assert c["event_records"] == 1 and c["event_waits"] == 1
    with hostgpu.counting() as c:
        p = cp.cuda.runtime.malloc(1000)
        cp.cuda.runtime.free(p)
        p = cp.cuda.runtime.mallocAsync(500, s.ptr)
        cp.cuda.runtime.freeAsync(p, s.ptr)
    assert (c["mallocs"], c["frees"], c["mallocs_async"], c["frees_async"], c["bytes_malloc"]) == (1, 1, 1, 1, 1500)
    with s:
        s.begin_capture()
        k(x, y)
        k(y, y)
        y.data.memset_async(0, 256, s)
        g = s.end_capture()
    with hostgpu.counting() as c:
        for _ in range(5):
            g.launch(s)
    assert (
        c["launches"] == 0
        and c["graph_launches"] == 5
        and c["graph_nodes"] == 15
        and c["graph_kernels"] == 10
        and c["graph_memsets"] == 5
    )
    assert c["graph_kernels_by_name"] == {"st_cnt": 10} and not c["kernels"]
    hostgpu.reset_stats()
    assert hostgpu.stats()["launches"] == 0 and not hostgpu.stats()["kernels"]
    rc, out = run_child("cp.arange(3) + 1", {"HOSTGPU_STATS": "1"})
    assert rc == 0 and "launches " in out and "cupy_add__int64_int_int64" in out, out


@check
def null_mode():
    code = """
import hostgpu
x = cp.asarray(np.ones((4, 4))); s = cp.cuda.Stream(non_blocking=True)
with s:
    x + 1
    s.begin_capture(); y = x + 1; g = s.end_capture(); g.launch(s)
z = x @ x
s.synchronize()
c = hostgpu.stats()
print(x.get().sum(), z.get().sum(), y.get().sum(), c['launches'], c['blas'], c['graph_kernels'])
"""
    assert run_child(code)[1].split() == ["16.0", "64.0", "32.0", "1", "1", "1"]
    # copies happen; kernels, replays and products do not, and unset memory is zero
    null = {"HOSTGPU_NULL": "1", "HOSTGPU_POISON": ""}
    assert run_child(code, null)[1].split() == ["16.0", "0.0", "0.0", "1", "1", "1"]


@check
def poison():
    old = cp.cuda.get_allocator()
    cp.cuda.set_allocator(None)
    assert bool(cp.isnan(cp.empty(100, "f")).all()) and bool(cp.isnan(cp.empty(100, "e")).all())
    cp.cuda.set_allocator(old)
    cp.zeros(100)  # back in the pool: its zeros would be seen again
    with hostgpu.poisoned_pool():
        assert bool(cp.isnan(cp.empty(100)).all())
    k = cp.RawKernel(
        r"""extern "C" __global__ void k(float* o) { __shared__ float s[64]; extern __shared__ float d[];
      o[blockIdx.x * 2] = s[5]; o[blockIdx.x * 2 + 1] = d[3]; __syncthreads(); s[threadIdx.x] = d[threadIdx.x] = 1; }""",
        "k",
    )
    o = cp.zeros(6, "f")
    k((3,), (64,), (o,), shared_mem=256)
    assert bool(cp.isnan(o).all())
    code = 'cp.cuda.set_allocator(None); print(int(cp.isnan(cp.empty(1 << 25, "f")).any()))'
    assert [run_child(code, {"HOSTGPU_POISON": v})[1].strip() for v in "01"] == ["0", "1"]


@check
def several_devices():
    code = """
rt = cp.cuda.runtime
assert rt.getDeviceCount() == 3 and rt.deviceCanAccessPeer(0, 1) == 1
a = cp.arange(4.); e0 = cp.cuda.Event()
with cp.cuda.Device(1):
    b = cp.arange(4.) * 2
    s = cp.cuda.Stream(non_blocking=True); cp.cuda.Device().synchronize()
    with s: c = b @ b.reshape(4, 1)
    s.synchronize()
    assert b.device.id == c.device.id == 1 and rt.pointerGetAttributes(b.data.ptr).device == 1 and float(c[0]) == 56
    d = cp.empty(4); rt.memcpyPeer(d.data.ptr, 1, a.data.ptr, 0, 32)
    assert d.get().tolist() == [0, 1, 2, 3] and cp.asarray(a).device.id == 1
    free = rt.memGetInfo()[0]; p = rt.malloc(1 << 20); assert rt.memGetInfo()[0] == free - (1 << 20)
    for bad in (lambda: rt.memcpyPeer(d.data.ptr, 1, d.data.ptr, 0, 32), lambda: e0.record(s)):
        try: bad()
        except rt.CUDARuntimeError as e: print(e)
k = cp.RawKernel('extern "C" __global__ void k(double* p) { p[0] = 9; }', 'k')
cp.cuda.Device(2).use()
rt.deviceEnablePeerAccess(1); k((1,), (1,), (b,)); cp.cuda.Device().synchronize(); assert float(b[0]) == 9
rt.deviceDisablePeerAccess(1); k((1,), (1,), (b,))
"""
    rc, out = run_child(code, {"HOSTGPU_DEVICES": "3"})
    assert (
        rc == 1
        and "invalid argument" in out
        and "invalid resource handle" in out
        and "has no peer access" in out
        and "ILLEGAL_ADDRESS" in out
    ), out


@check
def unsupported_says_so():
    rc, out = run_child("cp.random.default_rng(0).standard_normal(3); cp.cuda.Device().synchronize()")
    assert (
        rc == 1 and "cupy.random.default_rng" in out.splitlines()[-1] and "hostgpu simulator" in out.splitlines()[-1]
    ), out
