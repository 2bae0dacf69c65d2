// The simulated card: settings, the one lock, errors, the current device.
#pragma once
#include "core.h"
#include "stats.h"
#include <stddef.h>
#include <mutex>

#define API HG_API

// settings, by environment variables (../README.md)
long env_num(const char* name, long otherwise);
extern const bool kLazy, kVerbose, kMemcheck;
extern const bool kNull;              // count kernels and library calls, do not run them
extern const long kPoison;            // 0 off, 1 on, -1 on but for large allocations
constexpr int kMaxDev = 8;
extern const int kDevs;
extern const long kSMs;
extern const size_t kStack;           // bytes of a device thread's stack
constexpr size_t kPage = 4096;
// What a card of a capability allows (CUDA C++ programming guide, "Technical specifications per compute capability").
struct Card { int capability; int threads, blocks; size_t shared, optin, reserved; };   // of a multiprocessor; of a block
const Card& card();
size_t total_mem();
bool fails(const char* call);         // whether HOSTGPU_FAIL lets this call fail
double now_s();

// One lock for all state; device work runs under it.
extern std::recursive_mutex g_mu;
extern thread_local int g_depth;
struct Lock {
  Lock() { g_mu.lock(); ++g_depth; }
  ~Lock() { --g_depth; g_mu.unlock(); }
};
struct Unlock {                       // while calling out to the host program
  int d;
  Unlock() : d(g_depth) { for (int i = 0; i < d; ++i) g_mu.unlock(); g_depth = 0; }
  ~Unlock() { for (int i = 0; i < d; ++i) g_mu.lock(); g_depth = d; }
};

extern thread_local int t_dev;        // the current device of this host thread
extern bool g_peer[kMaxDev][kMaxDev]; // g_peer[a][b]: work on a may touch memory of b
bool no_dev(int d);

// errors
extern int g_sticky;                  // of a failed kernel: every later call gives it
int ret(int e);                       // the result of a call, kept for cudaGetLastError
int fatal(int e);                     // makes e sticky
#define L0 Lock lock_; if (g_sticky) return g_sticky
