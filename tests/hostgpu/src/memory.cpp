// Memory of devices and pinned memory of the host: allocations, copies, memsets.
#include "memory.h"
#include "streams.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <algorithm>

struct Alloc { size_t size, map_size; uintptr_t map_base; bool managed; int dev; };
uintptr_t va_base, va_end;
static uintptr_t va_cur;
static std::map<uintptr_t, Alloc> g_dev;        // by user pointer
static std::map<uintptr_t, Alloc> g_maps;       // by mapping base (for the gap search)
std::map<uintptr_t, Range> g_modmem;
static std::map<uintptr_t, Range> g_pinned; // host memory known to CUDA
static size_t g_used[kMaxDev], g_high[kMaxDev];

static bool va_init() {
  if (va_base) return true;
  for (size_t sz = (size_t)1 << 40; sz >= ((size_t)1 << 34); sz >>= 1) {
    void* p = mmap((void*)0x7a0000000000ull, sz, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p != MAP_FAILED) { va_base = (uintptr_t)p; va_end = va_base + sz; va_cur = va_base + (1 << 21); return true; }
  }
  return false;
}
template <class M> static typename M::const_iterator find_range(const M& m, uintptr_t p) {
  auto it = m.upper_bound(p);
  if (it == m.begin()) return m.end();
  return --it;
}
Ptr look(const void* q) {
  uintptr_t p = (uintptr_t)q;
  auto it = find_range(g_dev, p);
  if (it != g_dev.end() && p < it->first + it->second.size) return Ptr{it->second.managed ? 3 : 2, it->second.dev, it->first + it->second.size - p};
  if (p >= va_base && p < va_end) return Ptr();
  for (auto* m : {&g_modmem, &g_pinned}) {
    auto jt = find_range(*m, p);
    if (jt != m->end() && p < jt->first + jt->second.size) return Ptr{m == &g_modmem ? 2 : 1, jt->second.dev, jt->first + jt->second.size - p};
  }
  return Ptr();
}
API int hg_ptr_kind(const void* p) { Lock l; return look(p).kind; }
bool foreign(int dev, const Ptr& p) { return p.kind == 2 && p.dev != dev && !g_peer[dev][p.dev]; }
API int hg_usable(int dev, const void* p, const char* what) {
  Lock l;
  Ptr a = look(p);
  if (!a.kind) a = look((const char*)p - 1);                  // the end of an allocation: an empty operand
  if (!p || (a.kind && !foreign(dev, a))) return 1;
  if (!a.kind) hg_log("%s: %p is not device memory", what, p);
  else hg_log("%s: %p is memory of device %d; the work runs on device %d, which has no peer access to it", what, p, a.dev, dev);
  return 0;
}
static int dev_malloc(void** out, size_t n, bool managed, int dev) {
  *out = nullptr;
  if (n == 0) return 0;
  if (n > total_mem() || g_used[dev] + n > total_mem()) return HG_ENOMEM;
  if (!va_init()) return HG_ENOMEM;
  size_t ms = (n + kPage - 1) / kPage * kPage, span = ms + kPage;   // one page stays closed behind it
  uintptr_t at = 0;
  for (int pass = 0; pass < 2 && !at; ++pass) {
    uintptr_t c = va_cur;
    for (auto it = g_maps.lower_bound(c);; ++it) {
      uintptr_t lim = it == g_maps.end() ? va_end : it->first;
      if (c + span <= lim) { at = c; break; }
      if (it == g_maps.end()) break;
      c = it->first + it->second.map_size + kPage;
    }
    if (!at) va_cur = va_base + (1 << 21);
  }
  if (!at) return HG_ENOMEM;
  if (mprotect((void*)at, ms, PROT_READ | PROT_WRITE)) return HG_ENOMEM;
  va_cur = at + span;
  uintptr_t user = at;
  if (kMemcheck) user = at + ms - (n + 15) / 16 * 16;               // end of the block next to the closed page
  Alloc a{n, ms, at, managed, dev};
  g_dev[user] = a; g_maps[at] = a;
  g_used[dev] += n; g_high[dev] = std::max(g_high[dev], g_used[dev]);
  g_stats.bytes_malloc += n;
  if (kPoison && (kPoison > 0 || ms <= ((size_t)64 << 20))) memset((void*)at, 0xff, ms);
  *out = (void*)user;
  return 0;
}
static int dev_free(void* p) {
  if (!p) return 0;
  auto it = g_dev.find((uintptr_t)p);
  if (it == g_dev.end()) { hg_log("free of a pointer that is not a device allocation: %p", p); return HG_EINVAL; }
  Alloc a = it->second;
  g_dev.erase(it); g_maps.erase(a.map_base);
  g_used[a.dev] -= a.size;
  mmap((void*)a.map_base, a.map_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  return 0;
}

API int cudaMalloc(void** p, size_t n) { L0; if (int e = unsafe_check("cudaMalloc")) return ret(e); ++g_stats.mallocs; if (fails("malloc")) { *p = nullptr; return ret(HG_ENOMEM); } return ret(dev_malloc(p, n, false, t_dev)); }
API int cudaMallocManaged(void** p, size_t n, unsigned) { L0; ++g_stats.mallocs; return ret(dev_malloc(p, n, true, t_dev)); }
API int cudaFree(void* p) {
  Lock l;
  if (int e = unsafe_check("cudaFree")) return ret(e);
  if (!p) return ret(0);
  ++g_stats.frees; ++g_stats.sync_implicit;
  if (g_caps.empty()) flush_all();
  return ret(dev_free(p));
}
static char g_pool[kMaxDev]; static std::map<void*, std::map<int, uint64_t>> g_pool_attr;
static int pool_dev(void* p) { return p >= (void*)g_pool && p < (void*)(g_pool + kMaxDev) ? (int)((char*)p - g_pool) : t_dev; }
static int malloc_async(void** p, size_t n, HgStream s, int dev) {
  L0; Stream* st = get_stream(s); if (!st) return ret(HG_EBADHANDLE);
  if (st->cap) { hg_log("cudaMallocAsync inside a capture is not simulated"); return ret(HG_ENOTSUP); }
  ++g_stats.mallocs_async;
  if (fails("malloc")) { *p = nullptr; return ret(HG_ENOMEM); }
  return ret(dev_malloc(p, n, false, dev < 0 ? st->dev : dev));
}
API int cudaMallocAsync(void** p, size_t n, HgStream s) { return malloc_async(p, n, s, -1); }
API int cudaMallocFromPoolAsync(void** p, size_t n, void* pool, HgStream s) { return malloc_async(p, n, s, pool_dev(pool)); }
API int cudaFreeAsync(void* p, HgStream s) { Lock l; ++g_stats.frees_async; return ret(submit(s, "cudaFreeAsync", OP_OTHER, nullptr, [=] { return dev_free(p); })); }
API int cudaDeviceGetDefaultMemPool(void** p, int d) { if (no_dev(d)) return ret(HG_EBADDEV); *p = &g_pool[d]; return 0; }
API int cudaDeviceGetMemPool(void** p, int d) { return cudaDeviceGetDefaultMemPool(p, d); }
API int cudaDeviceSetMemPool(int, void*) { return 0; }
API int cudaMemPoolTrimTo(void*, size_t) { return 0; }
API int cudaMemPoolCreate(void** p, const void*) { *p = new char; return 0; }
API int cudaMemPoolDestroy(void* p) { if (p < (void*)g_pool || p >= (void*)(g_pool + kMaxDev)) delete (char*)p; return 0; }
API int cudaMemPoolGetAttribute(void* p, int a, void* v) {
  Lock l;
  int dev = pool_dev(p);
  if (a <= 3) *(int*)v = (int)g_pool_attr[p][a];
  else if (a == 4) *(uint64_t*)v = g_pool_attr[p][a];
  else *(uint64_t*)v = (a == 6 || a == 8) ? g_high[dev] : g_used[dev];
  return 0;
}
API int cudaMemPoolSetAttribute(void* p, int a, void* v) { Lock l; g_pool_attr[p][a] = a <= 3 ? (uint64_t)*(int*)v : *(uint64_t*)v; return 0; }
API int cudaMemGetInfo(size_t* f, size_t* t) { L0; *t = total_mem(); *f = *t - g_used[t_dev]; return 0; }
API int cudaHostAlloc(void** p, size_t n, unsigned) {
  L0;
  ++g_stats.mallocs_pinned;
  if (fails("malloc_pinned")) { *p = nullptr; return ret(HG_ENOMEM); }
  if (posix_memalign(p, 4096, n ? n : 1)) return ret(HG_ENOMEM);
  g_pinned[(uintptr_t)*p] = Range{n ? n : 1, t_dev};
  return 0;
}
API int cudaMallocHost(void** p, size_t n) { return cudaHostAlloc(p, n, 0); }
API int cudaFreeHost(void* p) {
  Lock l;
  if (!p) return 0;
  if (!g_pinned.erase((uintptr_t)p)) return ret(HG_EINVAL);
  ++g_stats.frees_pinned; ++g_stats.sync_implicit;
  if (g_caps.empty()) flush_all();
  free(p);
  return 0;
}
API int cudaHostRegister(void* p, size_t n, unsigned) { L0; if (look(p).kind == 1) return ret(712); g_pinned[(uintptr_t)p] = Range{n, t_dev}; return 0; }
API int cudaHostUnregister(void* p) { L0; return ret(g_pinned.erase((uintptr_t)p) ? 0 : 713); }
API int cudaHostGetDevicePointer(void** d, void* h, unsigned) { L0; if (look(h).kind != 1) return ret(HG_EINVAL); *d = h; return 0; }
struct PtrAttr { int type, device; void *dev, *host; };
API int cudaPointerGetAttributes(PtrAttr* a, const void* p) {
  L0;
  Ptr r = look(p); int k = r.kind;
  a->type = k; a->device = k ? r.dev : -2;
  a->dev = k ? (void*)p : nullptr; a->host = k == 2 ? nullptr : (void*)p;
  return 0;
}
static int copy_check(void* d, const void* s, size_t n, int kind, const char* what) {
  if (!n) return 0;
  Ptr pd = look(d), ps = look(s);
  auto dev = [n](const Ptr& p) { return p.kind && p.extent >= n; };                // device memory, or host memory that is mapped there
  auto host = [](const Ptr& p, const void* q) { return p.kind != 2 && !(p.kind == 0 && (uintptr_t)q >= va_base && (uintptr_t)q < va_end); };
  bool dd = dev(pd), sd = dev(ps), dh = host(pd, d), sh = host(ps, s);
  bool ok = kind == 0 ? dh && sh : kind == 1 ? dd && sh : kind == 2 ? dh && sd : kind == 3 ? dd && sd : kind == 4 ? (dd || dh) && (sd || sh) : false;
  if (!ok) hg_log("%s: dst %p (%s) src %p (%s) %zu bytes kind %d is not a valid copy", what, d, dd ? "device" : "host or too short", s, sd ? "device" : "host or too short", n, kind);
  return ok ? 0 : HG_EINVAL;
}
static int copy_count(const void* d, const void* s, size_t n) {      // returns 0 h2h, 1 h2d, 2 d2h, 3 d2d, 4 between devices
  Ptr a = look(d), b = look(s);
  int k = (a.kind >= 2 ? 1 : 0) | (b.kind >= 2 ? 2 : 0);
  if (k == 3 && a.dev != b.dev) k = 4;
  uint64_t* c[5][2] = {{&g_stats.copies_h2h, &g_stats.bytes_h2h}, {&g_stats.copies_h2d, &g_stats.bytes_h2d}, {&g_stats.copies_d2h, &g_stats.bytes_d2h},
                       {&g_stats.copies_d2d, &g_stats.bytes_d2d}, {&g_stats.copies_p2p, &g_stats.bytes_p2p}};
  ++*c[k][0]; *c[k][1] += n;
  return k;
}
static int copy_async(void* d, const void* s, size_t n, int kind, HgStream st, const char* what, bool blocking) {
  Lock l;
  if (g_sticky) return g_sticky;
  if (int e = copy_check(d, s, n, kind, what)) return e;
  Stream* q = get_stream(st);
  if (!q) return HG_EBADHANDLE;
  auto copy = [=] { memmove(d, s, n); return 0; };
  if (q->cap) return submit(st, what, OP_COPY, nullptr, copy);
  int way = copy_count(d, s, n), e;
  bool from_page = way == 1 && !look(s).kind, to_page = way == 2 && !look(d).kind;
  if (kLazy && from_page) {                               // from pageable memory: staged at the call
    auto tmp = std::make_shared<std::vector<char>>((const char*)s, (const char*)s + n);
    e = submit(st, what, OP_COPY, nullptr, [=] { memcpy(d, tmp->data(), n); return 0; });
  } else e = submit(st, what, OP_COPY, nullptr, copy);
  if (e) return e;
  if (blocking && way < 3) return hg_stream_wait(st);     // between device addresses even cudaMemcpy does not wait
  if (to_page) return hg_stream_wait(st);                 // to pageable memory: done at return
  return blocking ? stream_sync(st) : 0;
}
API int cudaMemcpyAsync(void* d, const void* s, size_t n, int k, HgStream st) { return ret(copy_async(d, s, n, k, st, "cudaMemcpyAsync", false)); }
API int cudaMemcpy(void* d, const void* s, size_t n, int k) {
  Lock l;
  if (int e = unsafe_check("cudaMemcpy")) return ret(e);
  return ret(copy_async(d, s, n, k, nullptr, "cudaMemcpy", true));
}
static int peer_check(void* d, int dd, const void* s, int sd) {
  if (no_dev(dd) || no_dev(sd)) return HG_EBADDEV;
  Ptr a = look(d), b = look(s);
  if (a.kind >= 2 && b.kind >= 2 && a.dev == dd && b.dev == sd) return 0;
  hg_log("cudaMemcpyPeer: %p is not memory of device %d, or %p not of device %d", d, dd, s, sd);
  return HG_EINVAL;
}
API int cudaMemcpyPeer(void* d, int dd, const void* s, int sd, size_t n) { Lock l; if (int e = peer_check(d, dd, s, sd)) return ret(e); flush_device(sd); flush_device(dd); return cudaMemcpy(d, s, n, 3); }
API int cudaMemcpyPeerAsync(void* d, int dd, const void* s, int sd, size_t n, HgStream st) { Lock l; if (int e = peer_check(d, dd, s, sd)) return ret(e); return cudaMemcpyAsync(d, s, n, 3, st); }
API int cudaMemcpy2DAsync(void* d, size_t dp, const void* s, size_t sp, size_t w, size_t h, int k, HgStream st) {
  Lock l;
  if (!w || !h) return 0;
  if (w > dp || w > sp) return ret(12);
  if (int e = copy_check(d, s, w, k, "cudaMemcpy2D")) return ret(e);
  if (int e = copy_check((char*)d + (h - 1) * dp, (const char*)s + (h - 1) * sp, w, k, "cudaMemcpy2D")) return ret(e);
  if (!stream_capturing(st)) copy_count(d, s, w * h);
  return ret(submit(st, "cudaMemcpy2D", OP_COPY, nullptr, [=] { for (size_t i = 0; i < h; ++i) memmove((char*)d + i * dp, (const char*)s + i * sp, w); return 0; }));
}
API int cudaMemcpy2D(void* d, size_t dp, const void* s, size_t sp, size_t w, size_t h, int k) { Lock l; int e = cudaMemcpy2DAsync(d, dp, s, sp, w, h, k, nullptr); return e ? e : ret(hg_stream_wait(nullptr)); }
API int cudaMemsetAsync(void* p, int v, size_t n, HgStream s) {
  Lock l;
  Ptr r = look(p);
  if (n && (!r.kind || r.extent < n)) { hg_log("cudaMemset: %p + %zu is not device memory", p, n); return ret(HG_EINVAL); }
  if (!stream_capturing(s)) g_stats.bytes_memset += n;
  return ret(submit(s, "cudaMemset", OP_MEMSET, nullptr, [=] { memset(p, v, n); return 0; }));
}
API int cudaMemset(void* p, int v, size_t n) { return cudaMemsetAsync(p, v, n, nullptr); }
API int cudaMemPrefetchAsync(const void*, size_t, int d, HgStream) { return ret(d == -1 || !no_dev(d) ? 0 : HG_EBADDEV); }
API int cudaMemAdvise(const void*, size_t, int a, int) { return ret(a >= 1 && a <= 6 ? 0 : HG_EINVAL); }
