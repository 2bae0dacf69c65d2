#include "memory.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <list>
#include <mutex>

namespace gpulstm {
namespace {

constexpr size_t LARGE_PAGE = 2ul << 20;
constexpr size_t MAPPED = 256ul << 10;  // blocks from here on are mapped
constexpr size_t HEAD = 64;             // before each block, for its size

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

bool is_large(size_t bytes) { return bytes + HEAD >= MAPPED; }

size_t whole_pages(size_t bytes) {
    static const size_t page = size_t(sysconf(_SC_PAGESIZE));
    return (bytes + page - 1) / page * page;
}

void* fresh(size_t bytes) {
    void* start = nullptr;
    if (is_large(bytes))
        start = memory_map(bytes + HEAD);
    else if (posix_memalign(&start, HEAD, bytes + HEAD))
        start = nullptr;
    if (!start) return nullptr;
    void* memory = static_cast<char*>(start) + HEAD;
    size_of(memory) = bytes;
    return memory;
}

void release(void* memory) {
    char* start = static_cast<char*>(memory) - HEAD;
    const size_t bytes = size_of(memory);
    if (is_large(bytes))
        memory_unmap(start, bytes + HEAD);
    else
        free(start);
}

}  // namespace

void* memory_map(size_t bytes) {
    const size_t size = whole_pages(bytes), all = size + LARGE_PAGE;
    char* start = static_cast<char*>(mmap(nullptr, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (start == MAP_FAILED) return nullptr;
    const size_t before = (LARGE_PAGE - reinterpret_cast<size_t>(start) % LARGE_PAGE) % LARGE_PAGE;
    if (before) munmap(start, before);
    start += before;
    if (all > before + size) munmap(start + size, all - before - size);
#ifdef MADV_HUGEPAGE
    if (size >= LARGE_PAGE) madvise(start, size, MADV_HUGEPAGE);  // no matter if it is refused
#endif
    return start;
}

void memory_unmap(void* memory, size_t bytes) {
    if (memory) munmap(memory, whole_pages(bytes));
}

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
        // Nothing fits.  What waits gives way to what is made, the oldest first, but for a little: then there is never
        // more memory held, in use or waiting, than arrays in use have needed at once, and that little.  Without it
        // layers of several sizes would take each other's memory from one call to the next.
        for (size_t freed = 0; freed < bytes && k.size > MEMORY_SPARED; k.blocks.pop_back()) {
            freed += k.blocks.back().size;
            k.size -= k.blocks.back().size;
            release(k.blocks.back().start);
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
