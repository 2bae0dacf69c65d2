#include "threads.h"

#include "memory.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <new>
#include <thread>

namespace gpulstm {
namespace {

constexpr int SPINS = 2000;           // waiting for each other inside a call
constexpr int IDLE_SPINS = 4000;      // a worker waiting for the next call: some 50 microseconds, then it sleeps
constexpr size_t KEPT = 256ul << 20;  // memory above this is given back after the call

inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

struct alignas(128) Barrier {
    std::atomic<int> arrived{0};
    std::atomic<unsigned> phase{0};
};

struct Team {
    std::mutex owned;  // held from begin to end
    std::mutex mutex;  // guards `workers` and sleeping
    std::condition_variable wake;
    int workers = 0;

    alignas(128) std::atomic<unsigned long> job{0};  // number of the job in the upper bits, its members in the lower 16
    Work work = nullptr;
    void* context = nullptr;
    alignas(128) std::atomic<int> unfinished{0};
    Barrier barriers[BARRIERS];

    void* memory = nullptr;
    size_t size = 0;

    void serve(int member, unsigned long seen) {
        for (;;) {
            unsigned long now = job.load(std::memory_order_acquire);
            for (int spin = 0; now == seen && spin < IDLE_SPINS; ++spin) {
                pause();
                now = job.load(std::memory_order_acquire);
            }
            if (now == seen) {
                std::unique_lock<std::mutex> lock(mutex);
                wake.wait(lock, [&] { return job.load(std::memory_order_acquire) != seen; });
                continue;
            }
            seen = now;
            if (member < int(now & 0xffff)) {
                work(context, member);
                unfinished.fetch_sub(1, std::memory_order_release);
            }
        }
    }

    // Makes sure that members 1 .. count-1 exist; fewer where the system gives no more threads.
    int hire(int count) {
        std::lock_guard<std::mutex> lock(mutex);
        while (workers + 1 < count) {
            int member = workers + 1;
            unsigned long seen = job.load(std::memory_order_relaxed);
            try {
                std::thread([this, member, seen] { serve(member, seen); }).detach();
            } catch (const std::system_error&) {
                break;
            }
            ++workers;
        }
        return workers + 1 < count ? workers + 1 : count;
    }
};

Team* team = nullptr;
thread_local bool owner = false;
thread_local void* lone_memory = nullptr;

void forget_team() {  // in the child of a fork: the workers are gone, the locks may be held; the old team is left as it
                      // is
    owner = false;
    team = new Team;
}

Team& the_team() {
    static std::once_flag once;
    std::call_once(once, [] {
        team = new Team;  // never destroyed: its threads live as long as the process
        pthread_atfork(nullptr, nullptr, forget_team);
    });
    return *team;
}

}  // namespace

int team_begin(int asked) {
    Team& t = the_team();
    owner = t.owned.try_lock();
    return owner && asked > 1 ? t.hire(asked) : 1;
}

void team_run(int count, Work work, void* context) {
    if (count <= 1) return work(context, 0);
    Team& t = the_team();
    t.work = work;
    t.context = context;
    t.unfinished.store(count - 1, std::memory_order_relaxed);
    {
        std::lock_guard<std::mutex> lock(t.mutex);
        unsigned long number = (t.job.load(std::memory_order_relaxed) >> 16) + 1;
        t.job.store(number << 16 | unsigned(count), std::memory_order_release);
    }
    t.wake.notify_all();
    work(context, 0);
    for (int spin = 0; t.unfinished.load(std::memory_order_acquire) != 0; ++spin) {
        if (spin < SPINS)
            pause();
        else
            sched_yield();
    }
}

void team_end() {
    if (!owner) {
        free(lone_memory);
        lone_memory = nullptr;
        return;
    }
    Team& t = the_team();
    if (t.size > KEPT) {
        memory_unmap(t.memory, t.size);
        t.memory = nullptr;
        t.size = 0;
    }
    owner = false;
    t.owned.unlock();
}

void* team_memory(size_t bytes) {
    bytes = (bytes + 4095) & ~size_t(4095);
    void* fresh = nullptr;
    if (!owner) {
        free(lone_memory);
        lone_memory = posix_memalign(&fresh, 64, bytes) ? nullptr : fresh;
        return lone_memory;
    }
    Team& t = the_team();
    if (t.size < bytes) {
        memory_unmap(t.memory, t.size);
        t.memory =
            memory_map(bytes);  // in large pages weights, read over and over, spread evenly over the second-level cache
        t.size = t.memory ? bytes : 0;
    }
    return t.memory;
}

void team_wait(int which, int members) {
    Barrier& b = the_team().barriers[which];
    unsigned phase = b.phase.load(std::memory_order_acquire);
    if (b.arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == members) {
        b.arrived.store(0, std::memory_order_relaxed);
        b.phase.store(phase + 1, std::memory_order_release);
        return;
    }
    for (int spin = 0; b.phase.load(std::memory_order_acquire) == phase; ++spin) {
        if (spin < SPINS)
            pause();
        else
            sched_yield();
    }
}

void team_wait_for(const std::atomic<long>& count, long least) {
    for (int spin = 0; count.load(std::memory_order_acquire) < least; ++spin) {
        if (spin < SPINS)
            pause();
        else
            sched_yield();
    }
}

}  // namespace gpulstm
