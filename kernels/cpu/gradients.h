// The gradients of the weights: sums over all steps and rows, each one product, added to what is there.
//
//     dW_x += x^T dz      dW_h += v^T dz, v = h_{t-1} as the recurrent product saw it      db += sum of dz
//
// The panels of dz are divided among the threads; each sum runs over time in fixed blocks, so it does not depend on their
// number.
#ifndef GPULSTM_CPU_GRADIENTS_H
#define GPULSTM_CPU_GRADIENTS_H

#include "plan.h"

namespace gpulstm {
namespace GPULSTM_ISA {

constexpr long GRADIENT_ROWS = 256;    // rows of a block: summed before they are added to the gradient
constexpr long GRADIENT_COLUMNS = 384;  // of x or v taken at a time: with the rows, half a second-level cache

template <typename R>
struct Gradients {
    typedef Vec<R> V;
    static constexpr long L = V::LANES;

    const BackwardCall<R>& call;
    const Shape<R>& shape;
    const int threads;
    R *left, *right, *sums;  // of each thread: packed blocks of v^T and dz, and their product

    Gradients(const BackwardCall<R>& c, const Shape<R>& s, int count) : call(c), shape(s), threads(count) {}

    void lay_out(Layout& m) {
        left = m.take<R>(threads * GRADIENT_ROWS * (GRADIENT_COLUMNS + ROWS));
        right = m.take<R>(threads * GRADIENT_ROWS * 4 * L);
        sums = m.take<R>(threads * ROWS * 4 * L);
    }

    void run(int thread, const R* dz) {
        const long p0 = share(shape.panels, threads, thread), p1 = share(shape.panels, threads, thread + 1);
        if (p0 == p1 || !call.T) return;
        const long rows = (call.T - 1) * call.B, step = call.B * shape.width;
        add(thread, shape.x, call.x, call.I, nullptr, dz, nullptr, rows + call.B, call.dw_x, p0, p1);
        if (call.reverse) {
            add(thread, shape.h, call.y + call.B * call.H, call.H, call.mask, dz, nullptr, rows, call.dw_h, p0, p1);
            if (call.lengths) add(thread, shape.h, call.h0, call.H, call.mask, dz, call.lengths, call.B, call.dw_h, p0, p1);
            else add(thread, shape.h, call.h0, call.H, call.mask, dz + rows * shape.width, nullptr, call.B, call.dw_h, p0, p1);
        } else {
            add(thread, shape.h, call.h0, call.H, call.mask, dz, nullptr, call.B, call.dw_h, p0, p1);
            add(thread, shape.h, call.y, call.H, call.mask, dz + step, nullptr, rows, call.dw_h, p0, p1);
        }
        if (call.db) add_biases(dz, p0, p1);
    }

    // dw [M][G*H] += a^T dz for a [rows][M], its rows times those of `mask` [B][M] again and again; with `ends`, row b of a
    // meets dz of step ends[b] - 1 instead.
    void add(int thread, const Part& part, const R* a, long M, const R* mask, const R* dz, const int64_t* ends, long rows,
             R* dw, long p0, long p1) {
        R* packed_a = left + thread * GRADIENT_ROWS * (GRADIENT_COLUMNS + ROWS);
        R* packed_z = right + thread * GRADIENT_ROWS * 4 * L;
        R* sum = sums + thread * ROWS * 4 * L;
        for (long k = 0; k < rows; k += GRADIENT_ROWS) {
            const long depth = rows - k < GRADIENT_ROWS ? rows - k : GRADIENT_ROWS;
            for (long m = 0; m < M; m += GRADIENT_COLUMNS) {
                const long columns = M - m < GRADIENT_COLUMNS ? M - m : GRADIENT_COLUMNS, tiles = tiles_for(columns);
                pack_left(a, M, mask, k, depth, m, columns, packed_a);
                for (long p = p0; p < p1; ++p) {
                    pack_right(part, dz, ends, k, depth, p, packed_z);
                    for (long i = 0; i < tiles; ++i) {
                        const long c = share(columns, tiles, i), count = share(columns, tiles, i + 1) - c;
                        Product<R> q;
                        q.in = nullptr;
                        q.in_row = 0;
                        q.out = sum;
                        q.out_row = part.count * L;
                        q.io_panel = 0;
                        q.a = packed_a + c * depth;
                        q.a_row = 0;
                        q.a_segment = 0;
                        q.segments = 1;
                        q.run = depth;
                        q.b = packed_z;
                        q.b_panel = 0;
                        one_panel<R, true>(int(count), part.count)(q);
                        for (long e = 0; e < count; ++e) add_row(part, p, sum + e * q.out_row, dw + (m + c + e) * shape.gates * shape.H);
                    }
                }
            }
        }
    }

    void add_row(const Part& part, long p, const R* from, R* row) {
        for (int j = 0; j < part.count; ++j) {
            const long room = shape.H - shape.unit(p, j);
            if (room <= 0) continue;
            R* to = row + shape.column(part, p, j);
            (V::load(to, room) + V::load(from + j * L)).store(to, room);
        }
    }

    // Columns m .. m+columns of `depth` rows, by tile: [tile][k][columns of the tile].
    void pack_left(const R* a, long M, const R* mask, long k, long depth, long m, long columns, R* out) {
        const long tiles = tiles_for(columns);
        for (long d = 0; d < depth; ++d) {
            const R* from = a + (k + d) * M + m;
            const R* factor = mask ? mask + (k + d) % call.B * M + m : nullptr;
            for (long i = 0; i < tiles; ++i) {
                const long c = share(columns, tiles, i), count = share(columns, tiles, i + 1) - c;
                R* to = out + c * depth + d * count;
                for (long e = 0; e < count; ++e) to[e] = factor ? from[c + e] * factor[c + e] : from[c + e];
            }
        }
    }

    void pack_right(const Part& part, const R* dz, const int64_t* ends, long k, long depth, long p, R* out) {
        for (long d = 0; d < depth; ++d, out += part.count * L) {
            long row = k + d;
            if (ends) row += (ends[row] < call.T ? ends[row] - 1 : call.T - 1) * call.B;
            const bool none = row < 0 || (ends && ends[k + d] <= 0);
            const R* from = none ? nullptr : dz + row * shape.width + (p * 4 + part.first) * L;
            for (int j = 0; j < part.count; ++j) (none ? V(R(0)) : V::load(from + j * L)).store(out + j * L);
        }
    }

    void add_biases(const R* dz, long p0, long p1) {
        for (long p = p0; p < p1; ++p) {
            V sum[4];
            for (int j = 0; j < 4; ++j) sum[j] = V(R(0));
            for (long r = 0; r < call.T * call.B; ++r)
                for (int j = 0; j < 4; ++j) sum[j] = sum[j] + V::load(dz + r * shape.width + (p * 4 + j) * L);
            R line[4 * L];
            for (int j = 0; j < 4; ++j) sum[j].store(line + j * L);
            add_row(shape.x, p, line + shape.x.first * L, call.db);
            const long room = shape.H - p * L;
            if (call.db_hn && room > 0) (V::load(call.db_hn + p * L, room) + sum[3]).store(call.db_hn + p * L, room);
        }
    }
};

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
