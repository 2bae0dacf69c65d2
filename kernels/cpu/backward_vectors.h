// The products of a backward pass on vector registers: of a step, and of dx.
#ifndef GPULSTM_CPU_BACKWARD_VECTORS_H
#define GPULSTM_CPU_BACKWARD_VECTORS_H

#include "plan.h"

namespace gpulstm {
namespace GPULSTM_ISA {

// Of a row of slots only those of the part, panel by panel, where they are not all.
template <typename R>
static void by_panels(const Shape<R>& shape, Product<R>& m, const Part& part) {
    if (part.count == 4) return;
    m.segments = shape.panels;
    m.a_segment = 4 * Vec<R>::LANES;
    m.run = part.count * Vec<R>::LANES;
}

template <typename R>
struct BackwardOnVectors {
    typedef Vec<R> V;
    static constexpr long L = V::LANES;
    static constexpr size_t WEIGHT_BYTES = sizeof(R);
    static constexpr bool NARROWS = true;
    static constexpr long FULL_ROWS = 1;

    R* w_h;  // W_h^T

    template <typename Pass>
    void lay_out(const Pass& pass, Layout& m) {
        w_h = m.take<R>(pass.units.panels * pass.units.nv * L * pass.depth_h());
    }
    template <typename Pass>
    static long scratch_rows(const Pass&) {
        return CHUNK_ROWS;
    }
    template <typename Pass>
    void pack(const Pass& pass, long q0, long q1) {
        pack_transposed(pass.shape, pass.shape.h, pass.call.w_h, pass.units, w_h, q0, q1);
    }
    template <typename Pass>
    void clear(const Pass&, int) {}
    template <typename Pass>
    void put(const Pass&, const Place&, long, long, long, int, V) {}

    template <typename Pass>
    void step(Pass& pass, const Place& place, long s, long q0, long q1, R* own) {
        for (long done = q0; done < q1; ++done) {
            const long q = s & 1 ? q0 + q1 - 1 - done : done;  // up and down by turns, as forwards
            for (long r = place.r0; r < place.r1; r += CHUNK_ROWS)
                panel_step(pass, place, r, place.r1 - r < CHUNK_ROWS ? place.r1 - r : CHUNK_ROWS, s, q, own);
        }
    }

    // Rows of one panel of units: what comes back through W_h from the step after, then the gates of step s; s = -1 is
    // the initial state.
    template <typename Pass>
    void panel_step(Pass& pass, const Place& place, long b0, long rows, long s, long q, R* own) {
        const int nv = pass.units.in_panel(q);
        const long line = nv * L, u0 = q * pass.units.nv * L;
        const bool last = s + 1 == pass.call.T;
        if (!last) {
            Product<R> m = plain_product(
                pass.dz + (pass.time(s + 1) * pass.call.B + b0) * pass.shape.width + pass.shape.h.first * L,
                pass.shape.width, pass.depth_h(), w_h + pass.units.offset(q, pass.depth_h()), line, own, line);
            by_panels(pass.shape, m, pass.shape.h);
            product(m, rows, nv);
        }
        pass.finish_sums(place, b0, rows, s, u0, nv, last ? nullptr : own, line);
    }
};

// dx = dz W_x^T, the rows of all steps divided among all threads.
template <typename R>
struct InputsOnVectors {
    typedef Vec<R> V;
    static constexpr long L = V::LANES;

    R* w_x;  // W_x^T

    template <typename Pass>
    void lay_out(const Pass& pass, Layout& m) {
        w_x = m.take<R>(pass.inputs.panels * pass.inputs.nv * L * pass.depth_x());
    }
    template <typename Pass>
    void pack(const Pass& pass, long q0, long q1) {
        pack_transposed(pass.shape, pass.shape.x, pass.call.w_x, pass.inputs, w_x, q0, q1);
    }
    template <typename Pass>
    void run(const Pass& pass, int thread, R* own) {
        const long all = pass.call.T * pass.call.B, K = pass.depth_x();
        const long r0 = share(all, pass.plan.count(), thread), r1 = share(all, pass.plan.count(), thread + 1);
        for (long q = 0; q < pass.inputs.panels; ++q) {
            const int nv = pass.inputs.in_panel(q);
            const long n0 = q * pass.inputs.nv * L;
            for (long r = r0; r < r1; r += CHUNK_ROWS) {
                const long rows = r1 - r < CHUNK_ROWS ? r1 - r : CHUNK_ROWS;
                Product<R> m = plain_product(pass.dz + r * pass.shape.width + pass.shape.x.first * L, pass.shape.width,
                                             K, w_x + pass.inputs.offset(q, K), nv * L, own, nv * L);
                by_panels(pass.shape, m, pass.shape.x);
                product(m, rows, nv);
                for (long e = 0; e < rows; ++e)
                    for (long j = 0; j < nv; ++j) {
                        const long n = n0 + j * L;
                        V::load(own + (e * nv + j) * L)
                            .store(pass.call.dx + (r + e) * pass.call.I + n, pass.call.I - n);
                    }
            }
        }
    }
};

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
