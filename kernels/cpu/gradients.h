// The gradients of the weights: sums over all steps and rows, each a whole-sequence product, added to what is there.
//
//     dW_x += x^T dz      dW_h += v^T dz, v = h_{t-1} as the recurrent product saw it      db += sum of dz
//
// All three in one pass over dz, whose panels are divided among the threads.  Each sum runs over the rows of a block in
// order, and the blocks are added in the order in which backpropagation meets them.  Blocks begin at multiples of a number
// of steps that depends on the batch alone (`block_steps` in gpulstm/engines/cpu.py): so a sum depends neither on the number
// of threads nor on whether the sequence was cut at such a multiple.
#ifndef GPULSTM_CPU_GRADIENTS_H
#define GPULSTM_CPU_GRADIENTS_H

#include "plan.h"

namespace gpulstm {
namespace GPULSTM_ISA {

constexpr long GRADIENT_BLOCK = 1024;     // rows of a block (of one step at least), summed in parts of so many rows:
constexpr long FEW_GRADIENT_ROWS = 256;   // where the gradients stay in the second-level cache, and otherwise
constexpr long MANY_GRADIENT_ROWS = 1024; // more, as each part reads and writes all of them once
constexpr long GRADIENT_BYTES = 2 << 20;

// The step that row b takes first, -1 for a row of length 0.
template <typename R>
static long first_time(const BackwardCall<R>& call, long b) {
    if (!call.reverse) return 0;
    return (call.lengths && call.lengths[b] < call.T ? call.lengths[b] : call.T) - 1;
}

template <typename R>
struct Gradients {
    typedef Vec<R> V;
    static constexpr long L = V::LANES;

    const BackwardCall<R>& call;
    const Shape<R>& shape;
    const int threads;
    const long columns, depth_most;  // of x and v together; rows of a part
    R *left, *right, *sums;  // of each thread: packed parts of x and v, of dz, and a tile's sums

    Gradients(const BackwardCall<R>& c, const Shape<R>& s, int count)
        : call(c), shape(s), threads(count), columns(c.I + c.H), depth_most(part_rows(c, s)) {}

    static long part_rows(const BackwardCall<R>& c, const Shape<R>& s) {
        const bool large = (c.I + c.H) * s.width * long(sizeof(R)) > GRADIENT_BYTES;
        const long most = large ? MANY_GRADIENT_ROWS : FEW_GRADIENT_ROWS, all = c.T * c.B;
        return all < most ? all : most;
    }

    void lay_out(Layout& m) {
        left = m.take<R>(threads * depth_most * columns);
        right = m.take<R>(threads * depth_most * 4 * L);
        sums = m.take<R>(threads * ROWS * 4 * L);
    }

    void run(int thread, const R* dz) {
        const long p0 = share(shape.panels, threads, thread), p1 = share(shape.panels, threads, thread + 1);
        const long all = call.T * call.B, steps = GRADIENT_BLOCK / call.B ? GRADIENT_BLOCK / call.B : 1;
        const long block = steps * call.B, blocks = (all + block - 1) / block;
        for (long i = 0; i < blocks && p0 < p1; ++i) {
            const long start = (call.reverse ? i : blocks - 1 - i) * block;
            const long stop = start + block < all ? start + block : all;
            for (long k = start; k < stop; k += depth_most)
                part(thread, dz, k, stop - k < depth_most ? stop - k : depth_most, p0, p1);
        }
    }

    void part(int thread, const R* dz, long k, long depth, long p0, long p1) {
        R* x = left + thread * depth_most * columns;
        R* v = x + depth * call.I;
        R* z = right + thread * depth_most * 4 * L;
        for (long d = 0; d < depth; ++d) {
            pack_row(call.x + (k + d) * call.I, nullptr, call.I, depth, x, d);
            const long b = (k + d) % call.B;
            pack_row(before((k + d) / call.B, b), call.mask ? call.mask + b * call.H : nullptr, call.H, depth, v, d);
        }
        for (long p = p0; p < p1; ++p) {
            R sum[4 * L];
            pack_panel(dz + (k * shape.panels + p) * 4 * L, depth, z, sum);
            add(shape.x, x, call.I, depth, z, p, call.dw_x, thread);
            add(shape.h, v, call.H, depth, z, p, call.dw_h, thread);
            if (call.db) add_row(shape.x, p, sum + shape.x.first * L, call.db);
            const long room = shape.H - p * L;
            if (call.db_hn && room > 0) (V::load(call.db_hn + p * L, room) + V::load(sum + 3 * L)).store(call.db_hn + p * L, room);
        }
    }

    // h of row b before step t.  Where the step is beyond the row's end dz is zero, and any h will do.
    const R* before(long t, long b) const {
        const long old = call.reverse ? t + 1 : t - 1;
        const bool first = t == first_time(call, b) || old < 0 || old == call.T;
        return first ? call.h0 + b * call.H : call.y + (old * call.B + b) * call.H;
    }

    // Row d of a part, times `factor`, by tile of its columns: [tile][d][columns of the tile].
    static void pack_row(const R* from, const R* factor, long count, long depth, R* out, long d) {
        const long tiles = tiles_for(count);
        for (long i = 0; i < tiles; ++i) {
            const long c = share(count, tiles, i), now = share(count, tiles, i + 1) - c;
            R* to = out + c * depth + d * now;
            if (factor)
                for (long e = 0; e < now; ++e) to[e] = from[c + e] * factor[c + e];
            else if (now == ROWS) __builtin_memcpy(to, from + c, ROWS * sizeof(R));
            else
                for (long e = 0; e < now; ++e) to[e] = from[c + e];
        }
    }

    // One panel of dz for some rows, and its sum over them.
    void pack_panel(const R* from, long depth, R* out, R* sum) const {
        V total[4];
        for (int j = 0; j < 4; ++j) total[j] = V(R(0));
        for (long d = 0; d < depth; ++d)
            for (int j = 0; j < 4; ++j) {
                V z = V::load(from + d * shape.width + j * L);
                z.store(out + (d * 4 + j) * L);
                total[j] = total[j] + z;
            }
        for (int j = 0; j < 4; ++j) total[j].store(sum + j * L);
    }

    // dw [M][G*H] += a^T z, the columns of one panel.
    void add(const Part& part, const R* a, long M, long depth, const R* z, long p, R* dw, int thread) {
        R* sum = sums + thread * ROWS * 4 * L;
        const long tiles = tiles_for(M), row = shape.gates * shape.H;
        for (long i = 0; i < tiles; ++i) {
            const long c = share(M, tiles, i), count = share(M, tiles, i + 1) - c;
            const Product<R> q = plain_product(a + c * depth, 0, depth, z + part.first * L, 4 * L, sum, part.count * L);
            one_panel<R, true>(int(count), part.count)(q);
            for (long e = 0; e < count; ++e) add_row(part, p, sum + e * part.count * L, dw + (c + e) * row);
        }
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
