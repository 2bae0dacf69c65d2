// A layer backward in time: per step and panel of units the product dz_{t+1} W_h^T, then the gates' gradients dz_t on
// its sums; after the last step the gradients of x and of the weights as whole-sequence products (weights_vectors.h).
//
// Three policies say whether products are computed on vector registers or on a matrix unit: of a step, of dx, of the
// weights' gradients.
#ifndef GPULSTM_CPU_BACKWARD_H
#define GPULSTM_CPU_BACKWARD_H

#include "forward.h"

namespace gpulstm {
namespace GPULSTM_ISA {

template <typename R, typename Steps, typename Inputs, typename Weights>
struct BackwardPass {
    typedef Vec<R> V;
    static constexpr long L = V::LANES;

    const BackwardCall<R>& call;
    const Shape<R> shape;
    const Plan plan;
    const Transposed units, inputs;  // the forms of W_h^T and W_x^T
    Steps steps;
    Inputs dx;
    Weights weights;
    R *dz, *dc, *around, *scratch;

    BackwardPass(const BackwardCall<R>& f, const Plan& p)
        : call(f),
          shape(f.cell, f.H, Steps::NARROWS ? f.B : 0),
          plan(p),
          units(f.H, L, registers_a_panel(f.H, p.members, in_halves(rows_most(), 4) ? 2 : 4)),
          inputs(f.I, L, 4),
          weights(f, shape, p.count()) {}

    // Of W_h^T: as many as a tile has, but so that all members of a group have the same share.
    static int registers_a_panel(long H, long members, int most) {
        const long registers = (H + L - 1) / L;
        int nv = most;
        while (nv > 1 && (registers + nv - 1) / nv % members && (registers + nv - 1) / nv < 4 * members) nv /= 2;
        return nv;
    }
    long rows_most() const { return (call.B + plan.groups - 1) / plan.groups; }
    long depth_h() const { return shape.depth(shape.h); }  // of the product dz W_h^T
    long depth_x() const { return shape.depth(shape.x); }
    long scratch_size() const { return steps.scratch_rows(*this) * 4 * L; }

    void lay_out(Layout& m) {
        steps.lay_out(*this, m);
        dx.lay_out(*this, m);
        dz = m.take<R>(call.T * call.B * shape.width);
        dc = call.cell == Cell::lstm ? m.take<R>(call.B * shape.padded) : nullptr;
        around = m.take<R>(call.B * shape.padded);
        scratch = m.take<R>(plan.count() * scratch_size());
        weights.lay_out(m);
    }

    long time(long step) const { return call.reverse ? call.T - 1 - step : step; }
    bool carries() const { return call.cell == Cell::gru || call.lengths; }

    static void work(void* self, int thread) {
        const Flushed flushed;
        static_cast<BackwardPass*>(self)->run(thread);
    }

    void run(int thread) {
        const int count = plan.count();
        steps.pack(*this, share(units.panels, count, thread), share(units.panels, count, thread + 1));
        dx.pack(*this, share(inputs.panels, count, thread), share(inputs.panels, count, thread + 1));
        [[maybe_unused]] const typename Weights::Session session;  // on a matrix unit the weights' gradients always are
        const Place place(plan, thread, call.B);
        const long q0 = share(units.panels, plan.members, place.member);
        const long q1 = share(units.panels, plan.members, place.member + 1);
        for (long b = place.r0; b < place.r1; ++b) begin_row(b, q0, q1);
        if (place.member == 0) steps.clear(*this, place.group);
        meet_all(plan);
        R* own = scratch + thread * scratch_size();
        for (long s = call.T - 1; s >= -1; --s) {
            steps.step(*this, place, s, q0, q1, own);
            if (s >= 0) meet_group(plan, place);
        }
        meet_all(plan);
        dx.run(*this, thread, own);
        weights.run(thread, dz);
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

    // The registers of units from u0 on, `registers` of them, in rows b to b + rows - 1 at step s, from what came back
    // through W_h (null: nothing), whose rows lie `line` apart.
    __attribute__((noinline)) void finish_sums(const Place& place, long b, long rows, long s, long u0, int registers,
                                               const R* sums, long line) {
        for (long e = 0; e < rows; ++e)
            for (int j = 0; j < registers; ++j)
                finish_sum(place, b + e, s, u0 + j * L, sums ? sums + e * line + j * L : nullptr);
    }

    inline __attribute__((always_inline)) void finish_sum(const Place& place, long b, long s, long u, const R* sum) {
        const long at = b * shape.padded + u, left = call.H - u;
        V dh = sum ? V::load(sum) : V(R(0));
        if (call.mask) dh = dh * V::load(call.mask + b * call.H + u, left);
        if (!sum || carries()) dh = dh + V::load(around + at);
        if (s < 0) {
            dh.store(call.dh0 + b * call.H + u, left);
            if (dc) V::load(dc + at).store(call.dc0 + b * call.H + u, left);
        } else {
            finish(place, b, s, u, dh);
        }
    }

    // The gradients of one register of units in one row at step s, from that of h but for dy.  Vectors have names, as
    // in the forward pass.
    inline __attribute__((always_inline)) void finish(const Place& place, long b, long s, long u, V dh) {
        const long t = time(s), at = b * shape.padded + u, row = t * call.B + b, left = call.H - u;
        const long lanes = shape.lanes(u / L);
        R* to = dz + row * shape.width + (shape.is_rnn() ? u : 4 * u);
        if (call.lengths && t >= call.lengths[b]) {  // the state was held: its gradient goes on as it is
            dh.store(around + at);
            const int registers = shape.is_rnn() ? 1 : 4;
            for (int j = 0; j < registers; ++j) put(place, b, s, u, j, V(R(0)), to, lanes);
            return;
        }
        dh = dh + V::load(call.dy + row * call.H + u, left);
        const bool first = t == first_time(call, b);
        const long old_row = (call.reverse ? t + 1 : t - 1) * call.B + b;
        const R* z = shape.is_rnn() ? nullptr : call.gates + row * shape.width + 4 * u;
        V kept(R(0));
        if (call.cell == Cell::lstm) {
            V i = V::load(z, lanes), f = V::load(z + lanes, lanes), g = V::load(z + 2 * lanes, lanes),
              o = V::load(z + 3 * lanes, lanes);
            V c_old =
                first ? V::load(call.c0 + b * call.H + u, left) : V::load(call.cells + old_row * shape.padded + u);
            V c_new = V::load(call.cells + row * shape.padded + u);
            gl_lstm_backward(i, f, g, o, c_old, c_new, dh, V::load(dc + at)).store(dc + at);
            put(place, b, s, u, 0, i, to, lanes);
            put(place, b, s, u, 1, f, to, lanes);
            put(place, b, s, u, 2, g, to, lanes);
            put(place, b, s, u, 3, o, to, lanes);
        } else if (call.cell == Cell::gru) {
            V n = V::load(z), r = V::load(z + L), update = V::load(z + 2 * L), sum = V::load(z + 3 * L);
            V h_old = V::load(first ? call.h0 + b * call.H + u : call.y + old_row * call.H + u, left);
            kept = gl_gru_backward(r, update, n, sum, h_old, dh);
            n.store(to);  // of the input's product alone
            put(place, b, s, u, 1, r, to, L);
            put(place, b, s, u, 2, update, to, L);
            put(place, b, s, u, 3, sum, to, L);
        } else {
            V h = V::load(call.y + row * call.H + u, left);
            put(place, b, s, u, 0, gl_rnn_backward(h, dh, call.cell == Cell::rnn_relu), to, L);
        }
        if (carries()) kept.store(around + at);
    }

    // dz of one slot of `lanes`, for the weights' gradients and for the next step's product.
    inline __attribute__((always_inline)) void put(const Place& place, long b, long s, long u, int slot, V d, R* to,
                                                   long lanes) {
        d.store(to + slot * lanes, lanes);
        steps.put(*this, place, b, s, u, slot, d);
    }
};

template <typename R, typename Steps>
static Plan backward_plan(const BackwardCall<R>& call, int threads, Split split) {
    const Shape<R> shape(call.cell, call.H, 0);
    return make_plan(call.T, call.B, call.I + call.H, shape.width, (call.H + Vec<R>::LANES - 1) / Vec<R>::LANES,
                     Steps::WEIGHT_BYTES, Steps::FULL_ROWS, threads, split);
}

// Calls run(plan, the pass' type) for the policies of a call.
template <typename R, typename F>
static auto with_backward(const BackwardCall<R>& call, int threads, Split split, F run) {
    return with_products<R>(call.B, [&](auto of_steps) {
        typedef typename decltype(of_steps)::Backward Steps;
        const Plan plan = backward_plan<R, Steps>(call, threads, split);
        return with_input_products<R>(call.I, [&](auto of_inputs) {
            typedef typename decltype(of_inputs)::Inputs Inputs;
            return run(plan, static_cast<BackwardPass<R, Steps, Inputs, WeightProducts<R>>*>(nullptr));
        });
    });
}

template <typename R>
static bool backward(const BackwardCall<R>& call, int threads, Split split) {
    return with_backward(call, team_begin(threads), split, [&](const Plan& plan, auto* type) {
        return run_pass<std::remove_pointer_t<decltype(type)>>(call, plan);
    });
}

// Bytes of working space that a layer's gradient takes, with the forward pass before it; of the call only cell and
// sizes count.
template <typename R>
static size_t working_room(const BackwardCall<R>& call, int threads) {
    ForwardCall<R> before = {};
    before.cell = call.cell;
    before.T = call.T;
    before.B = call.B;
    before.I = call.I;
    before.H = call.H;
    const size_t forwards = with_products<R>(call.B, [&](auto products) {
        typedef typename decltype(products)::Forward Products;
        Layout counted;
        ForwardPass<R, Products>(before, forward_plan<R, Products>(before, threads, Split::automatic)).lay_out(counted);
        return counted.used;
    });
    const size_t backwards = with_backward(call, threads, Split::automatic, [&](const Plan& plan, auto* type) {
        Layout counted;
        std::remove_pointer_t<decltype(type)>(call, plan).lay_out(counted);
        return counted.used;
    });
    return forwards > backwards ? forwards : backwards;
}

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
