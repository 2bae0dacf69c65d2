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

#include "amx.h"
#include "plan.h"

namespace gpulstm {
namespace GPULSTM_ISA {

constexpr long FEW_GRADIENT_ROWS = 256;   // of a part of a block, where the gradients stay in the second-level cache, and
constexpr long MANY_GRADIENT_ROWS = 1024; // more, as each part reads and writes all of them once
constexpr long GRADIENT_BYTES = 2 << 20;
constexpr long TILED_GRADIENT_ROWS = 512; // on a matrix unit, and
constexpr long TILED_GRADIENT_COLUMNS = 24;  // tiles of columns of x or v whose parts, 1.1 MiB, stay in that cache

// The step that row b takes first, -1 for a row of length 0.
template <typename R>
static long first_time(const BackwardCall<R>& call, long b) {
    if (!call.reverse) return 0;
    return (call.lengths && call.lengths[b] < call.T ? call.lengths[b] : call.T) - 1;
}

template <typename R>
struct Gradients {
    typedef Vec<R> V;
    typedef Amx<R> M;
    typedef typename M::Bf16 Bf16;
    static constexpr long L = V::LANES;

    const BackwardCall<R>& call;
    const Shape<R>& shape;
    const int threads;
    const long columns, depth_most;  // of x and v together; rows of a part
    R *left, *right, *sums;  // of each thread: packed parts of x and v, of dz, and a tile's sums
    const R** rows;          // of each thread: where a part's rows of v lie
    Bf16 *tiled_left, *tiled_right;

    Gradients(const BackwardCall<R>& c, const Shape<R>& s, int count)
        : call(c), shape(s), threads(count), columns(c.I + c.H), depth_most(part_rows(c, s)) {}

    static long part_rows(const BackwardCall<R>& c, const Shape<R>& s) {
        const long rows = c.T * c.B;
        if (M::here) return rows < TILED_GRADIENT_ROWS ? rows : TILED_GRADIENT_ROWS;
        const bool large = (c.I + c.H) * s.width * long(sizeof(R)) > GRADIENT_BYTES;
        const long most = large ? MANY_GRADIENT_ROWS : FEW_GRADIENT_ROWS;
        return rows < most ? rows : most;
    }

    void lay_out(Layout& m) {
        const long most = row_tiles_for(call.I) + row_tiles_for(call.H), blocks = blocks_for(depth_most);
        const long tiles = most < TILED_GRADIENT_COLUMNS ? most : TILED_GRADIENT_COLUMNS;
        left = m.take<R>(M::here ? 0 : threads * depth_most * columns);
        right = m.take<R>(M::here ? 0 : threads * depth_most * 4 * L);
        sums = m.take<R>(threads * (M::here ? TILE_ROWS : ROWS) * 4 * L);
        rows = m.take<const R*>(M::here ? threads * depth_most : 0);
        tiled_left = m.take<Bf16>(M::here ? threads * tiles * blocks * BLOCK : 0);
        tiled_right = m.take<Bf16>(M::here ? threads * 4 * blocks * BLOCK : 0);
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
        if constexpr (M::here) return part_on_tiles(thread, dz, k, depth, p0, p1);
        R* x = left + thread * depth_most * columns;
        R* v = x + depth * call.I;
        R* z = right + thread * depth_most * 4 * L;
        const long x_tiles = tiles_for(call.I, shape.x.count), v_tiles = tiles_for(call.H, shape.h.count);
        for (long d = 0; d < depth; ++d) {
            pack_row(call.x + (k + d) * call.I, nullptr, call.I, x_tiles, depth, x, d);
            const long b = (k + d) % call.B;
            pack_row(before((k + d) / call.B, b), call.mask ? call.mask + b * call.H : nullptr, call.H, v_tiles, depth,
                     v, d);
        }
        for (long p = p0; p < p1; ++p) {
            R sum[4 * L];
            pack_panel(dz + (k * shape.panels + p) * 4 * L, depth, z, sum);
            add(shape.x, x, call.I, depth, z, p, call.dw_x, thread);
            add(shape.h, v, call.H, depth, z, p, call.dw_h, thread);
            add_biases(p, sum);
        }
    }

    // The tiles of columns of x, then of v, in groups whose parts stay in the cache; for each group all panels of dz.
    void part_on_tiles(int thread, const R* dz, long k, long depth, long p0, long p1) {
        const long x_tiles = row_tiles_for(call.I), all = x_tiles + row_tiles_for(call.H), blocks = blocks_for(depth);
        const long groups = (all + TILED_GRADIENT_COLUMNS - 1) / TILED_GRADIENT_COLUMNS;
        Bf16* columns_of = tiled_left + thread * ((all + groups - 1) / groups) * blocks_for(depth_most) * BLOCK;
        Bf16* z = tiled_right + thread * 4 * blocks_for(depth_most) * BLOCK;
        const R** v = rows + thread * depth_most;
        for (long d = 0; d < depth; ++d) v[d] = before((k + d) / call.B, (k + d) % call.B);
        for (long g = 0; g < groups; ++g) {
            const long first = share(all, groups, g), last = share(all, groups, g + 1);
            for (long i = first; i < last; ++i) {
                Bf16* to = columns_of + (i - first) * blocks * BLOCK;
                if (i < x_tiles) {
                    const R* x = call.x + k * call.I + i * TILE_ROWS;
                    M::put_columns(to, depth, [&](long d) { return V::load(x + d * call.I, call.I - i * TILE_ROWS); });
                } else {
                    const long c = (i - x_tiles) * TILE_ROWS, room = call.H - c;
                    M::put_columns(to, depth, [&](long d) {
                        const V h = V::load(v[d] + c, room);
                        return call.mask ? h * V::load(call.mask + (k + d) % call.B * call.H + c, room) : h;
                    });
                }
            }
            for (long p = p0; p < p1; ++p) {
                R sum[4 * L];
                M::put_pairs(z, dz + (k * shape.panels + p) * 4 * L, shape.width, depth, sum);
                for (long i = first; i < last; ++i) {
                    const Bf16* of = columns_of + (i - first) * blocks * BLOCK;
                    const long c = (i < x_tiles ? i : i - x_tiles) * TILE_ROWS;
                    if (i < x_tiles) add_tile(shape.x, of, z, blocks, p, c, call.I, call.dw_x, thread);
                    else add_tile(shape.h, of, z, blocks, p, c, call.H, call.dw_h, thread);
                }
                if (g == 0) add_biases(p, sum);
            }
        }
    }

    // dw [M][G*H] += the product for rows c to c + 15 and the columns of a panel.
    void add_tile(const Part& part, const Bf16* of, const Bf16* z, long blocks, long p, long c, long count, R* dw, int thread) {
        const long row = shape.gates * shape.H, rows_there = count - c < TILE_ROWS ? count - c : TILE_ROWS;
        R* own = sums + thread * TILE_ROWS * 4 * L;
        const bool whole = rows_there == TILE_ROWS && shape.unit(p, part.count - 1) + L <= shape.H;
        R* at[4];
        for (int j = 0; j < part.count; ++j) at[j] = whole ? dw + c * row + shape.column(part, p, j) : own + j * L;
        if (!whole)  // the tile's own copy: what lies beside it may be another thread's
            for (long r = 0; r < rows_there; ++r)
                for (int j = 0; j < part.count; ++j) {
                    const long room = shape.H - shape.unit(p, j);
                    const R* from = dw + (c + r) * row + shape.column(part, p, j);
                    (room > 0 ? V::load(from, room) : V(R(0))).store(own + (r * 4 + j) * L);
                }
        const long stride = whole ? row : 4 * L;
        z += part.first * BLOCK;
        if (part.count == 4) M::template add_product<4>(at, stride, of, z, blocks, 0);
        else M::template add_product<3>(at, stride, of, z, blocks, 1);
        if (!whole)
            for (long r = 0; r < rows_there; ++r)
                for (int j = 0; j < part.count; ++j) {
                    const long room = shape.H - shape.unit(p, j);
                    if (room > 0) V::load(own + (r * 4 + j) * L).store(dw + (c + r) * row + shape.column(part, p, j), room);
                }
    }

    void add_biases(long p, const R* sum) const {
        if (call.db) add_row(shape.x, p, sum + shape.x.first * L, call.db);
        const long room = shape.H - p * L;
        if (call.db_hn && room > 0) (V::load(call.db_hn + p * L, room) + V::load(sum + 3 * L)).store(call.db_hn + p * L, room);
    }

    // h of row b before step t.  Where the step is beyond the row's end dz is zero, and any h will do.
    const R* before(long t, long b) const {
        const long old = call.reverse ? t + 1 : t - 1;
        const bool first = t == first_time(call, b) || old < 0 || old == call.T;
        return first ? call.h0 + b * call.H : call.y + (old * call.B + b) * call.H;
    }

    static constexpr long MOST = FEW_REGISTERS ? 3 : ROWS;  // the usual number of columns of a tile

    // Row d of a part, times `factor`, by tile of its columns: [tile][d][columns of the tile].
    static void pack_row(const R* from, const R* factor, long count, long tiles, long depth, R* out, long d) {
        for (long i = 0; i < tiles; ++i) {
            const long c = share(count, tiles, i), now = share(count, tiles, i + 1) - c;
            R* to = out + c * depth + d * now;
            if (factor)
                for (long e = 0; e < now; ++e) to[e] = from[c + e] * factor[c + e];
            else if (now == MOST) __builtin_memcpy(to, from + c, MOST * sizeof(R));
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
        const long tiles = tiles_for(M, part.count), row = shape.gates * shape.H;
        for (long i = 0; i < tiles; ++i) {
            const long c = share(M, tiles, i), count = share(M, tiles, i + 1) - c;
            Product<R> q = plain_product(a + c * depth, 1, depth, z + part.first * L, 4 * L, sum, part.count * L);
            q.a_step = count;
            one_panel<R>(int(count), part.count)(q, 0);
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
