// A layer backward in time: per step and panel of units the product dz_{t+1} W_h^T, then the gates' gradients dz_t on its
// sums; after the last step the gradients of x and of the weights as whole-sequence products (gradients.h).
#ifndef GPULSTM_CPU_BACKWARD_H
#define GPULSTM_CPU_BACKWARD_H

#include "gradients.h"

namespace gpulstm {
namespace GPULSTM_ISA {

template <typename R>
struct BackwardPass {
    typedef Vec<R> V;
    static constexpr long L = V::LANES;

    const BackwardCall<R>& call;
    const Shape<R> shape;
    const Plan plan;
    const Transposed units, inputs;  // the forms of W_h^T and W_x^T
    R *w_h, *w_x, *dz, *dc, *around, *scratch;
    Gradients<R> gradients;

    BackwardPass(const BackwardCall<R>& f, const Plan& p)
        : call(f), shape(f.cell, f.H), plan(p), units(f.H, L, p.members > 1 ? 1 : 4), inputs(f.I, L, 4),
          gradients(f, shape, p.count()) {}

    void lay_out(Layout& m) {
        w_h = m.take<R>(units.panels * units.nv * L * shape.panels * shape.h.count * L);
        w_x = m.take<R>(inputs.panels * inputs.nv * L * shape.panels * shape.x.count * L);
        dz = m.take<R>(call.T * call.B * shape.width);
        dc = call.cell == Cell::lstm ? m.take<R>(call.B * shape.padded) : nullptr;
        around = m.take<R>(call.B * shape.padded);
        scratch = m.take<R>(plan.count() * CHUNK_ROWS * 4 * L);
        gradients.lay_out(m);
    }

    long time(long step) const { return call.reverse ? call.T - 1 - step : step; }
    bool carries() const { return call.cell == Cell::gru || call.lengths; }

    static void work(void* self, int thread) { static_cast<BackwardPass*>(self)->run(thread); }

    void run(int thread) {
        const int count = plan.count();
        pack_transposed(shape, shape.h, call.w_h, units, w_h, share(units.panels, count, thread),
                        share(units.panels, count, thread + 1));
        pack_transposed(shape, shape.x, call.w_x, inputs, w_x, share(inputs.panels, count, thread),
                        share(inputs.panels, count, thread + 1));
        const Place place(plan, thread, call.B);
        const long q0 = share(units.panels, plan.members, place.member);
        const long q1 = share(units.panels, plan.members, place.member + 1);
        for (long b = place.r0; b < place.r1; ++b) begin_row(b, q0, q1);
        meet_all(plan);
        R* own = scratch + thread * CHUNK_ROWS * 4 * L;
        for (long s = call.T - 1; s >= -1; --s) {
            for (long q = q0; q < q1; ++q)
                for (long r = place.r0; r < place.r1; r += CHUNK_ROWS)
                    panel_step(r, place.r1 - r < CHUNK_ROWS ? place.r1 - r : CHUNK_ROWS, s, q, own);
            if (s >= 0) meet_group(plan, place);
        }
        meet_all(plan);
        input_gradient(thread, own);
        gradients.run(thread, dz);
    }

    void begin_row(long b, long q0, long q1) {
        for (long u = q0 * units.nv * L; u < q1 * units.nv * L && u < shape.padded; u += L) {
            const long at = b * shape.padded + u, from = b * call.H + u, left = call.H - u;
            (left > 0 ? V::load(call.dh_end + from, left) : V(R(0))).store(around + at);
            if (dc) (left > 0 ? V::load(call.dc_end + from, left) : V(R(0))).store(dc + at);
        }
        if (shape.is_rnn() && q1 == units.panels)  // registers of units beyond H have gradients of zero
            for (long t = 0; t < call.T; ++t)
                for (long u = units.registers * L; u < shape.padded; u += L)
                    V(R(0)).store(dz + (t * call.B + b) * shape.width + u);
    }

    // Rows of one panel of units: what comes back through W_h from the step after, then the gates of step s; s = -1 is
    // the initial state.
    void panel_step(long b0, long rows, long s, long q, R* own) {
        const int nv = units.in_panel(q);
        const long line = nv * L, u0 = q * units.nv * L;
        const bool last = s + 1 == call.T;
        if (!last) {
            Product<R> m = plain_product(dz + (time(s + 1) * call.B + b0) * shape.width + shape.h.first * L, shape.width,
                                         shape.width, w_h + units.offset(q, shape.panels * shape.h.count * L), line, own, line);
            by_panels(m, shape.h);
            product(m, rows, nv);
        }
        for (long r = 0; r < rows; ++r)
            for (int j = 0; j < nv; ++j) {
                const long b = b0 + r, u = u0 + j * L, at = b * shape.padded + u, left = call.H - u;
                V dh = last ? V(R(0)) : V::load(own + r * line + j * L);
                if (call.mask) dh = dh * V::load(call.mask + b * call.H + u, left);
                if (last || carries()) dh = dh + V::load(around + at);
                if (s < 0) {
                    dh.store(call.dh0 + b * call.H + u, left);
                    if (dc) V::load(dc + at).store(call.dc0 + b * call.H + u, left);
                } else {
                    finish(b, time(s), u, dh);
                }
            }
    }

    // The gradients of one register of units in one row at time t, from that of h_t but for dy.
    void finish(long b, long t, long u, V dh) {
        const long at = b * shape.padded + u, row = t * call.B + b, left = call.H - u;
        R* to = dz + row * shape.width + (shape.is_rnn() ? u : 4 * u);
        const int registers = shape.is_rnn() ? 1 : 4;
        if (call.lengths && t >= call.lengths[b]) {  // the state was held: its gradient goes on as it is
            dh.store(around + at);
            for (int j = 0; j < registers; ++j) V(R(0)).store(to + j * L);
            return;
        }
        dh = dh + V::load(call.dy + row * call.H + u, left);
        const bool first = t == first_time(call, b);
        const long old_row = (call.reverse ? t + 1 : t - 1) * call.B + b;
        const R* z = shape.is_rnn() ? nullptr : call.gates + row * shape.width + 4 * u;
        V kept(R(0));
        if (call.cell == Cell::lstm) {
            V g[4];
            for (int j = 0; j < 4; ++j) g[j] = V::load(z + j * L);
            V c_old = first ? V::load(call.c0 + b * call.H + u, left) : V::load(call.cells + old_row * shape.padded + u);
            V c = V::load(call.cells + row * shape.padded + u);
            gl_lstm_backward(g[0], g[1], g[2], g[3], c_old, c, dh, V::load(dc + at)).store(dc + at);
            for (int j = 0; j < 4; ++j) g[j].store(to + j * L);
        } else if (call.cell == Cell::gru) {
            V n = V::load(z), r = V::load(z + L), update = V::load(z + 2 * L), sum = V::load(z + 3 * L);
            V h_old = V::load(first ? call.h0 + b * call.H + u : call.y + old_row * call.H + u, left);
            kept = gl_gru_backward(r, update, n, sum, h_old, dh);
            n.store(to);
            r.store(to + L);
            update.store(to + 2 * L);
            sum.store(to + 3 * L);
        } else {
            V h = V::load(call.y + row * call.H + u, left);
            gl_rnn_backward(h, dh, call.cell == Cell::rnn_relu).store(to);
        }
        if (carries()) kept.store(around + at);
    }

    // Of a row of slots only those of the part, panel by panel, where they are not all.
    void by_panels(Product<R>& m, const Part& part) const {
        if (part.count == 4) return;
        m.segments = shape.panels;
        m.a_segment = 4 * L;
        m.run = part.count * L;
    }

    // dx = dz W_x^T, the rows of all steps divided among all threads.
    void input_gradient(int thread, R* own) {
        const long all = call.T * call.B, K = shape.panels * shape.x.count * L;
        const long r0 = share(all, plan.count(), thread), r1 = share(all, plan.count(), thread + 1);
        for (long q = 0; q < inputs.panels; ++q) {
            const int nv = inputs.in_panel(q);
            const long n0 = q * inputs.nv * L;
            for (long r = r0; r < r1; r += CHUNK_ROWS) {
                const long rows = r1 - r < CHUNK_ROWS ? r1 - r : CHUNK_ROWS;
                Product<R> m = plain_product(dz + r * shape.width + shape.x.first * L, shape.width, shape.width,
                                             w_x + inputs.offset(q, K), nv * L, own, nv * L);
                by_panels(m, shape.x);
                product(m, rows, nv);
                for (long e = 0; e < rows; ++e)
                    for (long j = 0; j < nv; ++j) {
                        const long n = n0 + j * L;
                        V::load(own + (e * nv + j) * L).store(call.dx + (r + e) * call.I + n, call.I - n);
                    }
            }
        }
    }
};

template <typename R>
static bool backward(const BackwardCall<R>& call, int threads, Split split) {
    const Shape<R> shape(call.cell, call.H);
    const int have = team_begin(threads);
    BackwardPass<R> pass(call, make_plan(call.T, call.B, call.I + call.H, shape.width, (call.H + Vec<R>::LANES - 1) / Vec<R>::LANES,
                                         sizeof(R), have, split));
    Layout counted, real;
    pass.lay_out(counted);
    real.base = static_cast<char*>(team_memory(counted.used));
    if (real.base) {
        pass.lay_out(real);
        team_run(pass.plan.count(), BackwardPass<R>::work, &pass);
    }
    team_end();
    return real.base != nullptr;
}

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
