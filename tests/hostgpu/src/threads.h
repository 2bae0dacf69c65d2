// The threads of a block: fibers, barriers and warp operations of the kernel that runs.
#pragma once
#include "modules.h"
#include <setjmp.h>
#include <signal.h>
#include <deque>

// A device thread runs on a fiber (a small stack).  A thread that never waits takes no
// stack of its own: its fiber goes straight on to the next thread of the block.
struct Fiber { void* sp = nullptr; char* stack = nullptr; };
enum TState : unsigned char { T_NEW, T_READY, T_BAR, T_WARP, T_GRID, T_DONE };
struct DThread {
  HgDim tid; Fiber* f; TState st;
  unsigned lin;
  int wop, wsize, wsrc; unsigned wmask; const void* win; void* wout;
  int pred;
};
struct Block {
  HgDim bid; unsigned n = 0, started = 0, alive = 0, atbar = 0, atgrid = 0;
  int bar_op = 0, bar_res = 0;
  unsigned idle = 0;                 // threads that gave way since one of the block last got on
  std::vector<DThread> th;
  std::vector<unsigned> walive;
  std::deque<unsigned> ready;
  std::vector<unsigned char> tls, dyn;
};
struct Engine {
  Function* fn; HgModuleDesc* d; void** args;
  Block* blk = nullptr; DThread* cur = nullptr; Fiber* fiber = nullptr;
  void* sched_sp = nullptr;
  std::vector<Fiber*> idle;
  std::vector<unsigned> order;
  std::vector<std::unique_ptr<Block>>* coop = nullptr;
  int err = 0; const char* what = "";
};
extern Engine* E;                                        // of the kernel that runs
extern std::vector<Fiber*> g_fibers;                     // all, reused between launches
extern sigjmp_buf g_jmp;                                 // where a failed kernel goes on
extern volatile sig_atomic_t g_in_kernel;
extern char g_fault[512];                                // why it failed
extern int g_fault_code;
extern volatile uint64_t g_progress;                     // changes whenever a device thread waits or ends

void block_init(Block* b, HgDim bid, HgDim bd);
void run_block(Block* b);                                // until no thread can go on
void deadlock(Block* b);                                 // says who waits for what
