#include "memory.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <list>
#include <mutex>

namespace gpulstm {
namespace {

constexpr size_t LARGE_PAGE = 2ul << 20;
constexpr size_t HEAD = 64;  // before each block, for its size

struct Block {
    size_t size;  // of what is handed out
    void* start;
};

struct Kept {
    std::mutex mutex;
    std::list<Block> blocks;  // the latest first
    size_t size = 0;
};

Kept* shared = nullptr;

void forget() { shared = new Kept; }  // in the child of a fork: the lock may be held; what was kept is left as it is

Kept& kept() {
    static std::once_flag once;
    std::call_once(once, [] {
        shared = new Kept;  // never destroyed: arrays may outlive this module
        pthread_atfork(nullptr, nullptr, forget);
    });
    return *shared;
}

size_t& size_of(void* memory) { return *reinterpret_cast<size_t*>(static_cast<char*>(memory) - HEAD); }

void* fresh(size_t bytes) {
    void* start = nullptr;
    const bool large = bytes + HEAD >= LARGE_PAGE;
    if (posix_memalign(&start, large ? LARGE_PAGE : HEAD, bytes + HEAD)) return nullptr;
#ifdef MADV_HUGEPAGE
    if (large) madvise(start, bytes + HEAD, MADV_HUGEPAGE);  // no matter if it is refused
#endif
    void* memory = static_cast<char*>(start) + HEAD;
    size_of(memory) = bytes;
    return memory;
}

void release(void* memory) { free(static_cast<char*>(memory) - HEAD); }

}  // namespace

void* memory_take(size_t bytes) {
    Kept& k = kept();
    {
        std::lock_guard<std::mutex> lock(k.mutex);
        for (auto block = k.blocks.begin(); block != k.blocks.end(); ++block)
            if (block->size >= bytes && block->size <= bytes + bytes / 4) {
                void* memory = block->start;
                k.size -= block->size;
                k.blocks.erase(block);
                return memory;
            }
    }
    return fresh(bytes);
}

void memory_give(void* memory) {
    const size_t size = size_of(memory);
    if (size > MEMORY_KEPT) return release(memory);
    Kept& k = kept();
    std::lock_guard<std::mutex> lock(k.mutex);
    k.blocks.push_front({size, memory});
    k.size += size;
    while (k.size > MEMORY_KEPT) {  // those that nothing has fitted for longest
        k.size -= k.blocks.back().size;
        release(k.blocks.back().start);
        k.blocks.pop_back();
    }
}

}  // namespace gpulstm
