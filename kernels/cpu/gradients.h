// The gradients of the weights: sums over all steps and rows, each a whole-sequence product, added to what is there.
//
//     dW_x += x^T dz      dW_h += v^T dz, v = h_{t-1} as the recurrent product saw it      db += sum of dz
//
// All three in one pass over dz, whose panels are divided among the threads.  Each sum runs over the rows of a block in
// order, and the blocks are added in the order in which backpropagation meets them.  Blocks begin at multiples of a
// number of steps that depends on the batch alone (`block_steps` in gpulstm/engines/cpu.py): so a sum depends neither
// on the number of threads nor on whether the sequence was cut at such a multiple.
#ifndef GPULSTM_CPU_GRADIENTS_H
#define GPULSTM_CPU_GRADIENTS_H

#include "plan.h"

namespace gpulstm {
namespace GPULSTM_ISA {

// The step that row b takes first, -1 for a row of length 0 (or less, as arrays from elsewhere may say).
template <typename R>
static long first_time(const BackwardCall<R>& call, long b) {
    if (!call.reverse) return 0;
    const int64_t length = call.lengths ? call.lengths[b] : call.T;
    return (length < 0 ? 0 : length < call.T ? length : call.T) - 1;
}

// Rows of a sum over time and batch, in the blocks and the order in which gradients are summed: calls part(first,
// count).
template <typename F>
static void gradient_parts(long T, long B, bool reverse, long depth, F part) {
    const long all = T * B, block = gradient_steps(B) * B;
    const long blocks = (all + block - 1) / block;
    for (long i = 0; i < blocks; ++i) {
        const long start = (reverse ? i : blocks - 1 - i) * block, stop = start + block < all ? start + block : all;
        for (long k = start; k < stop; k += depth) part(k, stop - k < depth ? stop - k : depth);
    }
}

template <typename R>
struct WeightGradients {
    typedef Vec<R> V;
    static constexpr long L = V::LANES;

    const BackwardCall<R>& call;
    const Shape<R>& shape;
    const int threads;
    const long columns, depth_most;  // of x and v together; rows of a part

    WeightGradients(const BackwardCall<R>& c, const Shape<R>& s, int count, long most)
        : call(c), shape(s), threads(count), columns(c.I + c.H), depth_most(c.T * c.B < most ? c.T * c.B : most) {}

    // Calls part(row, rows, panel, panel) for all parts of a thread's panels.
    template <typename F>
    void each_part(int thread, F part) const {
        const long p0 = share(shape.panels, threads, thread), p1 = share(shape.panels, threads, thread + 1);
        if (p0 == p1) return;
        gradient_parts(call.T, call.B, call.reverse, depth_most, [&](long k, long depth) { part(k, depth, p0, p1); });
    }

    void add_biases(long p, const R* sum) const {
        if (call.db) add_row(shape.x, p, sum + shape.x.first * L, call.db);
        const long room = shape.H - p * L;
        if (call.db_hn && room > 0)
            (V::load(call.db_hn + p * L, room) + V::load(sum + 3 * L)).store(call.db_hn + p * L, room);
    }

    // h of row b before step t.  Where the step is beyond the row's end dz is zero, and any h will do.
    const R* before(long t, long b) const {
        const long old = call.reverse ? t + 1 : t - 1;
        const bool first = t == first_time(call, b) || old < 0 || old == call.T;
        return first ? call.h0 + b * call.H : call.y + (old * call.B + b) * call.H;
    }

    void add_row(const Part& part, long p, const R* from, R* row) const {
        for (int j = 0; j < part.count; ++j) {
            const long room = shape.H - shape.unit(p, j);
            if (room <= 0) continue;
            R* to = row + shape.column(part, p, j);
            (V::load(to, room) + V::load(from + j * L)).store(to, room);
        }
    }
};

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
