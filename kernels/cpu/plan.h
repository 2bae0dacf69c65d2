// How a call's work is divided among threads, and how its products go through the caches.
#ifndef GPULSTM_CPU_PLAN_H
#define GPULSTM_CPU_PLAN_H

#include "caches.h"
#include "flushed.h"
#include "pack.h"
#include "threads.h"
#include "tile.h"

namespace gpulstm {
namespace GPULSTM_ISA {

constexpr long CHUNK_ROWS = 48;  // rows whose sums wait next to them
constexpr long GRADIENT_BLOCK =
    1024;  // rows (of one step at least) whose part of the weights' gradients is summed at once
// Steps whose part of the weights' gradients is summed at once.
static inline long gradient_steps(long B) { return B > 0 && B < GRADIENT_BLOCK ? GRADIENT_BLOCK / B : 1; }

constexpr double ALONE = 1.5e6;  // multiply-adds of a call below which a second thread costs more than it brings

constexpr long MEETING = 384 << 10;  // bytes of weights a step below which threads do not meet

// `groups` of threads share the rows; the `members` of a group share the units, and meet after each step.
struct Plan {
    int groups = 1, members = 1;
    int count() const { return groups * members; }
};

// `item` is bytes of a packed weight; on tiles rows of a group below `full` leave them partly empty (1: no tiles).
static inline Plan make_plan(long T, long B, long K, long width, long panels, size_t item, long full, int threads,
                             Split split) {
    Plan plan;
    if (threads > BARRIERS - 2) threads = BARRIERS - 2;
    if (split == Split::automatic && double(T) * B * K * width < ALONE) return plan;
    if (split == Split::rows) {
        plan.groups = int(B < threads ? B : threads);
    } else if (split == Split::units) {
        plan.members = int(panels < threads ? panels : threads);
    } else {
        // A group streams the weights once a step: where they leave the second-level cache, only many rows pay for
        // that.  A meeting costs as much as some 100 KiB of weights, and more when another process has one of the
        // processors.
        const long weights = K * width * long(item), resident = cache_model().resident;
        long few = weights > resident ? 64 : weights > resident / 2 ? 8 : 2;
        if (full > 1) few = weights > resident ? 16 * full : full;
        for (int members = 1; members <= threads; ++members) {
            if (threads % members) continue;
            plan.members = members;
            plan.groups = threads / members;
            if (B >= few * plan.groups || weights < MEETING) break;
        }
        if (plan.members > panels) plan.members = int(panels);
        if (plan.groups > B) plan.groups = int(B);
    }
    return plan;
}

// What one thread has of the whole: rows r0 to r1, and its place in the group.
struct Place {
    int group, member;
    long r0, r1;
    Place(const Plan& plan, int thread, long B)
        : group(thread / plan.members),
          member(thread % plan.members),
          r0(share(B, plan.groups, group)),
          r1(share(B, plan.groups, group + 1)) {}
};

static inline void meet_all(const Plan& plan) {
    if (plan.count() > 1) team_wait(0, plan.count());
}
static inline void meet_group(const Plan& plan, const Place& place) {
    if (plan.members > 1) team_wait(1 + place.group, plan.members);
}

// Length of the blocks in which `count` units of k are taken, each of `bytes` of weights.
static inline long block_length(long count, long bytes) {
    long most = cache_model().block / bytes;
    if (most < 1) most = 1;
    const long blocks = (count + most - 1) / most;
    return blocks ? (count + blocks - 1) / blocks : 1;
}

// Memory laid out in one piece: `take` counts first (base null), then hands out.
struct Layout {
    char* base = nullptr;
    size_t used = 0;
    template <typename R>
    R* take(long count) {
        R* p = base ? reinterpret_cast<R*>(base + used) : nullptr;
        used += (size_t(count) * sizeof(R) + 127) & ~size_t(127);
        return p;
    }
};

// Runs `Pass` by the plan, in the team that has been begun; false when memory is short.
template <typename Pass, typename Call>
static bool run_pass(const Call& call, const Plan& plan) {
    Pass pass(call, plan);
    Layout counted, real;
    pass.lay_out(counted);
    real.base = static_cast<char*>(team_memory(counted.used));
    if (real.base) {
        pass.lay_out(real);
        team_run(plan.count(), Pass::work, &pass);
    }
    team_end();
    return real.base != nullptr;
}

// out = in + a b for one panel and all of k, in blocks of weights that stay in the first-level cache.  `q` describes
// the first row; k runs over its segments where there is more than one, else over its run.
template <typename R>
static void product(const Product<R>& q, long rows, int nv) {
    const bool segmented = q.segments > 1;
    const long all = segmented ? q.segments : q.run, per = (segmented ? q.run : 1) * nv * Vec<R>::LANES;
    const long tiles = tiles_for(rows, nv), length = tiles > 1 ? block_length(all, per * long(sizeof(R))) : all;
    for (long k = 0; k < all; k += length) {
        Product<R> now = q;
        (segmented ? now.segments : now.run) = k + length < all ? length : all - k;
        now.b = q.b + k * per;
        if (k) now.in_row = q.out_row;
        for (long i = 0; i < tiles; ++i) {
            const long r = share(rows, tiles, i);
            now.out = q.out + r * q.out_row;
            now.in = k ? now.out : q.in ? q.in + r * q.in_row : nullptr;
            now.a = q.a + r * q.a_row + k * (segmented ? q.a_segment : 1);
            one_panel<R>(int(share(rows, tiles, i + 1) - r), nv)(now, 0);
        }
    }
}

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
