// The products of a forward pass on vector registers.
//
// Two forms, of the same sums in the same order.  Shared: each step multiplies x_t and h_{t-1} in one go.  Hoisted: the
// input's product is taken for several steps at once, where a step's own rows are too few to be worth streaming W_x
// for.
#ifndef GPULSTM_CPU_FORWARD_VECTORS_H
#define GPULSTM_CPU_FORWARD_VECTORS_H

#include "plan.h"

namespace gpulstm {
namespace GPULSTM_ISA {

constexpr long HOIST_ROWS = 12;  // rows of a group up to which the input's product is hoisted

template <typename R>
struct ForwardOnVectors {
    typedef Vec<R> V;
    static constexpr long L = V::LANES;
    static constexpr bool NARROWS = true;  // whether the last panel may be narrow
    static constexpr long FULL_ROWS = 1;   // rows of a group that leave no register empty
    struct Session {};                     // what a thread needs while it multiplies: nothing
    static size_t weight_bytes(const ForwardCall<R>&) { return sizeof(R); }  // of a packed weight

    long hoist = 0;  // steps whose input product is taken at once; 0: shared
    bool halves;     // whether a panel of W_h lies in two halves, each from the first k to the last
    R *w_x, *w_h, *ahead;

    template <typename Pass>
    explicit ForwardOnVectors(const Pass& pass) : halves(in_halves(pass.rows_most, pass.shape.h.count)) {
        const long T = pass.call.T;
        if (pass.rows_most > HOIST_ROWS || T <= 1) return;
        hoist = cache_model().ahead / long(sizeof(R)) / (pass.rows_most * pass.shape.width);
        hoist = hoist < 1 ? 1 : hoist > 64 ? 64 : hoist;
        if (hoist > T) hoist = T;
    }

    // No look ahead beyond the next multiple of a number of steps, `steps` at most, which it returns.
    long look_ahead_within(long steps) {
        if (!hoist) return steps;
        hoist = hoist < steps ? hoist : steps;
        return steps / hoist * hoist;
    }

    template <typename Pass>
    void lay_out(const Pass& pass, Layout& m) {
        w_x = m.take<R>(pass.shape.panels * pass.call.I * pass.shape.x.count * L);
        w_h = m.take<R>(pass.shape.panels * pass.call.H * pass.shape.h.count * L);
        ahead = m.take<R>(hoist * pass.plan.groups * pass.rows_most * pass.shape.width);
    }
    // Of a thread's scratch: some rows of a few panels.
    template <typename Pass>
    static long scratch_size(const Pass&) {
        return CHUNK_ROWS * SCRATCH_ROW * L;
    }

    template <typename Pass>
    void pack(const Pass& pass, long p0, long p1) {
        pack_weights(pass.shape, pass.shape.x, pass.call.w_x, pass.call.I, w_x, p0, p1);
        pack_weights(pass.shape, pass.shape.h, pass.call.w_h, pass.call.H, w_h, p0, p1, halves ? 2 : 4);
    }
    template <typename Pass>
    void clear(const Pass&, int) {}
    template <typename Pass>
    void put(const Pass&, const Place&, long, long, long, V) {}

    template <typename Pass>
    void before_step(const Pass& pass, const Place& place, long s, long q0, long q1) {
        if (hoist && s % hoist == 0) look_ahead(pass, place, s, q0, q1);
    }

    // The step at time t, the s-th since the initial state.
    template <typename Pass>
    void step(Pass& pass, const Place& place, int, long s, long t, long q0, long q1, R* own) {
        const long rows = place.r1 - place.r0;
        const long first = s - (hoist ? s % hoist : 0),
                   last = hoist && first + hoist < pass.call.T ? first + hoist : pass.call.T;
        const long slot = pass.call.reverse ? last - 1 - s : s - first;  // of this step among those looked ahead
        // Up and down by turns: what the last step left in the second-level cache is what this one reads first, so
        // weights a little larger than that are mostly read from there, where going round in one direction would find
        // none.
        const bool down = s & 1;
        const bool narrow = pass.shape.is_narrow(q1 - 1);  // then it is taken alone
        for (long done = q0; done < q1;) {
            const bool alone = narrow && done == (down ? q0 : q1 - 1);
            const int at_once = rows <= 3 && !alone ? panels_at_once(rows, q1 - done - (narrow && !down)) : 1;
            const long p = down ? q0 + q1 - done - at_once : done;
            for (long r = 0; r < rows; r += CHUNK_ROWS) {
                const long now = rows - r < CHUNK_ROWS ? rows - r : CHUNK_ROWS;
                const R* start = hoist ? ahead_row(pass, place, slot * rows + r) + p * 4 * L : nullptr;
                panel_step(pass, place, place.r0 + r, now, s, t, p, at_once, start, own);
            }
            done += at_once;
        }
    }

  private:
    static constexpr long SCRATCH_ROW = 16;  // registers: 4 panels of 4

    // The input's product for the steps from s on.
    template <typename Pass>
    void look_ahead(const Pass& pass, const Place& place, long s, long q0, long q1) {
        const long steps = s + hoist < pass.call.T ? hoist : pass.call.T - s, rows = place.r1 - place.r0;
        const long t0 = pass.call.reverse ? pass.time(s + steps - 1) : pass.time(s);
        const bool whole = rows == pass.call.B;  // the rows of all steps lie one after another
        const long runs = whole ? 1 : steps, length = whole ? steps * rows : rows;
        for (long p = q0; p < q1; ++p) {
            const int nv = pass.shape.registers(pass.shape.x.count, p);
            for (long i = 0; i < runs; ++i)
                for (long r = 0; r < length; r += CHUNK_ROWS) {
                    Product<R> q =
                        plain_product(pass.call.x + ((t0 + i) * pass.call.B + place.r0 + r) * pass.call.I, pass.call.I,
                                      pass.call.I, w_x + p * pass.call.I * pass.shape.x.count * L, nv * L,
                                      ahead_row(pass, place, i * rows + r) + p * 4 * L, pass.shape.width);
                    q.in = pass.bias + p * 4 * L;
                    product(q, length - r < CHUNK_ROWS ? length - r : CHUNK_ROWS, nv);
                }
        }
        if (pass.call.cell != Cell::gru) return;
        for (long p = q0; p < q1; ++p)
            for (long r = 0; r < steps * rows; ++r)
                V::load(pass.bias + p * 4 * L + 3 * L)
                    .store(ahead_row(pass, place, 0) + r * pass.shape.width + p * 4 * L + 3 * L);
    }
    template <typename Pass>
    R* ahead_row(const Pass& pass, const Place& place, long row) const {
        return ahead + (place.group * pass.rows_most * hoist + row) * pass.shape.width;
    }

    template <typename Pass>
    void panel_step(Pass& pass, const Place& place, long b0, long rows, long s, long t, long p, int at_once,
                    const R* start, R* own) {
        const long tiles = tiles_for(rows, pass.shape.h.count), line = at_once * 4 * L;
        bool begun = false;
        Product<R> q;
        q.io_panel = 4 * L;
        q.a_step = 1;
        q.a_segment = 0;
        q.segments = 1;
        q.out_row = line;
        if (pass.call.cell == Cell::gru) {  // its products fill different slots: all are set before
            for (long r = 0; r < rows; ++r)
                for (long j = 0; j < at_once * 4 * L; j += L)
                    V::load(start ? start + r * pass.shape.width + j : pass.bias + p * 4 * L + j)
                        .store(own + r * line + j);
            begun = true;
        }
        for (int which = start ? 1 : 0; which < 2; ++which) {
            if (which && halves) {
                half_products(pass, q, b0, rows, s, p, start, own, begun);
                pass.finish(place, b0, rows, s, t, p, own, line);
                break;
            }
            const Part& part = which ? pass.shape.h : pass.shape.x;
            const int nv = pass.shape.registers(part.count, p);
            const long K = which ? pass.call.H : pass.call.I, per = nv * L;
            const R* weights = (which ? w_h : w_x) + p * K * part.count * L;
            const long length = tiles > 1 ? block_length(K, per * long(sizeof(R))) : K;
            q.b_panel = K * per;
            q.b_row = per;
            q.a_row = which ? pass.shape.padded : pass.call.I;
            const R* a =
                which ? pass.v[s & 1] + b0 * pass.shape.padded : pass.call.x + (t * pass.call.B + b0) * pass.call.I;
            for (long k = 0; k < K; k += length) {
                q.run = k + length < K ? length : K - k;
                q.b = weights + k * per;
                const bool ends = which && k + length >= K;
                for (long i = 0; i < tiles; ++i) {
                    const long r = share(rows, tiles, i), r_end = share(rows, tiles, i + 1);
                    q.out = own + r * line + part.first * L;
                    q.in = begun ? q.out : start ? start + r * pass.shape.width : pass.bias + p * 4 * L;
                    q.in_row = begun ? line : start ? pass.shape.width : 0;
                    q.a = a + r * q.a_row + k;
                    some_panels<R>(int(r_end - r), nv, at_once)(q, 0);
                    if (!ends) continue;
                    for (int j = 0; j < at_once; ++j)
                        pass.finish(place, b0 + r, r_end - r, s, t, p + j, own + r * line + j * 4 * L, line);
                }
                begun = true;
            }
        }
    }

    template <typename Pass>
    void half_products(const Pass& pass, Product<R> q, long b0, long rows, long s, long p, const R* start, R* own,
                       bool begun) {
        const long K = pass.call.H;
        q.b_row = 2 * L;
        q.run = K;
        q.a_row = pass.shape.padded;
        q.a = pass.v[s & 1] + b0 * q.a_row;
        q.in_row = begun ? q.out_row : start ? pass.shape.width : 0;
        for (int half = 0; half < 2; ++half) {
            q.b = w_h + (p * 2 + half) * K * 2 * L;
            q.out = own + half * 2 * L;
            q.in = begun ? q.out : (start ? start : pass.bias + p * 4 * L) + half * 2 * L;
            one_panel<R>(int(rows), 2)(q, 0);
        }
    }
};

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
