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

// The left factor of a sum of outer products over `depth` rows: `count` columns in groups of twelve, [group][row][12],
// the last one narrower.  So a row is copied by whole registers, and tiles of 3, 4 or 6 columns fill a group.
template <typename R>
struct LeftFactor {
    static constexpr long GROUP = 12;
    const long count, depth;
    R* const data;

    // Row `index`, times `factor` where there is one.
    void put(const R* from, const R* factor, long index) const {
        long c = 0;
        for (; c + GROUP <= count; c += GROUP) {
            R* to = data + c * depth + index * GROUP;
            if (factor)
                for (long e = 0; e < GROUP; ++e) to[e] = from[c + e] * factor[c + e];
            else
                __builtin_memcpy(to, from + c, GROUP * sizeof(R));
        }
        R* to = data + c * depth + index * (count - c);
        for (long e = 0; c + e < count; ++e) to[e] = factor ? from[c + e] * factor[c + e] : from[c + e];
    }
    // For tiles of all columns: leaves the products with `depth` rows of `nv` registers at `right`, `b_row` apart, at
    // `out` in rows of `nv` registers, and calls done(first column, columns).
    template <typename F>
    void each_tile(int nv, const R* right, long b_row, R* out, F done) const {
        const long line = nv * Vec<R>::LANES;
        for (long g = 0; g < count; g += GROUP) {
            const long width = count - g < GROUP ? count - g : GROUP, tiles = tiles_for(width, nv);
            for (long i = 0; i < tiles; ++i) {
                const long c = share(width, tiles, i), columns = share(width, tiles, i + 1) - c;
                Product<R> q = plain_product(data + g * depth + c, 1, depth, right, b_row, out, line);
                q.a_step = width;
                one_panel<R>(int(columns), nv)(q, 0);
                done(g + c, columns);
            }
        }
    }
};

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
        if (call.db) add_row(Slots(shape, shape.x, p), sum + shape.x.first * L, call.db);
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

    // Where the registers of a panel's part lie in a row of weights, those that hold units.
    struct Slots {
        int count = 0;
        bool whole = true;  // no register is padded
        long lanes, at[4], room[4];
        Slots(const Shape<R>& shape, const Part& part, long p) : lanes(shape.lanes(p)) {
            for (int j = 0; j < part.count; ++j) {
                const long left = shape.H - shape.unit(p, j);
                if (left < L) whole = false;
                if (left <= 0) break;
                at[count] = shape.column(part, p, j);
                room[count++] = left;
            }
        }
    };

    static void add_row(const Slots& slots, const R* from, R* row) {
        for (int j = 0; j < slots.count; ++j) {
            R* to = row + slots.at[j];
            const V sum = V::load(from + j * slots.lanes);
            if (slots.whole)
                (V::load(to) + sum).store(to);
            else
                (V::load(to, slots.room[j]) + sum).store(to, slots.room[j]);
        }
    }
};

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
