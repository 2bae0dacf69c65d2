// Modules and the kernels in them.
#pragma once
#include "device.h"
#include "../include/hg_abi.h"
#include <map>
#include <memory>
#include <set>
#include <string>

struct Function;
struct Module {
  void* handle; HgModuleDesc* desc; uintptr_t base; int dev; bool waits;   // waits: it has barriers or warp operations
  size_t tls_size = 0, tls_first = 0;
  uintptr_t text_lo = 0, text_hi = 0;   // its code
  std::map<std::string, std::unique_ptr<Function>> fns;
  std::map<std::string, std::pair<uintptr_t, size_t>> vars;
};
struct Function { Module* m; HgEntry* e; Tally* tally; int max_dyn = 0; size_t own_smem = 0, smem = 0; };
extern std::set<Function*> g_functions;                  // that may be launched
