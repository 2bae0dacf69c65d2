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
        const auto& call = this->call;
        R* data = left + thread * this->depth_most * this->columns;
        const LeftFactor<R> x{call.I, depth, data}, v{call.H, depth, data + depth * call.I};
        R* z = right + thread * this->depth_most * 4 * L;
        for (long d = 0; d < depth; ++d) {
            const long t = (k + d) / call.B, b = (k + d) % call.B;
            x.put(call.x + (k + d) * call.I, nullptr, d);
            v.put(this->before(t, b), call.mask ? call.mask + b * call.H : nullptr, d);
        }
        for (long p = p0; p < p1; ++p) {
            R sum[4 * L];
            pack_panel(dz + (k * this->shape.panels + p) * 4 * L, this->shape.registers(4, p), depth, z, sum);
            add(this->shape.x, x, z, p, call.dw_x, thread);
            add(this->shape.h, v, z, p, call.dw_h, thread);
            this->add_biases(p, sum);
        }
    }

    // One panel of dz for some rows, of `nv` registers, and its sum over them.
    void pack_panel(const R* from, int nv, long depth, R* out, R* sum) const {
        V total[4];
        for (int j = 0; j < 4; ++j) total[j] = V(R(0));
        for (long d = 0; d < depth; ++d)
            for (int j = 0; j < nv; ++j) {
                V z = V::load(from + d * this->shape.width + j * L);
                z.store(out + (d * nv + j) * L);
                total[j] = total[j] + z;
            }
        for (int j = 0; j < 4; ++j) total[j].store(sum + j * L);
    }

    // dw [M][G*H] += a^T z, the columns of one panel.
    void add(const Part& part, const LeftFactor<R>& a, const R* z, long p, R* dw, int thread) {
        R* sum = sums + thread * ROWS * 4 * L;
        const long row = this->shape.gates * this->shape.H;
        const typename WeightGradients<R>::Slots slots(this->shape, part, p);
        const int nv = this->shape.registers(part.count, p);
        a.each_tile(nv, z + part.first * L, this->shape.registers(4, p) * L, sum, [&](long c, long columns) {
            for (long e = 0; e < columns; ++e) this->add_row(slots, sum + e * nv * L, dw + (c + e) * row);
        });
    }
};

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
