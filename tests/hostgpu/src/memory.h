// Which memory an address belongs to.
#pragma once
#include "device.h"
#include <map>

struct Range { size_t size; int dev; };
extern uintptr_t va_base, va_end;                       // where device memory lies
extern std::map<uintptr_t, Range> g_modmem;             // variables of modules
struct Ptr { int kind = 0, dev = -1; size_t extent = 0; };    // kind as in hg_ptr_kind; bytes to the end of the allocation
Ptr look(const void* q);
bool foreign(int dev, const Ptr& p);                    // memory of another device, without peer access
