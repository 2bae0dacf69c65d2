// Device threads: fibers, barriers, warp operations.
#include "threads.h"
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <algorithm>

Engine* E;
std::vector<Fiber*> g_fibers;             // all, reused between launches
sigjmp_buf g_jmp;
volatile sig_atomic_t g_in_kernel;
char g_fault[512];
int g_fault_code;
volatile uint64_t g_progress;             // changes whenever a device thread waits or ends

extern "C" void hg_switch(void** save, void* to);
__asm__(
    ".text\n.globl hg_switch\n.hidden hg_switch\n.type hg_switch,@function\nhg_switch:\n"
    "  pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
    "  movq %rsp,(%rdi)\n  movq %rsi,%rsp\n"
    "  popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n  ret\n"
    ".size hg_switch,.-hg_switch\n");

static void to_sched() { Fiber* f = E->fiber; hg_switch(&f->sp, E->sched_sp); *E->d->tid = E->cur->tid; }
static void release_barrier(Block* b) {
  int c = 0, a = 1, o = 0;
  for (auto& t : b->th) if (t.st == T_BAR) { c += t.pred != 0; a &= t.pred != 0; o |= t.pred != 0; t.st = T_READY; b->ready.push_back(t.lin); }
  b->bar_res = b->bar_op == HG_B_COUNT ? c : b->bar_op == HG_B_AND ? a : b->bar_op == HG_B_OR ? o : 0;
  b->atbar = 0;
}
static void warp_eval(Block* b, unsigned w, unsigned part) {
  DThread* base = &b->th[w * 32];
  unsigned ball = 0;
  int first = __builtin_ctz(part);
  int op = base[first].wop;
  for (int i = 0; i < 32; ++i) if (part >> i & 1) {
    if (base[i].wop != op || base[i].wsize != base[first].wsize || (op == HG_W_CALL && base[i].wout != base[first].wout)) hg_kernel_abort(HG_ELAUNCH, "lanes of one warp operation are at different warp operations", "", 0);
    if (op == HG_W_BALLOT && *(const int*)base[i].win) ball |= 1u << i;
  }
  bool allsame = true;
  if (op == HG_W_MATCH_ALL) for (int i = 0; i < 32; ++i) if ((part >> i & 1) && memcmp(base[i].win, base[first].win, base[i].wsize)) allsame = false;
  long long racc = 0; bool rset = false;
  if (op >= HG_W_RADD_I && op <= HG_W_RXOR) for (int i = 0; i < 32; ++i) if (part >> i & 1) {
    unsigned u = *(const unsigned*)base[i].win; long long v = (op == HG_W_RMIN_I || op == HG_W_RMAX_I || op == HG_W_RADD_I) ? (long long)(int)u : (long long)u;
    if (!rset) { racc = v; rset = true; continue; }
    switch (op) {
      case HG_W_RADD_I: case HG_W_RADD_U: racc += v; break;
      case HG_W_RMIN_I: case HG_W_RMIN_U: racc = std::min(racc, v); break;
      case HG_W_RMAX_I: case HG_W_RMAX_U: racc = std::max(racc, v); break;
      case HG_W_RAND: racc &= v; break; case HG_W_ROR: racc |= v; break; default: racc ^= v;
    }
  }
  if (op == HG_W_CALL) {                 // a function of all 32 lanes' arguments
    const void* in[32];
    for (int i = 0; i < 32; ++i) in[i] = base[i].win;
    if (part != 0xffffffffu) hg_kernel_abort(HG_ELAUNCH, "a tensor-core (wmma) operation in a warp with fewer than 32 live lanes", "", 0);
    ((void (*)(const void**))base[first].wout)(in);
  }
  unsigned char tmp[32][16];
  if (op == HG_W_SHFL) for (int i = 0; i < 32; ++i) if (part >> i & 1) memcpy(tmp[i], base[i].win, base[i].wsize);
  for (int i = 0; i < 32; ++i) if (part >> i & 1) {
    DThread& t = base[i];
    switch (op) {
      case HG_W_SYNC: case HG_W_CALL: break;
      case HG_W_SHFL:
        if (t.wsrc >= 0 && t.wsrc < 32 && (part >> t.wsrc & 1)) memcpy(t.wout, tmp[t.wsrc], t.wsize);
        else memset(t.wout, 0xff, t.wsize);        // CUDA: undefined
        break;
      case HG_W_BALLOT: *(unsigned*)t.wout = ball; break;
      case HG_W_MATCH_ANY: { unsigned r = 0; for (int k = 0; k < 32; ++k) if ((part >> k & 1) && !memcmp(base[k].win, t.win, t.wsize)) r |= 1u << k; *(unsigned*)t.wout = r; break; }
      case HG_W_MATCH_ALL: *(unsigned*)t.wout = allsame ? part : 0; break;
      default: { unsigned r = (unsigned)racc; memcpy(t.wout, &r, 4); }
    }
  }
  for (int i = 0; i < 32; ++i) if (part >> i & 1) { base[i].st = T_READY; if (&base[i] != E->cur) b->ready.push_back(base[i].lin); }
}
// is the warp operation with this mask complete?
static bool warp_try(Block* b, unsigned w, unsigned mask) {
  unsigned part = mask & b->walive[w];
  if (!part) return false;
  DThread* base = &b->th[w * 32];
  for (int i = 0; i < 32; ++i) if ((part >> i & 1) && !(base[i].st == T_WARP && base[i].wmask == mask)) return false;
  warp_eval(b, w, part);
  return true;
}
static void thread_done() {
  Block* b = E->blk; DThread* t = E->cur;
  t->st = T_DONE; --b->alive; b->idle = 0; g_progress = g_progress + 1;
  unsigned w = t->lin / 32, lane = t->lin & 31;
  b->walive[w] &= ~(1u << lane);
  if (b->alive && b->atbar == b->alive) release_barrier(b);
  if (b->walive[w]) for (unsigned i = 0; i < 32 && w * 32 + i < b->n; ++i) { DThread& o = b->th[w * 32 + i]; if (o.st == T_WARP && (o.wmask >> lane & 1)) { warp_try(b, w, o.wmask); } }
}
static void start_thread(Block* b) {
  unsigned k = E->order[b->started++];
  DThread& t = b->th[k];
  E->cur = &t; t.st = T_READY; t.f = E->fiber;
  *E->d->tid = t.tid;
}
static void fiber_main() {
  for (;;) {
    E->fn->e->thread(E->args);
    thread_done();
    if (E->blk->started < E->blk->n) { start_thread(E->blk); continue; }
    Fiber* f = E->fiber;
    E->idle.push_back(f);
    hg_switch(&f->sp, E->sched_sp);      // resumed for another thread
    *E->d->tid = E->cur->tid;
  }
}
static Fiber* new_fiber() {
  if (!E->idle.empty()) { Fiber* f = E->idle.back(); E->idle.pop_back(); return f; }
  char* s = (char*)mmap(nullptr, kStack + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (s == (char*)MAP_FAILED) hg_kernel_abort(HG_ENOMEM, "no memory for the stacks of device threads", "", 0);
  mprotect(s, kPage, PROT_NONE);
  auto* f = new Fiber; f->stack = s;
  g_fibers.push_back(f);
  return f;
}
static void fiber_reset(Fiber* f) {
  void** sp = (void**)(f->stack + kPage + kStack);
  *--sp = nullptr;                      // alignment, and a return address for nobody
  *--sp = (void*)fiber_main;
  for (int i = 0; i < 6; ++i) *--sp = nullptr;
  f->sp = sp;
}
// run what can run in this block
void run_block(Block* b) {
  E->blk = b;
  *E->d->bid = b->bid;
  b->idle = 0;
  for (;;) {
    g_progress = g_progress + 1;
    if (E->coop && b->idle && b->idle >= b->ready.size() && b->started == b->n) return;     // all that could run wait for another block
    if (!b->ready.empty() && (b->started == b->n || b->idle < b->ready.size())) {
      unsigned k = b->ready.front(); b->ready.pop_front();
      E->cur = &b->th[k];
      E->fiber = E->cur->f;
    } else if (b->started < b->n) {
      E->fiber = new_fiber();
      fiber_reset(E->fiber);
      start_thread(b);
    } else break;
    hg_switch(&E->sched_sp, E->fiber->sp);
  }
}
void block_init(Block* b, HgDim bid, HgDim bd) {
  b->bid = bid; b->n = bd.x * bd.y * bd.z; b->started = 0; b->alive = b->n; b->atbar = b->atgrid = 0;
  b->ready.clear();
  b->th.resize((b->n + 31) / 32 * 32);
  b->walive.assign((b->n + 31) / 32, 0);
  unsigned i = 0;
  for (unsigned z = 0; z < bd.z; ++z) for (unsigned y = 0; y < bd.y; ++y) for (unsigned x = 0; x < bd.x; ++x, ++i) {
    DThread& t = b->th[i];
    t.tid = HgDim{x, y, z}; t.st = T_NEW; t.lin = i; t.f = nullptr;
    b->walive[i / 32] |= 1u << (i & 31);
  }
  for (; i < b->th.size(); ++i) { b->th[i].st = T_DONE; b->th[i].lin = i; }
}
void deadlock(Block* b) {
  unsigned w = 0, g = 0, k = 0;
  for (unsigned i = 0; i < b->n; ++i) { w += b->th[i].st == T_WARP; g += b->th[i].st == T_GRID; k += b->th[i].st == T_BAR; }
  static char buf[200];
  snprintf(buf, sizeof buf, "deadlock in block (%u,%u,%u): of %u live threads %u wait in __syncthreads, %u in a warp operation, %u in a grid sync", b->bid.x, b->bid.y, b->bid.z, b->alive, k, w, g);
  E->err = HG_ELAUNCH; E->what = buf;
}

extern "C" {
API int hg_barrier(int op, int pred) {
  Block* b = E->blk; DThread* t = E->cur;
  t->st = T_BAR; t->pred = pred; b->bar_op = op; ++b->atbar; b->idle = 0;
  if (b->atbar == b->alive) {
    release_barrier(b);
    // keep running this thread; it is in the ready queue, so take it out
    for (auto it = b->ready.begin(); it != b->ready.end(); ++it) if (*it == t->lin) { b->ready.erase(it); break; }
    return b->bar_res;
  }
  to_sched();
  return b->bar_res;
}
API void hg_warp(int op, unsigned mask, const void* in, int size, int src, void* out) {
  Block* b = E->blk; DThread* t = E->cur;
  b->idle = 0;
  unsigned w = t->lin / 32, lane = t->lin & 31;
  if (!(mask >> lane & 1)) hg_kernel_abort(HG_ELAUNCH, "a lane calls a warp operation whose mask does not name it", "", 0);
  t->wop = op; t->wmask = mask; t->win = in; t->wsize = size; t->wsrc = src; t->wout = out; t->st = T_WARP;
  if (warp_try(b, w, mask)) return;
  to_sched();
}
API unsigned hg_activemask(void) { return E->blk->walive[E->cur->lin / 32]; }
API int hg_is_cooperative(void) { return E && E->coop != nullptr; }
API void hg_grid_sync(void) {
  if (!E->coop) hg_kernel_abort(HG_ELAUNCH, "grid sync in a kernel that was not launched cooperatively", "", 0);
  E->cur->st = T_GRID; ++E->blk->atgrid; E->blk->idle = 0;
  to_sched();
}
API void hg_yield(void) { E->cur->st = T_READY; E->blk->ready.push_back(E->cur->lin); ++E->blk->idle; to_sched(); }
API void hg_kernel_abort(int code, const char* what, const char* file, int line) {
  if (*file) snprintf(g_fault, sizeof g_fault, "%s (%s:%d), block (%u,%u,%u) thread (%u,%u,%u)", what, file, line, E->d->bid->x, E->d->bid->y, E->d->bid->z, E->d->tid->x, E->d->tid->y, E->d->tid->z);
  else snprintf(g_fault, sizeof g_fault, "%s, block (%u,%u,%u) thread (%u,%u,%u)", what, E->d->bid->x, E->d->bid->y, E->d->bid->z, E->d->tid->x, E->d->tid->y, E->d->tid->z);
  g_fault_code = code;
  siglongjmp(g_jmp, 1);
}
API long long hg_clock(void) { return (long long)(now_s() * 1e9); }
}
