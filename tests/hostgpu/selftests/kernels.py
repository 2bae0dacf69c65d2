"""Kernels that a program brings along: how they are compiled and what device code may use."""

import cupy as cp
import numpy as np

from selftests.tools import check, eq, raises, rng, run_child


@check
def elementwise_kernels():
    k = cp.ElementwiseKernel(
        "T x, raw T y, float32 s, int64 n",
        "T z, T w",
        "z = x*s + y[n-1-i]; w = sq(z) + off;",
        "st_ek1",
        preamble="template<class T> __device__ T sq(T v) { return v*v; }",
        loop_prep="float off = 3;",
    )
    x, y = rng.normal(size=(2, 50)).astype("f")
    z, w = k(cp.asarray(x), cp.asarray(y), 2.0, 50)
    eq(z, x * 2 + y[::-1], 1e-6)
    eq(w, (x * 2 + y[::-1]) ** 2 + 3, 1e-5)
    k = cp.ElementwiseKernel("T a, T b", "T o", "o = tanh(a) / ((T)1 + exp(-b)); if (i == 3) o = 0;", "st_ek2")
    a, b = rng.normal(size=(2, 6, 7)).astype("f")
    r = np.tanh(a) / (1 + np.exp(-b))
    r.flat[3] = 0
    o = cp.empty((6, 7), "f")
    k(cp.asarray(a), cp.asarray(b.T.copy()).T, o)
    eq(o, r, 1e-5)
    k = cp.ElementwiseKernel("float16 x, float16 y", "float16 z", "z = x * y + (float16)1.0f", "st_ek3")
    h = a.astype("e")
    eq(k(cp.asarray(h), cp.asarray(h)), (h.astype("f") * h + 1).astype("e"), 2e-3)
    k = cp.ElementwiseKernel(
        "raw float32 x, raw int32 idx", "raw float32 out", "atomicAdd(&out[idx[i]], x[i]);", "st_ek4"
    )
    out = cp.zeros(3, "f")
    k(cp.asarray([1, 2, 3, 4], "f"), cp.asarray([0, 1, 1, 2], "i"), out, size=4)
    eq(out, [1, 5, 4])


@check
def reduction_kernel_and_fuse():
    l2 = cp.ReductionKernel("T x", "T y", "x*x", "a+b", "y = sqrt(a)", "0", "st_l2")
    x = rng.normal(size=(20, 300)).astype("f")
    eq(l2(cp.asarray(x), axis=1), np.sqrt((x * x).sum(1)), 1e-5)
    eq(l2(cp.asarray(x)), np.sqrt((x * x).sum()), 1e-5)

    @cp.fuse()
    def f(x, y):
        return cp.tanh(x) * y + cp.exp(-y)

    @cp.fuse(kernel_name="st_sq")
    def g(x, y):
        return cp.sum((x - y) ** 2)

    x, y = rng.normal(size=(2, 40))
    eq(f(cp.asarray(x), cp.asarray(y)), np.tanh(x) * y + np.exp(-y), 1e-12)
    eq(g(cp.asarray(x), cp.asarray(y)), ((x - y) ** 2).sum(), 1e-12)


RAW = r"""
#include <cuda_fp16.h>
#define KERNEL extern "C" __global__ void
__constant__ float coef[4];
__device__ int counter;
template<typename T, int N> __device__ T blocksum(T v) {
  __shared__ T s[N];
  s[threadIdx.x] = v; __syncthreads();
  for (int o = N/2; o > 0; o >>= 1) { if (threadIdx.x < o) s[threadIdx.x] += s[threadIdx.x+o]; __syncthreads(); }
  return s[0];
}
KERNEL __launch_bounds__(256) bsum(const float* __restrict__ x, float* out, int n) {
  int i = blockIdx.x*256 + threadIdx.x;
  float v = blocksum<float,256>(i < n ? x[i] : 0.f);
  if (threadIdx.x == 0) { out[blockIdx.x] = v*coef[1]; atomicAdd(&counter, 1); }
}
KERNEL dyn(const float* x, float* out, int n) {
  extern __shared__ float sm[];
  sm[threadIdx.x] = x[threadIdx.x]; __syncthreads(); out[threadIdx.x] = sm[n-1-threadIdx.x];
}
KERNEL dynd(const double* x, double* out, int n) {
  extern __shared__ __align__(16) unsigned char raw_[]; double* sm = reinterpret_cast<double*>(raw_);
  sm[threadIdx.x] = x[threadIdx.x]; __syncthreads(); out[threadIdx.x] = sm[n-1-threadIdx.x];
}
namespace ns {
template<typename T> __global__ void scale(T* x, T a, int n) { int i = blockIdx.x*blockDim.x+threadIdx.x; if (i<n) x[i] *= a; }
template<typename T, int K> __global__ void addk(T* x, int n) {
  extern __shared__ T tmp[]; int i = threadIdx.x; tmp[i] = x[i]; __syncthreads(); x[i] = tmp[(i+1)%n] + T(K); }
}
KERNEL wred(const float* x, float* out) {
  float v = x[blockIdx.x*blockDim.x+threadIdx.x];
  for (int o = 16; o; o >>= 1) v += __shfl_down_sync(0xffffffff, v, o);
  __shared__ float s[32]; int w = threadIdx.x/32, l = threadIdx.x%32;
  if (l == 0) s[w] = v; __syncthreads();
  if (w == 0) { v = l < blockDim.x/32 ? s[l] : 0.f;
    for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(0xffffffff, v, o);
    if (l == 0) out[blockIdx.x] = v; }
}
KERNEL vote(int* out) {
  out[threadIdx.x] = (int)__ballot_sync(0xffffffffu, threadIdx.x % 3 == 0);
  int c = __syncthreads_count(threadIdx.x < 5); if (threadIdx.x == 0) out[0] = c;
}
KERNEL halfk(const __half* x, __half* y, int n) { int i = threadIdx.x; if (i < n) y[i] = __hadd(__hmul(x[i], __float2half(2.f)), __float2half(1.f)); }
struct P { float a; int n; double d; };
KERNEL st(P p, float* o) { o[threadIdx.x] = p.a * p.n + p.d; }
"""


@check
def raw_kernels():
    m = cp.RawModule(
        code=RAW,
        options=("-std=c++17",),
        name_expressions=["ns::scale<float>", "ns::scale<double>", "ns::addk<int, 5>"],
    )
    F = m.get_function
    x = rng.normal(size=1000).astype("f")
    g, out = cp.asarray(x), cp.zeros(4, "f")
    cp.ndarray(4, "f", m.get_global("coef")).set(np.array([1, 3, 5, 7], "f"))
    F("bsum")((4,), (256,), (g, out, np.int32(1000)))
    eq(out, 3 * np.pad(x, (0, 24)).reshape(4, 256).sum(1), 1e-4)
    eq(cp.ndarray(1, "i", m.get_global("counter")), [4])
    assert F("bsum").shared_size_bytes == 1024
    o = cp.empty(64, "f")
    F("dyn")((1,), (64,), (g, o, np.int32(64)), shared_mem=256)
    eq(o, x[:64][::-1])
    gd, od = cp.asarray(x.astype("d")), cp.empty(64)
    F("dynd")((1,), (64,), (gd, od, np.int32(64)), shared_mem=512)
    eq(od, x[:64][::-1].astype("d"))
    F("ns::scale<float>")((8,), (128,), (g, np.float32(2), np.int32(1000)))
    eq(g, x * 2)
    F("ns::scale<double>")((8,), (128,), (gd, np.float64(2), np.int32(1000)))
    eq(gd, x.astype("d") * 2)
    gi = cp.arange(32, dtype="i")
    F("ns::addk<int, 5>")((1,), (32,), (gi, np.int32(32)), shared_mem=128)
    eq(gi, (np.arange(32) + 1) % 32 + 5)
    o, g = cp.empty(2, "f"), cp.asarray(x)
    F("wred")((2,), (256,), (g, o))
    eq(o, x[:512].reshape(2, 256).sum(1), 1e-4)
    o = cp.empty(32, "i")
    F("vote")((1,), (32,), (o,))
    eq(o, [5] + [np.uint32(sum(1 << i for i in range(0, 32, 3))).astype("i")] * 31)
    o = cp.empty(10, "e")
    F("halfk")((1,), (32,), (cp.arange(10, dtype="e"), o, np.int32(10)))
    eq(o, np.arange(10) * 2 + 1)
    p = np.zeros(1, np.dtype([("a", "f4"), ("n", "i4"), ("d", "f8")], align=True))
    p["a"], p["n"], p["d"] = 2, 3, 0.5
    o = cp.empty(4, "f")
    F("st")((1,), (4,), (p[0], o))
    eq(o, [6.5] * 4)
    f = F("dyn")
    raises(
        cp.cuda.driver.CUDADriverError,
        "INVALID_VALUE",
        lambda: f((1,), (64,), (g, cp.empty(64, "f"), np.int32(64)), shared_mem=100000),
    )
    f.max_dynamic_shared_size_bytes = 100000
    o = cp.empty(64, "f")
    f((1,), (64,), (g, o, np.int32(64)), shared_mem=100000)
    eq(o, x[:64][::-1])


@check
def cooperative_launch():
    k = cp.RawKernel(
        r"""
    #include <cooperative_groups.h>
    namespace cg = cooperative_groups;
    extern "C" __global__ void gs(float* x, float* y, int n) {
      auto g = cg::this_grid(); __shared__ float s[32]; s[threadIdx.x] = blockIdx.x;
      unsigned i = g.thread_rank(); x[i] = i; g.sync(); y[i] = x[n-1-i] + s[threadIdx.x];
      auto t = cg::tiled_partition<8>(cg::this_thread_block()); float v = t.thread_rank();
      for (int o = 4; o; o /= 2) v += t.shfl_down(v, o);
      g.sync(); if (t.thread_rank() == 0) x[i] = v; }""",
        "gs",
        enable_cooperative_groups=True,
    )
    x, y = cp.zeros(128, "f"), cp.zeros(128, "f")
    k((4,), (32,), (x, y, np.int32(128)))
    eq(y, np.arange(128)[::-1] + np.repeat(np.arange(4), 32))
    eq(x[::8], [28] * 16)


@check
def jit_rawkernel():
    import warnings

    from cupyx import jit

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")

        @jit.rawkernel()
        def k(x, y, n):
            t = jit.blockIdx.x * jit.blockDim.x + jit.threadIdx.x
            if t < n:
                y[t] = x[t] * 2

        x, y = cp.arange(10, dtype="f"), cp.zeros(10, "f")
        k((1,), (32,), (x, y, 10))
    eq(y, np.arange(10) * 2.0)


WMMA = r"""
#include <mma.h>
using namespace nvcuda;
template<class T, class E, class C, int M, int N, int K, class LA, class LB>
__global__ void __launch_bounds__(32) mm(const E* __restrict__ a, const E* __restrict__ b, const C* c, C* d) {
  wmma::fragment<wmma::matrix_a, M, N, K, T, LA> fa; wmma::fragment<wmma::matrix_b, M, N, K, T, LB> fb;
  wmma::fragment<wmma::accumulator, M, N, K, C> fc, acc;
  wmma::load_matrix_sync(fa, a, std::is_same_v<LA, wmma::row_major> ? K : M);
  wmma::load_matrix_sync(fb, b, std::is_same_v<LB, wmma::row_major> ? N : K);
  wmma::load_matrix_sync(fc, c, N, wmma::mem_row_major);
  if constexpr (std::is_same_v<T, wmma::precision::tf32>) {
    for (int i = 0; i < fa.num_elements; i++) fa.x[i] = wmma::__float_to_tf32(fa.x[i]);
    for (int i = 0; i < fb.num_elements; i++) fb.x[i] = wmma::__float_to_tf32(fb.x[i]); }
  wmma::fill_fragment(acc, 0.0f); wmma::mma_sync(acc, fa, fb, acc);
  for (int i = 0; i < acc.num_elements; i++) acc.x[i] = acc.x[i] * (C)2.0f + fc.x[i];
  wmma::store_matrix_sync(d, acc, M, wmma::mem_col_major);
}
extern "C" __global__ void warps(const __half* a, float* d) {       // tiles in shared memory, one product per warp
  __shared__ char odd; __shared__ __half sa[256]; __shared__ float sc[4][256]; int w = threadIdx.x / 32; odd = 1;
  for (int i = threadIdx.x; i < 256; i += blockDim.x) sa[i] = a[i];
  __syncthreads();
  wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::row_major> fa; wmma::fragment<wmma::matrix_b, 16, 16, 16, half, wmma::col_major> fb;
  wmma::fragment<wmma::accumulator, 16, 16, 16, float> c; wmma::fill_fragment(c, (float)w);
  wmma::load_matrix_sync(fa, sa, 16); wmma::load_matrix_sync(fb, sa, 16); wmma::mma_sync(c, fa, fb, c);
  wmma::store_matrix_sync(sc[w], c, 16, wmma::mem_row_major); __syncwarp();
  for (int i = threadIdx.x % 32; i < 256; i += 32) d[w * 256 + i] = sc[w][i] + odd;
}
extern "C" __global__ void i8(const signed char* a, int* d) {
  wmma::fragment<wmma::matrix_a, 16, 16, 16, signed char, wmma::row_major> fa; wmma::fragment<wmma::matrix_b, 16, 16, 16, signed char, wmma::col_major> fb;
  wmma::fragment<wmma::accumulator, 16, 16, 16, int> c; wmma::fill_fragment(c, 0);
  wmma::load_matrix_sync(fa, a, 16); wmma::load_matrix_sync(fb, a, 16); wmma::mma_sync(c, fa, fb, c); wmma::store_matrix_sync(d, c, 16, wmma::mem_row_major);
}
extern "C" __global__ void odd(const __half* a) { wmma::fragment<wmma::matrix_a, 16, 16, 16, __half, wmma::row_major> f; wmma::load_matrix_sync(f, a + 1, 16); }
"""


@check
def wmma():
    def bf16(v):
        u = v.view("u4")
        return ((u + 0x7FFF + (u >> 16 & 1)) >> 16).astype("u2")

    # name: device type, element type, to storage, to value
    types = {
        "half": ("__half", "__half", lambda v: v.astype("e"), lambda v: v.astype("e").astype("d")),
        "bf16": ("__nv_bfloat16", "__nv_bfloat16", bf16, lambda v: (bf16(v).astype("u4") << 16).view("f").astype("d")),
        "tf32": (
            "wmma::precision::tf32",
            "float",
            lambda v: v,
            lambda v: ((v.view("u4") + 0x1000) & 0xFFFFE000).view("f").astype("d"),
        ),
    }
    cases = []
    for t, acc in (("half", "float"), ("half", "__half"), ("bf16", "float"), ("tf32", "float")):
        for shape in [(16, 16, 8)] if t == "tf32" else [(16, 16, 16), (32, 8, 16), (8, 32, 16)]:
            for la, lb in (("row", "row"), ("row", "col"), ("col", "row"), ("col", "col")):
                sizes = ", ".join(map(str, shape))
                name = f"mm<{types[t][0]}, {types[t][1]}, {acc}, {sizes}, wmma::{la}_major, wmma::{lb}_major>"
                cases.append((name, t, acc, shape, la, lb))
    m = cp.RawModule(code=WMMA, options=("-std=c++17",), name_expressions=[c[0] for c in cases])
    for name, t, acc, (M, N, K), la, lb in cases:
        dt = "f" if acc == "float" else "e"
        a, b, c = (
            rng.normal(size=(M, K)).astype("f"),
            rng.normal(size=(K, N)).astype("f"),
            rng.normal(size=(M, N)).astype(dt),
        )
        store, value = types[t][2:]
        ga, gb = store(a if la == "row" else a.T.copy()), store(b if lb == "row" else b.T.copy())
        d = cp.zeros((N, M), dt)
        m.get_function(name)((1,), (32,), (cp.asarray(ga), cp.asarray(gb), cp.asarray(c), d))
        eq(d.T, 2 * (value(a) @ value(b)) + c, 1e-6 if dt == "f" else 4e-3)
    a, d = rng.normal(size=(16, 16)).astype("e"), cp.zeros((4, 16, 16), "f")
    m.get_function("warps")((1,), (128,), (cp.asarray(a), d))
    eq(d, (a.astype("d") @ a.T.astype("d")) + np.arange(1, 5)[:, None, None], 1e-5)
    a, d = rng.integers(-128, 128, (16, 16)).astype("b"), cp.zeros((16, 16), "i")
    m.get_function("i8")((1,), (32,), (cp.asarray(a), d))
    eq(d, a.astype("i") @ a.T.astype("i"))
    child = f'm = cp.RawModule(code={WMMA!r}); m.get_function("odd")((1,), (BLOCK,), (cp.zeros(512, "e"),)); cp.cuda.Device().synchronize()'
    for n, want in ((32, "multiple of 32 bytes"), (16, "fewer than 32")):
        rc, out = run_child((child if n == 32 else child.replace("a + 1", "a")).replace("BLOCK", str(n)))
        assert rc == 1 and want in out, out


@check
def intrinsics():
    k = cp.RawKernel(
        r"""
    #include <cuda_fp16.h>
    #include <cuda_bf16.h>
    #include <cuda_pipeline.h>
    #include <cooperative_groups.h>
    #include <cooperative_groups/reduce.h>
    #include <cooperative_groups/scan.h>
    #include <cuda/std/cmath>
    namespace cg = cooperative_groups;
    extern "C" __global__ void k(const float4* __restrict__ x, const __grid_constant__ int n, float* o, const __half2* h) {
      __shared__ float4 s[32]; int i = threadIdx.x;
      __pipeline_memcpy_async(&s[i], &x[i], sizeof(float4)); __pipeline_commit(); __pipeline_wait_prior(0); __syncthreads();
      float4 v = s[31 - i], w = __ldg(x + i), u = __ldcg(&x[i]);
      o[i] = v.x + w.y * u.z;
      float2 f = __half22float2(__hfma2(h[i], __float22half2_rn(make_float2(2.f, 3.f)), __hadd2(h[i], h[i])));
      o[32 + i] = f.x; o[64 + i] = f.y;
      o[96 + i] = __expf(v.x) + __tanhf(v.y) + __frcp_rn(w.z + 3) + __fdividef(v.x, 3.f) + __fmaf_rn(v.x, v.y, v.z) + rsqrtf(v.w + 1) + __frsqrt_rn(2.f) + cuda::std::sqrt(v.x);
      auto t = cg::tiled_partition<16>(cg::this_thread_block());
      o[128 + i] = cg::reduce(t, (float)i, cg::plus<float>()); o[160 + i] = cg::inclusive_scan(t, (float)i, cg::plus<float>()); o[192 + i] = cg::exclusive_scan(t, (float)i);
      auto g = cg::coalesced_threads(); o[224 + i] = cg::reduce(g, (float)i, cg::greater<float>()) + g.size();
      __half2 q = __halves2half2(__float2half_rz(1.0006f), __float2half_ru(1.0001f)); o[256 + i] = __low2float(q); __stcg(&o[288 + i], __half2float(__high2half(q)));
      __nv_bfloat162 z = __halves2bfloat162(__float2bfloat16(1.f), __float2bfloat16(3.f)); o[320 + i] = __high2float(__hmul2(z, z)) + __hbeq2(z, z) + n;
    }""",
        "k",
    )
    x, h, o = rng.random((32, 4)).astype("f"), rng.random((32, 2)).astype("e"), cp.zeros(352, "f")
    k((1,), (32,), (cp.asarray(x), np.int32(3), o, cp.asarray(h)))
    o, v, i = o.get().reshape(11, 32), x[::-1], np.arange(32.0)
    r = i.reshape(2, 16)
    eq(o[0], v[:, 0] + x[:, 1] * x[:, 2], 1e-5)
    eq(o[1:3], h.T.astype("f") * [[4], [5]], 2e-3)
    eq(
        o[3],
        np.exp(v[:, 0])
        + np.tanh(v[:, 1])
        + 1 / (x[:, 2] + 3)
        + v[:, 0] / 3
        + v[:, 0] * v[:, 1]
        + v[:, 2]
        + (v[:, 3] + 1) ** -0.5
        + 2**-0.5
        + v[:, 0] ** 0.5,
        1e-5,
    )
    eq(o[4:8], [np.repeat(r.sum(1), 16), r.cumsum(1).ravel(), (r.cumsum(1) - r).ravel(), np.full(32, 63.0)])
    eq(o[8:, 0], np.array([1, 1 + 2**-10, 13], "f"))


@check
def spinning_threads():
    # a grid barrier made by hand: one thread of each block spins until all have arrived
    code = """
    #include <cuda/atomic>
    __device__ unsigned bar;
    __device__ void gsync(unsigned goal) { __syncthreads(); if (threadIdx.x == 0) { __threadfence(); atomicAdd(&bar, 1); while (LOAD < goal * gridDim.x) ; } __syncthreads(); }
    extern "C" __global__ void k(float* h, int T) {
      int i = blockIdx.x * blockDim.x + threadIdx.x, n = gridDim.x * blockDim.x;
      for (int t = 0; t < T; ++t) { float v = h[(t & 1) * n + (i + 17) % n]; h[((t + 1) & 1) * n + i] = v + 1; gsync(t + 1); }
    }"""
    for load in (
        "*(volatile unsigned*)&bar",
        "atomicAdd(&bar, 0)",
        "(cuda::atomic_ref<unsigned, cuda::thread_scope_device>(bar).load(cuda::memory_order_acquire))",
    ):
        k = cp.RawKernel(code.replace("LOAD", load), "k", enable_cooperative_groups=True)
        h = cp.zeros((2, 256), "f")
        k((4,), (64,), (h, np.int32(20)))
        eq(h[0], np.full(256, 20.0))
    k = cp.RawKernel(
        'extern "C" __global__ void k(volatile int* f) { if (threadIdx.x == 0) while (!*f) ; else if (threadIdx.x == 40) *f = 1; __syncthreads(); }',
        "k",
    )
    k((2,), (64,), (cp.zeros(1, "i"),))
    rc, out = run_child(
        'cp.RawKernel("""extern "C" __global__ void k(volatile int* f) { while (!*f) ; }""", "k")((2,), (64,), (cp.zeros(1, "i"),)); cp.cuda.Device().synchronize()',
        {"HOSTGPU_TIMEOUT": "1"},
    )
    assert rc == 1 and ("LAUNCH_TIMEOUT" in out or "LaunchTimeout" in out) and "launched cooperatively" in out, out


@check
def lstm_layer():
    T, B, I, H = 9, 3, 5, 8
    X = rng.normal(size=(T, B, I)).astype("f")
    Wx, Wh = (rng.normal(size=(n, 4 * H)).astype("f") * 0.3 for n in (I, H))
    bias = rng.normal(size=4 * H).astype("f") * 0.1
    gate = cp.ElementwiseKernel(
        "raw T z, T c0, int32 H",
        "T c, T h",
        """int b = i / H, j = i % H; const T* r = &z[b*4*H];
           T ig = sg(r[j]), f = sg(r[H+j]), g = tanh(r[2*H+j]), o = sg(r[3*H+j]);
           c = f*c0 + ig*g; h = o*tanh(c);""",
        "st_lstm_gate",
        preamble="template<class T> __device__ T sg(T v) { return T(1)/(T(1)+exp(-v)); }",
    )
    gWh = cp.asarray(Wh)
    P = (cp.asarray(X).reshape(T * B, I) @ cp.asarray(Wx) + cp.asarray(bias)).reshape(T, B, 4 * H)
    h, c, z = cp.zeros((B, H), "f"), cp.zeros((B, H), "f"), cp.empty((B, 4 * H), "f")
    out = cp.empty((T, B, H), "f")
    for t in range(T):
        cp.matmul(h, gWh, out=z)
        z += P[t]
        gate(z, c, H, c, h)
        out[t] = h

    def sg(v):
        return 1 / (1 + np.exp(-v))

    hh, cc, ref = np.zeros((B, H)), np.zeros((B, H)), []
    for t in range(T):
        i, f, g, o = np.split(X[t] @ Wx + hh @ Wh + bias, 4, 1)
        cc = sg(f) * cc + sg(i) * np.tanh(g)
        hh = sg(o) * np.tanh(cc)
        ref.append(hh)
    eq(out, np.array(ref), 1e-5)
