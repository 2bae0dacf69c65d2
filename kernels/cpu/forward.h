// A layer forward in time: per step and panel the products, then the gates and the new state of the panel's units.
//
// `Products` is a policy: whether the products are computed on vector registers (forward_vectors.h) or on a matrix unit
// (forward_tiles.h).  It keeps the packed weights and takes a step, for whose sums it calls `finish`.
#ifndef GPULSTM_CPU_FORWARD_H
#define GPULSTM_CPU_FORWARD_H

#include "products.h"

namespace gpulstm {
namespace GPULSTM_ISA {

template <typename R, typename Products>
struct ForwardPass {
    typedef Vec<R> V;
    static constexpr long L = V::LANES;

    const ForwardCall<R>& call;
    const Shape<R> shape;
    const Plan plan;
    const long rows_most;  // of a group
    Products products;
    R *bias, *c, *h[2], *v[2], *scratch;

    ForwardPass(const ForwardCall<R>& f, const Plan& p)
        : call(f),
          shape(f.cell, f.H, Products::NARROWS ? f.B : 0),
          plan(p),
          rows_most((f.B + p.groups - 1) / p.groups),
          products(*this) {}

    void lay_out(Layout& m) {
        const long state = call.B * shape.padded;
        products.lay_out(*this, m);
        bias = m.take<R>(shape.width);
        c = call.cell == Cell::lstm ? m.take<R>(state) : nullptr;
        for (int i = 0; i < 2; ++i) h[i] = m.take<R>(state);
        for (int i = 0; i < 2; ++i) v[i] = call.mask ? m.take<R>(state) : h[i];
        scratch = m.take<R>(plan.count() * scratch_size());
    }
    long scratch_size() const { return products.scratch_size(*this); }

    long time(long step) const { return call.reverse ? call.T - 1 - step : step; }

    static void work(void* self, int thread) {
        const Flushed flushed;
        static_cast<ForwardPass*>(self)->run(thread);
    }

    void run(int thread) {
        const int count = plan.count();
        products.pack(*this, share(shape.panels, count, thread), share(shape.panels, count, thread + 1));
        if (thread == 0) pack_biases(shape, call.b, call.b_hn, bias);
        const Place place(plan, thread, call.B);
        if (place.member == 0) products.clear(*this, place.group);
        meet_group(plan, place);
        const long q0 = share(shape.panels, plan.members, place.member);
        const long q1 = share(shape.panels, plan.members, place.member + 1);
        for (long b = place.r0; b < place.r1; ++b) begin_row(place, b, q0, q1);
        meet_all(plan);
        steps(place, thread, 0, call.T);
        for (long b = place.r0; b < place.r1; ++b) end_row(b, q0, q1);
    }

    // The same in three parts, for one thread that does it all.
    void begin(const Place& place) {
        products.pack(*this, 0, shape.panels);
        pack_biases(shape, call.b, call.b_hn, bias);
        products.clear(*this, 0);
        for (long b = 0; b < call.B; ++b) begin_row(place, b, 0, shape.panels);
    }
    void steps(const Place& place, int thread, long start, long stop) {
        [[maybe_unused]] const typename Products::Session session;
        const long q0 = share(shape.panels, plan.members, place.member);
        const long q1 = share(shape.panels, plan.members, place.member + 1);
        R* own = scratch + thread * scratch_size();
        for (long s = start; s < stop; ++s) {
            products.before_step(*this, place, s, q0, q1);
            products.step(*this, place, thread, s, time(s), q0, q1, own);
            meet_group(plan, place);
        }
    }
    void end() {
        for (long b = 0; b < call.B; ++b) end_row(b, 0, shape.panels);
    }

    // ---- the state's way in and out of the padded buffers -----------------------------------------------------
    void begin_row(const Place& place, long b, long q0, long q1) {
        for (long u = q0 * shape.units; u < q1 * shape.units; u += L) {
            const long at = b * shape.padded + u, from = b * call.H + u, left = call.H - u;
            V state = left > 0 && call.h0 ? V::load(call.h0 + from, left) : V(R(0));
            state.store(h[0] + at);
            if (call.mask) state = left > 0 ? state * V::load(call.mask + from, left) : state;
            if (call.mask) state.store(v[0] + at);
            products.put(*this, place, b, 0, u, state);
            if (c) (left > 0 && call.c0 ? V::load(call.c0 + from, left) : V(R(0))).store(c + at);
        }
    }
    void end_row(long b, long q0, long q1) {
        const R* last = h[call.T & 1];
        for (long u = q0 * shape.units; u < q1 * shape.units && u < call.H; u += L) {
            const long at = b * shape.padded + u, to = b * call.H + u, left = call.H - u;
            V::load(last + at).store(call.h_end + to, left);
            if (c) V::load(c + at).store(call.c_end + to, left);
        }
    }

    // ---- the gates and the new state of one panel's units in some rows ----------------------------------------------
    // Rows b to b + rows - 1, whose sums lie `line` apart.  Vectors have names and stand in no array: an array that is
    // not split into registers is copied through memory in pieces, and each read of it waits for them.
    __attribute__((noinline)) void finish(const Place& place, long b, long rows, long s, long t, long p, const R* sums,
                                          long line) {
        if (call.cell == Cell::lstm)
            for (long e = 0; e < rows; ++e) finish_lstm(place, b + e, s, t, p, sums + e * line);
        else if (call.cell == Cell::gru)
            for (long e = 0; e < rows; ++e) finish_gru(place, b + e, s, t, p, sums + e * line);
        else
            for (long e = 0; e < rows; ++e)
                for (int j = 0; j < 4; ++j)
                    store_h(place, b + e, s, t, p * shape.units + j * L,
                            gl_rnn(V::load(sums + e * line + j * L), call.cell == Cell::rnn_relu), is_valid(t, b + e));
    }

    bool is_valid(long t, long b) const { return !call.lengths || t < call.lengths[b]; }
    R* saved_gates(long t, long b, long p) const {
        return call.gates ? call.gates + (t * call.B + b) * shape.width + p * 4 * L : nullptr;
    }

    inline __attribute__((always_inline)) void finish_lstm(const Place& place, long b, long s, long t, long p,
                                                           const R* sums) {
        const long at = b * shape.padded + p * L;
        const long lanes = shape.lanes(p);
        const bool valid = is_valid(t, b);
        V i = V::load(sums, lanes), f = V::load(sums + lanes, lanes), g = V::load(sums + 2 * lanes, lanes),
          o = V::load(sums + 3 * lanes, lanes);
        V c_old = V::load(c + at), c_new;
        const V fresh = gl_lstm(i, f, g, o, c_old, c_new);
        if (!valid) c_new = c_old;
        c_new.store(c + at);
        if (R* saved = saved_gates(t, b, p)) {
            i.store(saved, lanes);
            f.store(saved + lanes, lanes);
            g.store(saved + 2 * lanes, lanes);
            o.store(saved + 3 * lanes, lanes);
            c_new.store(call.cells + (t * call.B + b) * shape.padded + p * L);
        }
        store_h(place, b, s, t, p * L, fresh, valid);
    }

    inline __attribute__((always_inline)) void finish_gru(const Place& place, long b, long s, long t, long p,
                                                          const R* sums) {
        V n = V::load(sums), r = V::load(sums + L), update = V::load(sums + 2 * L), sum = V::load(sums + 3 * L);
        const V fresh = gl_gru(r, update, n, sum, V::load(h[s & 1] + b * shape.padded + p * L));
        if (R* saved = saved_gates(t, b, p)) {
            n.store(saved);
            r.store(saved + L);
            update.store(saved + 2 * L);
            sum.store(saved + 3 * L);
        }
        store_h(place, b, s, t, p * L, fresh, is_valid(t, b));
    }

    inline __attribute__((always_inline)) void store_h(const Place& place, long b, long s, long t, long u, V fresh,
                                                       bool valid) {
        const long at = b * shape.padded + u, left = call.H - u;
        V value = valid ? fresh : V::load(h[s & 1] + at);
        value.store(h[~s & 1] + at);
        if (left <= 0) return;
        (valid ? value : V(R(0))).store(call.y + (t * call.B + b) * call.H + u, left);
        if (call.mask) value = value * V::load(call.mask + b * call.H + u, left);
        if (call.mask) value.store(v[~s & 1] + at);
        products.put(*this, place, b, s + 1, u, value);
    }
};

template <typename R, typename Products>
static Plan forward_plan(const ForwardCall<R>& call, int threads, Split split) {
    const Shape<R> shape(call.cell, call.H, 0);
    return make_plan(call.T, call.B, call.I + call.H, shape.width, shape.panels, Products::weight_bytes(call),
                     Products::FULL_ROWS, threads, split);
}

template <typename R, typename Products>
static bool forward_by(const ForwardCall<R>& call, int threads, Split split) {
    const int have = team_begin(threads);
    return run_pass<ForwardPass<R, Products>>(call, forward_plan<R, Products>(call, have, split));
}

template <typename R>
static bool forward(const ForwardCall<R>& call, int threads, Split split) {
    return with_products<R>(call.B, [&](auto products) {
        return forward_by<R, typename decltype(products)::Forward>(call, threads, split);
    });
}

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
