// The gradients of the weights on vector registers.
#ifndef GPULSTM_CPU_WEIGHTS_VECTORS_H
#define GPULSTM_CPU_WEIGHTS_VECTORS_H

#include "gradients.h"

namespace gpulstm {
namespace GPULSTM_ISA {

constexpr long FEW_GRADIENT_ROWS = 256;    // of a part of a block, where the gradients are small, and otherwise
constexpr long MANY_GRADIENT_ROWS = 1024;  // more, as each part reads and writes all of them once
constexpr long GRADIENT_BYTES = 2 << 20;   // not the cache's size: sums are the same on every machine

template <typename R>
struct WeightsOnVectors : WeightGradients<R> {
    typedef Vec<R> V;
    static constexpr long L = V::LANES;
    struct Session {};

    R *left, *right, *sums;  // of each thread: packed parts of x and v, of dz, and a tile's sums

    WeightsOnVectors(const BackwardCall<R>& c, const Shape<R>& s, int count)
        : WeightGradients<R>(
              c, s, count,
              (c.I + c.H) * s.width * long(sizeof(R)) > GRADIENT_BYTES ? MANY_GRADIENT_ROWS : FEW_GRADIENT_ROWS) {}

    void lay_out(Layout& m) {
        left = m.take<R>(this->threads * this->depth_most * this->columns);
        right = m.take<R>(this->threads * this->depth_most * 4 * L);
        sums = m.take<R>(this->threads * ROWS * 4 * L);
    }

    void run(int thread, const R* dz) {
        this->each_part(thread, [&](long k, long depth, long p0, long p1) { part(thread, dz, k, depth, p0, p1); });
    }

    void part(int thread, const R* dz, long k, long depth, long p0, long p1) {
        R* x = left + thread * this->depth_most * this->columns;
        R* v = x + depth * this->call.I;
        R* z = right + thread * this->depth_most * 4 * L;
        const long x_tiles = tiles_for(this->call.I, this->shape.x.count),
                   v_tiles = tiles_for(this->call.H, this->shape.h.count);
        for (long d = 0; d < depth; ++d) {
            pack_row(this->call.x + (k + d) * this->call.I, nullptr, this->call.I, x_tiles, depth, x, d);
            const long b = (k + d) % this->call.B;
            pack_row(this->before((k + d) / this->call.B, b),
                     this->call.mask ? this->call.mask + b * this->call.H : nullptr, this->call.H, v_tiles, depth, v,
                     d);
        }
        for (long p = p0; p < p1; ++p) {
            R sum[4 * L];
            pack_panel(dz + (k * this->shape.panels + p) * 4 * L, depth, z, sum);
            add(this->shape.x, x, this->call.I, depth, z, p, this->call.dw_x, thread);
            add(this->shape.h, v, this->call.H, depth, z, p, this->call.dw_h, thread);
            this->add_biases(p, sum);
        }
    }

    static constexpr long MOST = FEW_REGISTERS ? 3 : ROWS;  // the usual number of this->columns of a tile

    // Row d of a part, times `factor`, by tile of its this->columns: [tile][d][this->columns of the tile].
    static void pack_row(const R* from, const R* factor, long count, long tiles, long depth, R* out, long d) {
        for (long i = 0; i < tiles; ++i) {
            const long c = share(count, tiles, i), now = share(count, tiles, i + 1) - c;
            R* to = out + c * depth + d * now;
            if (factor)
                for (long e = 0; e < now; ++e) to[e] = from[c + e] * factor[c + e];
            else if (now == MOST)
                __builtin_memcpy(to, from + c, MOST * sizeof(R));
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
                V z = V::load(from + d * this->shape.width + j * L);
                z.store(out + (d * 4 + j) * L);
                total[j] = total[j] + z;
            }
        for (int j = 0; j < 4; ++j) total[j].store(sum + j * L);
    }

    // dw [M][G*H] += a^T z, the this->columns of one panel.
    void add(const Part& part, const R* a, long M, long depth, const R* z, long p, R* dw, int thread) {
        R* sum = sums + thread * ROWS * 4 * L;
        const long tiles = tiles_for(M, part.count), row = this->shape.gates * this->shape.H;
        for (long i = 0; i < tiles; ++i) {
            const long c = share(M, tiles, i), count = share(M, tiles, i + 1) - c;
            Product<R> q = plain_product(a + c * depth, 1, depth, z + part.first * L, 4 * L, sum, part.count * L);
            q.a_step = count;
            one_panel<R>(int(count), part.count)(q, 0);
            for (long e = 0; e < count; ++e) this->add_row(part, p, sum + e * part.count * L, dw + (c + e) * row);
        }
    }
};

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
