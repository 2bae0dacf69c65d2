// CuPy's whole-array reductions and scans come from CUB kernels embedded in an extension module as GPU machine code,
// and it takes them for contiguous arrays on a GPU.  These host functions take their place (found by patch.cpp).
// Floating-point sums are taken in blocks: another order than that of CuPy's own reduction kernels, as on a GPU.
#include "core.h"
#include "device_types.h"
#include <algorithm>

#define PUB __attribute__((visibility("default")))
enum { CUB_SUM, CUB_MIN, CUB_MAX, CUB_ARGMIN, CUB_ARGMAX, CUB_CUMSUM, CUB_CUMPROD, CUB_PROD };
template <class T> struct KeyValue { int key; T value; };                      // cub::KeyValuePair<int, T>
template <class T> using Sum = std::conditional_t<std::is_same<T, Half>::value, float, T>;

template <class T> static T combine(int op, const T& a, const T& b) {
  if (op == CUB_SUM || op == CUB_CUMSUM) return a + b;
  if (op == CUB_PROD || op == CUB_CUMPROD) return a * b;
  if (is_nan(a)) return a;
  if (is_nan(b)) return b;
  return op == CUB_MIN ? (less_(b, a) ? b : a) : (less_(a, b) ? b : a);
}
template <class T> static T reduced(int op, const T* x, size_t n) {
  using S = Sum<T>;
  if (!n) return (T)(S)(op == CUB_PROD ? 1 : 0);
  const size_t block = 256;
  S total{};
  for (size_t i = 0; i < n; i += block) {
    S part = (S)x[i];
    for (size_t k = i + 1; k < std::min(n, i + block); ++k) part = combine<S>(op, part, (S)x[k]);
    total = i ? combine<S>(op, total, part) : part;
  }
  return (T)total;
}
static void check(int e) { if (e) throw std::runtime_error("hostgpu: reduction failed"); }

PUB size_t cub_device_reduce_get_workspace_size(void*, void*, int, struct CUstream_st*, int, int) { return 1; }
PUB size_t cub_device_segmented_reduce_get_workspace_size(void*, void*, int, int, struct CUstream_st*, int, int) { return 1; }
PUB size_t cub_device_scan_get_workspace_size(void*, void*, int, struct CUstream_st*, int, int) { return 1; }
PUB void cub_device_segmented_reduce(void*, size_t&, void* x, void* y, int segments, int size, struct CUstream_st* stream, int op, int dtype) {
  by_dtype(dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    check(hg_submit((HgStream)stream, "cub segmented reduce", [=] {
      for (int i = 0; i < segments; ++i) ((T*)y)[i] = reduced(op, (const T*)x + (size_t)i * size, (size_t)size);
      return 0;
    }));
  });
}
PUB void cub_device_reduce(void*, size_t&, void* x, void* y, int n, struct CUstream_st* stream, int op, int dtype) {
  by_dtype(dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    check(hg_submit((HgStream)stream, "cub reduce", [=] {
      const T* q = (const T*)x;
      if (op != CUB_ARGMIN && op != CUB_ARGMAX) { *(T*)y = reduced(op, q, (size_t)n); return 0; }
      int best = 0;
      for (int i = 1; i < n && !is_nan(q[best]); ++i) if (is_nan(q[i]) || (op == CUB_ARGMIN ? less_(q[i], q[best]) : less_(q[best], q[i]))) best = i;
      *(KeyValue<T>*)y = KeyValue<T>{best, q[best]};
      return 0;
    }));
  });
}
PUB void cub_device_scan(void*, size_t&, void* x, void* y, int n, struct CUstream_st* stream, int op, int dtype) {
  by_dtype(dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    using S = Sum<T>;
    check(hg_submit((HgStream)stream, "cub scan", [=] {
      S sum{};
      for (int i = 0; i < n; ++i) { sum = i ? combine<S>(op, sum, (S)((const T*)x)[i]) : (S)((const T*)x)[i]; ((T*)y)[i] = (T)sum; }
      return 0;
    }));
  });
}
