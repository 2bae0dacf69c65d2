// A pool that reuses the memory of freed large arrays: fresh pages cost a call of small models a fifth of its time.
#ifndef GPULSTM_CPU_MEMORY_H
#define GPULSTM_CPU_MEMORY_H

#include <stddef.h>

namespace gpulstm {

constexpr size_t MEMORY_KEPT = 256ul << 20;   // bytes that may wait for another use
constexpr size_t MEMORY_SPARED = 16ul << 20;  // of them, what need not give way to new memory

// At least so many bytes, not cleared, aligned to 64 bytes, in large pages where the system has them; null when memory
// is short.  Callable from any thread.
void* memory_take(size_t bytes);
void memory_give(void* memory);

// The same from the system and back to it at once: of what malloc has, it would get back only some when a block is
// freed.
void* memory_map(size_t bytes);
void memory_unmap(void* memory, size_t bytes);

}  // namespace gpulstm

#endif
