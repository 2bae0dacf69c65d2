// Launching kernels: blocks one after another or together, faults, spinning threads.
#include "memory.h"
#include "streams.h"
#include "threads.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <algorithm>

static void on_fault(int sig, siginfo_t* si, void*) {
  if (!g_in_kernel) { signal(sig, SIG_DFL); return; }
  g_in_kernel = 0;
  char* a = (char*)si->si_addr;
  HgDim t = *E->d->tid, b = *E->d->bid;
  const char* why = "illegal address";
  g_fault_code = HG_EILLADDR;
  if (sig == SIGFPE) { why = "integer division trap (a GPU would go on with an arbitrary value), at"; g_fault_code = HG_ELAUNCH; }
  if (sig == SIGILL) { why = "illegal instruction at"; g_fault_code = 715; }
  for (Fiber* f : g_fibers) if (a >= f->stack && a < f->stack + kPage) { why = "stack overflow of a device thread (HOSTGPU_STACK_KB) at"; g_fault_code = HG_ELAUNCH; }
  const char* reg = (uintptr_t)a >= va_base && (uintptr_t)a < va_end ? "inside the device range: out of bounds or freed" : "not device memory";
  snprintf(g_fault, sizeof g_fault, "%s %p (%s), block (%u,%u,%u) thread (%u,%u,%u)", why, a, reg, b.x, b.y, b.z, t.x, t.y, t.z);
  siglongjmp(g_jmp, 1);
}

// A device thread that spins until another one writes something would never end: threads here
// are not preempted.  So a host thread watches; when nothing has moved for a while it signals
// the one that runs the kernel, and that device thread gives way (if it is in kernel code and
// not inside an atomic).  Also keeps HOSTGPU_TIMEOUT.
static const double kTimeout = (double)env_num("HOSTGPU_TIMEOUT", 0);
static pthread_t g_worker;
static const char* volatile g_kernel;
static volatile double g_since;
static volatile bool g_spinning, g_watched;
static volatile bool g_sent;                      // a signal is on its way: real-time signals queue, and would nest
static void on_tick(int, siginfo_t*, void* ctx) {
  g_sent = false;
  if (!g_in_kernel || !pthread_equal(pthread_self(), g_worker)) return;
  uintptr_t ip = (uintptr_t)((ucontext_t*)ctx)->uc_mcontext.gregs[REG_RIP];
  Module* m = E->fn->m;
  if (ip < m->text_lo || ip >= m->text_hi || *E->d->busy) return;
  if (kTimeout > 0 && now_s() - g_since > kTimeout) {
    HgDim t = *E->d->tid, b = *E->d->bid;
    snprintf(g_fault, sizeof g_fault, "not finished after %g s (HOSTGPU_TIMEOUT), stopped in block (%u,%u,%u) thread (%u,%u,%u)%s", kTimeout, b.x, b.y, b.z, t.x, t.y, t.z,
             E->coop ? "" : "; a kernel whose blocks wait for one another has to be launched cooperatively");
    g_fault_code = 702; g_in_kernel = 0;
    siglongjmp(g_jmp, 1);
  }
  if (!E->fiber) return;                          // a kernel without barriers runs as a plain loop
  g_spinning = true;
  hg_yield();
}
static void* watch(void*) {
  sigset_t all; sigfillset(&all); pthread_sigmask(SIG_BLOCK, &all, nullptr);
  uint64_t last = 0; bool told = false;
  for (;;) {
    timespec t{0, g_spinning ? 200000 : 10000000};
    nanosleep(&t, nullptr);
    if (!g_in_kernel) { told = false; continue; }
    double run = now_s() - g_since;
    if (run > 60 && !told && !kTimeout) { told = true; hg_log("kernel %s has been running for a minute (HOSTGPU_TIMEOUT=seconds makes that an error)", g_kernel); }
    if ((g_progress == last || (kTimeout > 0 && run > kTimeout)) && !g_sent) {
      g_sent = true;
      pthread_kill(g_worker, SIGRTMIN + 6);
    }
    last = g_progress;
  }
}
static void start_watch() {
  g_sent = false;
  struct sigaction sa{};
  sa.sa_sigaction = on_tick; sa.sa_flags = SA_SIGINFO | SA_RESTART | SA_NODEFER;
  sigaction(SIGRTMIN + 6, &sa, nullptr);
  pthread_t t; pthread_attr_t at; pthread_attr_init(&at); pthread_attr_setdetachstate(&at, PTHREAD_CREATE_DETACHED);
  g_watched = pthread_create(&t, &at, watch, nullptr) == 0;
  static bool once = false;
  if (!once) { once = true; pthread_atfork(nullptr, nullptr, [] { g_watched = false; }); }
}

static unsigned sched_seed() { static long s = env_num("HOSTGPU_SEED", 1); return (unsigned)s; }
static int sched_mode() {
  static int m = [] { const char* v = getenv("HOSTGPU_SCHED"); return !v || !*v || !strcmp(v, "forward") ? 0 : !strcmp(v, "reverse") ? 1 : 2; }();
  return m;
}
static void make_order(std::vector<unsigned>& o, unsigned n, unsigned salt) {
  o.resize(n);
  for (unsigned i = 0; i < n; ++i) o[i] = sched_mode() == 1 ? n - 1 - i : i;
  if (sched_mode() == 2) { unsigned s = sched_seed() * 2654435761u + salt + 1; for (unsigned i = n; i > 1; --i) { s = s * 1664525u + 1013904223u; std::swap(o[i - 1], o[(s >> 8) % i]); } }
}

static int run_kernel(Function* fn, HgDim gd, HgDim bd, unsigned dyn, void** args, bool coop) {
  HgModuleDesc* d = fn->m->desc;
  static thread_local char* alt = nullptr;
  if (!alt) {
    alt = (char*)mmap(nullptr, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  }
  stack_t ss{}, old_ss{};
  ss.ss_sp = alt; ss.ss_size = 65536;
  sigaltstack(&ss, &old_ss);
  struct sigaction sa{}, old[4];
  sa.sa_sigaction = on_fault; sa.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigemptyset(&sa.sa_mask);
  const int sigs[4] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
  for (int i = 0; i < 4; ++i) sigaction(sigs[i], &sa, &old[i]);

  Engine eng{}; eng.fn = fn; eng.d = d; eng.args = args;
  Engine* prev = E; E = &eng;
  eng.idle = g_fibers;
  unsigned nthr = bd.x * bd.y * bd.z;
  *d->bdim = bd; *d->gdim = gd; *d->dynsmem_size = dyn; *d->busy = 0;
  if (!g_watched) start_watch();
  g_worker = pthread_self(); g_kernel = fn->e->name; g_since = now_s(); g_spinning = false;
  unsigned char* tls = (unsigned char*)d->tls_probe() - fn->m->tls_first;
  size_t tls_n = fn->m->tls_size;
  static Block one;
  std::vector<std::unique_ptr<Block>> blocks;
  static std::vector<unsigned char> canary(HG_CANARY, 0xa5);
  volatile int rc = 0;
  if (sigsetjmp(g_jmp, 0) == 0) {
    g_in_kernel = 1;
    size_t nb = (size_t)gd.x * gd.y * gd.z;
    auto bid_of = [&](size_t i) { return HgDim{(unsigned)(i % gd.x), (unsigned)(i / gd.x % gd.y), (unsigned)(i / ((size_t)gd.x * gd.y))}; };
    memcpy(d->dynsmem + dyn, canary.data(), HG_CANARY);
    auto canary_ok = [&] { if (memcmp(d->dynsmem + dyn, canary.data(), HG_CANARY)) { eng.err = HG_EILLADDR; eng.what = "write behind the end of dynamic shared memory"; return false; } return true; };
    if (!coop) {
      bool plain = !fn->m->waits && !sched_mode();    // no thread ever waits for another: loops, no fibers
      if (!plain) make_order(eng.order, nthr, 0);
      for (size_t i = 0; i < nb && !eng.err; ++i) {
        size_t bi = sched_mode() == 1 ? nb - 1 - i : i;
        if (sched_mode() == 2) make_order(eng.order, nthr, (unsigned)i);
        if (tls_n > 1 && kPoison) memset(tls, 0xff, tls_n);
        if (dyn && kPoison) memset(d->dynsmem, 0xff, dyn);
        if (plain) { *d->bid = bid_of(bi); fn->e->block(args); g_progress = g_progress + 1; continue; }
        block_init(&one, bid_of(bi), bd);
        run_block(&one);
        if (one.alive) deadlock(&one);
        canary_ok();
      }
      if (plain) canary_ok();
    } else {
      eng.coop = &blocks;
      make_order(eng.order, nthr, 0);
      for (size_t i = 0; i < nb; ++i) {
        blocks.emplace_back(new Block);
        block_init(blocks.back().get(), bid_of(i), bd);
        blocks.back()->tls.assign(tls_n, 0xff); blocks.back()->dyn.assign(dyn, 0xff);
      }
      while (!eng.err) {
        size_t alive = 0, grid = 0; bool spin = false;
        for (auto& b : blocks) {
          if (!b->alive) continue;
          if (tls_n > 1) memcpy(tls, b->tls.data(), tls_n);
          if (dyn) memcpy(d->dynsmem, b->dyn.data(), dyn);
          run_block(b.get());
          if (tls_n > 1) memcpy(b->tls.data(), tls, tls_n);
          if (dyn) memcpy(b->dyn.data(), d->dynsmem, dyn);
          if (!canary_ok()) break;
          alive += b->alive; grid += b->atgrid;
          if (b->alive && b->atgrid != b->alive) { if (b->ready.empty()) { deadlock(b.get()); break; } spin = true; }
        }
        if (eng.err || !alive) break;
        if (spin) continue;
        if (alive != grid) { eng.err = HG_ELAUNCH; eng.what = "grid sync not reached by all threads"; break; }
        for (auto& b : blocks) { b->atgrid = 0; for (auto& t : b->th) if (t.st == T_GRID) { t.st = T_READY; b->ready.push_back(t.lin); } }
      }
    }
    g_in_kernel = 0;
    if (eng.err) { rc = eng.err; hg_log("kernel %s: %s", fn->e->name, eng.what); }
  } else {
    g_in_kernel = 0;
    rc = g_fault_code;
    hg_log("kernel %s: %s", fn->e->name, g_fault);
  }
  E = prev;
  for (int i = 0; i < 4; ++i) sigaction(sigs[i], &old[i], nullptr);
  sigaltstack(&old_ss, nullptr);
  return rc ? fatal(rc) : 0;
}

static size_t resident(size_t threads, size_t shared) {      // blocks of a kernel on one multiprocessor
  size_t warps = (threads + 31) / 32 * 32, n = std::min((size_t)card().blocks, (size_t)card().threads / warps);
  return shared ? std::min(n, card().shared / (shared + card().reserved)) : n;
}
static int launch(Function* fn, HgDim g, HgDim b, unsigned dyn, HgStream s, void** params, void** extra, bool coop) {
  if (!g_functions.count(fn)) return HG_EBADHANDLE;
  if (fails("launch") || (coop && fails("launch_cooperative"))) return HG_ELAUNCHRES;
  const HgEntry* e = fn->e;
  int dev = hg_stream_device(s);
  if (dev != fn->m->dev) { hg_log("kernel %s: loaded on device %d, launched on a stream of device %d", e->name, fn->m->dev, dev); return HG_EBADHANDLE; }
  if (!g.x || !g.y || !g.z || !b.x || !b.y || !b.z || b.x > 1024 || b.y > 1024 || b.z > 64 || (size_t)b.x * b.y * b.z > 1024 || g.y > 65535 || g.z > 65535 || g.x > 2147483647u) {
    hg_log("kernel %s: launch shape not allowed: grid (%u,%u,%u) block (%u,%u,%u)", e->name, g.x, g.y, g.z, b.x, b.y, b.z);
    return HG_EINVAL;
  }
  size_t stat = fn->own_smem, lim = fn->max_dyn ? (size_t)fn->max_dyn : stat < 49152 ? 49152 - stat : 0;
  if (dyn > lim || dyn + stat > card().optin || stat > 49152) {
    hg_log("kernel %s: %u bytes of dynamic and %zu of static shared memory (dynamic limit %zu; raise it with max_dynamic_shared_size_bytes)", e->name, dyn, stat, lim);
    return HG_EINVAL;
  }
  if (coop) {
    size_t per = resident((size_t)b.x * b.y * b.z, dyn + stat);
    if ((size_t)g.x * g.y * g.z > per * (size_t)kSMs) return HG_ECOOP;
  }
  if (kNull) return submit(s, e->name, OP_KERNEL, fn->tally, nullptr);
  // copy the arguments: they may be gone when the work runs (lazy mode, graphs)
  size_t total = 0; std::vector<size_t> off(e->nparams);
  for (int i = 0; i < e->nparams; ++i) { total = (total + e->params[i].align - 1) / e->params[i].align * e->params[i].align; off[i] = total; total += e->params[i].size; }
  auto buf = std::make_shared<std::vector<unsigned char>>(total + 64);
  unsigned char* base = (unsigned char*)(((uintptr_t)buf->data() + 63) / 64 * 64);
  const unsigned char* packed = nullptr;
  if (!params && extra) for (void** x = extra; *x; x += 2) if (*x == (void*)1) packed = (const unsigned char*)x[1];
  if (e->nparams && !params && !packed) return HG_EINVAL;
  auto ptrs = std::make_shared<std::vector<void*>>(e->nparams + 1);
  for (int i = 0; i < e->nparams; ++i) {
    memcpy(base + off[i], params ? params[i] : packed + off[i], e->params[i].size);
    (*ptrs)[i] = base + off[i];
    if (e->params[i].is_ptr) {
      void* p; memcpy(&p, base + off[i], 8);
      Ptr a = look(p); if (!a.kind) a = look((char*)p - 1);
      if (p && !a.kind) { hg_log("kernel %s: argument %d is %p, which is not device memory", e->name, i, p); return fatal(HG_EILLADDR); }
    }
    // every word that looks like a device address, also inside structs (CuPy's array arguments)
    if (kDevs > 1) for (unsigned o = 0; o + 8 <= e->params[i].size; o += 8) {
      void* p; memcpy(&p, base + off[i] + o, 8);
      Ptr a = look(p);
      if (foreign(dev, a)) { hg_log("kernel %s: argument %d holds %p, memory of device %d; the kernel runs on device %d, which has no peer access to it", e->name, i, p, a.dev, dev); return fatal(HG_EILLADDR); }
    }
  }
  return submit(s, e->name, OP_KERNEL, fn->tally, [=] { (void)buf; return run_kernel(fn, g, b, dyn, ptrs->data(), coop); });
}

API int cuLaunchKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned sm, HgStream s, void** params, void** extra) {
  L0; return launch((Function*)f, HgDim{gx, gy, gz}, HgDim{bx, by, bz}, sm, s, params, extra, false);
}
API int cuLaunchCooperativeKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned sm, HgStream s, void** params) {
  L0; return launch((Function*)f, HgDim{gx, gy, gz}, HgDim{bx, by, bz}, sm, s, params, nullptr, true);
}

API int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* n, void* h, int bs, size_t dyn) {
  L0; *n = 0;
  if (bs < 1 || bs > 1024 || !g_functions.count((Function*)h)) return HG_EINVAL;
  *n = (int)resident((size_t)bs, dyn + ((Function*)h)->own_smem);
  return 0;
}
API int cuOccupancyMaxPotentialBlockSize(int* grid, int* block, void*, size_t (*)(int), size_t, int limit) {
  *block = limit > 0 ? std::min(1024, limit) : 1024; *grid = (int)kSMs * std::max(1, card().threads / *block);
  return 0;
}
